/* Which FDE holds where, once overlaps are settled: see cfi_build.h. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "elf/cfi_frames.h"

struct cfi_piece {
	uint64_t start, end; /* file offsets */
	uint32_t fde;
};

/* Ascending and disjoint. */
struct cfi_pieces {
	struct cfi_piece *list;
	size_t n, allocated;
};

/* Sorts frames->fdes[first ..] and adds to the pieces what of them is not covered yet. 0 or -ENOMEM. */
int cfi_pieces_add(struct cfi_pieces *pieces, struct cfi_frames *frames, size_t first);
void cfi_pieces_free(struct cfi_pieces *pieces);
