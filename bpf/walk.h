/* The walk of a user stack as a series of segments (record.h), by the sixteen rules of docs/BARRIER-TABLE.md. Without a table it is one
 * segment that needs no description. One piece of code that builds as BPF and in user mode; see unwind.h and barrier.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * walk_reset() forgets the last walk; walk_start() decides where to start; walk_step() is called until it returns nonzero, each time for one frame or one change of stack, and
 * at most WALK_STEPS times; walk_read_version() reads a version again, walk_check_table() looks at the table as a whole. Where the first start gives nothing, walk_again() tells whether there is
 * another. All state is in struct walk. */
#pragma once
#include "bpf/walk_onward.h"

/* Whether sp lies in a candidate, which is then the one that was entered. */
static inline int walk_enters(struct walk *walk, __u64 sp)
{
	for (__u32 i = 0; i < WALK_CANDIDATES; i++)
		if (i < walk->n_candidates && sp >= walk->candidates[i].lo && sp <= walk->candidates[i].hi &&
		    walk->candidates[i].hi) {
			walk->entered = i;
			return 1;
		}
	return 0;
}

static inline void walk_leave_native(struct walk *walk)
{
	walk_close_segment(walk, STACK_END_NONE);
	walk->next = WALK_TO_ENTERED;
	walk->state = WALK_NEXT_STACK;
}

/* What the frame of registers is to the table. */
enum walk_meets {
	WALK_MEETS_SOMETHING, /* to be looked at closely */
	WALK_MEETS_NOTHING, /* it is on its stack, there is no other to come upon, and its pc is in none of the table's ranges: no rule can apply */
	WALK_MEETS_BARRIER, /* the same, but that the pc is the entry of a trampoline: rule 12 */
};

/* So that nearly all frames are done with in a few comparisons. */
static inline __u32 walk_meets(const struct walk *walk, const struct table_config *table)
{
	const struct barrier_stack *stack = &walk->table.stack;
	__u64 pc = walk->registers.pc;
	if (walk->registers.sp - stack->lo > stack->hi - stack->lo || (walk->n_candidates | walk->stop_sp) || pc >> 47)
		return WALK_MEETS_SOMETHING;
	if (pc == walk->table.entry && !walk->registers.pc_is_exact)
		return WALK_MEETS_BARRIER;
	return walk_is_outside(table, pc) ? WALK_MEETS_NOTHING : WALK_MEETS_SOMETHING;
}

/* The registers are those of another frame, whose return address was read from slot: what it is to the table. */
static inline void walk_arrive(struct walk *walk, const struct table_config *table, __u64 slot, void *memory)
{
	int end = UNWIND_GOES_ON;
	__u32 meets = walk_meets(walk, table);
	walk->plain = meets == WALK_MEETS_NOTHING;
	if (meets == WALK_MEETS_BARRIER)
		end = walk_pass_barrier(walk, table, slot);
	if (meets == WALK_MEETS_SOMETHING) {
		if (walk->n_candidates && walk_enters(walk, walk->registers.sp)) {
			walk_leave_native(walk);
			return;
		}
		if (walk->stop_sp && walk->registers.sp >= walk->stop_sp)
			end = STACK_END_ROOT;
		else
			end = walk_check_frame(walk, table, slot, memory);
		/* Interrupted by a signal in the middle of a stack switch. */
		if (end == UNWIND_GOES_ON && walk->registers.pc_is_exact && !MUTANT(sets_sp) &&
		    barrier_in_range(&walk->table, table, walk->registers.pc, BARRIER_KIND(SETS_SP)))
			end = STACK_END_SETS_SP;
	}
	if (end != UNWIND_GOES_ON)
		walk_close_segment(walk, (__u32)end);
}

/* For tests: whether frames may go quickly; and, that one has. */
#ifndef WALK_QUICK
#define WALK_QUICK 1
#endif
#ifndef WALK_WENT_QUICKLY
#define WALK_WENT_QUICKLY()
#endif

