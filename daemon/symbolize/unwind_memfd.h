/* The memory through which an unwind table comes from sprofd-elf: a memfd of ours, of a size that nobody can change. It is only ever read
 * with pread: whatever the reader does to it meanwhile, what is checked and used is our own copy. That is why it is not the reader
 * that makes it: an fd from there could be of any kind, even one whose reading blocks, and the sandbox would have to let memfd_create,
 * ftruncate and fcntl through. */
#pragma once
#include <stddef.h>

#include "base/scratch.h"
#include "model/unwind_table.h"

/* -errno. The caller closes *ret_fd. */
int unwind_memfd_new(size_t bytes, int *ret_fd);
/* Copies the first n bytes into the scratch, which it resets first, and checks them. Only bytes and n_bytes of *ret are set. -EBADMSG: they are no sound table, or there are not as
 * many; -ENOMEM; errors of pread. */
int unwind_memfd_take(int fd, size_t n, struct scratch *scratch, struct unwind_table *ret);
