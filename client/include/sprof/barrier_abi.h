/* The barrier-lock table, ABI version 1: what a runtime publishes in shared memory so that a profiler can unwind its stacks.
 * The specification, which this header only transcribes, is docs/BARRIER-TABLE.md; libsprof (sprof/sprof.h) is one writer of it.
 *
 * All numbers are little-endian. Offsets are in bytes from the start of the table, addresses are those of the process itself.
 * Reserved fields are written as 0 and ignored by readers. Layout: frozen; it only ever grows at the end of a record, which the
 * *_size fields of the header announce. No record lies across a page; what changes at run time lies in one cache line.
 *
 * C, C++ and BPF. SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
#ifndef SPROF_BARRIER_ABI_H
#define SPROF_BARRIER_ABI_H

#ifdef __bpf__ /* the including program has __u32 and so on, and no C library */
typedef __u16 sprof_u16;
typedef __s16 sprof_s16;
typedef __u32 sprof_u32;
typedef __s32 sprof_s32;
typedef __u64 sprof_u64;
#else
#include <stddef.h>
#include <stdint.h>
typedef uint16_t sprof_u16;
typedef int16_t sprof_s16;
typedef uint32_t sprof_u32;
typedef int32_t sprof_s32;
typedef uint64_t sprof_u64;
#endif

#define SPROF_TABLE_NAME  "SPROF_BLT"           /* of the memfd: /proc/PID/maps shows "/memfd:SPROF_BLT (deleted)" */
#define SPROF_TABLE_MAGIC 0x31544c4246525053ull /* the bytes "SPRFBLT1" */

enum {
	SPROF_ABI = 1,
	SPROF_THREAD_PROBES = 16, /* a thread is in one of the slots SPROF_THREAD_SLOT(tid, 0 .. 15, cap_thread) */
	SPROF_MAX_RANGES = 64,    /* readers look at no more */
};

/* Upper bounds of a valid table. Readers refuse anything beyond. */
#define SPROF_MAX_TABLE_BYTES  (1ull << 30)
#define SPROF_MAX_RECORD_BYTES 4096u
#define SPROF_MAX_THREADS      (1u << 20)
#define SPROF_MAX_STACKS       (1u << 20)
#define SPROF_MAX_BARRIERS     (1u << 16) /* of one stack */

#define SPROF_INDEX_NONE  0xffffffffu /* sprof_ref.index: no stack */
#define SPROF_TID_FREE    0u
#define SPROF_TID_RETIRED 0xffffffffu /* sprof_thread.tid: a slot that is not used again */

/* Where a thread is looked for. The steps are wide, because tids come in runs: two pools of threads whose runs begin at the same slot
 * would fill each other's neighbourhood. */
#define SPROF_THREAD_STRIDE(cap)       ((cap) < 16u ? 1u : (cap) / 16u)
#define SPROF_THREAD_SLOT(tid, i, cap) (((sprof_u64)(tid) + (sprof_u64)(i)*SPROF_THREAD_STRIDE(cap)) % (cap))

/* sprof_header.flags: for people and tools; no reader depends on them. */
#define SPROF_HEADER_LOCKED 1u /* mlock succeeded: every page is resident */

/* sprof_thread.flags */
#define SPROF_THREAD_GC 1u /* works for the collector */

/* sprof_range.kind. Readers ignore kinds that they do not know. */
#define SPROF_RANGE_NONE         0u /* not in use */
#define SPROF_RANGE_TRAMPOLINE   1u /* where hijacked return addresses lead */
#define SPROF_RANGE_SETS_SP      2u /* the stack pointer is being changed: nothing is known of the stack here */
#define SPROF_RANGE_STACK_TOP    3u /* a frame here is the outermost of its stack */
#define SPROF_RANGE_MANAGED_TEXT 4u /* code of the runtime that no file describes */

/* sprof_range.cfa_register */
#define SPROF_CFA_SP 0u
#define SPROF_CFA_FP 1u

/* A stack, by place and generation. None: index SPROF_INDEX_NONE, or gen 0 (so that zeroed memory refers to nothing). A reference
 * whose gen differs from the stack's is stale and refers to nothing. */
struct sprof_ref {
	sprof_u32 index;
	sprof_u32 gen;
};

/* Where to go on walking. Complete if neither pc nor sp is 0. */
struct sprof_context {
	sprof_u64 pc;
	sprof_u64 sp;
	sprof_u64 fp;
};

