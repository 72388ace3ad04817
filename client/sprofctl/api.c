#include "sprofctl/api.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "control.pb-c.h"
#include "sprofctl/cleanup.h"
#include "sprofctl/printable.h"

enum { TIMEOUT_S = 120 };

static void free_error(Sprof__Control__Error **error)
{
	if (*error)
		sprof__control__error__free_unpacked(*error, NULL);
}

static void put_json(json_object **object)
{
	json_object_put(*object);
}

/* The reason in the body of a refusal, in whatever form it came; "" when there is none. */
static void read_reason(const struct http_answer *answer, char *ret, size_t ret_bytes)
{
	ret[0] = '\0';
	if (!answer->body)
		return;
	if (!strcmp(answer->content_type, API_PROTOBUF)) {
		_cleanup_(free_error) Sprof__Control__Error *error =
			sprof__control__error__unpack(NULL, answer->body_bytes, answer->body);
		if (error)
			printable(error->message, ret, ret_bytes);
	} else if (!strcmp(answer->content_type, API_JSON)) {
		_cleanup_(put_json) json_object *error = json_tokener_parse((const char *)answer->body);
		json_object *message;
		if (json_object_object_get_ex(error, "message", &message) && json_object_get_string(message))
			printable(json_object_get_string(message), ret, ret_bytes);
	} else if (!strncmp(answer->content_type, "text/plain", strlen("text/plain"))) {
		answer->body[strcspn((const char *)answer->body, "\r\n")] = '\0';
		printable((const char *)answer->body, ret, ret_bytes);
	}
}

int api_check(const struct http_answer *answer, struct problem *problem)
{
	char reason[PROBLEM_TEXT_BYTES];
	if (answer->status == 200 || answer->status == 204)
		return 0;
	read_reason(answer, reason, sizeof(reason));
	if (reason[0])
		return problem_set(problem, EREMOTEIO, "%s", reason);
	return problem_set(
		problem, EREMOTEIO,
		"the daemon refused with HTTP status %ld and gave no reason: is it an sprofd of version " SPROF_VERSION
		"?",
		answer->status);
}

/* An answer of status 200 and the given type; its body is the caller's to free. */
static int exchange(struct http_request *request, struct http_answer *ret, struct problem *problem)
{
	struct http_answer answer = {0};
	int r = http_exchange(request, &answer, problem);
	if (r == 0)
		r = api_check(&answer, problem);
	if (r == 0 && strcmp(answer.content_type, request->accept) != 0)
		r = problem_set(problem, EPROTO, "what answers on %s is not sprofd: name its socket with --socket=PATH",
				request->socket);
	if (r < 0)
		free(answer.body);
	else
		*ret = answer;
	return r;
}

int api_call(const char *socket, const char *method, const char *path, const ProtobufCMessage *body,
	     const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret, struct problem *problem)
{
	_cleanup_free_ uint8_t *packed = NULL;
	struct http_request request = {
		.socket = socket,
		.method = method,
		.path = path,
		.accept = API_PROTOBUF,
		.timeout_s = TIMEOUT_S,
		.interrupt_fd = -1,
	};
	if (body) {
		packed = malloc(protobuf_c_message_get_packed_size(body) + 1);
		if (!packed)
			return problem_set(problem, ENOMEM, "out of memory");
		request.body_bytes = protobuf_c_message_pack(body, packed);
		request.body = packed;
		request.content_type = API_PROTOBUF;
	}
	struct http_answer answer;
	int r = exchange(&request, &answer, problem);
	if (r < 0)
		return r;
	ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, NULL, answer.body_bytes, answer.body);
	free(answer.body);
	if (!message)
		return problem_set(problem, EPROTO,
				   "the answer on %s makes no sense: is it an sprofd of version " SPROF_VERSION "?",
				   socket);
	*ret = message;
	return 0;
}

int api_get_json(const char *socket, const char *path, char **ret, struct problem *problem)
{
	struct http_request request = {
		.socket = socket,
		.method = "GET",
		.path = path,
		.accept = API_JSON,
		.timeout_s = TIMEOUT_S,
		.interrupt_fd = -1,
	};
	struct http_answer answer;
	int r = exchange(&request, &answer, problem);
	if (r < 0)
		return r;
	if (!answer.body)
		return problem_set(problem, EPROTO, "the answer on %s is empty: is it sprofd's socket?", socket);
	*ret = (char *)answer.body;
	return 0;
}
