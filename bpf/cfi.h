/* A step by a compact unwind table (cfi_table.h): address -> row -> rule -> the caller's registers. Part of unwind.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * Nearly all rules restore registers from words below the CFA, which is a register and an offset: these are applied in place. All others, signal
 * frames among them, go through cfi_step_any, so that they cost the common ones nothing. */
#pragma once
#include "bpf/cfi_any.h"
#include "bpf/cfi_lookup.h"

enum {
	CFI_NO_ROW = -2, /* nothing is known of this address: *registers are as they were */
	CFI_DONE = -3,   /* the step has been made */
};

/* sp_where, reserved and where[] of a rule as one word. */
static __attribute__((always_inline)) inline __u64 cfi_wheres(const struct cfi_rule *rule)
{
	__u64 word;
	__builtin_memcpy(&word, &rule->sp_where, sizeof(word));
	return word;
}

/* Whether the rule is of the common form: the CFA is a register and an offset, everything that is saved is saved below it. */
static __attribute__((always_inline)) inline bool cfi_is_common(const struct cfi_rule *rule)
{
	return rule->cfa == CFI_CFA_REGISTER && rule->ra_where == CFI_AT_CFA && !rule->flags &&
	       (cfi_wheres(rule) & ~0x0101010101010000ull) == 0;
}
_Static_assert(CFI_SAME == 0 && CFI_AT_CFA == 1, "cfi_is_common looks at these two");

#define CFI_RESTORE(INDEX, NUMBER)                                                           \
	if (rule->where[INDEX] == CFI_AT_CFA) {                                              \
		__u64 value = 0;                                                             \
		if (unwind_word(window, cfa + (__u64)(__s64)rule->value[INDEX], &value) < 0) \
			return STACK_END_UNREADABLE;                                         \
		registers->by_number[NUMBER] = value;                                        \
		known |= UNWIND_KNOWN(NUMBER);                                               \
	}

/* A rule of the common form. */
static __attribute__((always_inline)) inline int cfi_step_common(struct unwind_registers *registers,
								 struct unwind_window *window,
								 const struct unwind_tables *tables,
								 const struct cfi_rule *rule, __u64 *ret_slot)
{
	__u64 cfa = 0, pc = 0;
	if (!unwind_register(registers, rule->cfa_register, &cfa))
		return STACK_END_REGISTER_LOST;
	cfa += (__u64)(__s64)rule->cfa_offset;
	if (!unwind_may_go(registers, tables->stack_lo, tables->stack_hi, cfa))
		return STACK_END_BAD_FRAME;
	__u64 slot = cfa + (__u64)(__s64)rule->ra_value;
	unwind_window_cover(window, registers->sp, cfa);
	if (unwind_word(window, slot, &pc) < 0)
		return STACK_END_UNREADABLE;
	if (pc == 0)
		return STACK_END_ROOT;
	__u32 known = registers->known & UNWIND_KNOWN_PRESERVED;
	CFI_RESTORE(0, 3)
	CFI_RESTORE(1, 6)
	CFI_RESTORE(2, 12)
	CFI_RESTORE(3, 13)
	CFI_RESTORE(4, 14)
	CFI_RESTORE(5, 15)
	registers->known = known;
	registers->sp = cfa;
	registers->pc = pc;
	registers->pc_is_exact = 0;
	*ret_slot = slot;
	return UNWIND_GOES_ON;
}
#undef CFI_RESTORE

/* --- rules that are remembered --- */

/* Where the rule at pc is remembered, if it is. */
static __attribute__((always_inline)) inline struct unwind_remembered *cfi_memory_of(struct unwind_window *window,
										     __u64 pc)
{
	__u64 i = (pc * 0x9E3779B97F4A7C15ull) >> 56;
	UNWIND_OPAQUE(i);
	return &window->remembered[i & (UNWIND_REMEMBERED - 1)];
}
_Static_assert(UNWIND_REMEMBERED == 1 << 8, "the bits that are left of the product");

/* Bits of unwind_remembered.quick, where rax and rdx would be, which are not restored. */
enum {
	CFI_QUICK = 1,
	CFI_QUICK_BY_FP = 2, /* the CFA is made of rbp, otherwise of rsp */
};

#define CFI_REMEMBER(INDEX, NUMBER)                                                 \
	if (rule->where[INDEX] == CFI_AT_CFA) {                                     \
		__u64 at = (__u64)(UNWIND_REACH_BYTES + (__s64)rule->value[INDEX]); \
		if (at > UNWIND_REACH_BYTES - 8)                                    \
			return;                                                     \
		remembered->at[INDEX] = (__u8)at;                                   \
		quick |= UNWIND_KNOWN(NUMBER);                                      \
	}

