/* Opens files by path where a target may have arranged what is there: in its own root. Links stay within that root, nothing but regular
 * files is opened, and an open that blocks (a file system that the target itself serves) is left behind at its deadline, in a thread
 * of its own; when many are, no more are tried. Thread: any. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct opener;

struct opener *opener_new(void); /* NULL: out of memory */
/* Does not wait for what is left behind: that frees itself. NULL is fine. */
void opener_free(struct opener *opener);

/* Opens path, which is taken as within root_fd (a directory; -1: our own root), for reading. uid: only a file of that user or of root
 * will do; OPENER_ANY_USER: anybody's. 0 and the caller's fd in *ret_fd; -ENOENT and others of openat2; -EINVAL: no regular file; -EPERM:
 * somebody else's; -ETIME: not by deadline_ns (CLOCK_MONOTONIC), or not soon; -EAGAIN: too many are
 * left behind, or one was in this root a short while ago. */
#define OPENER_ANY_USER UINT32_MAX
int opener_open(struct opener *opener, int root_fd, const char *path, uint32_t uid, uint64_t deadline_ns, int *ret_fd);
/* The same for a file that is handed to the reader at the word of a file of the target, whoever owns it: only what begins like an ELF file is
 * opened, so that no such word leads to anybody's other files. -ENOEXEC: it does not. */
int opener_open_elf(struct opener *opener, int root_fd, const char *path, uint64_t deadline_ns, int *ret_fd);
