#include "elf/big_array.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_BYTES = 2 << 20 };

static bool is_big(size_t bytes)
{
#ifdef SPROF_SANITIZE
	(void)bytes;
	return false;
#else
	return bytes >= HUGE_BYTES && bytes <= SIZE_MAX - 2 * (size_t)HUGE_BYTES;
#endif
}

static size_t rounded(size_t bytes)
{
	return (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
}

/* A mapping that begins at a multiple of HUGE_BYTES: one that is longer by as much, without its ends. */
static void *map_aligned(size_t bytes)
{
	uint8_t *start = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (start == MAP_FAILED)
		return NULL;
	size_t before = -(uintptr_t)start % HUGE_BYTES;
	if (before)
		munmap(start, before);
	munmap(start + before + bytes, HUGE_BYTES - before);
	(void)madvise(start + before, bytes, MADV_HUGEPAGE); /* a kernel without them gives small ones */
	return start + before;
}

void *big_alloc(size_t bytes)
{
	return is_big(bytes) ? map_aligned(rounded(bytes)) : malloc(bytes ? bytes : 1);
}

void big_free(void *array, size_t bytes)
{
	if (!is_big(bytes))
		free(array);
	else if (array)
		munmap(array, rounded(bytes));
}

void *big_resize(void *array, size_t old_bytes, size_t bytes)
{
	if (!is_big(old_bytes) && !is_big(bytes))
		return realloc(array, bytes ? bytes : 1);
	void *fresh = big_alloc(bytes);
	if (!fresh)
		return NULL;
	if (array)
		memcpy(fresh, array, old_bytes < bytes ? old_bytes : bytes);
	big_free(array, old_bytes);
	return fresh;
}
