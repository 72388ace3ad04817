/* The control interface of sprofd (proto/control.proto over HTTP): one request, its answer as a message. */
#pragma once
#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#include "sprofctl/http.h"
#include "sprofctl/problem.h"

#define API_PROTOBUF "application/x-protobuf"
#define API_JSON     "application/json"

/* Sends body (NULL: none) and gives the answer, of the type that descriptor names, which is freed with
 * protobuf_c_message_free_unpacked. -errno with *problem, which has the daemon's own words when it refused. */
int api_call(const char *socket, const char *method, const char *path, const ProtobufCMessage *body,
	     const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret, struct problem *problem);
/* The answer to a GET as JSON text; free it. */
int api_get_json(const char *socket, const char *path, char **ret, struct problem *problem);

/* 0 when the daemon did what it was asked for (200 or 204); else -EREMOTEIO, and its reason in *problem. */
int api_check(const struct http_answer *answer, struct problem *problem);
