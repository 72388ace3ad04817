#include "elf/cfi_pieces.h"

#include <errno.h>
#include <stdlib.h>

/* By where they begin; then in the order of the file. */
static int compare(const void *left, const void *right, void *context)
{
	const struct cfi_frames *frames = context;
	const struct cfi_fde *a = left, *b = right;
	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	uint32_t in_a = frames->cies[a->cie].section, in_b = frames->cies[b->cie].section;
	if (in_a != in_b)
		return in_a < in_b ? -1 : 1;
	return (a->program > b->program) - (a->program < b->program);
}

/* Linkers put FDEs in the order of their code, most often. */
static void sort(const struct cfi_frames *frames, struct cfi_fde *fdes, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		if (fdes[i].start < fdes[i - 1].start) {
			qsort_r(fdes, n, sizeof(fdes[0]), compare, (void *)frames);
			return;
		}
	}
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

int cfi_pieces_make(struct cfi_frames *frames, size_t first, const struct cfi_piece *covered, size_t n_covered,
		    struct cfi_piece **ret_pieces, size_t *ret_n)
{
	size_t n = frames->n_fdes - first;
	struct cfi_fde *fdes = n ? &frames->fdes[first] : NULL;
	/* Each covered piece splits at most one of the others. */
	struct cfi_piece *pieces = reallocarray(NULL, n + 2 * n_covered + 1, sizeof(*pieces));
	if (!pieces)
		return -ENOMEM;
	if (n)
		sort(frames, fdes, n);
	struct merge merge = {
		.covered = covered, .covered_end = n_covered ? covered + n_covered : covered, .out = pieces};
	uint64_t last_end = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t start = fdes[i].start, end = start + fdes[i].bytes;
		if (i && fdes[i - 1].start == start)
			continue;
		for (size_t next = i + 1; next < n && fdes[next].start < end; next++) {
			if (fdes[next].start > start)
				end = fdes[next].start;
		}
		pass(&merge, start);
		if (merge.out > pieces && merge.out[-1].end > last_end)
			last_end = merge.out[-1].end;
		if (start < last_end)
			start = last_end;
		if (start >= end)
			continue;
		fill(&merge, start, end, (uint32_t)(first + i));
		last_end = merge.out[-1].end;
	}
	pass(&merge, UINT64_MAX);
	*ret_pieces = pieces;
	*ret_n = (size_t)(merge.out - pieces);
	return 0;
}
