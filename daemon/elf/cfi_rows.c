#include "elf/cfi_rows.h"

#include <errno.h>
#include <linux/types.h>

#include "bpf/cfi_table.h"
#include "elf/big_array.h"

enum { FIRST_ROWS = 1 << 14, FIRST_CHUNKS = 64, LOW_BITS = 16 };

static int grow(uint32_t **array, size_t *allocated, size_t n, size_t first)
{
	size_t wanted = *allocated ? *allocated : first;
	while (wanted < n)
		wanted *= 2;
	uint32_t *grown = big_resize(*array, *allocated * sizeof(*grown), wanted * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*allocated = wanted;
	return 0;
}

int cfi_rows_add(struct cfi_rows *rows, uint64_t file_offset, uint32_t rule)
{
	uint64_t offset = file_offset - rows->base;
	if (offset >= CFI_MAX_TEXT_BYTES || rows->n >= CFI_MAX_ROWS)
		return -EFBIG;
	if (rows->n && rows->rows[rows->n - 1] >> LOW_BITS == rule)
		return 0;
	size_t chunk = offset >> LOW_BITS;
	int r = 0;
	if (rows->n == rows->allocated)
		r = grow(&rows->rows, &rows->allocated, rows->n + 1, FIRST_ROWS);
	if (r == 0 && chunk >= rows->first_of_allocated)
		r = grow(&rows->first_of, &rows->first_of_allocated, chunk + 1, FIRST_CHUNKS);
	if (r < 0)
		return r;
	while (rows->n_first_of <= chunk)
		rows->first_of[rows->n_first_of++] = (uint32_t)rows->n;
	rows->rows[rows->n++] = (uint32_t)(offset & UINT16_MAX) | rule << LOW_BITS;
	return 0;
}

struct cfi_rows_mark cfi_rows_mark(const struct cfi_rows *rows)
{
	return (struct cfi_rows_mark){.n = rows->n, .n_first_of = rows->n_first_of};
}

void cfi_rows_cut(struct cfi_rows *rows, struct cfi_rows_mark mark)
{
	rows->n = mark.n;
	rows->n_first_of = mark.n_first_of;
}

void cfi_rows_free(struct cfi_rows *rows)
{
	big_free(rows->rows, rows->allocated * sizeof(rows->rows[0]));
	big_free(rows->first_of, rows->first_of_allocated * sizeof(rows->first_of[0]));
	*rows = (struct cfi_rows){};
}
