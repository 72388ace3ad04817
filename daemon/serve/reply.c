#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "serve/internal.h"
#include "serve/json.h"

struct answer {
	int status;
	const char *content_type; /* NULL: no body */
	const char *filename;     /* NULL: none */
	const char *allow;        /* NULL: none */
	const char *location;     /* NULL: none */
	bool plain_error;         /* pprof shows the body of an error that is marked so */
	bool unknown_length;      /* to HEAD */
	uint8_t *data;            /* malloc'ed; taken */
	size_t bytes;
};

static void free_data(const void *data, size_t bytes, void *context)
{
	(void)data, (void)bytes;
	free(context);
}

static void add_headers(struct evhttp_request *request, const struct answer *answer, bool head, bool close)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	char text[300];
	if (answer->content_type) {
		evhttp_add_header(headers, "Content-Type", answer->content_type);
		evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	}
	if (answer->filename) {
		snprintf(text, sizeof(text), "attachment; filename=\"%s\"", answer->filename);
		evhttp_add_header(headers, "Content-Disposition", text);
	}
	if (answer->allow)
		evhttp_add_header(headers, "Allow", answer->allow);
	if (answer->location)
		evhttp_add_header(headers, "Location", answer->location);
	if (close)
		evhttp_add_header(headers, "Connection", "close");
	if (answer->plain_error)
		evhttp_add_header(headers, "X-Go-Pprof", "1");
	if (head && answer->content_type && !answer->unknown_length) { /* evhttp gives the length of what it sends */
		snprintf(text, sizeof(text), "%zu", answer->bytes);
		evhttp_add_header(headers, "Content-Length", text);
	}
}

/* What clients have not read yet, over all of them. */
static size_t buffered_bytes(const struct serve *serve)
{
	size_t bytes = 0;
	const struct connection *connection;
	TAILQ_FOREACH(connection, &serve->connections, link)
	if (connection->http)
		bytes += evbuffer_get_length(bufferevent_get_output(connection->buffers));
	return bytes;
}

static void send_answer(struct serve_reply *reply, struct answer *answer)
{
	struct connection *connection = reply->connection;
	struct evbuffer *body = NULL;
	if (answer->data && answer->bytes && !reply->head) {
		body = evbuffer_new();
		if (body && evbuffer_add_reference(body, answer->data, answer->bytes, free_data, answer->data) == 0) {
			answer->data = NULL;
		} else { /* an empty body, and the client is told that it is an error */
			answer->status = 503;
			answer->bytes = 0;
		}
	}
	if (answer->status >= 400)
		connection->serve->counters.errors++;
	add_headers(reply->request, answer, reply->head, connection->turned_away);
	evhttp_request_set_on_complete_cb(reply->request, connection_on_sent, connection);
	connection_begin_writing(connection);
	evhttp_send_reply(reply->request, answer->status, NULL, body);
	connection_sent(connection);
	if (body)
		evbuffer_free(body);
}

/* The one place where an answer leaves: takes its data, releases the reply. */
static void reply_finish(struct serve_reply *reply, struct answer *answer)
{
	if (reply->connection)
		send_answer(reply, answer);
	free(answer->data);
	free(reply);
}

static int status_of(int code)
{
	switch (code) {
	case ENOENT:
	case ESRCH:
		return 404;
	case EPERM:
	case EACCES:
		return 403;
	case EINVAL:
	case ERANGE:
		return 400;
	case EEXIST:
	case EBUSY:
		return 409;
	case ENOSPC:
	case EMFILE:
	case ENOMEM:
	case EAGAIN:
		return 503;
	case EOPNOTSUPP:
	case ENODEV:
		return 501;
	default:
		return 500;
	}
}

/* The message in the form the client wants; 0, -ENOMEM. json.h may fail otherwise, but not for a message of ours. */
static int encode(enum media wanted, const ProtobufCMessage *message, struct answer *answer)
{
	if (wanted != MEDIA_PROTOBUF) {
		answer->content_type = MEDIA_JSON_TYPE;
		return json_format(message, (char **)&answer->data, &answer->bytes);
	}
	answer->content_type = MEDIA_PROTOBUF_TYPE;
	size_t bytes = protobuf_c_message_get_packed_size(message);
	answer->data = malloc(bytes ? bytes : 1);
	if (!answer->data)
		return -ENOMEM;
	answer->bytes = protobuf_c_message_pack(message, answer->data);
	return 0;
}

