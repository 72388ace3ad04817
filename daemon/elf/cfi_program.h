/* Call frame programs (DWARF 5, 6.4.2; the GNU extensions of LSB Core, 10.5.2) run to rows. */
#pragma once
#include <stdint.h>

#include "elf/cfi_frames.h"
#include "elf/cfi_pointer.h"
#include "elf/cfi_rows.h"
#include "elf/cfi_rules.h"

/* Over a whole file: about a second. libLLVM takes 2.4 million. */
enum { CFI_STEPS_MAX = 1 << 26 };

struct cfi_output {
	struct cfi_rows rows;
	struct cfi_rules rules;
	struct cfi_bases bases; /* of the section at hand, for DW_CFA_set_loc */
	uint64_t steps;         /* ops run so far, and bytes of expressions read */
	uint64_t n_malformed;   /* FDEs whose program makes no sense: CFI_RULE_NONE over their whole length */
	uint64_t n_unsupported; /* rows that the table cannot express: CFI_RULE_NONE */
	uint64_t
		n_registers_lost; /* rows for which a callee-saved register's rule cannot be expressed: CFI_UNDEFINED */
};

/* Adds the rows of fde in [start, end), file offsets within it; cie is its own. Runs the program of cie first, once for all its FDEs.
 * 0; -EFBIG: too many rows, or CFI_STEPS_MAX; -ENOMEM. */
int cfi_program_run(struct cfi_output *output, struct cfi_cie *cie, const struct cfi_fde *fde, uint64_t start,
		    uint64_t end);
