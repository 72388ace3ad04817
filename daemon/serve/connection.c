#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "serve/internal.h"
#include "serve/peer.h"

static uint64_t idle_deadline(const struct connection *connection)
{
	return clock_monotonic_ns() + connection->serve->options.idle_timeout_s * NS_PER_S;
}

static size_t output_bytes(const struct connection *connection)
{
	return evbuffer_get_length(bufferevent_get_output(connection->buffers));
}

static void connection_free(struct connection *connection)
{
	if (connection->input_watch)
		evbuffer_remove_cb_entry(bufferevent_get_input(connection->buffers), connection->input_watch);
	if (connection->output_watch)
		evbuffer_remove_cb_entry(bufferevent_get_output(connection->buffers), connection->output_watch);
	if (connection->closed)
		event_free(connection->closed);
	if (connection->attention)
		event_free(connection->attention);
	if (connection->buffers)
		bufferevent_decref(connection->buffers);
	if (connection->http && connection->turned_away)
		connection->serve->turned_away--;
	else if (connection->http)
		connection->serve->counters.connections--;
	TAILQ_REMOVE(&connection->serve->connections, connection, link);
	free(connection);
}

/* Whatever ends it, evhttp tells us so before it frees its part. */
static void on_end(struct evhttp_connection *http, void *context)
{
	(void)http;
	struct connection *connection = context;
	struct serve_reply *reply = connection->reply;
	connection_free(connection);
	if (reply)
		reply_detach(reply);
}

static void connection_end(struct connection *connection)
{
	evhttp_connection_free(connection->http); /* calls on_end */
}

/* --- what evhttp answers on its own ------------------------------------------------------------------------------------ */

/* The status of the error page that begins at text, 0 if there is none. An interim "100 Continue" may precede it. */
static int page_status(const char *text)
{
	int status = 0;
	const char *next = text;
	while (next && sscanf(next, "HTTP/%*d.%*d %3d", &status) == 1 && status < 200) {
		next = strstr(next, "\r\n\r\n");
		next = next && next[4] ? next + 4 : NULL;
		status = 0;
	}
	return status;
}

static const char *page_text(int status)
{
	switch (status) {
	case 400:
		return "this is no HTTP/1.1 request, or it has more than 16 KiB of headers: ask with sprofctl or with "
		       "curl --unix-socket PATH http://localhost/debug/pprof/";
	case 413:
		return "the body is not well formed or larger than 64 KiB, which is more than any request needs";
	case 417:
		return "the only expectation that is met here is Expect: 100-continue";
	case 501:
		return "unknown method: use GET, HEAD, POST, PATCH or DELETE";
	case 503:
		return "sprofd is out of memory: try again later";
	default:
		return "the request could not be served";
	}
}

static const char *page_phrase(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 413:
		return "Content Too Large";
	case 417:
		return "Expectation Failed";
	case 501:
		return "Not Implemented";
	case 503:
		return "Service Unavailable";
	default:
		return "Error";
	}
}

/* A whole answer, after which the connection is closed. Its length. */
static int format_page(int status, const char *text, char *ret, size_t bytes)
{
	return snprintf(ret, bytes,
			"HTTP/1.1 %d %s\r\nContent-Type: " MEDIA_TEXT_TYPE
			"\r\nX-Go-Pprof: 1\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
			status, page_phrase(status), strlen(text) + 1, text);
}

/* Our plain text in place of evhttp's HTML, while it is still in the buffer. evhttp closes the connection after it. */
static void replace_page(struct connection *connection)
{
	char head[128] = "", page[512];
	struct evbuffer *output = bufferevent_get_output(connection->buffers);
	ev_ssize_t n = evbuffer_copyout(output, head, sizeof(head) - 1);
	int status = n > 0 ? page_status(head) : 0;
	if (status == 0)
		return; /* 100 Continue */
	int length = format_page(status, page_text(status), page, sizeof(page));
	evbuffer_unfreeze(output, 1);
	evbuffer_drain(output, evbuffer_get_length(output));
	evbuffer_freeze(output, 1);
	connection->serve->counters.requests++;
	connection->serve->counters.errors++;
	connection_begin_writing(connection);
	bufferevent_write(connection->buffers, page, (size_t)length);
	connection_sent(connection);
}

static void on_attention(evutil_socket_t fd, short events, void *context)
{
	(void)fd, (void)events;
	struct connection *connection = context;
	if (evbuffer_get_length(bufferevent_get_input(connection->buffers)) > SERVE_MAX_INPUT_BYTES)
		connection_end(connection);
	else if (connection->state == CONNECTION_RECEIVING)
		replace_page(connection);
}

static void on_input(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *context)
{
	(void)info;
	struct connection *connection = context;
	if (evbuffer_get_length(buffer) > SERVE_MAX_INPUT_BYTES)
		event_active(connection->attention, 0, 0);
}

/* While a request is still coming in, what is written is evhttp's own. */
static void on_output(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *context)
{
	(void)buffer;
	struct connection *connection = context;
	if (info->n_added && connection->state == CONNECTION_RECEIVING)
		event_active(connection->attention, 0, 0);
}

/* --- a client that waits ------------------------------------------------------------------------------------------------- */

/* A client that closed everything has gone. One that closed its sending side alone may be reading still (nc -N), or be the near end
 * of an ssh tunnel whose far end has gone, which looks the same: it gets as long as an idle client. */
static void on_closed(evutil_socket_t fd, short events, void *context)
{
	(void)events;
	struct connection *connection = context;
	struct pollfd poll_fd = {.fd = fd};
	if (poll(&poll_fd, 1, 0) > 0 && poll_fd.revents & (POLLHUP | POLLERR))
		connection_end(connection);
	else
		connection->deadline_ns = idle_deadline(connection);
}

