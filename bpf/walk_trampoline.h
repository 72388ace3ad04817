/* Return addresses that were hijacked (rules 12 to 14). Part of walk.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
#include "bpf/walk_state.h"

static inline __u32 walk_without_table(const struct table_config *table)
{
	return table->flags & TABLE_FOREIGN_PROCESS ? STACK_END_TABLE_FOREIGN_PROCESS : STACK_END_BARRIER_MISMATCH;
}

/* Before all ranges are looked through. The address behind the last trampoline may be a return address into it. */
static inline int walk_may_be_trampoline(const struct table_config *table, __u64 pc)
{
	return pc >= table->trampolines.lo && pc <= table->trampolines.hi;
}

/* Whether pc, or the address below it, is in none of the table's ranges. */
static inline int walk_is_outside(const struct table_config *table, __u64 pc)
{
	return pc - table->code.lo > table->code.hi - table->code.lo;
}

/* Whether pc is what stands in hijacked slots. Nearly all barriers of a stack lead to the same trampoline. */
static inline int walk_is_entry(struct walk *walk, const struct table_config *table, __u64 pc)
{
	if (pc == walk->table.entry)
		return 1;
	if (!barrier_is_entry(table, pc))
		return 0;
	walk->table.entry = pc;
	return 1;
}

/* The next frame is where this barrier leads. UNWIND_GOES_ON, or the end. */
static inline int walk_take_barrier(struct walk *walk, const struct table_config *table, __u64 slot, __u64 original_pc)
{
	__u32 i = walk->n_barriers;
	if (walk->n >= WALK_FRAMES) /* no frame will be there for it to have led to */
		return STACK_END_TOO_DEEP;
	if (original_pc == 0 || original_pc >> 47 || i >= WALK_FRAMES)
		return STACK_END_BARRIER_MISMATCH;
	int outside = walk_is_outside(table, original_pc);
	if (!outside && walk_may_be_trampoline(table, original_pc) &&
	    (barrier_is_entry(table, original_pc) ||
	     barrier_in_range(&walk->table, table, original_pc - 1, BARRIER_KIND(TRAMPOLINE))))
		return STACK_END_BARRIER_MISMATCH;
	i &= WALK_FRAMES - 1; /* known already; Linux 6.1 has forgotten */
	UNWIND_OPAQUE(i);
	walk->barriers[i & (WALK_FRAMES - 1)] = BARRIER_WORD(slot, walk->n);
	walk->n_barriers = i + 1;
	walk->registers.pc = original_pc;
	walk->registers.pc_is_exact = 0;
	walk->plain = (__u32)outside;
	return UNWIND_GOES_ON;
}

/* Rule 12: the word at slot holds a trampoline's entry. In place wherever it is used: each barrier of a stack comes this way, and a call costs a third of it. */
static __attribute__((always_inline)) inline int walk_pass_barrier(struct walk *walk, const struct table_config *table,
								   __u64 slot)
{
	struct barrier_stack *stack = &walk->table.stack;
	if (MUTANT(barriers))
		return UNWIND_GOES_ON;
	__u32 cursor = stack->cursor, place = cursor - stack->window_first;
	const struct sprof_barrier *barrier = &walk->table.window[place & (BARRIER_WINDOW - 1)];
	if (place >= stack->window_n) { /* as it is on a stack that is not in the table */
		if (!stack->address)
			return (int)walk_without_table(table);
		barrier = barrier_at(&walk->table, cursor);
		if (!barrier)
			return cursor < stack->n ? STACK_END_TABLE_NOT_RESIDENT : STACK_END_BARRIER_MISMATCH;
	}
	if (barrier->slot != slot && !MUTANT(slot_match))
		return STACK_END_BARRIER_MISMATCH;
	stack->cursor = cursor + 1;
	return walk_take_barrier(walk, table, slot, barrier->original_pc);
}

/* Rule 13: registers.pc lies in the trampoline of table.range, having been interrupted there or having called a helper. */
static inline int walk_leave_trampoline(struct walk *walk, const struct table_config *table, void *memory)
{
	struct barrier_stack *stack = &walk->table.stack;
	const struct sprof_range *range = &walk->table.range;
	__u64 base = range->cfa_register == SPROF_CFA_FP ? walk->registers.fp : walk->registers.sp;
	__u64 cfa = base + (__u64)(__s64)range->cfa_offset;
	__s16 fp_offset = range->fp_offset;
	if (MUTANT(interior_cfa))
		cfa = walk->registers.sp + 8;
	if (!stack->address)
		return (int)walk_without_table(table);
	__u32 i = stack->pos;
	const struct sprof_barrier *barrier = barrier_at(&walk->table, i);
	int unreadable = !barrier && i < stack->n;
	if ((!barrier || barrier->slot != cfa - 8) && i > 0 && !MUTANT(interior_pos)) {
		i--;
		barrier = barrier_at(&walk->table, i);
		unreadable |= !barrier;
	}
	if (!barrier || barrier->slot != cfa - 8)
		return unreadable ? STACK_END_TABLE_NOT_RESIDENT : STACK_END_BARRIER_MISMATCH;
	__u64 original_pc = barrier->original_pc;
	__u64 fp = walk->registers.fp;
	if (fp_offset && unwind_read(&fp, sizeof(fp), cfa + (__u64)(__s64)fp_offset, memory) < 0)
		return STACK_END_UNREADABLE;
	stack->cursor = i + 1;
	walk->registers.sp = cfa;
	walk->registers.fp = fp;
	/* What else the trampoline has changed its range does not say. */
	walk->registers.known =
		(walk->registers.known | (fp_offset ? UNWIND_KNOWN(UNWIND_RBP) : 0)) & UNWIND_KNOWN_FRAME;
	return walk_take_barrier(walk, table, cfa - 8, original_pc);
}

/* registers are those of a new frame, whose return address, if it has one, was read from slot: replaces what is a trampoline's. UNWIND_GOES_ON, or
 * the end. */
static inline int walk_check_frame(struct walk *walk, const struct table_config *table, __u64 slot, void *memory)
{
	const struct barrier_stack *stack = &walk->table.stack;
	__u64 pc = walk->registers.pc, sp = walk->registers.sp;
	if (pc >> 47)
		return STACK_END_BAD_RETURN_ADDRESS;
	if (stack->hi && (sp < stack->lo || sp > stack->hi) && !MUTANT(start_check))
		return STACK_END_BAD_FRAME;
	if (!walk_may_be_trampoline(table, pc))
		return UNWIND_GOES_ON;
	__u32 exact = walk->registers.pc_is_exact;
	if (!exact && walk_is_entry(walk, table, pc))
		return walk_pass_barrier(walk, table, slot);
	if (barrier_in_range(&walk->table, table, exact ? pc : pc - 1, BARRIER_KIND(TRAMPOLINE)) && !MUTANT(interior))
		return walk_leave_trampoline(walk, table, memory);
	return UNWIND_GOES_ON;
}
