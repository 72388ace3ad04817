/* A compact unwind table held against libdw, row by row: at every address where either changes what it says, both are evaluated with the
 * same made-up registers and memory, and must give the same CFA, return address, stack pointer and callee-saved registers. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "elf/cfi_build.h"

struct cfi_oracle_result {
	uint64_t n_compared; /* rows: stretches of code for which both say one thing */
	uint64_t n_different;
	uint64_t n_signal_frames, n_ends,
		n_expressions; /* of the compared ones, by our rule: so that a test sees what it saw */
	uint64_t n_refused;    /* compared ones that libdw refuses: DW_CFA_def_cfa_register after a CFA by expression */
	uint64_t
		n_only_ours; /* not among the compared: code for which libdw has nothing, since it takes an entry of length 0 in the
			       * middle of .debug_frame for its end */
	uint64_t n_uncovered; /* stretches that neither has */
};

/* Compares all of path, or every step-th row (step >= 1). What differs is printed to stderr, the first few. 0; -errno: no table, or libdw
 * finds no CFI. */
int cfi_oracle_compare(const char *path, unsigned step, struct cfi_oracle_result *ret);
/* The same with a table that was made before; -EBADMSG: it is none. quiet: what differs is counted, not printed. */
int cfi_oracle_compare_table(const char *path, const struct cfi_table *table, unsigned step, bool quiet,
			     struct cfi_oracle_result *ret);