struct sprof_header {
	sprof_u64 magic; /* SPROF_TABLE_MAGIC, stored last (release); 0 while the table is made or taken away */
	sprof_u32 abi;   /* SPROF_ABI */
	sprof_u32 hdr_size;
	sprof_u32 thread_size; /* the strides of the arrays */
	sprof_u32 stack_size;
	sprof_u32 barrier_size; /* 16 in every version 1: barriers do not grow */
	sprof_u32 range_size;
	sprof_u64 total_size;     /* of the mapping */
	sprof_u64 self_va;        /* where the process itself has mapped the table */
	sprof_u64 proc_starttime; /* field 22 of /proc/self/stat; 0: not known */
	sprof_u32 tgid;           /* getpid(): the number in the innermost pid namespace */
	sprof_u32 flags;
	sprof_u64 off_thread; /* struct sprof_thread[cap_thread] */
	sprof_u64 off_stack;  /* struct sprof_stack[cap_stack] */
	sprof_u64 off_range;  /* struct sprof_range[cap_range] */
	sprof_u32 cap_thread;
	sprof_u32 cap_stack;
	sprof_u32 cap_range; /* at most SPROF_MAX_RANGES */
	sprof_u32 n_range;
	sprof_u64 range_begin; /* the versioned lock of n_range and of all ranges */
	sprof_u64 range_end;
	sprof_u32 n_probe; /* no thread ever was at probe n_probe or beyond; raised before such a slot is claimed */
	sprof_u32 reserved;
};

struct sprof_thread {
	/* line 0: identity, version, which stack is which */
	sprof_u32
		tid; /* gettid(): the number in the innermost pid namespace; claimed by compare-and-swap from SPROF_TID_FREE */
	sprof_u32 seq; /* odd: switching, nothing here is to be believed */
	sprof_u32 flags;
	sprof_u32 foreign_depth;  /* foreign calls under way, one inside another */
	sprof_u64 starttime;      /* field 22 of /proc/thread-self/stat; 0: not known */
	struct sprof_ref current; /* the stack it runs on: user, system or another */
	struct sprof_ref user;    /* of the fiber that it runs */
	struct sprof_ref system;  /* its own */
	struct sprof_ref foreign; /* the stack that foreign_context points into */
	struct sprof_ref libcall; /* the stack that libcall_context points into */
	/* line 1 */
	struct sprof_context foreign_context; /* of the managed caller of the innermost foreign call */
	struct sprof_context jump_context;    /* of the user stack, while it runs on the system stack */
	sprof_u64 reserved1[2];
	/* line 2 */
	struct sprof_context libcall_context; /* of the caller of a library call */
	sprof_u64 reserved2[5];
	/* line 3 */
	sprof_u64 reserved3[8];
};

struct sprof_stack {
	/* line 0: the versioned lock and what it covers */
	sprof_u64 seq_begin; /* held: seq_begin != seq_end */
	sprof_u64 lo;        /* lo <= sp <= hi; both 0: not in use */
	sprof_u64 hi;
	sprof_u64 off_barrier; /* struct sprof_barrier[cap]; belongs to this place for life, as cap does */
	sprof_u32 cap;
	sprof_u32 n;           /* barriers pos .. n-1 are installed */
	struct sprof_ref self; /* index: its own; gen: goes up when the stack is removed, never 0 */
	sprof_u32 owner_tid;   /* the thread that runs on it, or that waits in it for one it resumed; 0: none */
	sprof_u32 reserved0;
	sprof_u64 seq_end;
	/* line 1: written by the thread that runs on the stack, without the lock */
	sprof_u64 pos;            /* the next barrier to be returned to */
	struct sprof_ref resumer; /* the stack that resumed this fiber and waits for it */
	struct sprof_context resumer_context;
	sprof_u64 reserved1[3];
};

/* A return address that was replaced by a trampoline's entry. Ascending by slot. */
struct sprof_barrier {
	sprof_u64 slot;        /* the address of the word that was replaced */
	sprof_u64 original_pc; /* what stood there */
};

/* Code addresses lo <= pc < hi. For a TRAMPOLINE also, for every pc of the range: the canonical frame address c is
 * cfa_register + cfa_offset, and the caller's frame pointer is at c + fp_offset (0: still in its register). */
