#include "elf/cfi_rows.h"

#include <errno.h>
#include <linux/types.h>
#include <stdlib.h>

#include "bpf/cfi_table.h"

enum { FIRST_ROWS = 1 << 14, FIRST_CHUNKS = 64, LOW_BITS = 16 };

static int grow_rows(struct cfi_rows *rows)
{
	size_t wanted = rows->allocated ? 2 * rows->allocated : FIRST_ROWS;
	uint32_t *grown =
		scratch_resize(rows->scratch, rows->rows, rows->allocated * sizeof(*grown), wanted * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	rows->rows = grown;
	rows->allocated = wanted;
	return 0;
}

/* At most 256 KiB, of the heap: so that the rows stay what was taken last of the scratch, and grow where they are. */
static int grow_chunks(struct cfi_rows *rows, size_t n)
{
	size_t wanted = rows->first_of_allocated ? rows->first_of_allocated : FIRST_CHUNKS;
	while (wanted < n)
		wanted *= 2;
	uint32_t *grown = reallocarray(rows->first_of, wanted, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	rows->first_of = grown;
	rows->first_of_allocated = wanted;
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
		r = grow_rows(rows);
	if (r == 0 && chunk >= rows->first_of_allocated)
		r = grow_chunks(rows, chunk + 1);
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
	free(rows->first_of);
	*rows = (struct cfi_rows){};
}
