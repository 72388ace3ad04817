/* Tells when the kernel has ended the perf events of a thread and of all that were born of it since: when they have exited, or have executed
 * a set-id or unreadable program (fs/exec.c, begin_new_exec). It is one more event, which counts nothing. Thread: any. */
#pragma once
#include <sys/types.h>

struct watch {
	int fd; /* -1: none. Hangs up (EPOLLHUP) when that has happened, and is never readable before */
	void *page;
};

#define WATCH_NONE ((struct watch){.fd = -1})

/* -ESRCH when the thread is gone; another -errno. */
int watch_open(pid_t tid, struct watch *ret);
void watch_close(struct watch *watch); /* WATCH_NONE is fine, and is what is left */
