/* Unwind tables from a reader that was taken over: what is accepted can be looked up all over. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cfi_lookups.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *table = malloc(size ? size : 1); /* aligned, and guarded at its end */
	if (!table)
		return 0;
	memcpy(table, data, size);
	if (cfi_table_check(table, size))
		cfi_look_everywhere(table);
	free(table);
	return 0;
}
