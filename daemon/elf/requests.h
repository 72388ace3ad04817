/* Requests of sprofd in, replies out; the open files between. Bounded: files (and so fds), memory of their indices, packets. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/reader_limits.h"

struct requests;

struct requests *requests_new(void); /* NULL: out of memory */
void requests_free(struct requests *requests);

/* Handles one packet, which came with fds (-1: none; taken in every case), and writes the reply, at most READER_MESSAGE_MAX_BYTES.
 * Returns its length, never 0: what is malformed is answered with an error. */
size_t requests_handle(struct requests *requests, const uint8_t *packet, size_t bytes, const int fds[READER_FDS_MAX],
		       uint8_t *reply);
