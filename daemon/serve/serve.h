/* The HTTP/1.1 server on the Unix socket: parses and bounds requests, knows who asks (SO_PEERCRED, SO_PEERGROUPS), and gives each
 * request to one function of struct serve_handlers, which completes it now or later, once, through its struct serve_reply.
 *
 * Bounds: 16 KiB of request line and headers (else 400), 64 KiB of body (413), max_connections (503), 256 MiB of answers that clients
 * have yet to read, over all of them (503).
 * Time: a request must arrive, whole, within idle_timeout_s of the connection or of the answer before; 64 KiB of an answer must be read
 * within each idle_timeout_s; a client that waits for its answer is never timed out. So a client that is slow, silent or gone
 * delays nobody.
 * Gone: a client that closes its socket while it waits has gone at once. One that closes its sending side alone (nc -N, or an ssh
 * tunnel whose far end has gone, which look the same) still gets its answer, but has gone after idle_timeout_s.
 * Forms: bodies come as application/x-protobuf (proto/control.proto) or application/json, else 415; an unknown field or parameter is an
 * error. Messages go out as protobuf when Accept names application/x-protobuf, else as JSON. Errors go out as control Error in the form
 * that Accept names; as one line of text/plain when it names neither. HEAD is GET without the body; of a pull it takes no profile.
 * Thread: the event loop's alone. The process must ignore SIGPIPE. */
#pragma once
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "control.pb-c.h"

struct serve_peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	gid_t groups[64]; /* supplementary; more than fit are left out */
	size_t n_groups;
};

struct serve;
struct serve_reply; /* one request's answer; must be completed exactly once, also when the client is gone (then it is a no-op) */

/* Each sends and releases the reply. */
void serve_reply_message(struct serve_reply *reply,
			 const ProtobufCMessage *message); /* 200; protobuf or JSON, as the client accepts */
void serve_reply_empty(struct serve_reply *reply);         /* 204 */
/* Takes ownership of data (malloc'ed). With Content-Disposition: attachment; filename="..." unless filename is NULL. */
void serve_reply_bytes(struct serve_reply *reply, const char *content_type, const char *filename, uint8_t *data,
		       size_t bytes);
/* The HTTP status follows from err->code (ENOENT/ESRCH 404, EPERM/EACCES 403, EINVAL/ERANGE 400, EEXIST/EBUSY 409, ENOSPC/EMFILE/ENOMEM/EAGAIN 503,
 * EOPNOTSUPP/ENODEV 501, else 500); the body is its text: control Error for protobuf and JSON, else text/plain with X-Go-Pprof: 1. */
void serve_reply_error(struct serve_reply *reply, const struct error *err);
/* Called (once, from the event loop or from serve_free) when the client goes away before the reply was sent. The reply must still be
 * completed: in gone itself, or at any time after, also after serve_free. */
void serve_reply_on_gone(struct serve_reply *reply, void (*gone)(void *context), void *context);
/* Whether a message should go out as protobuf, else as JSON: for who encodes a large one on another thread, and sends serve_reply_bytes. */
bool serve_reply_wants_protobuf(const struct serve_reply *reply);
const struct serve_peer *serve_reply_peer(const struct serve_reply *reply);

struct serve_pull {
	uint32_t pid;
	bool has_seconds;
	uint32_t seconds; /* 1 .. 86,400 when has_seconds */
	bool no_symbols;  /* symbols=0: mappings with build ids, but no names */
};

/* The numbers are checked against the interface's own limits already (pid 1 .. 2^22, frequency_hz 0 .. 1,000,000, a known event). */
struct serve_handlers {
	void (*attach)(void *context, struct serve_reply *reply, const Sprof__Control__AttachRequest *request);
	void (*rate)(void *context, struct serve_reply *reply, uint32_t pid, uint32_t frequency_hz);
	void (*detach)(void *context, struct serve_reply *reply, uint32_t pid);
	void (*list)(void *context, struct serve_reply *reply);                 /* GET /v1/targets */
	void (*target)(void *context, struct serve_reply *reply, uint32_t pid); /* GET /v1/targets/PID */
	void (*table)(void *context, struct serve_reply *reply, uint32_t pid);  /* GET /v1/targets/PID/table */
	void (*status)(void *context, struct serve_reply *reply);
	void (*metrics)(void *context, struct serve_reply *reply); /* GET /metrics */
	void (*index)(void *context, struct serve_reply *reply);   /* GET /debug/pprof/ */
	void (*pull)(void *context, struct serve_reply *reply, const struct serve_pull *request);
};

struct serve_options {
	int listen_fd; /* owned by the caller, listening, non-blocking */
	unsigned max_connections;
	unsigned idle_timeout_s; /* of a client that neither sends its request nor reads its answer */
};

/* 0; -EINVAL when SIGPIPE is not ignored or a limit is 0; -ENOMEM. handlers is copied. */
int serve_new(struct event_base *base, const struct serve_options *options, const struct serve_handlers *handlers,
	      void *context, struct serve **ret, struct error *err);
/* Ends all connections. Not from within a handler or gone. listen_fd stays open. NULL is fine. */
void serve_free(struct serve *serve);

struct serve_counters {
	uint64_t requests, errors;    /* errors: answers of status 400 and above, malformed requests among them */
	uint64_t connections_refused; /* above max_connections */
	uint32_t connections;         /* now */
};
void serve_counters(const struct serve *serve, struct serve_counters *ret);

/* serve/openmetrics.h and serve/json.h hold the text encodings: pure functions of a control message. */
