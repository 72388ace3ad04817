/* The executable mappings of a process, from /proc/PID/maps, with their files held open. Blocks on the kernel (the target's
 * mmap lock): for worker threads. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "model/maps.h"

struct proc_maps_line {
	uint64_t start, end, offset;
	uint32_t device_major, device_minor; /* of the file; 0 when anonymous */
	uint64_t inode;
	char protection[5]; /* "r-xp" */
	bool deleted;       /* the name ended in " (deleted)", as a memfd's always does */
	const char *name;   /* into the line; "" when anonymous; octal escapes undone, " (deleted)" cut */
};

/* Parses one line in place (it is changed); line ends at NUL, without newline. -EINVAL. */
int proc_maps_parse_line(char *line, struct proc_maps_line *ret);

/* Calls line for each line of /proc/TID/maps that can be parsed, until it returns other than 0; returns that, or 0; -ESRCH when the thread is gone;
 * other -errno of reading. The kernel writes page by page while the target goes on: a mapping may show twice, or overlap its successor. A thread that
 * is a zombie shows no line. */
typedef int (*proc_maps_line_fn)(void *context, const struct proc_maps_line *line);
int proc_maps_for_each(pid_t tid, proc_maps_line_fn line, void *context);

/* Snapshot of pid's executable mappings. Files are opened by /proc/PID/map_files (they may be deleted, or in a container), else by /proc/PID/root.
 * 0; -ESRCH when the process is gone; -ENOMEM; other -errno of reading. At most 65,536 executable mappings are taken. */
int proc_maps_read(pid_t pid, struct file_registry *files, struct maps **ret);
