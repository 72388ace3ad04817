/* A step by a rule of any form: CFA by an expression or from memory, registers kept in other registers or found by expressions, signal frames. Part of unwind.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
#include "bpf/cfi_expression.h"

enum {
	CFI_PLT_PUSHED = 11, /* a lazy entry of the PLT: its second instruction, at 6, pushes 8 bytes and ends at 11 */
	CFI_ANY_RA = CFI_SAVED,
	CFI_ANY_SP,
};

/* rbx rbp r12 .. r15 rip rsp, as in cfi_rule and behind. */
static __attribute__((always_inline)) inline __u32 cfi_restored_register(__u32 index)
{
	if (index == 0)
		return UNWIND_RBX;
	if (index == 1)
		return UNWIND_RBP;
	if (index == CFI_ANY_RA)
		return UNWIND_RIP;
	return index == CFI_ANY_SP ? (__u32)UNWIND_RSP : UNWIND_R12 - 2 + index;
}

static __attribute__((always_inline)) inline int cfi_find_cfa(struct cfi_machine *machine)
{
	struct cfi_any *any = &machine->window->any;
	const struct cfi_rule *rule = &any->rule;
	__u64 cfa = 0;
	if (rule->cfa == CFI_CFA_EXPRESSION) {
		machine->window->evaluation.depth = 0;
		return cfi_evaluate(machine, (__u32)rule->cfa_offset, &any->cfa);
	}
	if (!unwind_register(machine->registers, rule->cfa_register, &cfa))
		return STACK_END_REGISTER_LOST;
	cfa += (__u64)(__s64)rule->cfa_offset;
	if (rule->cfa == CFI_CFA_PLT && (machine->registers->pc & 15) >= CFI_PLT_PUSHED)
		cfa += 8;
	if (rule->cfa == CFI_CFA_DEREF && unwind_read(&cfa, sizeof(cfa), cfa, unwind_memory(machine->window)) < 0)
		return STACK_END_UNREADABLE;
	any->cfa = cfa;
	return 0;
}

/* A value by an expression: 0, or the enum stack_end. */
static __attribute__((always_inline)) inline int cfi_by_expression(struct cfi_machine *machine, __u32 at,
								   bool in_memory, __u64 *ret_value, __u64 *ret_slot)
{
	struct unwind_window *window = machine->window;
	__u64 result = 0;
	window->evaluation.stack[0] = window->any.cfa;
	window->evaluation.depth = 1;
	int r = cfi_evaluate(machine, at, &result);
	if (r == 0 && in_memory) {
		*ret_slot = result;
		r = unwind_read(&result, sizeof(result), result, unwind_memory(window)) < 0 ? STACK_END_UNREADABLE : 0;
	}
	*ret_value = result;
	return r;
}

static __attribute__((always_inline)) inline void cfi_list_places(struct cfi_any *any)
{
	const struct cfi_rule *rule = &any->rule;
	for (int i = 0; i < CFI_SAVED; i++) {
		any->where[i] = rule->where[i];
		any->operand[i] = rule->value[i];
	}
	any->where[CFI_ANY_RA] = rule->ra_where;
	any->operand[CFI_ANY_RA] = rule->ra_value;
	any->where[CFI_ANY_SP] = rule->sp_where;
	any->operand[CFI_ANY_SP] = rule->sp_value;
}

/* The caller's value of one register, into any->value[index]. 1 when it cannot be had although it should: any->end says why. */
static long cfi_restore(__u32 index, struct cfi_machine *machine)
{
	struct unwind_window *window = machine->window;
	struct cfi_any *any = &window->any;
	__u64 value = 0, slot = 0;
	bool known = true;
	int r = 0;
	index &= CFI_RESTORED - 1;
	UNWIND_OPAQUE(index);
	index &= CFI_RESTORED - 1;
	__u8 where = any->where[index];
	__s16 operand = any->operand[index];
	switch (where) {
	case CFI_SAME:
		if (index == CFI_ANY_SP)
			value = any->cfa;
		else
			known = unwind_register(machine->registers, cfi_restored_register(index), &value);
		break;
	case CFI_AT_CFA:
		slot = any->cfa + (__u64)(__s64)operand;
		r = unwind_word(window, slot, &value) < 0 ? STACK_END_UNREADABLE : 0;
		break;
	case CFI_VALUE_CFA:
		value = any->cfa + (__u64)(__s64)operand;
		break;
	case CFI_REGISTER:
		known = unwind_register(machine->registers, (__u16)operand, &value);
		break;
	case CFI_AT_EXPRESSION:
	case CFI_VALUE_EXPRESSION:
		r = cfi_by_expression(machine, (__u16)operand, where == CFI_AT_EXPRESSION, &value, &slot);
		break;
	default:
		known = false;
	}
	any->value[index] = value;
	any->known |= (__u32)known << index;
	any->end = (__u32)r;
	if (index == CFI_ANY_RA)
		any->slot = slot;
	return r != 0;
}
_Static_assert(CFI_RESTORED == 8, "a power of two: the verifier is told a bound by a mask");

