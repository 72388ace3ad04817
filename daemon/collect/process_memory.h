/* Reading the memory of another process, as it is at that moment. Thread: any; blocks while the process's own fault handling does (userfaultfd, a
 * file system in user space), so for worker threads, and only of mappings that are known to be memory. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Copies bytes at address of the process that thread tid belongs to. 0; -EFAULT: not all of it can be read; -ESRCH; -EPERM. */
int process_memory_read(pid_t tid, uint64_t address, void *ret, size_t bytes);
