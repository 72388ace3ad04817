/* A server on a real Unix socket, with its event loop in a thread, and a raw client for it. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/serve.h"

/* What a pull does, by its pid. */
enum {
	PULL_SMALL = 1,   /* answers "small" */
	PULL_WAITS = 2,   /* answers "waited" once DELETE /v1/targets/2 releases all that wait */
	PULL_LARGE = 3,   /* answers LARGE_BYTES bytes of large_byte() */
	PULL_FAILS = 4,   /* answers ESRCH, with text that has a bad byte and a newline in it */
	PULL_FORGETS = 5, /* like PULL_WAITS; completes the reply from within the gone callback */
};
enum { LARGE_BYTES = 50 * 1000 * 1000 };
static inline uint8_t large_byte(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 24);
}

struct harness;

/* Aborts the test on failure. */
struct harness *harness_start(unsigned max_connections, unsigned idle_timeout_s);
/* Frees the server with whatever is pending, then completes what was. */
void harness_stop(struct harness *harness);

/* Read by the test, counted by the handlers. */
unsigned harness_waiting(struct harness *harness); /* pulls that wait */
unsigned harness_gone(struct harness *harness);    /* gone callbacks */
/* The counters as of now; asks the server's thread. */
struct serve_counters harness_counters(struct harness *harness);
/* The peer of the newest GET /v1/status. */
struct serve_peer harness_peer(struct harness *harness);

/* Waits until condition is true: at most 20 s, then the test fails. */
#define eventually(condition)                                             \
	do {                                                              \
		for (int _i = 0; _i < 20000 && !(condition); _i++)        \
			usleep(1000);                                     \
		ck_assert_msg(condition, "never came true: " #condition); \
	} while (0)

int client_connect(struct harness *harness);
void client_send(int fd, const char *text); /* all of it, or the test fails */
void client_send_bytes(int fd, const void *data, size_t bytes);
/* What the server said until it closed; malloc'ed, NUL-terminated. */
char *client_read_all(int fd, size_t *ret_bytes);

struct response {
	int status;
	char *headers; /* from the status line to the blank line */
	uint8_t *body; /* NUL-terminated */
	size_t bytes;
};
/* One whole answer. With head, there is no body whatever Content-Length says. false: the connection ended before it was whole. */
bool client_receive(int fd, bool head, struct response *ret);
void response_free(struct response *response);
const char *response_header(const struct response *response, const char *name, char value[200]); /* NULL: none */
/* Sends request on a connection of its own and gives the answer. */
struct response client_ask(struct harness *harness, const char *request);
