/* The JSON form of a protobuf message, by its descriptor: every field under its name in the .proto file, also when it is zero;
 * an enum as its short name in lower case ("live", "cpu-clock"), or its number when it is unknown; 64-bit integers as numbers;
 * bytes in hex; a message that is not set and a number that JSON lacks as null. A pure function. Thread: any. */
#pragma once
#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

/* *ret is malloc'ed text of *ret_bytes bytes that ends in a newline; what is not UTF-8 in it has become U+FFFD.
 * -ENOMEM; -ELOOP when messages are nested deeper than any of ours. */
int json_format(const ProtobufCMessage *message, char **ret, size_t *ret_bytes);
