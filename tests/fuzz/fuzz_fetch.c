/* Requests to sprofd-fetch, of which those that are sound must be within all bounds: what they say becomes names of files and URLs. */
#include <stdint.h>
#include <string.h>

#include "fetch/jobs.h"
#include "proto/fetch_limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Sprof__Fetch__Request *request =
		size <= FETCH_MESSAGE_MAX_BYTES ? sprof__fetch__request__unpack(NULL, size, data) : NULL;
	if (!request)
		return 0;
	if (jobs_request_is_sound(request)) {
		size_t digits = strlen(request->build_id);
		if (digits > FETCH_BUILD_ID_MAX_DIGITS || strpbrk(request->build_id, "/.") ||
		    request->n_url > FETCH_URLS_MAX || request->timeout_seconds > FETCH_TIMEOUT_MAX_S)
			__builtin_trap();
		for (size_t i = 0; i < request->n_url; i++)
			if (strlen(request->url[i]) > FETCH_URL_MAX_BYTES)
				__builtin_trap();
	}
	sprof__fetch__request__free_unpacked(request, NULL);
	return 0;
}