struct serve_reply *connection_wait(struct connection *connection, struct evhttp_request *request)
{
	struct serve_reply *reply = calloc(1, sizeof(*reply));
	if (!reply)
		return NULL;
	reply->connection = connection;
	reply->request = request;
	reply->peer = connection->peer;
	connection->reply = reply;
	connection->state = CONNECTION_WAITING;
	connection->deadline_ns = 0;
	event_add(connection->closed, NULL);
	return reply;
}

void connection_begin_writing(struct connection *connection)
{
	event_del(connection->closed);
	connection->reply = NULL;
	connection->state = CONNECTION_WRITING;
}

void connection_on_sent(struct evhttp_request *request, void *context)
{
	(void)request;
	struct connection *connection = context;
	connection->state = CONNECTION_RECEIVING;
	connection->deadline_ns = idle_deadline(connection);
}

void connection_sent(struct connection *connection)
{
	bufferevent_disable(connection->buffers, EV_READ);
	connection->output_bytes = output_bytes(connection);
	connection->deadline_ns = idle_deadline(connection);
}

void connection_check_deadline(struct connection *connection, uint64_t now_ns)
{
	if (!connection->http || connection->deadline_ns == 0 || now_ns < connection->deadline_ns)
		return;
	size_t left = output_bytes(connection);
	if (connection->state == CONNECTION_WRITING && left + SERVE_MIN_PROGRESS_BYTES <= connection->output_bytes) {
		connection->output_bytes = left;
		connection->deadline_ns = idle_deadline(connection);
		return;
	}
	connection_end(connection);
}

/* --- beginning --------------------------------------------------------------------------------------------------------------- */

struct bufferevent *connection_new(struct event_base *base, void *context)
{
	struct serve *serve = context;
	struct connection *connection = calloc(1, sizeof(*connection));
	if (!connection)
		return NULL;
	connection->serve = serve;
	connection->buffers = bufferevent_socket_new(base, -1, 0);
	if (!connection->buffers) {
		free(connection);
		return NULL;
	}
	bufferevent_incref(connection->buffers);
	TAILQ_INSERT_TAIL(&serve->connections, connection, link);
	event_active(serve->adopt, 0, 0);
	return connection->buffers;
}

/* 0; -ENOMEM or -errno: the client cannot be served. */
static int watch(struct connection *connection, int fd)
{
	int r = peer_read(fd, &connection->peer);
	if (r < 0)
		return r;
	connection->closed = event_new(connection->serve->base, fd, EV_CLOSED, on_closed, connection);
	connection->attention = event_new(connection->serve->base, -1, 0, on_attention, connection);
	connection->input_watch = evbuffer_add_cb(bufferevent_get_input(connection->buffers), on_input, connection);
	connection->output_watch = evbuffer_add_cb(bufferevent_get_output(connection->buffers), on_output, connection);
	if (!connection->closed || !connection->attention || !connection->input_watch || !connection->output_watch)
		return -ENOMEM;
	return 0;
}

/* For those above even the number that can be told over HTTP. They may be told only of a reset. */
static void refuse(struct connection *connection, struct evhttp_connection *http, int fd)
{
	char page[512], request[SERVE_MAX_HEADER_BYTES];
	int length = format_page(503, SERVE_TOO_MANY_TEXT, page, sizeof(page));
	recv(fd, request, sizeof(request), MSG_DONTWAIT);
	send(fd, page, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
	connection_free(connection);
	evhttp_connection_free(http);
}

/* A connection above the limit is let in for the short while in which it asks, and its answer is that there are too many: a socket
 * that is closed at once looks to a client as if there were no daemon. */
static void adopt(struct connection *connection)
{
	struct serve *serve = connection->serve;
	void *context = NULL;
	bufferevent_getcb(connection->buffers, NULL, NULL, NULL, &context);
	struct evhttp_connection *http = context;
	int fd = bufferevent_getfd(connection->buffers);
	if (!http) { /* evhttp ran out of memory, and has closed fd */
		connection_free(connection);
		return;
	}
	bool turn_away = serve->counters.connections >= serve->options.max_connections;
	if (turn_away)
		serve->counters.connections_refused++;
	if ((turn_away && serve->turned_away >= SERVE_MAX_TURNED_AWAY) || watch(connection, fd) < 0) {
		refuse(connection, http, fd);
		return;
	}
	connection->http = http;
	connection->turned_away = turn_away;
	evhttp_connection_set_closecb(http, on_end, connection);
	connection->state = CONNECTION_RECEIVING;
	connection->deadline_ns =
		turn_away ? clock_monotonic_ns() + SERVE_TURN_AWAY_S * NS_PER_S : idle_deadline(connection);
	if (turn_away)
		serve->turned_away++;
	else
		serve->counters.connections++;
}

void connection_adopt_all(struct serve *serve)
{
	struct connection *next;
	for (struct connection *connection = TAILQ_FIRST(&serve->connections); connection; connection = next) {
		next = TAILQ_NEXT(connection, link);
		if (!connection->http)
			adopt(connection);
	}
}

struct connection *connection_find(struct serve *serve, struct evhttp_connection *http)
{
	struct connection *connection;
	TAILQ_FOREACH(connection, &serve->connections, link)
	if (connection->http == http)
		return connection;
	return NULL;
}

void connection_free_all(struct serve *serve)
{
	struct connection *next;
	for (struct connection *connection = TAILQ_FIRST(&serve->connections); connection; connection = next) {
		next = TAILQ_NEXT(connection, link);
		connection_free(connection);
	}
}
