#include "elf/cfi_pieces.h"

#include <errno.h>
#include <stdlib.h>

#include "elf/big_array.h"

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

int cfi_pieces_add(struct cfi_pieces *pieces, struct cfi_frames *frames, size_t first)
{
	size_t n = frames->n_fdes - first;
	if (n == 0)
		return 0;
	struct cfi_fde *fdes = &frames->fdes[first];
	/* Each piece that is there splits at most one of the others. */
	struct cfi_pieces merged = {.allocated = n + 2 * pieces->n};
	merged.list = big_alloc(merged.allocated * sizeof(merged.list[0]));
	if (!merged.list)
		return -ENOMEM;
	sort(frames, fdes, n);
	struct merge merge = {.covered = pieces->list, .out = merged.list};
	merge.covered_end = pieces->n ? pieces->list + pieces->n : pieces->list;
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
		if (merge.out > merged.list && merge.out[-1].end > last_end)
			last_end = merge.out[-1].end;
		if (start < last_end)
			start = last_end;
		if (start >= end)
			continue;
		fill(&merge, start, end, (uint32_t)(first + i));
		last_end = merge.out[-1].end;
	}
	pass(&merge, UINT64_MAX);
	merged.n = (size_t)(merge.out - merged.list);
	cfi_pieces_free(pieces);
	*pieces = merged;
	return 0;
}

void cfi_pieces_free(struct cfi_pieces *pieces)
{
	big_free(pieces->list, pieces->allocated * sizeof(pieces->list[0]));
	*pieces = (struct cfi_pieces){};
}
