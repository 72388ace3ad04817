/* The daemon's Unix socket: made by us, or passed by the service manager. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct listener {
	int fd;
	char path[108];
	bool ours; /* made by us, so removed by us */
	dev_t device;
	ino_t inode;
};

struct listener_options {
	const char *path;
	mode_t mode;
	const char *group; /* owner of the socket; a group that does not exist is left out, with *ret_group_missing */
};

/* Listens. -EADDRINUSE when another daemon answers on path; a stale socket is replaced; -EEXIST when something else is there. */
int listener_open(struct listener *listener, const struct listener_options *options, bool *ret_group_missing,
		  struct error *err);
/* Closes; removes the path if it is still our socket. */
void listener_close(struct listener *listener);
