/* Where a walk starts (rules 1 to 11). Part of walk.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
#include "bpf/walk_trampoline.h"

static inline int walk_reads_candidate(struct walk *walk, const struct table_config *table, struct sprof_ref ref,
				       void *memory)
{
	struct sprof_stack *record = &walk->table.record;
	__u32 i = walk->n_candidates;
	if (!barrier_names_stack(&ref) || ref.index >= table->cap_stack || i >= WALK_CANDIDATES)
		return 0;
	/* seq_begin, lo, hi */
	if (unwind_read(record, offsetof(struct sprof_stack, off_barrier),
			table->self_va + table->off_stack + (__u64)ref.index * table->stack_size, memory) < 0)
		return 0;
	walk->candidates[i].ref = ref;
	walk->candidates[i].lo = record->lo;
	walk->candidates[i].hi = record->hi;
	walk->n_candidates = i + 1;
	return 1;
}

/* The sampled pc may lie in a trampoline. When its slot is not one that the table has, the leaf stands alone, which belongs to no segment, before
 * whatever other stack is to follow. */
static inline void walk_check_start(struct walk *walk, const struct table_config *table, void *memory)
{
	int end = walk_check_frame(walk, table, 0, memory);
	if (end == UNWIND_GOES_ON)
		return;
	walk_close_segment(walk, (__u32)end);
	walk_add_frame(walk, walk->registers.pc);
}

/* From the sampled registers, on a stack that is not in the table. */
static inline void walk_start_native(struct walk *walk, const struct table_config *table, __u8 flags, void *memory)
{
	walk_on_unknown_stack(walk);
	if (walk->thread_at && walk->next == WALK_NOWHERE && !MUTANT(enter_stack)) {
		(void)walk_reads_candidate(walk, table, walk->table.thread.user, memory);
		if (!barrier_same_ref(&walk->table.thread.user, &walk->table.thread.system))
			(void)walk_reads_candidate(walk, table, walk->table.thread.system, memory);
		if (!barrier_same_ref(&walk->table.thread.current, &walk->table.thread.user) &&
		    !barrier_same_ref(&walk->table.thread.current, &walk->table.thread.system))
			(void)walk_reads_candidate(walk, table, walk->table.thread.current, memory);
	}
	if (!walk_open_segment(walk, SEGMENT_NATIVE, SEGMENT_NO_LOCK, flags))
		return;
	walk_check_start(walk, table, memory);
}

/* Rules 2 and 3. */
static inline void walk_start_foreign(struct walk *walk, const struct table_config *table, void *memory)
{
	const struct sprof_thread *thread = &walk->table.thread;
	__u64 pc = walk->registers.pc;
	int sets_sp = barrier_in_range(&walk->table, table, pc, BARRIER_KIND(SETS_SP));
	if (barrier_same_ref(&thread->current, &thread->foreign))
		walk->stop_sp = thread->foreign_context.sp;
	walk->next = WALK_TO_FOREIGN;
	walk_start_native(walk, table, sets_sp ? SEGMENT_SETS_SP : 0, memory);
	if (sets_sp && walk->state == WALK_FRAME) {
		walk_add_frame(walk, pc);
		walk_close_segment(walk, STACK_END_SETS_SP);
	}
}

/* Where the system stack's walk goes on. */
static inline __u32 walk_after_system(const struct walk *walk)
{
	const struct sprof_thread *thread = &walk->table.thread;
	if (barrier_is_complete(&thread->jump_context) && barrier_names_stack(&thread->user))
		return MUTANT(no_jump) ? WALK_NOWHERE : WALK_TO_JUMP;
	return barrier_is_complete(&thread->libcall_context) && !MUTANT(libcall) ? WALK_TO_LIBCALL : WALK_NOWHERE;
}

static inline int walk_is_system(const struct sprof_thread *thread, const struct sprof_ref *ref)
{
	return barrier_same_ref(&thread->current, &thread->system) &&
	       !barrier_same_ref(&thread->current, &thread->user) && barrier_same_ref(ref, &thread->system);
}

