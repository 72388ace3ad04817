/* Records from the BPF program to the daemon, and the tables both share. Fixed width, little-endian hosts, asserted sizes.
 * Shared by BPF and userspace; SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 * The including file provides the fixed-width __u8 .. __u64 (linux/types.h or vmlinux.h). */
#pragma once
#include "bpf/outcome.h"

enum {
	RECORD_LEAF_FRAMES = 1024, /* user frames; those beyond are a ring */
	RECORD_ROOT_FRAMES = 256,  /* a power of two */
	RECORD_MAX_USER_FRAMES = RECORD_LEAF_FRAMES + RECORD_ROOT_FRAMES,
	RECORD_MAX_KERNEL_FRAMES = 127,
	RECORD_MAX_SEGMENTS = 32,
	RECORD_MAX_PYTHON_FRAMES = 512,
	RECORD_MAX_PYTHON_RUNS = 256,
	RECORD_MAX_PYTHON_OFFSET = (1 << 21) - 2, /* of an instruction in its code, in bytes; also for any beyond */
	RECORD_NO_C_FRAME = 0xffff,
	RECORD_COMM_BYTES = 16,
	MAX_TARGET_SLOTS = 1024,
};

/* The cookie in each perf event's attr, by which the BPF program knows whose event fired, inherited copies too. */
#define COOKIE(slot, generation, root) (((__u64)(slot) << 48) | ((__u64)(__u16)(generation) << 32) | (__u32)(root))
/* Set when the event is the cpu-clock, whose own reading is the scheduler's clock. (attr.type does not tell: the kernel replaces it.) */
#define COOKIE_CPU_CLOCK          (1ull << 63)
#define COOKIE_SLOT(cookie)       ((__u16)((cookie) >> 48) & 0x7fff)
#define COOKIE_GENERATION(cookie) ((__u16)((cookie) >> 32))
#define COOKIE_ROOT(cookie)       ((__u32)(cookie))

enum record_flag {
	RECORD_KERNEL_MODE = 1, /* the interrupt hit in the kernel */
	RECORD_TABLE_AGED = 2,  /* what the program was told of the barrier-lock table is no longer so: read it again */
	RECORD_IN_TRAMPOLINE = 4, /* the sampled pc lies in a trampoline of the barrier-lock table */
	RECORD_NEW_PYTHON = 8,    /* a code object that may be new to the daemon: read it while it is there */
};

/* One sample: header, then n_kernel + n_user addresses, kernel first, each part leaf first (but of a stack with frames left out
 * between, those beyond RECORD_LEAF_FRAMES are a ring, whose first is number n_left_out % RECORD_ROOT_FRAMES); then, of a process that publishes a barrier-lock
 * table, n_segments struct record_segment and n_barriers words (BARRIER_WORD); then, of one that runs CPython, n_python struct record_python_frame, leaf first,
 * and n_python_runs struct record_python_run, which take as many of them each. */
struct record {
	__u32 bytes;  /* of the whole record, frames included */
	__u32 serial; /* of the target, so that a reused slot is told apart */
	__u16 slot;
	__u16 generation;
	__u32 pid; /* in the daemon's pid namespace; 0: not visible there */
	__u32 tid;
	__u16 cpu;
	__u16 n_left_out; /* user frames that were walked and are not here: between, when n_user is the maximum; else behind */
	__u64 time_ns;         /* bpf_ktime_get_ns, after the walk */
	__u64 thread_start_ns; /* task->start_boottime: with tid, the thread's identity */
	__u64 task;       /* goes on under another identity when a thread other than the leader executes a program */
	__u64 runtime_ns; /* CPU time of the thread so far */
	__u64 exec_id;    /* task->self_exec_id: another value is another program */
	__u32 exec_pages; /* mm->exec_vm: changes when executable mappings do */
	__u32 map_count;  /* mm->map_count */
	char comm[RECORD_COMM_BYTES];
	__u16 n_kernel, n_user; /* frames */
	__u8 user_end;          /* enum stack_end; of a record with segments, what reconcile makes of it */
	__u8 flags;             /* enum record_flag */
	__u8 n_segments;
	__u8 thread_flags; /* sprof_thread.flags, low bits */
	__u16 n_barriers;
	__u16 n_python, n_python_runs;
	__u8 python_end; /* enum python_end */
	__u8 reserved;
	__u64 frames[];
};

/* A frame of CPython's. */
struct record_python_frame {
	__u64 code;        /* address of its code object */
	__u32 identity;    /* python_identity: another value is another code object */
	__u32 instruction; /* where in the code it is, in bytes; 0 also before the first instruction */
};
/* The frames that one call of the interpreter executes. Those that no run has are of a call that was not found. */
struct record_python_run {
	__u16 n;
	__u16 c_frame; /* which of the user frames that call is, those left out counted; RECORD_NO_C_FRAME: the walk did not come so far */
	__u32 reserved;
};

/* A walk of a process with a barrier-lock table is made of segments, leafmost first: each on one stack, from one start, under the lock of that
 * very stack. The program walks speculatively; whether a segment holds is for reconcile to say, by what stands here. */
