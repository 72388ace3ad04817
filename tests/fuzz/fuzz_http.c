/* The parts of a request, as evhttp hands them over: "METHOD\npath\nquery\nContent-Type\nAccept\nbody". */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "serve/body.h"
#include "serve/negotiate.h"
#include "serve/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static enum method method_of(const char *word)
{
	static const char *const words[] = {"GET", "HEAD", "POST", "PATCH", "DELETE"};
	for (unsigned i = 0; i < 5; i++)
		if (strcmp(word, words[i]) == 0)
			return (enum method)(1u << i);
	return METHOD_OTHER;
}

static void require(int condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	_cleanup_free_ char *text = strndup((const char *)data, bytes);
	require(text != NULL);
	char *rest = text, *parts[5];
	for (size_t i = 0; i < 5; i++) {
		parts[i] = rest ? strsep(&rest, "\n") : NULL;
		if (!parts[i])
			parts[i] = i < 2 ? "" : NULL;
	}
	media_wanted(parts[4]);
	struct request_text request_text = {
		.method = method_of(parts[0]),
		.path = parts[1],
		.query = parts[2],
		.content_type = parts[3],
		.body = (const uint8_t *)rest,
		.body_bytes = rest ? strlen(rest) : 0,
	};
	struct request request;
	struct error err = {0};
	char allow[REQUEST_ALLOW_BYTES] = "";
	int status = request_parse(&request_text, &request, allow, &err);
	require((status == 0) == (err.code == 0));
	require((status == 405) == (*allow != '\0'));
	if (status == 0 && request.action == ACTION_PULL) {
		require(request.pull.pid >= 1 && request.pull.pid <= BODY_MAX_PID);
		require(!request.pull.has_seconds || (request.pull.seconds >= 1 && request.pull.seconds <= 86400));
	}
	return 0;
}
