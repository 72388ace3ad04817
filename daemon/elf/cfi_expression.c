#include "elf/cfi_expression.h"

#include <dwarf.h>

#include "model/cfi_ops.h"

bool cfi_expression_add(struct cfi_expression *expression, uint8_t op, uint8_t reg, int64_t value)
{
	struct cfi_op_effect effect;
	if (expression->n + 1 >= CFI_MAX_OPS || !cfi_op_effect(op, &effect) || expression->depth < effect.pops)
		return false;
	expression->depth += effect.pushes - effect.pops;
	if (expression->depth > CFI_STACK_DEPTH)
		return false;
	expression->ops[expression->n++] = (struct cfi_expression_op){.op = op, .reg = reg, .value = value};
	return true;
}

static bool add_op(struct cfi_expression *expression, enum cfi_op op)
{
	return cfi_expression_add(expression, (uint8_t)op, 0, 0);
}

static bool add_const(struct cfi_expression *expression, int64_t value)
{
	return cfi_expression_add(expression, CFI_OP_CONST, 0, value);
}

static bool add_register(struct cfi_expression *expression, uint64_t reg, int64_t offset)
{
	return reg < CFI_REGISTERS && offset >= INT32_MIN && offset <= INT32_MAX &&
	       cfi_expression_add(expression, CFI_OP_REGISTER, (uint8_t)reg, offset);
}

/* Into the offset of a register where there is one before. */
static bool add_plus(struct cfi_expression *expression, uint64_t value)
{
	struct cfi_expression_op *last = expression->n ? &expression->ops[expression->n - 1] : NULL;
	if (last && last->op == CFI_OP_REGISTER && value <= INT32_MAX && last->value + (int64_t)value <= INT32_MAX) {
		last->value += (int64_t)value;
		return true;
	}
	return add_const(expression, (int64_t)value) && add_op(expression, CFI_OP_PLUS);
}

/* Fewer bytes than a word are read as a word: its upper bytes may be beyond the end of a page, which none that we know of is. */
static bool add_deref(struct cfi_expression *expression, uint8_t bytes)
{
	if (bytes == 0 || bytes > 8 || !add_op(expression, CFI_OP_DEREF))
		return false;
	if (bytes == 8)
		return true;
	return add_const(expression, (int64_t)((1ULL << (8 * bytes)) - 1)) && add_op(expression, CFI_OP_AND);
}

static bool add_pick(struct cfi_expression *expression, uint8_t index)
{
	return index <= 1 && add_op(expression, index ? CFI_OP_OVER : CFI_OP_DUP);
}

static bool add_constant(struct cfi_expression *expression, uint8_t atom, struct cursor *in)
{
	switch (atom) {
	case DW_OP_addr: /* as linked, not as loaded */
		return false;
	case DW_OP_const1u:
		return add_const(expression, cursor_u8(in));
	case DW_OP_const1s:
		return add_const(expression, (int8_t)cursor_u8(in));
	case DW_OP_const2u:
		return add_const(expression, (int64_t)cursor_uint(in, 2));
	case DW_OP_const2s:
		return add_const(expression, (int16_t)cursor_uint(in, 2));
	case DW_OP_const4u:
		return add_const(expression, (int64_t)cursor_uint(in, 4));
	case DW_OP_const4s:
		return add_const(expression, (int32_t)cursor_uint(in, 4));
	case DW_OP_const8u:
	case DW_OP_const8s:
		return add_const(expression, (int64_t)cursor_uint(in, 8));
	case DW_OP_constu:
		return add_const(expression, (int64_t)cursor_uleb(in));
	case DW_OP_consts:
		return add_const(expression, cursor_sleb(in));
	default:
		return false;
	}
}

/* Ops without operands that are the same here. */
static bool add_plain(struct cfi_expression *expression, uint8_t atom)
{
	static const uint8_t ops[256] = {
		[DW_OP_deref] = CFI_OP_DEREF, [DW_OP_dup] = CFI_OP_DUP,   [DW_OP_drop] = CFI_OP_DROP,
		[DW_OP_over] = CFI_OP_OVER,   [DW_OP_swap] = CFI_OP_SWAP, [DW_OP_and] = CFI_OP_AND,
		[DW_OP_or] = CFI_OP_OR,       [DW_OP_xor] = CFI_OP_XOR,   [DW_OP_not] = CFI_OP_NOT,
		[DW_OP_neg] = CFI_OP_NEG,     [DW_OP_plus] = CFI_OP_PLUS, [DW_OP_minus] = CFI_OP_MINUS,
		[DW_OP_mul] = CFI_OP_MUL,     [DW_OP_shl] = CFI_OP_SHL,   [DW_OP_shr] = CFI_OP_SHR,
		[DW_OP_eq] = CFI_OP_EQ,       [DW_OP_ne] = CFI_OP_NE,     [DW_OP_ge] = CFI_OP_GE,
		[DW_OP_gt] = CFI_OP_GT,       [DW_OP_le] = CFI_OP_LE,     [DW_OP_lt] = CFI_OP_LT,
	};
	return ops[atom] && add_op(expression, ops[atom]);
}

