/* Which FDE holds where, once overlaps are settled: see cfi_build.h. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "elf/cfi_frames.h"

struct cfi_piece {
	uint64_t start, end; /* file offsets */
	uint32_t fde;
};

/* Sorts frames->fdes[first ..] and makes the pieces that they cover and `covered` does not; all of them, those of covered among them,
 * ascending and disjoint, into *ret_pieces (from malloc). 0 or -ENOMEM. */
int cfi_pieces_make(struct cfi_frames *frames, size_t first, const struct cfi_piece *covered, size_t n_covered,
		    struct cfi_piece **ret_pieces, size_t *ret_n);
