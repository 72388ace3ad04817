/* Reading the memory of a barrier-lock table. It is a memfd: read through a descriptor of that it shows what the process has in its mapping, and nothing that the
 * process does to the mapping (userfaultfd, another file in its place) can make the reader wait, as reading by address could. Nothing becomes resident by it either.
 * Thread: any. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The device of all memfds (the kernel's own tmpfs), as /proc/PID/maps shows it. -errno. */
int table_memory_device(uint32_t *ret_major, uint32_t *ret_minor);

/* A read-only descriptor of the memfd that process tid maps from start to end, by /proc/PID/map_files. Nothing is asked of any other file system, should another
 * file be mapped there by now.
 * -EAGAIN: no memfd is mapped there any more; -ESRCH: the process has ended; -EPERM: no CAP_CHECKPOINT_RESTORE; other -errno. */
int table_memory_open(pid_t tid, uint64_t start, uint64_t end, int *ret_fd);

/* Copies bytes at offset. 0; -EFAULT: the file ends before; other -errno. */
int table_memory_read(int fd, uint64_t offset, void *ret, size_t bytes);
