/* DWARF expressions of call frame programs (DWARF 5, 6.4.2 and 2.5.1), translated to the ops of bpf/cfi_table.h. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/cfi_table.h"
#include "elf/dwarf_cursor.h"

enum { CFI_EXPRESSION_MAX_BYTES = CFI_MAX_OPS * (1 + 8) };

struct cfi_expression_op {
	uint8_t op, reg;
	int64_t value; /* CFI_OP_CONST; CFI_OP_REGISTER, CFI_OP_THREAD: the offset, which fits 32 bits */
};

struct cfi_expression {
	size_t n; /* without CFI_OP_END */
	unsigned depth;
	struct cfi_expression_op ops[CFI_MAX_OPS];
};

/* One op more, at the end. False: there is no room, or its operands are not on the stack. */
bool cfi_expression_add(struct cfi_expression *expression, uint8_t op, uint8_t reg, int64_t value);

/* depth: how much is on the stack at the start, 1 in rules of registers (the CFA), 0 in the CFA's own. False: malformed, or one that the
 * ops cannot say. */
bool cfi_expression_translate(struct cursor in, unsigned depth, struct cfi_expression *ret);
/* The one that makes "CFA + offset", of a register's rule. */
void cfi_expression_from_cfa(int64_t offset, struct cfi_expression *ret);

/* True: it is register + offset; followed by one DEREF in the second case. */
bool cfi_expression_is_register(const struct cfi_expression *expression, uint8_t *ret_register, int32_t *ret_offset);
bool cfi_expression_is_deref(const struct cfi_expression *expression, uint8_t *ret_register, int32_t *ret_offset);
/* True: it is that of binutils' lazy PLT (elf_x86_64_lazy_plt), with its register and offset: see CFI_CFA_PLT. */
bool cfi_expression_is_plt(const struct cfi_expression *expression, uint8_t *ret_register, int32_t *ret_offset);

/* The bytes of the table, with CFI_OP_END, into out of CFI_EXPRESSION_MAX_BYTES; their number. */
size_t cfi_expression_encode(const struct cfi_expression *expression, uint8_t *out);