static bool add_atom(struct cfi_expression *expression, uint8_t atom, struct cursor *in)
{
	if (atom >= DW_OP_lit0 && atom <= DW_OP_lit31)
		return add_const(expression, atom - DW_OP_lit0);
	if (atom >= DW_OP_breg0 && atom <= DW_OP_breg31)
		return add_register(expression, atom - DW_OP_breg0, cursor_sleb(in));
	if (atom >= DW_OP_addr && atom <= DW_OP_consts && atom != DW_OP_deref)
		return add_constant(expression, atom, in);
	uint64_t reg = 0;
	switch (atom) {
	case DW_OP_nop:
		return true;
	case DW_OP_bregx:
		reg = cursor_uleb(in);
		return add_register(expression, reg, cursor_sleb(in));
	case DW_OP_plus_uconst:
		return add_plus(expression, cursor_uleb(in));
	case DW_OP_deref_size:
		return add_deref(expression, cursor_u8(in));
	case DW_OP_pick:
		return add_pick(expression, cursor_u8(in));
	default:
		return add_plain(expression, atom);
	}
}

bool cfi_expression_translate(struct cursor in, unsigned depth, struct cfi_expression *ret)
{
	ret->n = 0;
	ret->depth = depth;
	while (cursor_left(&in) > 0) {
		uint8_t atom = cursor_u8(&in);
		if (!add_atom(ret, atom, &in) || in.failed)
			return false;
	}
	return !in.failed && ret->depth >= 1;
}

void cfi_expression_from_cfa(int64_t offset, struct cfi_expression *ret)
{
	ret->n = 0;
	ret->depth = 1;
	(void)add_const(ret, offset);
	(void)add_op(ret, CFI_OP_PLUS);
}

static bool starts_with_register(const struct cfi_expression *expression, uint8_t *ret_register, int32_t *ret_offset)
{
	if (expression->n == 0 || expression->ops[0].op != CFI_OP_REGISTER)
		return false;
	*ret_register = expression->ops[0].reg;
	*ret_offset = (int32_t)expression->ops[0].value;
	return true;
}

bool cfi_expression_is_register(const struct cfi_expression *expression, uint8_t *ret_register, int32_t *ret_offset)
{
	return expression->n == 1 && starts_with_register(expression, ret_register, ret_offset);
}

bool cfi_expression_is_deref(const struct cfi_expression *expression, uint8_t *ret_register, int32_t *ret_offset)
{
	return expression->n == 2 && expression->ops[1].op == CFI_OP_DEREF &&
	       starts_with_register(expression, ret_register, ret_offset);
}

bool cfi_expression_is_plt(const struct cfi_expression *expression, uint8_t *ret_register, int32_t *ret_offset)
{
	enum { PC = 16 };
	static const struct cfi_expression_op tail[] = {
		{CFI_OP_REGISTER, PC, 0}, {CFI_OP_CONST, 0, 15}, {CFI_OP_AND, 0, 0}, {CFI_OP_CONST, 0, 11},
		{CFI_OP_GE, 0, 0},        {CFI_OP_CONST, 0, 3},  {CFI_OP_SHL, 0, 0}, {CFI_OP_PLUS, 0, 0}};
	enum { TAIL = sizeof(tail) / sizeof(tail[0]) };
	if (expression->n != 1 + TAIL)
		return false;
	for (size_t i = 0; i < TAIL; i++) {
		const struct cfi_expression_op *op = &expression->ops[1 + i];
		if (op->op != tail[i].op || op->reg != tail[i].reg || op->value != tail[i].value)
			return false;
	}
	return starts_with_register(expression, ret_register, ret_offset);
}

static size_t put(uint8_t *out, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		out[i] = (uint8_t)(value >> (8 * i));
	return bytes;
}

size_t cfi_expression_encode(const struct cfi_expression *expression, uint8_t *out)
{
	size_t n = 0;
	for (size_t i = 0; i < expression->n; i++) {
		const struct cfi_expression_op *op = &expression->ops[i];
		out[n++] = op->op;
		if (op->op == CFI_OP_CONST)
			n += put(out + n, (uint64_t)op->value, 8);
		if (op->op == CFI_OP_REGISTER)
			out[n++] = op->reg;
		if (op->op == CFI_OP_REGISTER || op->op == CFI_OP_THREAD)
			n += put(out + n, (uint64_t)op->value, 4);
	}
	out[n++] = CFI_OP_END;
	return n;
}
