/* The rows of a table while it is made: ascending, no two neighbours alike; in the table's own form, so that what is left to do is to copy
 * them. That form has only the low 16 bits of where a row is: the others are known by counting the rows of each 64 KiB. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/scratch.h"

struct cfi_rows {
	struct scratch *scratch; /* where rows are */
	uint32_t *rows;
	size_t n, allocated;
	uint64_t base;      /* a file offset, multiple of 64 KiB, of CFI_MAX_TEXT_BYTES at most */
	uint32_t *first_of; /* [i]: the first row at base + (i << 16) or above */
	size_t n_first_of, first_of_allocated;
};

/* From file_offset on, rule. file_offset is above that of the last row. 0; -EFBIG: CFI_MAX_ROWS are there, or it is too far from the
 * base; -ENOMEM. */
int cfi_rows_add(struct cfi_rows *rows, uint64_t file_offset, uint32_t rule);

/* Takes back what was added since the mark. */
struct cfi_rows_mark {
	size_t n, n_first_of;
};
struct cfi_rows_mark cfi_rows_mark(const struct cfi_rows *rows);
void cfi_rows_cut(struct cfi_rows *rows, struct cfi_rows_mark mark);
void cfi_rows_free(struct cfi_rows *rows);
