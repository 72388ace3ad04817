/* What each op of an unwind table's expressions takes and leaves, for those who make expressions and those who check them. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/cfi_table.h"

struct cfi_op_effect {
	uint8_t operand_bytes, pops, pushes;
};

/* False: there is no such op. CFI_OP_END takes its result and leaves it. */
static inline bool cfi_op_effect(uint8_t op, struct cfi_op_effect *ret)
{
	enum { CONST_BYTES = 8, OFFSET_BYTES = 4, REGISTER_BYTES = 1 + OFFSET_BYTES };
	*ret = (struct cfi_op_effect){.pops = 2, .pushes = 1};
	switch (op) {
	case CFI_OP_CONST:
		*ret = (struct cfi_op_effect){.operand_bytes = CONST_BYTES, .pushes = 1};
		break;
	case CFI_OP_REGISTER:
		*ret = (struct cfi_op_effect){.operand_bytes = REGISTER_BYTES, .pushes = 1};
		break;
	case CFI_OP_THREAD:
		*ret = (struct cfi_op_effect){.operand_bytes = OFFSET_BYTES, .pushes = 1};
		break;
	case CFI_OP_END:
	case CFI_OP_DEREF:
	case CFI_OP_NEG:
	case CFI_OP_NOT:
		*ret = (struct cfi_op_effect){.pops = 1, .pushes = 1};
		break;
	case CFI_OP_DUP:
		*ret = (struct cfi_op_effect){.pops = 1, .pushes = 2};
		break;
	case CFI_OP_DROP:
		*ret = (struct cfi_op_effect){.pops = 1};
		break;
	case CFI_OP_SWAP:
		*ret = (struct cfi_op_effect){.pops = 2, .pushes = 2};
		break;
	case CFI_OP_OVER:
		*ret = (struct cfi_op_effect){.pops = 2, .pushes = 3};
		break;
	default:
		return op < CFI_OPS;
	}
	return true;
}
