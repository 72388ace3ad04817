/* One child process with a socket, started with clean fds and signals, always reaped. Not thread-safe. */
#pragma once
#include <sys/types.h>

enum { CHILD_LINGERING_MAX = 8 };

struct child {
	int pidfd; /* -1: none */
	/* Killed, but not dead yet (in an uninterruptible read of a broken file system): reaped later. Bounded: when all places are taken
	 * no more are started. */
	int lingering[CHILD_LINGERING_MAX];
};

void child_init(struct child *child);
/* After child_kill; gives up on those that still linger. */
void child_release(struct child *child);

/* Starts path without arguments and environment; our end of its socket (SOCK_SEQPACKET, its fd is READER_SOCKET_FD) into *ret_socket.
 * It keeps stderr and no other fd, has default signals and its own process group. -errno; -EAGAIN: too many linger. */
int child_start(struct child *child, const char *path, int *ret_socket);
/* Kills and reaps it. Waits for its death, but only for a moment. */
void child_kill(struct child *child);