enum segment_kind {
	SEGMENT_START,   /* the sampled registers, on a stack that the thread owns */
	SEGMENT_NATIVE,  /* the same, on a stack that is not in the table, or in foreign code: no lock, no barriers */
	SEGMENT_ENTERED, /* where the stack pointer of a native walk came to lie in a known stack */
	SEGMENT_JUMP,    /* from the end of the system stack: the thread's jump context */
	SEGMENT_FOREIGN, /* the thread's foreign context */
	SEGMENT_RESUMER, /* from the end of a fiber's stack: its resumer context */
	SEGMENT_LIBCALL, /* the thread's libcall context */
	SEGMENT_KINDS
};
enum segment_lock {
	SEGMENT_NO_LOCK,    /* none is needed */
	SEGMENT_LOCKED,     /* version_begin was seq_end before, version_end is seq_begin after */
	SEGMENT_BUSY,       /* held: not walked */
	SEGMENT_UNREADABLE, /* not resident: not walked */
	SEGMENT_REFUSED,    /* stale, another thread's, malformed: not walked */
	SEGMENT_LOCKS
};
enum segment_flag {
	SEGMENT_ON_SYSTEM = 1, /* runs on the thread's system stack */
	SEGMENT_SETS_SP = 2,   /* starts in a range where the stack pointer is being changed */
};
struct record_segment {
	__u8 kind, lock, end, flags; /* end: enum stack_end, where the segment's own walk stopped */
	__u16 first, n;              /* of the user frames */
	__u32 index, gen;            /* the stack; gen 0: none */
	__u64 version_begin, version_end;
};

/* A return address that was hijacked: user frame `frame` is what the barrier of the word at `slot` leads to. One word each, ascending by frame. */
#define BARRIER_WORD(slot, frame) ((__u64)(slot) << 16 | (__u16)(frame))
#define BARRIER_SLOT(word)        ((__u64)(word) >> 16)
#define BARRIER_FRAME(word)       ((__u16)(word))

/* A thread that may carry two events belongs to the first of them to fire, which claims it here. The daemon frees the claims of
 * threads that are gone. */
enum { CLAIMS = 32768 }; /* power of two */
struct claim {
	__u64 thread; /* CLAIM_THREAD; 0: free */
	__u64 event;  /* slot, generation and root of the cookie, never 0; 0: unclaimed */
};
/* 22 bits of tid in the daemon's pid namespace (PID_MAX_LIMIT), 42 bits of start time. */
#define CLAIM_THREAD(tid, start_ns) (((__u64)(start_ns) << 22) | ((__u64)(tid)&0x3fffff))
#define CLAIM_TID(thread)           ((__u32)((thread)&0x3fffff))

enum target_flag {
	TARGET_CHECK_CLAIMS = 1, /* some thread may carry two events: tell them apart by claims */
	TARGET_HAS_TABLE = 2,    /* it publishes a barrier-lock table: see the map `tables` */
	TARGET_HAS_PYTHON = 4,   /* it runs CPython: see the map `pythons` */
};

/* What the daemon tells the BPF program about a target; one per slot. */
struct target_config {
	__u32 serial;     /* 0: slot free */
	__u16 generation; /* events of any other are not accepted */
	__u16 flags;      /* enum target_flag */
};

/* When the daemon is woken though the ring buffer is far from full: its target has another program or other mappings, which should be
 * looked at before they change again. One per slot; raced for without locks, since a wake-up too many or too late does no harm. */
struct news {
	__u64 seen;                  /* NEWS_SEEN of the record that last woke the daemon; 0: none */
	__u64 woken_ns;              /* when that was */
	__u64 quiet_until_ns;        /* the daemon does not look at mappings before */
	__u64 python_quiet_until_ns; /* nor at code objects */
	__u64 python_waits;          /* there are some to be looked at */
};
#define NEWS_SEEN(exec_id, exec_pages, map_count) \
	(((__u64)(exec_id) << 48) | ((__u64)((exec_pages)&0xfffffff) << 20) | ((map_count)&0xfffff))
#define NEWS_IS_EXEC(changed)       ((changed) >> 48 != 0) /* of two such words, exclusive-ored */
#define NEWS_IS_EXECUTABLE(changed) ((changed) >> 20 != 0)
enum {
	NEWS_REST_NS = 50000000,       /* between two wake-ups for one target */
	NEWS_CODE_REST_NS = 4000000,   /* when executable mappings came: how often, the daemon says (quiet_until_ns) */
	NEWS_AGED_REST_NS = 200000000, /* when only its barrier-lock table is no longer as the daemon found it */
	NEWS_MAPPINGS_REST_NS =
		1000000000, /* when only mappings that are not executable, or not known to be, came and went */
};

/* What the BPF program counts; one per slot and CPU. */
struct target_counters {
	__u64 entries;
	__u64 late_periods; /* that passed while the timer of an entry was late: the kernel skips them */
	__u64 outcomes[OUTCOME_COUNT];
};

#ifndef __bpf__
#include <stddef.h>
_Static_assert(sizeof(struct record) == 104, "record header");
_Static_assert(offsetof(struct record, frames) == 104, "frames follow the header");
_Static_assert(sizeof(struct record_segment) == 32, "whole words");
_Static_assert(sizeof(struct record_python_frame) == 16 && sizeof(struct record_python_run) == 8, "whole words");
_Static_assert(sizeof(struct target_config) == 8, "read in one load");
#endif