static __attribute__((always_inline)) inline void cfi_take_restored(struct unwind_registers *registers,
								    const struct cfi_any *any)
{
	__u32 known = UNWIND_KNOWN(UNWIND_RSP) | UNWIND_KNOWN(UNWIND_RIP);
	registers->rbx = any->value[0];
	registers->fp = any->value[1];
	registers->r12 = any->value[2];
	registers->r13 = any->value[3];
	registers->r14 = any->value[4];
	registers->r15 = any->value[5];
	known |= (any->known & 1) << UNWIND_RBX | (any->known >> 1 & 1) << UNWIND_RBP;
	known |= (any->known >> 2 & 15) << UNWIND_R12;
	registers->pc = any->value[CFI_ANY_RA];
	registers->sp = any->value[CFI_ANY_SP];
	registers->known = known;
	registers->pc_is_exact = !!(any->rule.flags & CFI_SIGNAL_FRAME);
}

/* The kernel's signal frame: whom it interrupted goes on with all registers. arch/x86/include/uapi/asm/sigcontext.h */
static __attribute__((always_inline)) inline int cfi_take_sigcontext(struct unwind_registers *registers,
								     struct unwind_window *window)
{
	enum { SIGCONTEXT = 40 };
	struct cfi_any *any = &window->any;
	const __u64 *context = any->context;
	__u64 address = registers->sp + SIGCONTEXT;
	if (unwind_read(any->context, sizeof(any->context), address, unwind_memory(window)) < 0)
		return STACK_END_UNREADABLE;
	any->slot = address + sizeof(any->context) - 8;
	registers->r8 = context[0], registers->r9 = context[1];
	registers->r10 = context[2], registers->r11 = context[3];
	registers->r12 = context[4], registers->r13 = context[5];
	registers->r14 = context[6], registers->r15 = context[7];
	registers->rdi = context[8], registers->rsi = context[9];
	registers->fp = context[10], registers->rbx = context[11];
	registers->rdx = context[12], registers->rax = context[13];
	registers->rcx = context[14], registers->sp = context[15];
	registers->pc = context[16];
	registers->known = UNWIND_KNOWN_ALL;
	registers->pc_is_exact = 1;
	return UNWIND_GOES_ON;
}

/* Applies window->any.rule; window->any.slot is the return address's. UNWIND_GOES_ON, or the enum stack_end. */
UNWIND_SUBPROGRAM int cfi_step_any(struct unwind_registers *registers, struct unwind_window *window, __u64 stack_lo,
				   __u64 stack_hi)
{
	if (!registers || !window)
		return STACK_END_BAD_FRAME; /* never; said for the verifier */
	struct cfi_machine machine = {.registers = registers, .window = window};
	struct cfi_any *any = &window->any;
	any->known = 0;
	any->end = 0;
	any->slot = 0;
	if ((any->rule.flags & CFI_END) || any->rule.ra_where == CFI_SAME || any->rule.ra_where == CFI_UNDEFINED)
		return STACK_END_OUTERMOST;
	if (any->rule.flags & CFI_SIGCONTEXT)
		return cfi_take_sigcontext(registers, window);
	int r = cfi_find_cfa(&machine);
	if (r != 0)
		return r;
	cfi_list_places(any);
	unwind_window_cover(window, registers->sp, any->cfa);
	UNWIND_LOOP(CFI_RESTORED, cfi_restore, machine);
	if (any->end)
		return (int)any->end;
	if (!(any->known >> CFI_ANY_RA & 1) || !(any->known >> CFI_ANY_SP & 1))
		return STACK_END_REGISTER_LOST;
	/* Whom a signal interrupted may have been on another stack. */
	bool switches = any->rule.flags & CFI_OTHER_STACK;
	if (switches && window->switches++ >= UNWIND_MAX_SWITCHES)
		return STACK_END_BAD_FRAME;
	bool stays = any->rule.sp_where != CFI_SAME && registers->pc_is_exact; /* longjmp: it is there already */
	if (!switches && !(any->rule.flags & CFI_SIGNAL_FRAME) &&
	    !unwind_may_go(registers, stack_lo, stack_hi, any->value[CFI_ANY_SP] + stays))
		return STACK_END_BAD_FRAME;
	if (any->value[CFI_ANY_RA] == 0)
		return STACK_END_ROOT;
	cfi_take_restored(registers, any);
	return UNWIND_GOES_ON;
}