/* A reason may quote what a client or a process chose: what is no printable UTF-8 in it becomes '?'. */
static void make_printable(char *text)
{
	size_t length = strlen(text);
	for (size_t i = 0; i < length;) {
		size_t n = utf8_printable(text + i, length - i);
		if (n == 0)
			text[i] = '?';
		i += n ? n : 1;
	}
}

static void send_error(struct serve_reply *reply, int status, const char *allow, const char *text)
{
	struct answer answer = {.status = status, .allow = allow};
	char line[ERROR_TEXT_BYTES];
	snprintf(line, sizeof(line), "%s", text);
	make_printable(line);
	if (reply->wanted == MEDIA_NONE) {
		char *body = NULL;
		int length = asprintf(&body, "%s\n", line);
		answer.content_type = MEDIA_TEXT_TYPE;
		answer.plain_error = true;
		answer.data = length < 0 ? NULL : (uint8_t *)body;
		answer.bytes = length < 0 ? 0 : (size_t)length;
	} else {
		Sprof__Control__Error error = SPROF__CONTROL__ERROR__INIT;
		error.status = (uint32_t)status;
		error.message = line;
		encode(reply->wanted, &error.base, &answer); /* out of memory: the status alone */
	}
	reply_finish(reply, &answer);
}

/* Clients that do not read what they asked for must not fill the daemon's memory. */
static bool is_too_much(const struct serve_reply *reply, size_t bytes)
{
	if (!reply->connection)
		return false;
	size_t buffered = buffered_bytes(reply->connection->serve);
	return buffered && buffered + bytes > SERVE_MAX_OUTPUT_BYTES;
}

static void send_body(struct serve_reply *reply, struct answer *answer)
{
	if (!is_too_much(reply, answer->bytes)) {
		reply_finish(reply, answer);
		return;
	}
	free(TAKE_PTR(answer->data));
	send_error(reply, 503, NULL, "other clients have yet to read too many bytes of answers: try again later");
}

void serve_reply_message(struct serve_reply *reply, const ProtobufCMessage *message)
{
	struct answer answer = {.status = 200};
	if (encode(reply->wanted, message, &answer) < 0)
		send_error(reply, 503, NULL, "sprofd is out of memory: try again later");
	else
		send_body(reply, &answer);
}

void serve_reply_empty(struct serve_reply *reply)
{
	reply_finish(reply, &(struct answer){.status = 204});
}

void serve_reply_bytes(struct serve_reply *reply, const char *content_type, const char *filename, uint8_t *data,
		       size_t bytes)
{
	send_body(reply, &(struct answer){.status = 200,
					  .content_type = content_type,
					  .filename = filename,
					  .data = data,
					  .bytes = bytes});
}

void serve_reply_error(struct serve_reply *reply, const struct error *err)
{
	send_error(reply, status_of(err->code), NULL, err->text);
}

void serve_reply_on_gone(struct serve_reply *reply, void (*gone)(void *context), void *context)
{
	reply->gone = gone;
	reply->gone_context = context;
}

bool serve_reply_wants_protobuf(const struct serve_reply *reply)
{
	return reply->wanted == MEDIA_PROTOBUF;
}

const struct serve_peer *serve_reply_peer(const struct serve_reply *reply)
{
	return &reply->peer;
}

void reply_detach(struct serve_reply *reply)
{
	/* evhttp frees a request with its connection, but not one that it has taken off the connection before. */
	if (!evhttp_request_get_connection(reply->request))
		evhttp_request_free(reply->request);
	reply->connection = NULL;
	reply->request = NULL;
	if (reply->gone)
		reply->gone(reply->gone_context);
}

void reply_refuse(struct serve_reply *reply, int status, const char *allow, const char *text)
{
	send_error(reply, status, allow, text);
}

void reply_redirect(struct serve_reply *reply, const char *location)
{
	reply_finish(reply, &(struct answer){.status = 301, .content_type = MEDIA_TEXT_TYPE, .location = location});
}

void reply_head(struct serve_reply *reply, const char *content_type)
{
	reply_finish(reply, &(struct answer){.status = 200, .content_type = content_type, .unknown_length = true});
}
