/* Reading a barrier-lock table in the address space of the thread that was interrupted (docs/BARRIER-TABLE.md, sections 8 and 9). Like
 * unwind.h it builds as BPF and in user mode, and the including file provides unwind_read().
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * Nothing that is read here is trusted: indices are compared with what was checked at discovery, every search is bounded. A version is
 * always read by a call of its own. */
#pragma once
#include "bpf/mutants.h"
#include "bpf/record.h"
#include "bpf/table.h"
#include "bpf/unwind.h"

/* As BPF these are subprograms that the verifier looks at once, and not at every call. Their arguments are memory and numbers, and it wants to hear
 * that pointers are not NULL. */
#ifdef __bpf__
#define BARRIER_FUNCTION __attribute__((noinline))
#else
#define BARRIER_FUNCTION static inline
#endif

enum {
	BARRIER_WINDOW = 128,       /* barriers that one read brings: 2 KiB */
	BARRIER_THREAD_BYTES = 152, /* of a thread record: all fields but reserved ones */
	BARRIER_STACK_BYTES = 104,
};

/* The stack of the segment at hand. */
struct barrier_stack {
	__u64 address; /* of its record; 0: a stack that is not in the table */
	__u64 version; /* seq_end when its lock was taken */
	__u64 lo, hi;
	__u64 barriers; /* their address */
	__u32 index, gen;
	__u32 pos, n;
	__u32 cursor;       /* the next barrier to be met */
	__u32 window_first; /* barriers in the window: window_first .. window_first + window_n - 1 */
	__u32 window_n;
};

/* A copy that begins where a line of the cache does is made sooner, by 10 ns. */
#define BARRIER_COPY __attribute__((aligned(64)))

struct barrier_reader {
	__u64 memory; /* of user mode, for unwind_read */
	struct sprof_header header BARRIER_COPY;
	struct sprof_thread thread BARRIER_COPY;
	__u64 thread_at;                        /* address of its record */
	struct sprof_stack record BARRIER_COPY; /* of `stack` */
	struct barrier_stack stack;
	struct sprof_range range; /* found by barrier_in_range */
	__u64 entry;              /* the trampoline's entry that was met last; ~0: none yet */
	struct sprof_barrier window[BARRIER_WINDOW] BARRIER_COPY;
};

static inline long barrier_read(const struct barrier_reader *reader, void *to, __u32 bytes, __u64 address)
{
	return unwind_read(to, bytes, address, (void *)(unsigned long)reader->memory);
}

/* Who the thread is, to find its record. */
struct barrier_thread {
	__u32 tid;          /* in its innermost pid namespace */
	__u64 start_ticks;  /* since boot */
	__u64 leader_ticks; /* of its process */
};

/* --- ranges of code --- */

#define BARRIER_KIND(kind) (1u << SPROF_RANGE_##kind)

static inline int barrier_in_span(const struct table_span *span, __u64 pc)
{
	return pc >= span->lo && pc < span->hi;
}

/* Whether pc lies in a range of one of the kinds (bits), which then is in reader->range. (A copy in memory: an index in a register would have the
 * verifier look at all that follows once for each of its values.) */
BARRIER_FUNCTION int barrier_in_range(struct barrier_reader *reader, const struct table_config *table, __u64 pc,
				      __u32 kinds)
{
	if (!reader || !table)
		return 0;
	if (!barrier_in_span(&table->code, pc))
		return 0;
	for (__u32 i = 0; i < SPROF_MAX_RANGES; i++) {
		if (i >= table->n_ranges)
			return 0;
		const struct sprof_range *range = &table->ranges[i];
		if (pc >= range->lo && pc < range->hi && (kinds >> (range->kind & 31) & 1)) {
			reader->range = *range;
			return 1;
		}
	}
	return 0;
}

/* Whether pc is what stands in hijacked slots. */
BARRIER_FUNCTION int barrier_is_entry(const struct table_config *table, __u64 pc)
{
	if (!table)
		return 0;
	if (!barrier_in_span(&table->trampolines, pc))
		return 0;
	for (__u32 i = 0; i < SPROF_MAX_RANGES; i++) {
		if (i >= table->n_ranges)
			return 0;
		const struct sprof_range *range = &table->ranges[i];
		if (range->kind == SPROF_RANGE_TRAMPOLINE && range->lo + (__u64)(__s64)range->entry_offset == pc)
			return 1;
	}
	return 0;
}

/* --- header and threads --- */

