/* The state of a walk: its frames, and the segments that they are in. Part of walk.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
#include "bpf/barrier.h"
#include "bpf/python.h"

enum {
	WALK_FRAMES = RECORD_LEAF_FRAMES,
	WALK_BEYOND = 4096, /* frames, of which the last are kept: for stacks without segments */
	WALK_STEPS = WALK_FRAMES + WALK_BEYOND + 2 * RECORD_MAX_SEGMENTS,
	WALK_WORDS = RECORD_MAX_KERNEL_FRAMES + RECORD_MAX_USER_FRAMES,
	WALK_SEGMENT_WORDS = RECORD_MAX_SEGMENTS * sizeof(struct record_segment) / sizeof(__u64),
	WALK_TAIL_WORDS = WALK_SEGMENT_WORDS + WALK_FRAMES,
	WALK_PYTHON_WORDS = RECORD_MAX_PYTHON_FRAMES * sizeof(struct record_python_frame) / sizeof(__u64),
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
	struct barrier_thread who; /* room for the BPF program, whose stack is short: what it hands to walk_start */
	__u32 state;               /* enum walk_state */
	__u32 next;                /* enum walk_next */
	__u32 tid;                 /* in its innermost pid namespace */
	__u32 end;                 /* enum stack_end, of the whole walk */
	__u32 n;     /* user frames; of those beyond WALK_FRAMES the last RECORD_ROOT_FRAMES are there, in a ring */
	__u32 first; /* where they begin in frames: behind the kernel's */
	__u32 n_segments, n_barriers;
	__u32 flags;                 /* enum record_flag */
	__u32 n_candidates, entered; /* entered: the candidate that was come upon */
	__u32 plain; /* registers are of a frame that meets nothing of the table's, see walk_meets(); 0: not known */
	__u64 thread_at; /* address of the thread's record; 0: none */
	__u64 stop_sp;   /* where native code on its managed caller's own stack ends; 0: it is on another */
	struct walk_candidate candidates[WALK_CANDIDATES];
	/* What each frame needs comes first: an offset below 32 KiB is part of the instruction. */
	struct barrier_reader table;
	struct unwind_window window;
	struct python_walk python;
	struct record_segment segments[RECORD_MAX_SEGMENTS];
	__u64 barriers[WALK_FRAMES];
	/* The record as it leaves: header, frames, then segments, barriers, and CPython's frames. */
	__u64 record[sizeof(struct record) / sizeof(__u64)];
	__u64 frames[WALK_WORDS + WALK_TAIL_WORDS + WALK_PYTHON_WORDS + RECORD_MAX_PYTHON_RUNS];
};
_Static_assert(sizeof(struct record) % sizeof(__u64) == 0, "frames follow without a gap");
_Static_assert(WALK_FRAMES % RECORD_ROOT_FRAMES == 0, "the ring begins at its first place");

/* What is left of the last sample does not count. */
static inline void walk_reset(struct walk *walk)
{
	unwind_window_reset(&walk->window);
	python_reset(&walk->python);
	walk->n = walk->first = 0;
	walk->next = WALK_NOWHERE;
	walk->n_segments = walk->n_barriers = walk->n_candidates = 0;
	walk->flags = walk->plain = 0;
	walk->thread_at = walk->stop_sp = 0;
	walk->table.stack.address = walk->table.stack.lo = walk->table.stack.hi = 0;
	walk->table.stack.window_n = 0;
	walk->table.entry = ~0ull;
}

/* --- frames and segments --- */

static inline void walk_add_frame(struct walk *walk, __u64 pc)
{
	__u32 n = walk->n;
	__u32 place = n < WALK_FRAMES ? n : WALK_FRAMES + n % RECORD_ROOT_FRAMES;
	UNWIND_OPAQUE(place);
	place += walk->first;
	if (place >= WALK_WORDS)
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
	walk->plain = 0;
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
	walk->table.stack.window_n = 0;
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