/* Rules 4 and 5, on the system stack. Without barriers of its own it is native code like any other: no lock is needed. */
static inline void walk_start_system(struct walk *walk, const struct table_config *table, __u8 lock, void *memory)
{
	struct barrier_stack *stack = &walk->table.stack;
	__u64 sp = walk->registers.sp;
	/* A signal's stack; or a switch that is announced and not made. */
	if ((lock == SEGMENT_LOCKED || lock == SEGMENT_BUSY) &&
	    (sp < walk->table.record.lo || sp > walk->table.record.hi) && !MUTANT(start_check)) {
		walk_start_native(walk, table, 0, memory);
		return;
	}
	walk->next = walk_after_system(walk);
	if (lock != SEGMENT_LOCKED || sp < stack->lo || sp > stack->hi || stack->pos >= stack->n) {
		walk_start_native(walk, table, SEGMENT_ON_SYSTEM, memory);
		return;
	}
	barrier_set_cursor(&walk->table, sp);
	if (!walk_open_segment(walk, SEGMENT_START, lock, SEGMENT_ON_SYSTEM))
		return;
	walk_check_start(walk, table, memory);
}

/* Rules 1, 4 and 6, on the stack that the thread says it runs on. */
static inline void walk_start_user(struct walk *walk, const struct table_config *table, __u8 lock, void *memory)
{
	const struct sprof_stack *record = &walk->table.record;
	__u64 sp = walk->registers.sp;
	/* Also while somebody holds the lock: the bounds of a stack that runs do not change. */
	int elsewhere = sp < record->lo || sp > record->hi;
	if (elsewhere && (lock == SEGMENT_LOCKED || lock == SEGMENT_BUSY) && !MUTANT(start_check)) {
		walk_start_native(walk, table, 0, memory);
		return;
	}
	if (lock != SEGMENT_LOCKED) {
		walk_refuse(walk, lock, 0,
			    lock == SEGMENT_BUSY         ? STACK_END_USER_LOCKED
			    : lock == SEGMENT_UNREADABLE ? STACK_END_TABLE_NOT_RESIDENT
							 : STACK_END_STACK_NOT_TRUSTED);
		return;
	}
	walk->next = MUTANT(resumer) ? WALK_NOWHERE : WALK_TO_RESUMER;
	barrier_set_cursor(&walk->table, sp);
	if (!walk_open_segment(walk, SEGMENT_START, lock, 0))
		return;
	walk_check_start(walk, table, memory);
}

static inline void walk_start_thread(struct walk *walk, const struct table_config *table, void *memory)
{
	const struct sprof_thread *thread = &walk->table.thread;
	int foreign = thread->foreign_depth > 0 && !MUTANT(foreign_first) &&
		      (barrier_is_complete(&thread->foreign_context) || MUTANT(callback));
	if ((thread->seq & 1) && !MUTANT(seq_odd)) {
		walk_refuse(walk, SEGMENT_REFUSED, 0, STACK_END_TABLE_SWITCHING);
		return;
	}
	if (foreign) {
		walk_start_foreign(walk, table, memory);
		return;
	}
	int system = walk_is_system(thread, &thread->current);
	if (!barrier_names_stack(&thread->current)) {
		walk_start_native(walk, table, 0, memory);
		return;
	}
	if (barrier_in_range(&walk->table, table, walk->registers.pc, BARRIER_KIND(SETS_SP)) && !MUTANT(sets_sp)) {
		walk_refuse(walk, SEGMENT_REFUSED, SEGMENT_SETS_SP, STACK_END_SETS_SP);
		return;
	}
	__u8 lock = (__u8)barrier_lock(&walk->table, table, thread->current.index, thread->current.gen, walk->tid);
	if (system)
		walk_start_system(walk, table, lock, memory);
	else
		walk_start_user(walk, table, lock, memory);
}

/* registers and first have been set after walk_reset. table NULL: the process has none. */
static inline void walk_start(struct walk *walk, const struct table_config *table, const struct barrier_thread *who,
			      void *memory)
{
	walk->state = WALK_FRAME;
	walk->end = STACK_END_TOO_DEEP;
	if (!table)
		return;
	walk->tid = who->tid;
	walk->table.stack.index = walk->table.stack.gen = 0; /* of a walk that is refused before it has a stack */
	walk->table.memory = (unsigned long)memory;
	if (barrier_in_range(&walk->table, table, walk->registers.pc, BARRIER_KIND(TRAMPOLINE)))
		walk->flags |= RECORD_IN_TRAMPOLINE;
	if ((table->flags & TABLE_FOREIGN_PROCESS) && !MUTANT(foreign_process)) {
		walk_start_native(walk, table, 0, memory);
		return;
	}
	switch (barrier_find_thread(&walk->table, table, who)) {
	case BARRIER_UNREADABLE:
		walk_refuse(walk, SEGMENT_UNREADABLE, 0, STACK_END_TABLE_NOT_RESIDENT);
		return;
	case BARRIER_NO_THREAD:
		walk_start_native(walk, table, 0, memory);
		return;
	default:
		walk->thread_at = walk->table.thread_at;
		walk_start_thread(walk, table, memory);
		return;
	}
}
