/* What a client sends and wants, by its Content-Type and Accept headers (RFC 9110, 8.3 and 12.5.1). Thread: any. */
#pragma once
#include <stdbool.h>

enum media {
	MEDIA_NONE, /* no header */
	MEDIA_PROTOBUF,
	MEDIA_JSON,
	MEDIA_OTHER,
};
#define MEDIA_PROTOBUF_TYPE "application/x-protobuf"
#define MEDIA_JSON_TYPE     "application/json"
#define MEDIA_TEXT_TYPE     "text/plain; charset=utf-8"

/* What a body is. Parameters such as charset are ignored. header may be NULL. */
enum media media_of_content_type(const char *header);

/* What an answer should be: PROTOBUF or JSON when the client names it (the one of higher q; protobuf when both are equal),
 * else NONE, with which an answer is JSON and an error is plain text: a curl by hand wants text. header may be NULL. */
enum media media_wanted(const char *header);
