/* The rows of a table while it is made: ascending, no two neighbours alike. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct cfi_row {
	uint32_t offset; /* in the file, from the base */
	uint32_t rule;
};

struct cfi_rows {
	struct cfi_row *rows;
	size_t n, allocated;
	uint64_t base; /* a file offset; no row is more than CFI_MAX_TEXT_BYTES above it */
};

/* From file_offset on, rule. file_offset is not below that of the last row; when it is the same, the last row held for nothing, and is
 * replaced. 0; -EFBIG: CFI_MAX_ROWS are there, or it is too far from the base; -ENOMEM. */
int cfi_rows_add(struct cfi_rows *rows, uint64_t file_offset, uint32_t rule);
/* Takes back all rows from file_offset on. */
void cfi_rows_cut(struct cfi_rows *rows, uint64_t file_offset);
void cfi_rows_free(struct cfi_rows *rows);
