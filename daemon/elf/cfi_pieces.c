#include "elf/cfi_pieces.h"

#include <errno.h>
#include <stdbool.h>

#include "bpf/cfi_table.h"

enum {
	INDEX_BITS = 22,
	DIGIT_BITS = 11,
	DIGITS = 3, /* of an offset */
	DIGIT_VALUES = 1 << DIGIT_BITS,
};

_Static_assert(CFI_FDES_MAX <= 1 << INDEX_BITS, "an index fits");
_Static_assert(CFI_MAX_TEXT_BYTES - 1 < 1ULL << (DIGIT_BITS * DIGITS), "an offset fits");

/* A key is of one FDE: where it begins, from the least such place, above the INDEX_BITS of its number. */
static size_t index_of(uint64_t key)
{
	return key & ((1U << INDEX_BITS) - 1);
}

static unsigned digit(uint64_t key, unsigned number)
{
	return key >> (INDEX_BITS + number * DIGIT_BITS) & (DIGIT_VALUES - 1);
}

/* 0; -EFBIG. *ret_sorted: they are in the order of their code, as linkers put them most often. */
static int make_keys(const struct cfi_fde *fdes, size_t n, uint64_t *keys, bool *ret_sorted)
{
	uint64_t base = fdes[0].start;
	*ret_sorted = true;
	for (size_t i = 1; i < n; i++) {
		base = fdes[i].start < base ? fdes[i].start : base;
		*ret_sorted &= fdes[i].start >= fdes[i - 1].start;
	}
	for (size_t i = 0; i < n; i++) {
		if (fdes[i].start - base >= CFI_MAX_TEXT_BYTES)
			return -EFBIG;
		keys[i] = (fdes[i].start - base) << INDEX_BITS | i;
	}
	return 0;
}

/* Stable, in time that no order can make longer: digit by digit, from the lowest. There are three, so that the result is in `other`. */
static void sort_keys(uint64_t *keys, uint64_t *other, size_t n)
{
	for (unsigned number = 0; number < DIGITS; number++) {
		uint32_t below[DIGIT_VALUES + 1] = {}; /* how many have a lower digit */
		for (size_t i = 0; i < n; i++)
			below[digit(keys[i], number) + 1]++;
		for (size_t i = 0; i < DIGIT_VALUES; i++)
			below[i + 1] += below[i];
		for (size_t i = 0; i < n; i++)
			other[below[digit(keys[i], number)]++] = keys[i];
		uint64_t *swapped = keys;
		keys = other;
		other = swapped;
	}
}

/* By where they begin; then in the order of the file, which is that of their numbers. */
static int sort(struct scratch *scratch, const struct cfi_fde *fdes, size_t n, const uint64_t **ret)
{
	uint64_t *keys = scratch_alloc(scratch, 2 * n * sizeof(*keys));
	if (!keys)
		return -ENOMEM;
	bool is_sorted = false;
	int r = make_keys(fdes, n, keys, &is_sorted);
	if (r < 0)
		return r;
	if (!is_sorted)
		sort_keys(keys, keys + n, n);
	*ret = is_sorted ? keys : keys + n;
	return 0;
}

struct merge {
	const struct cfi_piece *covered, *covered_end;
	struct cfi_piece *out;
};

/* Copies what is covered and begins before `offset`. */
static void pass(struct merge *merge, uint64_t offset)
{
	while (merge->covered < merge->covered_end && merge->covered->start < offset)
		*merge->out++ = *merge->covered++;
}

/* What of [start, end) lies between what is covered. Everything before start was added already. */
static void fill(struct merge *merge, uint64_t start, uint64_t end, uint32_t fde)
{
	uint64_t at = start;
	for (;;) {
		uint64_t next = merge->covered < merge->covered_end && merge->covered->start < end
					? merge->covered->start
					: end;
		if (at < next)
			*merge->out++ = (struct cfi_piece){.start = at, .end = next, .fde = fde};
		if (next == end)
			return;
		at = merge->covered->end;
		*merge->out++ = *merge->covered++;
		if (at >= end)
			return;
	}
}

/* Where one ends: at the next one, if that begins before. */
static uint64_t end_of(const struct cfi_fde *fdes, const uint64_t *order, size_t n, size_t i)
{
	uint64_t start = fdes[index_of(order[i])].start, end = start + fdes[index_of(order[i])].bytes;
	for (size_t next = i + 1; next < n; next++) {
		uint64_t next_start = fdes[index_of(order[next])].start;
		if (next_start > start)
			return next_start < end ? next_start : end;
	}
	return end;
}

int cfi_pieces_add(struct cfi_pieces *pieces, const struct cfi_frames *frames, size_t first)
{
	size_t n = frames->n_fdes - first;
	if (n == 0)
		return 0;
	const struct cfi_fde *fdes = &frames->fdes[first];
	const uint64_t *order = NULL;
	int r = sort(pieces->scratch, fdes, n, &order);
	if (r < 0)
		return r;
	/* Each piece that is there splits at most one of the others. */
	struct cfi_piece *list = scratch_alloc(pieces->scratch, (n + 2 * pieces->n) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	struct merge merge = {.covered = pieces->list, .out = list};
	merge.covered_end = pieces->n ? pieces->list + pieces->n : pieces->list;
	uint64_t last_start = 0, last_end = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t start = fdes[index_of(order[i])].start;
		if (i && last_start == start)
			continue;
		last_start = start;
		uint64_t end = end_of(fdes, order, n, i);
		pass(&merge, start);
		if (merge.out > list && merge.out[-1].end > last_end)
			last_end = merge.out[-1].end;
		if (start < last_end)
			start = last_end;
		if (start >= end)
			continue;
		fill(&merge, start, end, (uint32_t)(first + index_of(order[i])));
		last_end = merge.out[-1].end;
	}
	pass(&merge, UINT64_MAX);
	pieces->list = list;
	pieces->n = (size_t)(merge.out - list);
	return 0;
}
