/* What is known of a frame at one pc, while a call frame program runs. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/cfi_table.h"

/* Parts that the rule cannot express: then there is none. */
enum { CFI_NO_CFA_REGISTER = 1, CFI_NO_CFA_OFFSET = 2, CFI_NO_RETURN_ADDRESS = 4, CFI_NO_CFA_EXPRESSION = 8 };

struct cfi_state {
	struct cfi_rule rule;
	uint32_t
		sigcontext; /* registers that are where the kernel's signal frame has them: a bit each, by DWARF number */
	uint8_t lacks;
	/* The CFA by register and offset. While it is by an expression they wait behind it: DW_CFA_def_cfa_register comes back to the last
	 * offset that was said, as in the C++ runtime (libgcc, execute_cfa_program), on which hand-written code relies. */
	bool has_expression;
	uint8_t cfa_register;
	int32_t cfa_offset;
};
