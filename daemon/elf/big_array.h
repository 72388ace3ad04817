/* Memory for arrays that may have many MiB, are filled once and go again: from 2 MiB on, mappings of their own in huge pages, where the kernel
 * gives any, since page faults would take more time than the work itself. Who frees or resizes says how large it is. Below, and in
 * builds with sanitizers, which guard the ends of what malloc gives: malloc. */
#pragma once
#include <stddef.h>

void *big_alloc(size_t bytes); /* NULL: out of memory. Not cleared */
/* array may be NULL, of 0 bytes. NULL: out of memory, array stays. */
void *big_resize(void *array, size_t old_bytes, size_t bytes);
void big_free(void *array, size_t bytes); /* NULL is fine */
