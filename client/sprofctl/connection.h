/* A connection to sprofd's Unix socket that ends in time, and when it is interrupted. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sprofctl/problem.h"

struct connection {
	const char *path;
	int interrupt_fd;            /* waiting ends with -EINTR once this is readable; -1: none */
	void (*tick)(void *context); /* called once a second while waiting; may be NULL */
	void *context;
	unsigned timeout_s;           /* of all that is done with it; 0: none */
	int64_t deadline_ms, tick_ms; /* ours; CLOCK_MONOTONIC */
	int fd;                       /* ours, closed by connection_close; -1: not connected */
};

/* All but the fields that are ours are filled by the caller. A server whose queue of connections is full is waited for, for ten seconds.
 * 0, or -errno with *problem. */
int connection_open(struct connection *connection, struct problem *problem);
void connection_close(struct connection *connection);

/* Sends as much of it as the other end takes before it closes: what it says is read all the same. 0, or -errno with *problem. */
int connection_send(struct connection *connection, const void *data, size_t bytes, struct problem *problem);

/* How many bytes came, 1 or more; 0: the other end closed; -errno with *problem. */
ssize_t connection_receive(struct connection *connection, void *ret, size_t bytes, struct problem *problem);
