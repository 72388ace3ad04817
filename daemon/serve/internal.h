/* What the files of the server share: its structures, and who may call what.
 *
 * evhttp (libevent 2.1.12) does the parsing. Facts about it that the rest is built on, all from its http.c:
 *  - It reads nothing while a request is with us, so it does not notice that the client has gone: connection.c watches the socket.
 *    Reading must not be turned on by us meanwhile: a further byte would end the process ("illegal connection state").
 *  - It turns reading on while it writes an answer, without a bound, and takes the end of what the client sends for the end of the
 *    client: we turn reading off again at once, so that a half-closed client gets its answer, and pipelined bytes stay in the socket.
 *  - Its time-outs are of single reads and writes, and hit a client that only reads: we set none, and have our own deadlines.
 *  - A chunk's size line has no bound: we bound the input buffer.
 *  - Its own error pages are HTML and have no hook: connection.c puts our text in their place before they leave.
 *  - It tells of a new connection only by asking for a bufferevent (evhttp_set_bevcb), whose callback argument it then sets to the
 *    evhttp_connection: connection.c adopts it from there before any event of it can run. */
#pragma once
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "serve/negotiate.h"
#include "serve/serve.h"

enum {
	SERVE_MAX_HEADER_BYTES = 16 * 1024, /* request line and headers together */
	SERVE_MAX_BODY_BYTES = 64 * 1024,
	SERVE_MAX_INPUT_BYTES = 2 * SERVE_MAX_BODY_BYTES, /* buffered from one client */
	SERVE_MIN_PROGRESS_BYTES = 64 * 1024,       /* that a client reads of its answer within each idle_timeout_s */
	SERVE_MAX_TURNED_AWAY = 32,                 /* connections above the limit that are let in to be told so */
	SERVE_TURN_AWAY_S = 2,                      /* within which they must ask */
	SERVE_MAX_OUTPUT_BYTES = 256 * 1024 * 1024, /* buffered for all clients together, unless it is one answer */
};

#define SERVE_TOO_MANY_TEXT "too many clients at once: try again later"

enum connection_state {
	CONNECTION_RECEIVING, /* idle, or a request is coming in: until deadline_ns */
	CONNECTION_WAITING,   /* for us; a deadline only once the client has closed its sending side */
	CONNECTION_WRITING,   /* progress by deadline_ns */
};

struct connection {
	TAILQ_ENTRY(connection) link;
	struct serve *serve;
	struct evhttp_connection *http; /* NULL: not adopted yet */
	struct bufferevent *buffers;    /* a reference of our own */
	struct serve_peer peer;
	enum connection_state state;
	bool turned_away;          /* above the limit of connections: whatever it asks, the answer is 503 */
	uint64_t deadline_ns;      /* CLOCK_MONOTONIC; 0: none */
	size_t output_bytes;       /* that were left when the deadline was set */
	struct serve_reply *reply; /* while WAITING */
	struct event *closed;      /* the client closed its sending side, or all; armed while WAITING */
	struct event *attention; /* activated by the buffers' callbacks, which must not change the buffers themselves */
	struct evbuffer_cb_entry *input_watch, *output_watch;
};

TAILQ_HEAD(connection_list, connection);

struct serve {
	struct event_base *base;
	struct evhttp *http;
	struct event *adopt; /* activated for connections that wait to be adopted */
	struct event *tick;  /* looks at the deadlines */
	struct serve_options options;
	struct serve_handlers handlers;
	void *context;
	struct connection_list connections; /* oldest first */
	struct serve_counters counters;     /* connections: the adopted, but for those turned away */
	unsigned turned_away;               /* connections */
};

struct serve_reply {
	struct connection *connection;  /* NULL: the client has gone */
	struct evhttp_request *request; /* NULL likewise */
	struct serve_peer peer;
	enum media wanted;
	bool head; /* HEAD: the headers alone */
	void (*gone)(void *context);
	void *gone_context;
};

/* connection.c */
struct bufferevent *connection_new(struct event_base *base, void *serve); /* the bevcb of evhttp */
void connection_adopt_all(struct serve *serve);
struct connection *connection_find(struct serve *serve, struct evhttp_connection *http); /* NULL: none */
/* A reply for the request that has come in completely; NULL when out of memory. */
struct serve_reply *connection_wait(struct connection *connection, struct evhttp_request *request);
void connection_begin_writing(struct connection *connection);              /* before the answer is handed to evhttp */
void connection_sent(struct connection *connection);                       /* after that */
void connection_on_sent(struct evhttp_request *request, void *connection); /* evhttp: the answer has left our buffers */
void connection_free_all(struct serve *serve); /* those that evhttp no longer knows, once it is gone */
void connection_check_deadline(struct connection *connection, uint64_t now_ns); /* may end and free it */

/* reply.c */
void reply_detach(struct serve_reply *reply); /* the client has gone; calls gone, after which reply may be freed */
/* Each sends and releases the reply. */
void reply_refuse(struct serve_reply *reply, int status, const char *allow, const char *text); /* allow: or NULL */
void reply_redirect(struct serve_reply *reply, const char *location);
void reply_head(struct serve_reply *reply, const char *content_type); /* 200 to a HEAD whose length is not known */
