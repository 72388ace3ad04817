/* Where a process lives: its root directory, its number in its own pid namespace, and its user. For finding files that belong to it.
 * Thread: any. */
#pragma once
#include <stdint.h>

#include "collect/process.h"

struct process_place {
	int root_fd;              /* O_PATH: names the directory, opens nothing in it; -1: unknown */
	uint32_t inner_pid;       /* 0: unknown */
	uint32_t user;            /* who owns /proc/PID: root, where the process may not be looked into */
	uint64_t started_unix_ns; /* when it was born, by today's clock; 0: unknown */
};

/* A place of which nothing is known. */
#define PROCESS_PLACE_UNKNOWN ((struct process_place){.root_fd = -1})

/* What can be learned; the rest stays unknown. The caller closes root_fd. */
void process_place_read(const struct process *process, struct process_place *ret);
