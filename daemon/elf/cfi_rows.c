#include "elf/cfi_rows.h"

#include <errno.h>
#include <linux/types.h>
#include <stdlib.h>

#include "bpf/cfi_table.h"

enum { FIRST_ROWS = 1 << 14 };

static int grow(struct cfi_rows *rows)
{
	size_t allocated = rows->allocated ? rows->allocated * 2 : FIRST_ROWS;
	if (rows->n >= CFI_MAX_ROWS)
		return -EFBIG;
	struct cfi_row *grown = reallocarray(rows->rows, allocated, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	rows->rows = grown;
	rows->allocated = allocated;
	return 0;
}

int cfi_rows_add(struct cfi_rows *rows, uint64_t file_offset, uint32_t rule)
{
	if (file_offset - rows->base >= CFI_MAX_TEXT_BYTES)
		return -EFBIG;
	uint32_t offset = (uint32_t)(file_offset - rows->base);
	if (rows->n && rows->rows[rows->n - 1].offset == offset)
		rows->n--;
	if (rows->n && rows->rows[rows->n - 1].rule == rule)
		return 0;
	if (rows->n == rows->allocated || rows->n >= CFI_MAX_ROWS) {
		int r = grow(rows);
		if (r < 0)
			return r;
	}
	rows->rows[rows->n++] = (struct cfi_row){.offset = offset, .rule = rule};
	return 0;
}

void cfi_rows_cut(struct cfi_rows *rows, uint64_t file_offset)
{
	while (rows->n && rows->rows[rows->n - 1].offset >= file_offset - rows->base)
		rows->n--;
}

void cfi_rows_free(struct cfi_rows *rows)
{
	free(rows->rows);
	*rows = (struct cfi_rows){};
}
