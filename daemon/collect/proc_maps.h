/* The executable mappings of a process, from /proc/PID/maps, with their files held open. Blocks on the kernel (the target's
 * mmap lock): for worker threads. */
#pragma once
#include <sys/types.h>

#include "model/maps.h"

struct proc_maps_line {
	uint64_t start, end, offset;
	uint64_t inode;
	char protection[5]; /* "r-xp" */
	const char *name;   /* into the line; "" when anonymous; octal escapes undone, " (deleted)" cut */
};

/* Parses one line in place (it is changed); line ends at NUL, without newline. -EINVAL. */
int proc_maps_parse_line(char *line, struct proc_maps_line *ret);

/* Snapshot of pid's executable mappings. Files are opened by /proc/PID/map_files (they may be deleted, or in a container), else by /proc/PID/root.
 * 0; -ESRCH when the process is gone; -ENOMEM; other -errno of reading. At most 65,536 executable mappings are taken. */
int proc_maps_read(pid_t pid, struct file_registry *files, struct maps **ret);
