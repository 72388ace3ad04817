/* Expressions of a compact unwind table, evaluated. Part of unwind.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

enum cfi_evaluation_result {
	CFI_EVALUATING,
	CFI_EVALUATED,
	CFI_FAILED, /* (enum stack_end) is in evaluation.end */
};

/* A byte of the table's code. */
static __attribute__((always_inline)) inline bool cfi_byte(const struct unwind_place *place, __u32 at, __u8 *ret,
							   void *memory)
{
	__u32 offset = place->off_code + at;
	void *table = unwind_table_open(place->table, memory);
	const __u8 *page = table ? unwind_table_page(table, offset / CFI_PAGE_BYTES) : (void *)0;
	if (!page)
		return false;
	offset &= CFI_PAGE_BYTES - 1;
	UNWIND_OPAQUE(offset);
	*ret = page[offset & (CFI_PAGE_BYTES - 1)];
	return true;
}

/* The next n bytes of the code, little-endian. */
static __attribute__((always_inline)) inline bool cfi_operand(struct unwind_window *window, int n, __u64 *ret)
{
	__u64 value = 0;
	for (int i = 0; i < n; i++) {
		__u8 byte = 0;
		if (!cfi_byte(&window->place, window->evaluation.at++, &byte, unwind_memory(window)))
			return false;
		value |= (__u64)byte << (8 * i);
	}
	*ret = value;
	return true;
}

static __attribute__((always_inline)) inline void cfi_fail(struct cfi_evaluation *evaluation, enum stack_end end)
{
	evaluation->result = CFI_FAILED;
	evaluation->end = end;
}

static __attribute__((always_inline)) inline void cfi_push(struct cfi_evaluation *evaluation, __u64 value)
{
	__u32 depth = evaluation->depth;
	if (depth >= CFI_STACK_DEPTH) {
		cfi_fail(evaluation, STACK_END_BAD_FRAME);
		return;
	}
	evaluation->stack[depth & (CFI_STACK_DEPTH - 1)] = value;
	evaluation->depth = depth + 1;
}

static __attribute__((always_inline)) inline __u64 cfi_pop(struct cfi_evaluation *evaluation)
{
	__u32 depth = evaluation->depth - 1;
	if (depth >= CFI_STACK_DEPTH) {
		cfi_fail(evaluation, STACK_END_BAD_FRAME);
		return 0;
	}
	evaluation->depth = depth;
	return evaluation->stack[depth & (CFI_STACK_DEPTH - 1)];
}

/* a is what was pushed first. */
static __attribute__((always_inline)) inline __u64 cfi_binary(__u8 op, __u64 a, __u64 b)
{
	switch (op) {
	case CFI_OP_PLUS:
		return a + b;
	case CFI_OP_MINUS:
		return a - b;
	case CFI_OP_AND:
		return a & b;
	case CFI_OP_OR:
		return a | b;
	case CFI_OP_XOR:
		return a ^ b;
	case CFI_OP_SHL:
		return b < 64 ? a << (b & 63) : 0;
	case CFI_OP_SHR:
		return b < 64 ? a >> (b & 63) : 0;
	case CFI_OP_MUL:
		return a * b;
	case CFI_OP_GE:
		return (__s64)a >= (__s64)b;
	case CFI_OP_GT:
		return (__s64)a > (__s64)b;
	case CFI_OP_LE:
		return (__s64)a <= (__s64)b;
	case CFI_OP_LT:
		return (__s64)a < (__s64)b;
	case CFI_OP_EQ:
		return a == b;
	default:
		return a != b;
	}
}

static __attribute__((always_inline)) inline void cfi_push_constant(struct unwind_window *window)
{
	__u64 value = 0;
	if (cfi_operand(window, 8, &value))
		cfi_push(&window->evaluation, value);
	else
		cfi_fail(&window->evaluation, STACK_END_BAD_FRAME);
}

static __attribute__((always_inline)) inline void cfi_push_register(const struct unwind_registers *registers,
								    struct unwind_window *window)
{
	__u64 number = 0, offset = 0, value = 0;
	if (!cfi_operand(window, 1, &number) || !cfi_operand(window, 4, &offset))
		cfi_fail(&window->evaluation, STACK_END_BAD_FRAME);
	else if (!unwind_register(registers, (__u32)number, &value))
		cfi_fail(&window->evaluation, STACK_END_REGISTER_LOST);
	else
		cfi_push(&window->evaluation, value + (__u64)(__s64)(__s32)offset);
}