struct sprof_range {
	sprof_u64 lo;
	sprof_u64 hi;
	sprof_u32 kind;
	sprof_s32
		entry_offset; /* lo + entry_offset is the trampoline's entry: the very address that stands in the slots */
	sprof_s32 cfa_offset;
	sprof_u16 cfa_register;
	sprof_s16 fp_offset;
};

#ifndef __bpf__
#ifdef __cplusplus
#define SPROF_ASSERT(what, text) static_assert(what, text)
#else
#define SPROF_ASSERT(what, text) _Static_assert(what, text)
#endif
#define SPROF_AT(type, field, offset) SPROF_ASSERT(offsetof(struct type, field) == (offset), #type "." #field)

SPROF_ASSERT(sizeof(struct sprof_ref) == 8, "sprof_ref");
SPROF_ASSERT(sizeof(struct sprof_context) == 24, "sprof_context");
SPROF_ASSERT(sizeof(struct sprof_header) == 128, "sprof_header");
SPROF_ASSERT(sizeof(struct sprof_thread) == 256, "sprof_thread");
SPROF_ASSERT(sizeof(struct sprof_stack) == 128, "sprof_stack");
SPROF_ASSERT(sizeof(struct sprof_barrier) == 16, "sprof_barrier");
SPROF_ASSERT(sizeof(struct sprof_range) == 32, "sprof_range");

SPROF_AT(sprof_header, abi, 8);
SPROF_AT(sprof_header, hdr_size, 12);
SPROF_AT(sprof_header, thread_size, 16);
SPROF_AT(sprof_header, stack_size, 20);
SPROF_AT(sprof_header, barrier_size, 24);
SPROF_AT(sprof_header, range_size, 28);
SPROF_AT(sprof_header, total_size, 32);
SPROF_AT(sprof_header, self_va, 40);
SPROF_AT(sprof_header, proc_starttime, 48);
SPROF_AT(sprof_header, tgid, 56);
SPROF_AT(sprof_header, flags, 60);
SPROF_AT(sprof_header, off_thread, 64);
SPROF_AT(sprof_header, off_stack, 72);
SPROF_AT(sprof_header, off_range, 80);
SPROF_AT(sprof_header, cap_thread, 88);
SPROF_AT(sprof_header, cap_stack, 92);
SPROF_AT(sprof_header, cap_range, 96);
SPROF_AT(sprof_header, n_range, 100);
SPROF_AT(sprof_header, range_begin, 104);
SPROF_AT(sprof_header, range_end, 112);
SPROF_AT(sprof_header, n_probe, 120);
SPROF_AT(sprof_thread, seq, 4);
SPROF_AT(sprof_thread, flags, 8);
SPROF_AT(sprof_thread, foreign_depth, 12);
SPROF_AT(sprof_thread, starttime, 16);
SPROF_AT(sprof_thread, current, 24);
SPROF_AT(sprof_thread, user, 32);
SPROF_AT(sprof_thread, system, 40);
SPROF_AT(sprof_thread, foreign, 48);
SPROF_AT(sprof_thread, libcall, 56);
SPROF_AT(sprof_thread, foreign_context, 64);
SPROF_AT(sprof_thread, jump_context, 88);
SPROF_AT(sprof_thread, libcall_context, 128);
SPROF_AT(sprof_stack, lo, 8);
SPROF_AT(sprof_stack, hi, 16);
SPROF_AT(sprof_stack, off_barrier, 24);
SPROF_AT(sprof_stack, cap, 32);
SPROF_AT(sprof_stack, n, 36);
SPROF_AT(sprof_stack, self, 40);
SPROF_AT(sprof_stack, owner_tid, 48);
SPROF_AT(sprof_stack, seq_end, 56);
SPROF_AT(sprof_stack, pos, 64);
SPROF_AT(sprof_stack, resumer, 72);
SPROF_AT(sprof_stack, resumer_context, 80);
SPROF_AT(sprof_barrier, original_pc, 8);
SPROF_AT(sprof_range, hi, 8);
SPROF_AT(sprof_range, kind, 16);
SPROF_AT(sprof_range, entry_offset, 20);
SPROF_AT(sprof_range, cfa_offset, 24);
SPROF_AT(sprof_range, cfa_register, 28);
SPROF_AT(sprof_range, fp_offset, 30);
#undef SPROF_AT
#undef SPROF_ASSERT
#endif
#endif
