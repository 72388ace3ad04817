/* Makes the compact unwind table (bpf/cfi_table.h) of an ELF file: of Go's functions from their own table, .gopclntab, which knows more of them than
 * the .debug_frame that a linker makes of it; from its .eh_frame, and from .debug_frame where that alone covers code.
 *
 * Where FDEs overlap, the result does not depend on chance: in one section they are sorted by where they begin, each ends where the next
 * one begins, as a binary search over .eh_frame_hdr (libgcc, libunwind) would find them, and of those that begin at one address the first
 * in the file wins, as in the linkers, which drop later copies. .eh_frame wins over .debug_frame, which the running program does
 * not use itself. An FDE whose program makes no sense, and rows that the table cannot express, become CFI_RULE_NONE, counted. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/scratch.h"

struct cfi_build_stats {
	uint64_t n_fdes;
	uint64_t n_malformed;      /* CIEs, FDEs and programs left out */
	uint64_t n_unsupported;    /* rows left out */
	uint64_t n_registers_lost; /* rows in which a callee-saved register is not known */
	uint64_t n_rows, n_rules, n_index, n_code_bytes;
};

struct cfi_table {
	const uint8_t *bytes; /* in the scratch */
	size_t n;
	struct scratch own; /* of cfi_build */
	struct cfi_build_stats stats;
};

/* fd stays the caller's; it is read with pread. Resets the scratch first; the table is there until that is reset again. -ENOEXEC: no ELF executable or shared library, or
 * malformed; -EOPNOTSUPP: not for x86-64; -ENODATA: there is no CFI for any code of it; -EFBIG: more of it than we would hold
 * (CFI_MAX_ROWS, CFI_MAX_TEXT_BYTES, CFI_MAX_TABLE_BYTES, CFI_STEPS_MAX ...); -ENOMEM; errors of fstat. */
int cfi_build_in(struct scratch *scratch, int fd, struct cfi_table *ret);
/* The same in memory of its own, which cfi_table_free gives back. */
int cfi_build(int fd, struct cfi_table *ret);
void cfi_table_free(struct cfi_table *table);
