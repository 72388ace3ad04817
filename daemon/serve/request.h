/* What a request asks for: routes, path, query and body, checked against the interface. No socket here: a pure function, tested
 * and fuzzed as one. Thread: any. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "control.pb-c.h"
#include "serve/serve.h"

enum method {
	METHOD_GET = 1,
	METHOD_HEAD = 2,
	METHOD_POST = 4,
	METHOD_PATCH = 8,
	METHOD_DELETE = 16,
	METHOD_OTHER = 32,
};

/* As they came: every string may be hostile. */
struct request_text {
	enum method method;
	const char *path;         /* not decoded: none of our paths needs it */
	const char *query;        /* after the '?'; NULL: none */
	const char *content_type; /* NULL: none */
	const uint8_t *body;
	size_t body_bytes;
};

enum action {
	ACTION_INDEX,
	ACTION_INDEX_REDIRECT,
	ACTION_PULL,
	ACTION_LIST,
	ACTION_ATTACH,
	ACTION_TARGET,
	ACTION_TABLE,
	ACTION_RATE,
	ACTION_DETACH,
	ACTION_STATUS,
	ACTION_METRICS,
};

struct request {
	enum action action;
	uint32_t pid;                         /* TARGET, TABLE, RATE, DETACH */
	uint32_t frequency_hz;                /* RATE */
	struct serve_pull pull;               /* PULL */
	Sprof__Control__AttachRequest attach; /* ATTACH; holds no memory of its own */
};

enum { REQUEST_ALLOW_BYTES = 40 };

/* 0 and *ret; or the HTTP status of the refusal (400, 404, 405, 415, 503), with why in *err. With 405, ret_allow is the header's
 * value. */
int request_parse(const struct request_text *text, struct request *ret, char ret_allow[REQUEST_ALLOW_BYTES],
		  struct error *err);

/* All of text must be decimal digits, without a leading zero: 0 and the value; -EINVAL; -ERANGE beyond 32 bits. */
int request_parse_number(const char *text, size_t length, uint32_t *ret);