/* 0; a stack_end that says why the table cannot be used now. */
static inline int barrier_read_header(struct barrier_reader *reader, const struct table_config *table)
{
	struct sprof_header *header = &reader->header;
	if (barrier_read(reader, header, sizeof(*header), table->self_va) < 0)
		return STACK_END_TABLE_NOT_RESIDENT;
	if (header->magic != SPROF_TABLE_MAGIC || header->self_va != table->self_va ||
	    header->total_size != table->total_size || header->off_thread != table->off_thread ||
	    header->off_stack != table->off_stack || header->cap_thread != table->cap_thread ||
	    header->cap_stack != table->cap_stack || header->thread_size != table->thread_size ||
	    header->stack_size != table->stack_size || header->proc_starttime != table->proc_starttime)
		return STACK_END_TABLE_CHANGED; /* another one, at the same place */
	if (MUTANT(ranges_version))
		return 0;
	/* The copy of the ranges is of that version. */
	if (header->range_end != table->ranges_version || header->range_begin != header->range_end)
		return STACK_END_TABLE_CHANGED;
	return 0;
}

static inline int barrier_same_start(const struct sprof_thread *thread, const struct table_config *table,
				     const struct barrier_thread *who)
{
	if (MUTANT(starttime) || !thread->starttime || !table->proc_starttime)
		return 1;
	/* Section 7: differences, in which a time namespace's offset cancels; a tick for the two roundings. */
	__u64 difference = (thread->starttime - table->proc_starttime) - (who->start_ticks - who->leader_ticks) + 1;
	return difference <= 2;
}

enum barrier_found { BARRIER_NO_THREAD, BARRIER_THREAD, BARRIER_UNREADABLE };

static inline long barrier_read_n_probe(const struct barrier_reader *reader, const struct table_config *table,
					__u32 *ret)
{
	return barrier_read(reader, ret, sizeof(*ret), table->self_va + offsetof(struct sprof_header, n_probe));
}

/* The record of the thread, in reader->thread. */
BARRIER_FUNCTION int barrier_find_thread(struct barrier_reader *reader, const struct table_config *table,
					 const struct barrier_thread *who)
{
	if (!reader || !table || !who)
		return BARRIER_NO_THREAD;
	__u32 cap = table->cap_thread;
	if (cap == 0)
		return BARRIER_NO_THREAD;
	__u32 n_probe = 1; /* nearly all are at the first */
	for (__u32 i = 0; i < SPROF_THREAD_PROBES; i++) {
		if (i == 1 && !MUTANT(probe_first) && barrier_read_n_probe(reader, table, &n_probe) < 0)
			return BARRIER_UNREADABLE;
		if (i >= n_probe)
			break;
		__u64 place = SPROF_THREAD_SLOT(who->tid, i, cap);
		__u64 address = table->self_va + table->off_thread + place * table->thread_size;
		if (barrier_read(reader, &reader->thread, BARRIER_THREAD_BYTES, address) < 0)
			/* Where nobody has registered yet, no page of the threads need be there. */
			return i == 0 && barrier_read_n_probe(reader, table, &n_probe) == 0 && n_probe == 0
				       ? BARRIER_NO_THREAD
				       : BARRIER_UNREADABLE;
		if (reader->thread.tid != who->tid)
			continue;
		reader->thread_at = address;
		return barrier_same_start(&reader->thread, table, who) ? BARRIER_THREAD : BARRIER_NO_THREAD;
	}
	return BARRIER_NO_THREAD;
}

static inline int barrier_is_complete(const struct sprof_context *context)
{
	return context->pc != 0 && context->sp != 0;
}

static inline int barrier_names_stack(const struct sprof_ref *ref)
{
	return ref->index != SPROF_INDEX_NONE && ref->gen != 0;
}

static inline int barrier_same_ref(const struct sprof_ref *a, const struct sprof_ref *b)
{
	return a->index == b->index && a->gen == b->gen;
}

/* --- stacks --- */

/* Whether the record makes sense and is this thread's to use. */
static inline int barrier_stack_is_valid(const struct sprof_stack *record, const struct table_config *table,
					 __u32 index, __u32 gen, __u32 tid)
{
	if (record->self.index != index || (record->self.gen != gen && !MUTANT(generation)))
		return 0;
	if (record->owner_tid != tid && !MUTANT(owner))
		return 0;
	return record->lo < record->hi && record->hi < 1ull << 47 && record->cap <= SPROF_MAX_BARRIERS &&
	       record->n <= record->cap && record->pos <= record->n && record->off_barrier < table->total_size &&
	       (__u64)record->cap * sizeof(struct sprof_barrier) <= table->total_size - record->off_barrier;
}