/* Whether cfi_step_quick can do what the rule says, and how. */
static __attribute__((always_inline)) inline void cfi_remember_quick(struct unwind_remembered *remembered, bool ends)
{
	const struct cfi_rule *rule = &remembered->rule;
	__u32 quick = CFI_QUICK;
	remembered->quick = 0;
	if (ends || !remembered->serial || rule->ra_value != -8 ||
	    (rule->cfa_register != UNWIND_RSP && rule->cfa_register != UNWIND_RBP))
		return;
	if (rule->cfa_register == UNWIND_RBP)
		quick |= CFI_QUICK_BY_FP;
	CFI_REMEMBER(0, 3)
	CFI_REMEMBER(1, 6)
	CFI_REMEMBER(2, 12)
	CFI_REMEMBER(3, 13)
	CFI_REMEMBER(4, 14)
	CFI_REMEMBER(5, 15)
	remembered->quick = quick;
}
#undef CFI_REMEMBER

/* The rule at pc, which lies in window->place, into *remembered if it is of a kind that is. UNWIND_GOES_ON when it is; else what came of the step. */
static __attribute__((always_inline)) inline int cfi_look_up(struct unwind_registers *registers,
							     struct unwind_window *window,
							     const struct unwind_tables *tables, __u64 pc,
							     struct unwind_remembered *remembered, __u64 *ret_slot)
{
	void *table = unwind_table_open(window->place.table, unwind_memory(window));
	if (!table || !cfi_find(window, table, pc) || window->search.found == CFI_RULE_NONE)
		return CFI_NO_ROW;
	const struct cfi_rule *rule = cfi_rule(&window->place, table, window->search.found);
	if (!rule)
		return CFI_NO_ROW;
	bool ends = window->search.found == CFI_RULE_END;
	if (!ends && !cfi_is_common(rule)) {
		window->any.rule = *rule;
		int r = cfi_step_any(registers, window, tables->stack_lo, tables->stack_hi);
		*ret_slot = window->any.slot;
		return r == UNWIND_GOES_ON ? CFI_DONE : r;
	}
	remembered->pc = pc;
	remembered->serial = tables->serial;
	remembered->rule = *rule;
	remembered->rule.flags = ends ? CFI_END : 0;
	cfi_remember_quick(remembered, ends);
	return UNWIND_GOES_ON;
}

/* A step by the rule that is remembered. */
static __attribute__((always_inline)) inline int cfi_step(struct unwind_registers *registers,
							  struct unwind_window *window,
							  const struct unwind_tables *tables,
							  const struct unwind_remembered *remembered, __u64 *ret_slot)
{
	if (remembered->rule.flags & CFI_END)
		return STACK_END_OUTERMOST;
	return cfi_step_common(registers, window, tables, &remembered->rule, ret_slot);
}

#define CFI_RESTORE_QUICK(INDEX, NUMBER)       \
	if (quick & UNWIND_KNOWN(NUMBER))      \
		registers->by_number[NUMBER] = \
			unwind_unaligned(frame + (remembered->at[INDEX] & (UNWIND_REACH_BYTES - 1)));

/* As unwind_step, for the frames that most stacks are made of: not interrupted, the rule is remembered, all that it restores is right below the CFA, and the
 * window has it. Where the return address is; 0: it is to be done by unwind_step, and nothing has changed. stack_lo, stack_hi: as in struct unwind_tables. */
static __attribute__((always_inline)) inline __u64 cfi_step_quick(struct unwind_registers *registers,
								  const struct unwind_window *window,
								  const struct unwind_tables *tables, __u64 stack_lo,
								  __u64 stack_hi)
{
	__u64 pc = registers->pc - 1;
	const struct unwind_remembered *remembered = cfi_memory_of((struct unwind_window *)window, pc);
	__u32 quick = remembered->quick;
	if (registers->pc_is_exact || !quick || remembered->pc != pc || remembered->serial != tables->serial ||
	    !tables->ready)
		return 0;
	__u64 cfa = registers->sp;
	if (quick & CFI_QUICK_BY_FP) {
		cfa = registers->fp;
		if (!(registers->known & UNWIND_KNOWN(UNWIND_RBP)))
			return 0;
	}
	cfa += (__u64)(__s64)remembered->rule.cfa_offset;
	__u64 at = cfa - UNWIND_REACH_BYTES - window->start;
	if (!unwind_may_go(registers, stack_lo, stack_hi, cfa) || at >= UNWIND_WINDOW_BYTES ||
	    at + UNWIND_REACH_BYTES > window->n)
		return 0;
	UNWIND_OPAQUE(at);
	const __u8 *frame = window->bytes + (at & (UNWIND_WINDOW_BYTES - 1));
	__u64 to = unwind_unaligned(frame + UNWIND_REACH_BYTES - 8);
	if (to == 0 || to >> 47 || to == tables->hijacker)
		return 0;
	CFI_RESTORE_QUICK(0, 3)
	CFI_RESTORE_QUICK(1, 6)
	CFI_RESTORE_QUICK(2, 12)
	CFI_RESTORE_QUICK(3, 13)
	CFI_RESTORE_QUICK(4, 14)
	CFI_RESTORE_QUICK(5, 15)
	registers->known =
		(registers->known & UNWIND_KNOWN_PRESERVED) | (quick & ~(__u32)(CFI_QUICK | CFI_QUICK_BY_FP));
	registers->sp = cfa;
	registers->pc = to;
	return cfa - 8;
}
#undef CFI_RESTORE_QUICK
