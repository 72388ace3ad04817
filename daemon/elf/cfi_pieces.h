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
	struct scratch *scratch; /* where the list is */
	struct cfi_piece *list;
	size_t n;
};

/* Adds to the pieces what of frames->fdes[first ..] is not covered yet; of FDEs that begin at one address the first counts. 0; -EFBIG: they
 * are spread over more than CFI_MAX_TEXT_BYTES; -ENOMEM. */
int cfi_pieces_add(struct cfi_pieces *pieces, const struct cfi_frames *frames, size_t first);
