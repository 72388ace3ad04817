/* Arrays in a scratch: what is in them stays while they grow, also where others were taken since; memory is kept, and given back. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/scratch.h"
#include "check_main.h"

enum { MIB = 1 << 20 };

static uint8_t value_of(size_t i, size_t salt)
{
	return (uint8_t)(i * 31 + i / 4096 + salt);
}

static void fill(uint8_t *array, size_t from, size_t to, size_t salt)
{
	for (size_t i = from; i < to; i++)
		array[i] = value_of(i, salt);
}

static size_t count_wrong(const uint8_t *array, size_t n, size_t salt)
{
	size_t wrong = 0;
	for (size_t i = 0; i < n; i++)
		wrong += array[i] != value_of(i, salt);
	return wrong;
}

START_TEST(content_stays)
{
	static const size_t sizes[] = {1, 15, 4096, 2 * MIB - 1, 2 * MIB, 5 * MIB, 9 * MIB, 3 * MIB, 100, 6 * MIB};
	enum { ARRAYS = 3 };
	struct scratch scratch = {};
	for (int round = 0; round < 3; round++) {
		uint8_t *arrays[ARRAYS] = {};
		size_t had[ARRAYS] = {};
		for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
			for (size_t a = 0; a < ARRAYS; a++) {
				if (k % (a + 1)) /* the first one is sometimes the last that grew, and sometimes not */
					continue;
				arrays[a] = scratch_resize(&scratch, arrays[a], had[a], sizes[k]);
				ck_assert_ptr_nonnull(arrays[a]);
				ck_assert_uint_eq((uintptr_t)arrays[a] % 16, 0);
				size_t kept = had[a] < sizes[k] ? had[a] : sizes[k];
				ck_assert_uint_eq(count_wrong(arrays[a], kept, a), 0);
				fill(arrays[a], kept, sizes[k], a);
				had[a] = sizes[k];
			}
			for (size_t a = 0; a < ARRAYS; a++)
				ck_assert_uint_eq(count_wrong(arrays[a], had[a], a), 0);
		}
		scratch_reset(&scratch);
	}
	scratch_release(&scratch);
}
END_TEST

START_TEST(grows_where_it_is)
{
	struct scratch scratch = {};
	uint8_t *first = scratch_alloc(&scratch, 100), *array = scratch_alloc(&scratch, 100);
	ck_assert_ptr_nonnull(first);
	ck_assert_ptr_eq(scratch_resize(&scratch, array, 100, 64 * MIB), array);
	ck_assert_ptr_ne(scratch_resize(&scratch, first, 100, 200), first);
	scratch_reset(&scratch);
	ck_assert_ptr_eq(scratch_alloc(&scratch, 1), first);
	scratch_release(&scratch);
}
END_TEST

/* KiB of the mapping that begins at start. */
static long resident_kib(const void *start)
{
	char line[256];
	long kib = -1;
	unsigned long low = 0, high = 0;
	FILE *file = fopen("/proc/self/smaps", "re");
	ck_assert_ptr_nonnull(file);
	int inside = 0;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &low, &high) == 2) // NOLINT(cert-err34-c): the kernel's own
			inside = (uintptr_t)start >= low && (uintptr_t)start < high;
		else if (inside && strncmp(line, "Rss:", 4) == 0)
			kib = strtol(line + 4, NULL, 10);
	}
	fclose(file);
	return kib;
}

START_TEST(memory_is_kept_and_given_back)
{
	struct scratch scratch = {};
	uint8_t *array = scratch_alloc(&scratch, 32 * MIB);
	ck_assert_ptr_nonnull(array);
	memset(array, 1, 32 * MIB);
	ck_assert_int_ge(resident_kib(array), 32 * 1024);
	scratch_reset(&scratch);
	ck_assert_int_eq(resident_kib(array), SCRATCH_KEPT_BYTES / 1024);
	ck_assert_int_eq(resident_kib(array + SCRATCH_KEPT_BYTES), 0);
	array = scratch_alloc(&scratch, 32 * MIB);
	ck_assert_ptr_nonnull(array);
	memset(array, 2, 32 * MIB);
	scratch_release(&scratch);
	scratch_release(&scratch);
}
END_TEST

START_TEST(too_much)
{
	volatile size_t most = SIZE_MAX; /* the compiler need not know */
	struct scratch scratch = {};
	ck_assert_ptr_null(scratch_alloc(&scratch, most));
	ck_assert_ptr_null(scratch_alloc(&scratch, (size_t)3 << 30));
	uint8_t *array = scratch_alloc(&scratch, 3 * MIB);
	ck_assert_ptr_nonnull(array);
	array[0] = 7;
	ck_assert_ptr_null(scratch_resize(&scratch, array, 3 * MIB, most));
	ck_assert_ptr_null(scratch_resize(&scratch, array, 3 * MIB, (size_t)2 << 30 | 1));
	ck_assert_uint_eq(array[0], 7);
	ck_assert_ptr_nonnull(scratch_resize(&scratch, array, 3 * MIB, 4 * MIB));
	ck_assert_uint_eq(array[0], 7);
	scratch_release(&scratch);
}
END_TEST

CHECK_MAIN("scratch", 30, content_stays, grows_where_it_is, memory_is_kept_and_given_back, too_much)