/* A frame of the kind that most are: cfi_step_quick() knows its caller, and it meets nothing of the table's. As walk_closely() would do it. 0: it is another. */
static inline int walk_quickly(struct walk *walk, const struct table_config *table, __u64 *ret_slot)
{
	__u64 pc = walk->registers.pc, lo = 0, hi = 0;
	__u32 n = walk->n;
	if (!WALK_QUICK || n >= WALK_FRAMES)
		return 0;
	if (table) {
		if (!walk->plain || walk->n_candidates)
			return 0;
		lo = walk->table.stack.lo;
		hi = walk->table.stack.hi;
	}
	*ret_slot = cfi_step_quick(&walk->registers, &walk->window, &walk->tables, lo, hi);
	if (!*ret_slot)
		return 0;
	walk_add_frame(walk, pc);
	if (walk->registers.sp > walk->python.next_entry)
		python_passed(&walk->python, n);
	WALK_WENT_QUICKLY();
	return 1;
}

/* Any frame. 0: its caller is not known, and the segment has been closed. */
static inline int walk_closely(struct walk *walk, const struct table_config *table, __u64 *ret_slot, void *memory)
{
	__u64 pc = walk->registers.pc;
	if (walk->n >= (table ? WALK_FRAMES : WALK_FRAMES + WALK_BEYOND)) {
		walk_close_segment(walk, STACK_END_TOO_DEEP);
		return 0;
	}
	__u32 exact = walk->registers.pc_is_exact;
	/* All but the leaf are taken for return addresses, and looked up one below. */
	walk_add_frame(walk, walk->n && exact ? pc + 1 : pc);
	if (table && !walk->plain && barrier_in_span(&table->stack_tops, exact ? pc : pc - 1) && !MUTANT(stack_top) &&
	    barrier_in_range(&walk->table, table, exact ? pc : pc - 1, BARRIER_KIND(STACK_TOP))) {
		walk_close_segment(walk, STACK_END_TABLE_ROOT);
		return 0;
	}
	if (table && walk->n_candidates)
		walk->before = walk->registers;
	int end = walk_unwind(walk, ret_slot, memory);
	if (end == UNWIND_GOES_ON && walk->registers.sp > walk->python.next_entry)
		python_passed(&walk->python, walk->n - 1);
	/* A signal's stack may lie above the one whose code it interrupted: then frame pointers lead down, for this once. */
	if ((end == STACK_END_NO_UNWIND_INFO || end == STACK_END_TABLES_NOT_READY || end == STACK_END_BAD_FRAME) &&
	    table && walk->n_candidates && walk->registers.fp < walk->registers.sp &&
	    walk_enters(walk, walk->before.fp)) {
		walk->before.sp = walk->before.fp;
		walk_leave_native(walk);
		return 0;
	}
	if (end == UNWIND_GOES_ON && !table && walk->registers.pc >> 47)
		end = STACK_END_BAD_RETURN_ADDRESS;
	if (end != UNWIND_GOES_ON)
		walk_close_segment(walk, (__u32)end);
	return end == UNWIND_GOES_ON;
}

static inline void walk_frame(struct walk *walk, const struct table_config *table, void *memory)
{
	__u64 slot = 0;
	if ((walk_quickly(walk, table, &slot) || walk_closely(walk, table, &slot, memory)) && table)
		walk_arrive(walk, table, slot, memory);
}

/* One frame, or one change of stack. Nonzero: there is nothing more to do. */
static inline long walk_step(struct walk *walk, const struct table_config *table, void *memory)
{
	if (walk->state == WALK_FRAME)
		walk_frame(walk, table, memory);
	else if (walk->state == WALK_NEXT_STACK && table && walk->next == WALK_TO_ENTERED)
		walk_into_candidate(walk, table, memory);
	else if (walk->state == WALK_NEXT_STACK && table)
		walk_to_context(walk, table, memory);
	else
		return 1;
	return walk->state == WALK_ENDED;
}

/* --- afterwards --- */

