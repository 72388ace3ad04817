/* How a walk goes on on another stack (rules 1, 3, 5, 8 and 15). Part of walk.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
#include "bpf/walk_start.h"

/* Where a kind of jump finds its stack and its context. */
struct walk_way {
	struct sprof_ref ref;
	struct sprof_context early; /* as read before the lock */
	__u64 context_at;
	__u8 kind;
	__u8 busy; /* the walk's end when the stack is locked */
};

static inline int walk_find_way(struct walk *walk, struct walk_way *way)
{
	const struct sprof_thread *thread = &walk->table.thread;
	switch (walk->next) {
	case WALK_TO_FOREIGN:
		way->ref = MUTANT(foreign_lock) ? thread->user : thread->foreign;
		way->early = thread->foreign_context;
		way->context_at = walk->thread_at + offsetof(struct sprof_thread, foreign_context);
		way->kind = SEGMENT_FOREIGN;
		way->busy = STACK_END_FOREIGN_LOCKED;
		return 1;
	case WALK_TO_JUMP:
		way->ref = thread->user;
		way->early = thread->jump_context;
		way->context_at = walk->thread_at + offsetof(struct sprof_thread, jump_context);
		way->kind = SEGMENT_JUMP;
		way->busy = STACK_END_SYSTEM_ONLY;
		return 1;
	case WALK_TO_LIBCALL:
		way->ref = thread->libcall;
		way->early = thread->libcall_context;
		way->context_at = walk->thread_at + offsetof(struct sprof_thread, libcall_context);
		way->kind = SEGMENT_LIBCALL;
		way->busy = walk->segments[0].flags & SEGMENT_ON_SYSTEM && walk->segments[0].n ? STACK_END_SYSTEM_ONLY
											       : (__u8)walk->end;
		return 1;
	case WALK_TO_RESUMER:
		way->ref = walk->table.record.resumer;
		way->early = walk->table.record.resumer_context;
		way->context_at = walk->table.stack.address + offsetof(struct sprof_stack, resumer_context);
		way->kind = SEGMENT_RESUMER;
		way->busy = STACK_END_RESUMER_LOCKED;
		return walk->table.stack.address && barrier_names_stack(&way->ref) && barrier_is_complete(&way->early);
	default:
		return 0;
	}
}

/* The stack's lock is had, and the context that points into it has been read again under it. */
static inline void walk_enter_context(struct walk *walk, const struct table_config *table, const struct walk_way *way,
				      const struct sprof_context *context, void *memory)
{
	const struct barrier_stack *stack = &walk->table.stack;
	__u64 pc = context->pc, sp = context->sp;
	if (!barrier_is_complete(context) || sp < stack->lo || sp > stack->hi) {
		(void)walk_open_segment(walk, way->kind, SEGMENT_REFUSED, 0);
		walk_stop(walk, STACK_END_STACK_NOT_TRUSTED);
		return;
	}
	unwind_window_forget(&walk->window);
	walk->next = MUTANT(resumer) ? WALK_NOWHERE : WALK_TO_RESUMER;
	walk->stop_sp = 0;
	walk_jump(walk, pc, sp, context->fp);
	/* A writer may have given what stood in the slot of the call, right below sp. */
	int hijacked = barrier_is_entry(table, pc);
	barrier_set_cursor(&walk->table, hijacked ? sp - 8 : sp);
	if (!walk_open_segment(walk, way->kind, SEGMENT_LOCKED, 0))
		return;
	int end = walk_check_frame(walk, table, sp - 8, memory);
	if (end != UNWIND_GOES_ON)
		walk_close_segment(walk, (__u32)end);
}

static inline void walk_to_context(struct walk *walk, const struct table_config *table, void *memory)
{
	struct walk_way way = {};
	struct sprof_context context = {};
	if (!walk_find_way(walk, &way)) { /* there is no other stack: this was the end */
		walk->state = WALK_ENDED;
		return;
	}
	__u8 lock = (__u8)barrier_lock(&walk->table, table, way.ref.index, way.ref.gen, walk->tid);
	if (MUTANT(foreign_fallback) && way.kind == SEGMENT_FOREIGN && lock == SEGMENT_BUSY) {
		walk->next = WALK_TO_LIBCALL;
		return;
	}
	if (lock == SEGMENT_LOCKED && unwind_read(&context, sizeof(context), way.context_at, memory) < 0)
		lock = SEGMENT_UNREADABLE;
	if (MUTANT(context_early))
		context = way.early;
	if (lock == SEGMENT_LOCKED) {
		walk_enter_context(walk, table, &way, &context, memory);
		return;
	}
	if (!walk_open_segment(walk, way.kind, lock, 0))
		return;
	walk_stop(walk, lock == SEGMENT_BUSY         ? way.busy
			: lock == SEGMENT_UNREADABLE ? STACK_END_TABLE_NOT_RESIDENT
						     : STACK_END_STACK_NOT_TRUSTED);
}

/* One step by the unwinder, from *registers; the address of the word that held the return address is in *ret_slot. */
static inline int walk_unwind(struct walk *walk, __u64 *ret_slot, void *memory)
{
	walk->tables.stack_lo = walk->table.stack.lo;
	walk->tables.stack_hi = walk->table.stack.hi;
	return unwind_step(&walk->registers, &walk->window, &walk->tables, memory, ret_slot);
}

/* Rule 1: a native walk whose stack pointer has come to lie in a stack of the table goes on there, under its lock, from a step before. */
static inline void walk_into_candidate(struct walk *walk, const struct table_config *table, void *memory)
{
	const struct barrier_stack *stack = &walk->table.stack;
	const struct sprof_ref *ref = &walk->candidates[walk->entered & (WALK_CANDIDATES - 1)].ref;
	__u64 slot = 0;
	__u8 lock = (__u8)barrier_lock(&walk->table, table, ref->index, ref->gen, walk->tid);
	walk->n_candidates = 0;
	if (lock != SEGMENT_LOCKED) {
		if (walk_open_segment(walk, SEGMENT_ENTERED, lock, 0))
			walk_stop(walk, lock == SEGMENT_BUSY         ? STACK_END_SYSTEM_ONLY
					: lock == SEGMENT_UNREADABLE ? STACK_END_TABLE_NOT_RESIDENT
								     : STACK_END_STACK_NOT_TRUSTED);
		return;
	}
	walk->registers = walk->before;
	unwind_window_forget(&walk->window);
	walk->next = walk_is_system(&walk->table.thread, ref) ? walk_after_system(walk)
		     : MUTANT(resumer)                        ? WALK_NOWHERE
							      : WALK_TO_RESUMER;
	__u64 hi = stack->hi;
	walk->table.stack.hi = 0; /* the step begins outside */
	int end = walk_unwind(walk, &slot, memory);
	walk->table.stack.hi = hi;
	int on_stack = slot >= stack->lo && slot < stack->hi;
	barrier_set_cursor(&walk->table, on_stack ? slot : walk->registers.sp);
	if (!walk_open_segment(walk, SEGMENT_ENTERED, SEGMENT_LOCKED, 0))
		return;
	if (end == UNWIND_GOES_ON)
		end = walk_check_frame(walk, table, slot, memory);
	/* Interrupted by a signal in the middle of a stack switch. */
	if (end == UNWIND_GOES_ON && walk->registers.pc_is_exact && !MUTANT(sets_sp) &&
	    barrier_in_range(&walk->table, table, walk->registers.pc, BARRIER_KIND(SETS_SP)))
		end = STACK_END_SETS_SP;
	if (end != UNWIND_GOES_ON)
		walk_close_segment(walk, (__u32)end);
}
