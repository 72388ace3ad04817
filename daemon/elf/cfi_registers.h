/* The registers of a frame in a table's rule: which rules can be said of which. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "elf/cfi_expression.h"
#include "elf/cfi_rules.h"
#include "elf/cfi_state.h"

enum { CFI_REGISTER_SP = 7, CFI_REGISTER_PC = 16 };

/* Sets where register `number`, by DWARF, is to be found; return_register is that of the CIE. What the table does not keep is ignored.
 * A value that does not fit becomes an expression. False: it cannot be said; then the register is CFI_UNDEFINED, or the return
 * address lacking. */
bool cfi_registers_set(struct cfi_state *state, struct cfi_rules *rules, uint8_t return_register, uint64_t number,
		       enum cfi_where where, int64_t value);
/* By an expression, NULL where it could not be translated; where is CFI_AT_EXPRESSION or CFI_VALUE_EXPRESSION. */
bool cfi_registers_set_expression(struct cfi_state *state, struct cfi_rules *rules, uint8_t return_register,
				  uint64_t number, enum cfi_where where, const struct cfi_expression *expression);
/* As it is in initial. */
void cfi_registers_restore(struct cfi_state *state, const struct cfi_state *initial, uint8_t return_register,
			   uint64_t number);
