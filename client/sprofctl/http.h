/* One HTTP/1.1 exchange with sprofd on its Unix socket. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "sprofctl/problem.h"

enum { HTTP_TYPE_BYTES = 64, HTTP_MAX_ANSWER_BYTES = 64 << 20 };

struct http_request {
	const char *socket;
	const char *method;
	const char *path;         /* with its query */
	const char *accept;       /* media type */
	const char *content_type; /* of body; NULL: no body */
	const uint8_t *body;
	size_t body_bytes;
	unsigned timeout_s;
	/* Takes the body of an answer of status 200, part by part; 0, or -errno, which ends the exchange. NULL: the body comes in the
	 * answer. */
	int (*sink)(void *context, const uint8_t *data, size_t bytes, struct problem *problem);
	/* Called about once a second while waiting; may be NULL. */
	void (*tick)(void *context);
	void *context;
	int interrupt_fd; /* the exchange ends with -EINTR once this is readable; -1: none */
};

struct http_answer {
	long status;
	char content_type[HTTP_TYPE_BYTES]; /* without parameters; "": none */
	uint8_t *body;                      /* free it; NUL-terminated for convenience; NULL: none came */
	size_t body_bytes;
};

/* 0 and *ret, whatever the status; -EINTR (interrupt_fd; *problem is set too); -errno with *problem when there was no answer that could
 * be understood. */
int http_exchange(const struct http_request *request, struct http_answer *ret, struct problem *problem);
