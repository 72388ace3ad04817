/* The daemon's own [vdso] as a file for the reader: the kernel gives every 64-bit process the same image. */
#pragma once
#include <stddef.h>

/* A sealed memfd with a copy of the image into *ret_fd (the caller closes it) and its length into *ret_bytes. -ENOENT: this process has
 * none (valgrind hides it); -errno. */
int vdso_copy(int *ret_fd, size_t *ret_bytes);
