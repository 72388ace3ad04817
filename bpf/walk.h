/* The walk of a user stack as a series of segments (record.h), by the sixteen rules of docs/BARRIER-TABLE.md. Without a table it is one
 * segment that needs no description. One piece of code that builds as BPF and in user mode; see unwind.h and barrier.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * walk_reset() forgets the last walk; walk_start() decides where to start; walk_step() is called until it returns nonzero, each time for one frame or one change of stack, and
 * at most WALK_STEPS times; walk_read_version() and walk_read_ranges() read the versions again. Where the first start gives nothing, walk_again() tells whether there is
 * another. All state is in struct walk. */
#pragma once
#include "bpf/barrier.h"

enum {
	WALK_FRAMES = RECORD_MAX_USER_FRAMES,
	WALK_STEPS = WALK_FRAMES + 2 * RECORD_MAX_SEGMENTS,
	WALK_WORDS = RECORD_MAX_KERNEL_FRAMES + WALK_FRAMES,
	WALK_TAIL_WORDS = RECORD_MAX_SEGMENTS * sizeof(struct record_segment) / sizeof(__u64) + WALK_FRAMES,
};

/* What walk_step does next. */
enum walk_state { WALK_FRAME, WALK_NEXT_STACK, WALK_ENDED };

/* Where the walk goes on at the end of its segment. */
enum walk_next { WALK_NOWHERE, WALK_TO_FOREIGN, WALK_TO_JUMP, WALK_TO_RESUMER, WALK_TO_LIBCALL, WALK_TO_ENTERED };

/* A stack that a native walk may come upon. Its bounds are read without its lock: a hint, no more. */
struct walk_candidate {
	struct sprof_ref ref;
	__u64 lo, hi;
};
enum { WALK_CANDIDATES = 4 }; /* a power of two */

struct walk {
	struct unwind_registers registers; /* in: the sampled ones */
	struct unwind_registers before;    /* a step ago, while there are candidates */
	struct unwind_tables tables;       /* in: what is known of the target's code; its bounds follow the segment */
	struct unwind_window window;
	struct barrier_reader table;
	__u32 state; /* enum walk_state */
	__u32 next;  /* enum walk_next */
	__u32 tid;   /* in its innermost pid namespace */
	__u32 end;   /* enum stack_end, of the whole walk */
	__u32 n;     /* user frames */
	__u32 first; /* where they begin in frames: behind the kernel's */
	__u32 n_segments, n_barriers;
	__u32 flags;                 /* enum record_flag */
	__u32 n_candidates, entered; /* entered: the candidate that was come upon */
	__u64 thread_at;             /* address of the thread's record; 0: none */
	__u64 stop_sp;               /* where native code on its managed caller's own stack ends; 0: it is on another */
	struct walk_candidate candidates[WALK_CANDIDATES];
	struct record_segment segments[RECORD_MAX_SEGMENTS];
	__u64 barriers[WALK_FRAMES];
	/* The record as it leaves: header, frames, then segments and barriers. */
	__u64 record[sizeof(struct record) / sizeof(__u64)];
	__u64 frames[WALK_WORDS + WALK_TAIL_WORDS];
};
_Static_assert(sizeof(struct record) % sizeof(__u64) == 0, "frames follow without a gap");

/* What is left of the last sample does not count. */
static inline void walk_reset(struct walk *walk)
{
	unwind_window_reset(&walk->window);
	walk->n = walk->first = 0;
	walk->next = WALK_NOWHERE;
	walk->n_segments = walk->n_barriers = walk->n_candidates = 0;
	walk->flags = 0;
	walk->thread_at = walk->stop_sp = 0;
	walk->table.stack.address = walk->table.stack.lo = walk->table.stack.hi = 0;
}

/* --- frames and segments --- */

static inline void walk_add_frame(struct walk *walk, __u64 pc)
{
	__u32 n = walk->n, place = walk->first + n;
	if (n >= WALK_FRAMES || place >= WALK_WORDS)
		return;
	walk->frames[place] = pc;
	walk->n = n + 1;
}

static inline void walk_stop(struct walk *walk, __u32 end)
{
	walk->end = end;
	walk->state = WALK_ENDED;
}

/* A new segment from here on. 0: there is no room for another. */
static inline int walk_open_segment(struct walk *walk, __u8 kind, __u8 lock, __u8 flags)
{
	__u32 i = walk->n_segments;
	const struct barrier_stack *stack = &walk->table.stack;
	if (i >= RECORD_MAX_SEGMENTS) {
		walk_stop(walk, STACK_END_TOO_MANY_STACKS);
		return 0;
	}
	struct record_segment *segment = &walk->segments[i];
	segment->kind = kind;
	segment->lock = lock;
	segment->end = STACK_END_NONE;
	segment->flags = flags;
	segment->first = (__u16)walk->n;
	segment->n = 0;
	segment->index = lock == SEGMENT_NO_LOCK ? 0 : stack->index;
	segment->gen = lock == SEGMENT_NO_LOCK ? 0 : stack->gen;
	segment->version_begin = lock == SEGMENT_LOCKED ? stack->version : 0;
	segment->version_end = 0;
	walk->n_segments = i + 1;
	walk->state = WALK_FRAME;
	return 1;
}

