/* The compact unwind table of a file, checked: see bpf/cfi_table.h. Thread: any, it does not change. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct unwind_table {
	const void *bytes; /* in a scratch of who asked; cfi_table_check accepts it */
	size_t n_bytes;
	/* What sprofd-elf says of how it came about; for status alone. */
	uint64_t n_fdes, n_malformed, n_unsupported, n_registers_lost;
};