/* Settles how many user frames leave with the record; how many were walked beside them. Where the root was not come to, those beyond the leaf's end belong
 * to neither end. */
static inline __u32 walk_keep_ends(struct walk *walk)
{
	__u32 n = walk->n, kept = n;
	if (n > WALK_FRAMES && walk->end == STACK_END_TOO_DEEP)
		kept = WALK_FRAMES;
	else if (n > RECORD_MAX_USER_FRAMES)
		kept = RECORD_MAX_USER_FRAMES;
	walk->n = kept;
	return n - kept;
}

/* Rule 16, and rule 7: reads the versions of all stacks whose lock was taken again, the last first. */
static inline void walk_read_version(struct walk *walk, const struct table_config *table, __u32 i, void *memory)
{
	struct record_segment *segment = &walk->segments[i & (RECORD_MAX_SEGMENTS - 1)];
	__u64 version = 0;
	if (segment->lock != SEGMENT_LOCKED)
		return;
	__u32 index = segment->index;
	if (MUTANT(lock_through_pointer)) {
		struct sprof_ref now = {};
		(void)unwind_read(&now, sizeof(now), walk->thread_at + offsetof(struct sprof_thread, current), memory);
		index = now.index;
	}
	__u64 at = table->self_va + table->off_stack + (__u64)index * table->stack_size;
	at += MUTANT(version_end) ? offsetof(struct sprof_stack, seq_end) : offsetof(struct sprof_stack, seq_begin);
	if (unwind_read(&version, sizeof(version), at, memory) < 0)
		version = segment->version_begin - 1;
	segment->version_end = MUTANT(version) ? segment->version_begin : version;
}

/* Nothing but the leaf is left of the walk. */
static inline void walk_discard(struct walk *walk, __u32 end)
{
	__u32 leaf = walk->first;
	if (walk->n && leaf < WALK_WORDS)
		walk->registers.pc = walk->frames[leaf];
	walk->n = walk->n_segments = walk->n_barriers = 0;
	walk->next = WALK_NOWHERE;
	walk->thread_at = 0;
	python_not_passed(&walk->python);
	walk_refuse(walk, SEGMENT_UNREADABLE, 0, end);
}

/* Section 8: the table must be the one that was checked, and have the ranges that the walk went by: otherwise a trampoline might be among its frames. Read last,
 * so that one look serves for all that was read before. */
static inline void walk_check_table(struct walk *walk, const struct table_config *table)
{
	if ((table->flags & TABLE_FOREIGN_PROCESS) && !MUTANT(foreign_process))
		return;
	int end = barrier_read_header(&walk->table, table);
	if (!end)
		return;
	walk->flags |= RECORD_TABLE_AGED;
	walk_discard(walk, (__u32)end);
}

/* Whether the leafmost walk came to nothing, and the libcall context is to be tried (rule 8): then walk_step is to be called again. */
static inline int walk_again(struct walk *walk)
{
	__u32 end = walk->end;
	const struct record_segment *first = &walk->segments[0];
	int changed = first->lock == SEGMENT_LOCKED && first->version_begin != first->version_end;
	if (MUTANT(libcall) || walk->n_segments == 0 || !walk->thread_at || first->kind == SEGMENT_NATIVE ||
	    !barrier_is_complete(&walk->table.thread.libcall_context))
		return 0;
	if (!changed && first->lock != SEGMENT_UNREADABLE && end != STACK_END_USER_LOCKED && end != STACK_END_SETS_SP &&
	    end != STACK_END_STACK_NOT_TRUSTED)
		return 0;
	if (!changed && first->n > 0)
		return 0;
	walk->n_segments = 1; /* with room for others, however many there were */
	walk->segments[0].n = 0;
	walk->n = 1; /* the leaf */
	walk->n_barriers = 0;
	python_not_passed(&walk->python);
	walk->end = changed ? STACK_END_STACK_CHANGED : end;
	walk->next = WALK_TO_LIBCALL;
	walk->state = WALK_NEXT_STACK;
	return 1;
}