/* Takes the lock of a stack, as far as a reader can: remembers the version, and what the record says. enum segment_lock. */
BARRIER_FUNCTION int barrier_lock(struct barrier_reader *reader, const struct table_config *table, __u32 index,
				  __u32 gen, __u32 tid)
{
	if (!reader || !table)
		return SEGMENT_REFUSED;
	struct sprof_stack *record = &reader->record;
	struct barrier_stack *stack = &reader->stack;
	__u64 version = 0;
	stack->address = 0;
	stack->index = index;
	stack->gen = gen;
	stack->window_n = 0;
	if (index == SPROF_INDEX_NONE || gen == 0 || index >= table->cap_stack)
		return SEGMENT_REFUSED;
	__u64 address = table->self_va + table->off_stack + (__u64)index * table->stack_size;
	if (barrier_read(reader, &version, sizeof(version), address + offsetof(struct sprof_stack, seq_end)) < 0 ||
	    barrier_read(reader, record, BARRIER_STACK_BYTES, address) < 0)
		return SEGMENT_UNREADABLE;
	if (MUTANT(retry) && record->seq_begin != version)
		(void)(barrier_read(reader, &version, sizeof(version),
				    address + offsetof(struct sprof_stack, seq_end)) ||
		       barrier_read(reader, record, BARRIER_STACK_BYTES, address));
	int ignored = MUTANT(lock_busy) || (MUTANT(libcall_lock) && index == reader->thread.libcall.index);
	if (record->seq_begin != version && !ignored)
		return SEGMENT_BUSY;
	if (!barrier_stack_is_valid(record, table, index, gen, tid))
		return SEGMENT_REFUSED;
	stack->address = address;
	stack->version = version;
	stack->lo = record->lo;
	stack->hi = record->hi;
	stack->barriers = table->self_va + record->off_barrier;
	stack->pos = (__u32)record->pos;
	stack->n = record->n;
	return SEGMENT_LOCKED;
}

/* Barrier i of the stack through the window; 0 when it cannot be had. */
static inline const struct sprof_barrier *barrier_at(struct barrier_reader *reader, __u32 i)
{
	struct barrier_stack *stack = &reader->stack;
	if (i >= stack->n)
		return 0;
	if (i < stack->window_first || i - stack->window_first >= stack->window_n) {
		__u32 n = stack->n - i;
		if (n > BARRIER_WINDOW)
			n = BARRIER_WINDOW;
		stack->window_n = 0;
		if (barrier_read(reader, reader->window, n * sizeof(struct sprof_barrier),
				 stack->barriers + (__u64)i * sizeof(struct sprof_barrier)) < 0)
			return 0;
		stack->window_first = i;
		stack->window_n = n;
	}
	__u32 place = (i - stack->window_first) & (BARRIER_WINDOW - 1);
	return &reader->window[place];
}

/* The first of barriers [low, n) whose slot is not below sp; low when they cannot be read. */
static inline __u32 barrier_search(struct barrier_reader *reader, __u32 low, __u64 sp)
{
	enum { STEPS = 17 }; /* SPROF_MAX_BARRIERS */
	__u32 first = low, high = reader->stack.n;
	for (__u32 i = 0; i < STEPS && low < high; i++) {
		__u32 middle = (low + high) / 2;
		__u64 slot = 0;
		if (barrier_read(reader, &slot, sizeof(slot),
				 reader->stack.barriers + (__u64)middle * sizeof(struct sprof_barrier)) < 0)
			return first;
		if (slot < sp)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The cursor of a walk that starts on this stack at sp: the first barrier, from pos on, whose slot is not below it. Those below belong to younger frames. */
BARRIER_FUNCTION int barrier_set_cursor(struct barrier_reader *reader, __u64 sp)
{
	if (!reader)
		return 0;
	struct barrier_stack *stack = &reader->stack;
	__u32 first = stack->pos > 0 ? stack->pos - 1 : 0; /* pos - 1 is for rule 13, and then in the window */
	if (!MUTANT(jump_cursor))
		stack->cursor = stack->pos;
	if (stack->pos >= stack->n && first >= stack->n)
		return 0;
	(void)barrier_at(reader, first);
	for (__u32 i = 0; i < BARRIER_WINDOW; i++) {
		__u32 place = stack->cursor - stack->window_first;
		if (place >= stack->window_n)
			break;
		if (reader->window[place & (BARRIER_WINDOW - 1)].slot >= sp)
			return 0;
		stack->cursor++;
	}
	/* All of the window's are below: whoever jumps over many frames (longjmp) need not have moved pos. */
	if (!MUTANT(jump_cursor))
		stack->cursor = barrier_search(reader, stack->cursor, sp);
	return 0;
}
