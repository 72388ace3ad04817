#include "sprofctl/http.h"

#include <errno.h>
#include <http_parser.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "sprofctl/cleanup.h"
#include "sprofctl/connection.h"

enum { HEAD_BYTES = 1024, RECEIVE_BYTES = 64 << 10 };

/* A field of the answer's head comes in any number of pieces. */
struct text {
	char bytes[HTTP_TYPE_BYTES];
	size_t length; /* what is longer is cut */
};

struct exchange {
	const struct http_request *request;
	struct http_answer answer;
	struct connection connection;
	struct http_parser parser;
	struct text name, type; /* of the field that is read; and the value of Content-Type */
	bool value_came, ended;
	struct problem *problem;
	int error; /* of the sink, or ours: -errno, *problem is set; 0: none */
};

static void free_exchange(struct exchange *exchange)
{
	connection_close(&exchange->connection);
	free(exchange->answer.body);
}

static void add_text(struct text *text, const char *at, size_t bytes)
{
	size_t room = sizeof(text->bytes) - 1 - text->length;
	if (bytes > room)
		bytes = room;
	memcpy(text->bytes + text->length, at, bytes);
	text->length += bytes;
	text->bytes[text->length] = '\0';
}

/* There may have been an interim answer before it, with fields of its own. */
static int on_begin(struct http_parser *parser)
{
	struct exchange *exchange = parser->data;
	exchange->name = exchange->type = (struct text){0};
	return 0;
}

static int on_name(struct http_parser *parser, const char *at, size_t bytes)
{
	struct exchange *exchange = parser->data;
	if (exchange->value_came)
		exchange->name = (struct text){0};
	exchange->value_came = false;
	add_text(&exchange->name, at, bytes);
	return 0;
}

static int on_value(struct http_parser *parser, const char *at, size_t bytes)
{
	struct exchange *exchange = parser->data;
	exchange->value_came = true;
	if (strcasecmp(exchange->name.bytes, "Content-Type") == 0)
		add_text(&exchange->type, at, bytes);
	return 0;
}

static int keep_body(struct exchange *exchange, const char *data, size_t bytes)
{
	struct http_answer *answer = &exchange->answer;
	if (bytes > HTTP_MAX_ANSWER_BYTES - answer->body_bytes)
		return problem_set(exchange->problem, EMSGSIZE, "the answer of sprofd is too long: is %s its socket?",
				   exchange->request->socket);
	uint8_t *body = realloc(answer->body, answer->body_bytes + bytes + 1);
	if (!body)
		return problem_set(exchange->problem, ENOMEM, "out of memory");
	memcpy(body + answer->body_bytes, data, bytes);
	answer->body = body;
	answer->body_bytes += bytes;
	answer->body[answer->body_bytes] = '\0';
	return 0;
}

static int on_body(struct http_parser *parser, const char *data, size_t bytes)
{
	struct exchange *exchange = parser->data;
	const struct http_request *request = exchange->request;
	exchange->error = request->sink && parser->status_code == 200
				  ? request->sink(request->context, (const uint8_t *)data, bytes, exchange->problem)
				  : keep_body(exchange, data, bytes);
	return exchange->error;
}

static int on_end(struct http_parser *parser)
{
	struct exchange *exchange = parser->data;
	exchange->answer.status = parser->status_code;
	exchange->ended = parser->status_code / 100 != 1; /* those are followed by the answer itself */
	return exchange->ended;                           /* not 0: what follows is not read */
}

static const struct http_parser_settings settings = {.on_message_begin = on_begin,
						     .on_header_field = on_name,
						     .on_header_value = on_value,
						     .on_body = on_body,
						     .on_message_complete = on_end};

static int send_request(struct exchange *exchange)
{
	const struct http_request *request = exchange->request;
	char head[HEAD_BYTES], of_body[200] = "";
	if (request->content_type)
		snprintf(of_body, sizeof(of_body), "Content-Type: %s\r\nContent-Length: %zu\r\n", request->content_type,
			 request->body_bytes);
	int length = snprintf(head, sizeof(head),
			      "%s %s HTTP/1.1\r\nHost: sprofd\r\nUser-Agent: sprofctl/" SPROF_VERSION
			      "\r\nAccept: %s\r\n%sConnection: close\r\n\r\n",
			      request->method, request->path, request->accept, of_body);
	if (length < 0 || (size_t)length >= sizeof(head))
		return problem_set(exchange->problem, ENAMETOOLONG, "too long a request: %s", request->path);
	int r = connection_send(&exchange->connection, head, (size_t)length, exchange->problem);
	if (r == 0 && request->content_type)
		r = connection_send(&exchange->connection, request->body, request->body_bytes, exchange->problem);
	return r;
}

static int explain(const struct exchange *exchange, enum http_errno error)
{
	const char *path = exchange->request->socket;
	if (error == HPE_INVALID_EOF_STATE || error == HPE_OK)
		return problem_set(exchange->problem, ECONNRESET,
				   "sprofd on %s ended the connection before its answer was complete (stopped, or "
				   "restarted?): try again, or see `journalctl -u sprofd`",
				   path);
	return problem_set(exchange->problem, EPROTO,
			   "what answers on %s is not sprofd (%s): name its socket with --socket=PATH", path,
			   http_errno_description(error));
}

static int read_answer(struct exchange *exchange)
{
	char buffer[RECEIVE_BYTES];
	http_parser_init(&exchange->parser, HTTP_RESPONSE);
	exchange->parser.data = exchange;
	while (!exchange->ended) {
		ssize_t n = connection_receive(&exchange->connection, buffer, sizeof(buffer), exchange->problem);
		if (n < 0)
			return (int)n;
		http_parser_execute(&exchange->parser, &settings, buffer, (size_t)n); /* 0 bytes: the end */
		enum http_errno error = HTTP_PARSER_ERRNO(&exchange->parser);
		if (exchange->error)
			return exchange->error;
		if (!exchange->ended && (error != HPE_OK || n == 0))
			return explain(exchange, error);
	}
	return 0;
}

int http_exchange(const struct http_request *request, struct http_answer *ret, struct problem *problem)
{
	_cleanup_(free_exchange) struct exchange exchange = {.request = request,
							     .connection = {.path = request->socket,
									    .interrupt_fd = request->interrupt_fd,
									    .tick = request->tick,
									    .context = request->context,
									    .timeout_s = request->timeout_s,
									    .fd = -1},
							     .problem = problem};
	int r = connection_open(&exchange.connection, problem);
	if (r == 0)
		r = send_request(&exchange);
	if (r == 0)
		r = read_answer(&exchange);
	if (r < 0)
		return r;
	snprintf(exchange.answer.content_type, HTTP_TYPE_BYTES, "%.*s", (int)strcspn(exchange.type.bytes, "; \t"),
		 exchange.type.bytes);
	*ret = exchange.answer;
	exchange.answer.body = NULL;
	return 0;
}