static __attribute__((always_inline)) inline void cfi_push_thread_pointer(struct unwind_window *window)
{
	__u64 offset = 0;
	if (!cfi_operand(window, 4, &offset))
		cfi_fail(&window->evaluation, STACK_END_BAD_FRAME);
	else
		cfi_push(&window->evaluation,
			 UNWIND_THREAD_POINTER(unwind_memory(window)) + (__u64)(__s64)(__s32)offset);
}

static __attribute__((always_inline)) inline void cfi_dereference(struct unwind_window *window)
{
	__u64 value = 0;
	if (unwind_read(&value, sizeof(value), cfi_pop(&window->evaluation), unwind_memory(window)) < 0)
		cfi_fail(&window->evaluation, STACK_END_UNREADABLE);
	cfi_push(&window->evaluation, value);
}

struct cfi_machine {
	struct unwind_registers *registers;
	struct unwind_window *window;
};

/* One operation. 1 when there is nothing more to do. */
static long cfi_operation(__u32 index __attribute__((unused)), struct cfi_machine *machine)
{
	struct unwind_window *window = machine->window;
	struct cfi_evaluation *evaluation = &window->evaluation;
	__u64 op = CFI_OP_END, a, b;
	if (!cfi_operand(window, 1, &op))
		cfi_fail(evaluation, STACK_END_BAD_FRAME);
	if (window->operations >= UNWIND_MAX_OPERATIONS) {
		cfi_fail(evaluation, STACK_END_TOO_DEEP);
		return 1;
	}
	window->operations++;
	switch (op) {
	case CFI_OP_END:
		if (evaluation->result == CFI_EVALUATING)
			evaluation->result = CFI_EVALUATED;
		break;
	case CFI_OP_CONST:
		cfi_push_constant(window);
		break;
	case CFI_OP_REGISTER:
		cfi_push_register(machine->registers, window);
		break;
	case CFI_OP_THREAD:
		cfi_push_thread_pointer(window);
		break;
	case CFI_OP_DEREF:
		cfi_dereference(window);
		break;
	case CFI_OP_DUP:
		a = cfi_pop(evaluation);
		cfi_push(evaluation, a);
		cfi_push(evaluation, a);
		break;
	case CFI_OP_DROP:
		(void)cfi_pop(evaluation);
		break;
	case CFI_OP_SWAP:
	case CFI_OP_OVER:
		b = cfi_pop(evaluation);
		a = cfi_pop(evaluation);
		cfi_push(evaluation, op == CFI_OP_SWAP ? b : a);
		cfi_push(evaluation, op == CFI_OP_SWAP ? a : b);
		if (op == CFI_OP_OVER)
			cfi_push(evaluation, a);
		break;
	case CFI_OP_NEG:
		cfi_push(evaluation, -cfi_pop(evaluation));
		break;
	case CFI_OP_NOT:
		cfi_push(evaluation, ~cfi_pop(evaluation));
		break;
	default:
		if (op >= CFI_OPS) {
			cfi_fail(evaluation, STACK_END_BAD_FRAME);
			break;
		}
		b = cfi_pop(evaluation);
		a = cfi_pop(evaluation);
		cfi_push(evaluation, cfi_binary((__u8)op, a, b));
	}
	return evaluation->result != CFI_EVALUATING;
}

/* The value of the expression at `at`, evaluated over what was pushed before (evaluation.stack, depth). 0, or the enum stack_end. */
static __attribute__((always_inline)) inline int cfi_evaluate(struct cfi_machine *machine, __u32 at, __u64 *ret)
{
	struct cfi_evaluation *evaluation = &machine->window->evaluation;
	evaluation->at = at;
	evaluation->result = CFI_EVALUATING;
	UNWIND_LOOP(CFI_MAX_OPS + 1, cfi_operation, *machine);
	if (evaluation->result == CFI_EVALUATING)
		return STACK_END_BAD_FRAME;
	*ret = evaluation->result == CFI_EVALUATED ? cfi_pop(evaluation) : 0;
	return evaluation->result == CFI_FAILED ? (int)evaluation->end : 0;
}