/* The segment at hand has come to its end. */
static inline void walk_close_segment(struct walk *walk, __u32 end)
{
	__u32 i = walk->n_segments - 1;
	if (i >= RECORD_MAX_SEGMENTS) { /* without a table there is none */
		walk_stop(walk, end);
		return;
	}
	struct record_segment *segment = &walk->segments[i];
	segment->n = (__u16)(walk->n - segment->first);
	segment->end = (__u8)end;
	walk->end = end;
	/* A fiber goes on in its resumer only from its true end. What is native is kept as far as it could be walked. */
	int whole = end == STACK_END_ROOT || end == STACK_END_OUTERMOST || end == STACK_END_TABLE_ROOT;
	walk->state = walk->next == WALK_NOWHERE || (walk->next == WALK_TO_RESUMER && !whole) ||
				      end == STACK_END_TOO_DEEP ||
				      /* rule 12; what foreign code was called by is known all the same */
				      (end == STACK_END_BARRIER_MISMATCH && walk->next != WALK_TO_FOREIGN)
			      ? WALK_ENDED
			      : WALK_NEXT_STACK;
}

/* A stack that is not in the table: no lock, no barriers, no bounds. */
static inline void walk_on_unknown_stack(struct walk *walk)
{
	walk->table.stack.address = 0;
	walk->table.stack.lo = walk->table.stack.hi = 0;
	walk->table.stack.n = walk->table.stack.pos = walk->table.stack.cursor = 0;
}

/* Not walked from the sampled registers: the leaf alone, which belongs to no segment. */
static inline void walk_refuse(struct walk *walk, __u8 lock, __u8 flags, __u32 end)
{
	if (walk_open_segment(walk, SEGMENT_START, lock, flags))
		walk->segments[0].end = (__u8)end;
	walk_add_frame(walk, walk->registers.pc);
	walk_stop(walk, end);
}

static inline void walk_jump(struct walk *walk, __u64 pc, __u64 sp, __u64 fp)
{
	walk->registers.pc = pc;
	walk->registers.sp = sp;
	walk->registers.fp = fp;
	walk->registers.known = UNWIND_KNOWN_FRAME;
	walk->registers.pc_is_exact = 0;
}

/* --- trampolines --- */

static inline __u32 walk_without_table(const struct table_config *table)
{
	return table->flags & TABLE_FOREIGN_PROCESS ? STACK_END_TABLE_FOREIGN_PROCESS : STACK_END_BARRIER_MISMATCH;
}

/* The next frame is where this barrier leads. UNWIND_GOES_ON, or the end. */
static inline int walk_take_barrier(struct walk *walk, const struct table_config *table, __u64 slot, __u64 original_pc)
{
	__u32 i = walk->n_barriers;
	if (walk->n >= WALK_FRAMES) /* no frame will be there for it to have led to */
		return STACK_END_TOO_DEEP;
	if (original_pc == 0 || original_pc >> 47 || i >= WALK_FRAMES || barrier_is_entry(table, original_pc) ||
	    barrier_in_range(&walk->table, table, original_pc - 1, BARRIER_KIND(TRAMPOLINE)))
		return STACK_END_BARRIER_MISMATCH;
	i &= WALK_FRAMES - 1; /* known already; Linux 6.1 has forgotten */
	UNWIND_OPAQUE(i);
	walk->barriers[i & (WALK_FRAMES - 1)] = BARRIER_WORD(slot, walk->n);
	walk->n_barriers = i + 1;
	walk->registers.pc = original_pc;
	walk->registers.pc_is_exact = 0;
	return UNWIND_GOES_ON;
}

