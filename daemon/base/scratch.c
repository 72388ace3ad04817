#include "base/scratch.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#ifdef SPROF_SANITIZE
#include <sanitizer/asan_interface.h>
#endif

enum { HUGE_BYTES = 2 << 20, ALIGN_BYTES = 16, GAP_BYTES = 32 };
#define RESERVED_BYTES ((size_t)2 << 30)

/* So that the sanitizer tells what lies beside an array. */
static size_t gap(void)
{
#ifdef SPROF_SANITIZE
	return GAP_BYTES;
#else
	return 0;
#endif
}

static void forbid(uint8_t *start, size_t bytes)
{
#ifdef SPROF_SANITIZE
	ASAN_POISON_MEMORY_REGION(start, bytes);
#else
	(void)start, (void)bytes;
#endif
}

static void permit(uint8_t *start, size_t bytes)
{
#ifdef SPROF_SANITIZE
	ASAN_UNPOISON_MEMORY_REGION(start, bytes);
#else
	(void)start, (void)bytes;
#endif
}

static size_t rounded(size_t bytes, size_t to)
{
	return (bytes + to - 1) / to * to;
}

/* Addresses alone, from a multiple of HUGE_BYTES on: a mapping that is longer by as much, without its ends. */
static bool reserve(struct scratch *scratch)
{
	uint8_t *start =
		mmap(NULL, RESERVED_BYTES + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return false;
	size_t before = -(uintptr_t)start % HUGE_BYTES;
	if (before)
		munmap(start, before);
	munmap(start + before + RESERVED_BYTES, HUGE_BYTES - before);
	(void)madvise(start + before, RESERVED_BYTES, MADV_HUGEPAGE); /* a kernel without them gives small ones */
	scratch->start = start + before;
	return true;
}

/* The first `bytes` may be touched. */
static bool commit(struct scratch *scratch, size_t bytes)
{
	if (bytes <= scratch->committed)
		return true;
	if (bytes > RESERVED_BYTES || (!scratch->start && !reserve(scratch)))
		return false;
	size_t wanted = rounded(bytes, HUGE_BYTES);
	uint8_t *from = scratch->start + scratch->committed;
	if (mprotect(from, wanted - scratch->committed, PROT_READ | PROT_WRITE) < 0)
		return false;
	forbid(from, wanted - scratch->committed);
	scratch->committed = wanted;
	return true;
}

void *scratch_alloc(struct scratch *scratch, size_t bytes)
{
	size_t at = scratch->used;
	if (bytes > RESERVED_BYTES || !commit(scratch, rounded(at + bytes + gap(), ALIGN_BYTES)))
		return NULL;
	scratch->used = rounded(at + bytes + gap(), ALIGN_BYTES);
	scratch->last = scratch->start + at;
	permit(scratch->last, bytes);
	return scratch->last;
}

static bool resize_last(struct scratch *scratch, size_t bytes)
{
	size_t at = (size_t)(scratch->last - scratch->start);
	if (bytes > RESERVED_BYTES || !commit(scratch, rounded(at + bytes + gap(), ALIGN_BYTES)))
		return false;
	forbid(scratch->last, scratch->used - at);
	scratch->used = rounded(at + bytes + gap(), ALIGN_BYTES);
	permit(scratch->last, bytes);
	return true;
}

void *scratch_resize(struct scratch *scratch, void *array, size_t old_bytes, size_t bytes)
{
	if (array && array == scratch->last)
		return resize_last(scratch, bytes) ? array : NULL;
	void *fresh = scratch_alloc(scratch, bytes);
	if (fresh && array)
		memcpy(fresh, array, old_bytes < bytes ? old_bytes : bytes);
	return fresh;
}

void scratch_reset(struct scratch *scratch)
{
	scratch->used = 0;
	scratch->last = NULL;
	if (scratch->committed > SCRATCH_KEPT_BYTES) {
		uint8_t *from = scratch->start + SCRATCH_KEPT_BYTES;
		size_t bytes = scratch->committed - SCRATCH_KEPT_BYTES;
		permit(from, bytes);
		(void)madvise(from, bytes, MADV_DONTNEED);
		(void)mprotect(from, bytes, PROT_NONE); /* so that it does not count as memory that is ours */
		scratch->committed = SCRATCH_KEPT_BYTES;
	}
	forbid(scratch->start, scratch->committed);
}

void scratch_release(struct scratch *scratch)
{
	if (scratch->start) {
		permit(scratch->start, scratch->committed);
		munmap(scratch->start, RESERVED_BYTES);
	}
	*scratch = (struct scratch){};
}