/* Rule 12: the word at slot holds a trampoline's entry. */
static inline int walk_pass_barrier(struct walk *walk, const struct table_config *table, __u64 slot)
{
	struct barrier_stack *stack = &walk->table.stack;
	if (MUTANT(barriers))
		return UNWIND_GOES_ON;
	if (!stack->address)
		return (int)walk_without_table(table);
	const struct sprof_barrier *barrier = barrier_at(&walk->table, stack->cursor);
	if (!barrier)
		return stack->cursor < stack->n ? STACK_END_TABLE_NOT_RESIDENT : STACK_END_BARRIER_MISMATCH;
	if (barrier->slot != slot && !MUTANT(slot_match))
		return STACK_END_BARRIER_MISMATCH;
	__u64 original_pc = barrier->original_pc;
	stack->cursor++;
	return walk_take_barrier(walk, table, slot, original_pc);
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
	if ((!barrier || barrier->slot != cfa - 8) && i > 0 && !MUTANT(interior_pos)) {
		i--;
		barrier = barrier_at(&walk->table, i);
	}
	if (!barrier || barrier->slot != cfa - 8)
		return STACK_END_BARRIER_MISMATCH;
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
	if (pc < table->code_lo ||
	    pc > table->code_hi) /* the address behind the last range may be a return address into it */
		return UNWIND_GOES_ON;
	__u32 exact = walk->registers.pc_is_exact;
	if (!exact && barrier_is_entry(table, pc))
		return walk_pass_barrier(walk, table, slot);
	if (barrier_in_range(&walk->table, table, exact ? pc : pc - 1, BARRIER_KIND(TRAMPOLINE)) && !MUTANT(interior))
		return walk_leave_trampoline(walk, table, memory);
	return UNWIND_GOES_ON;
}

/* --- where to start --- */

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
	walk->table.memory = (unsigned long)memory;
	if (barrier_in_range(&walk->table, table, walk->registers.pc, BARRIER_KIND(TRAMPOLINE)))
		walk->flags |= RECORD_IN_TRAMPOLINE;
	if ((table->flags & TABLE_FOREIGN_PROCESS) && !MUTANT(foreign_process)) {
		walk_start_native(walk, table, 0, memory);
		return;
	}
	int end = barrier_read_header(&walk->table, table);
	if (end) {
		walk->flags |= RECORD_TABLE_AGED;
		walk_refuse(walk, SEGMENT_UNREADABLE, 0, (__u32)end);
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

/* --- going on on another stack --- */

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

static inline void walk_frame(struct walk *walk, const struct table_config *table, void *memory)
{
	__u64 slot = 0;
	__u64 pc = walk->registers.pc;
	if (walk->n >= WALK_FRAMES) {
		walk_close_segment(walk, STACK_END_TOO_DEEP);
		return;
	}
	__u32 exact = walk->registers.pc_is_exact;
	/* All but the leaf are taken for return addresses, and looked up one below. */
	walk_add_frame(walk, walk->n && exact ? pc + 1 : pc);
	if (table && pc >= table->code_lo && pc <= table->code_hi && !MUTANT(stack_top) &&
	    barrier_in_range(&walk->table, table, exact ? pc : pc - 1, BARRIER_KIND(STACK_TOP))) {
		walk_close_segment(walk, STACK_END_TABLE_ROOT);
		return;
	}
	if (table && walk->n_candidates)
		walk->before = walk->registers;
	int end = walk_unwind(walk, &slot, memory);
	/* A signal's stack may lie above the one whose code it interrupted: then frame pointers lead down, for this once. */
	if ((end == STACK_END_NO_UNWIND_INFO || end == STACK_END_TABLES_NOT_READY || end == STACK_END_BAD_FRAME) &&
	    table && walk->n_candidates && walk->registers.fp < walk->registers.sp &&
	    walk_enters(walk, walk->before.fp)) {
		walk->before.sp = walk->before.fp;
		walk_leave_native(walk);
		return;
	}
	if (end == UNWIND_GOES_ON && !table && walk->registers.pc >> 47)
		end = STACK_END_BAD_RETURN_ADDRESS;
	if (end == UNWIND_GOES_ON && table) {
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

/* Section 8, ranges: those that the walk went by must still be there, or a trampoline that was added meanwhile might be among its frames. */
static inline void walk_read_ranges(struct walk *walk, const struct table_config *table, void *memory)
{
	__u64 version = 0;
	if (!walk->thread_at || MUTANT(ranges_version) ||
	    (unwind_read(&version, sizeof(version), table->self_va + offsetof(struct sprof_header, range_begin),
			 memory) == 0 &&
	     version == table->ranges_version))
		return;
	walk->flags |= RECORD_TABLE_AGED;
	for (__u32 i = 0; i < RECORD_MAX_SEGMENTS; i++)
		if (i < walk->n_segments && walk->segments[i].lock == SEGMENT_LOCKED)
			walk->segments[i].version_end = walk->segments[i].version_begin - 1;
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
	if (!changed && end != STACK_END_USER_LOCKED && end != STACK_END_SETS_SP && end != STACK_END_STACK_NOT_TRUSTED)
		return 0;
	if (!changed && first->n > 0)
		return 0;
	walk->n_segments = 1; /* with room for others, however many there were */
	walk->segments[0].n = 0;
	walk->n = 1; /* the leaf */
	walk->n_barriers = 0;
	walk->end = changed ? STACK_END_STACK_CHANGED : end;
	walk->next = WALK_TO_LIBCALL;
	walk->state = WALK_NEXT_STACK;
	return 1;
}
