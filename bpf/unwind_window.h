/* What a walk has read last: a piece of the stack, the mapping that its pc was in; and the rules that walks before it went by. Part of unwind.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * One copy up to the end of the page serves all frames that lie in it, since a copy of 4 KiB costs twice one of 8 bytes. A copy begins with
 * the line of the cache that has the frame's lowest word of interest, so it may begin on the page before: no frame's words lie across its ends. */
#pragma once
#include "bpf/cfi_table.h"

enum {
	UNWIND_STACK_PAGE_BYTES = 4096,
	UNWIND_LINE_BYTES = 64,     /* of the cache: copies begin with one */
	UNWIND_REACH_BYTES = 64,    /* below a frame's end: return address and saved registers */
	UNWIND_WINDOW_BYTES = 8192, /* a power of two above page and reach */
	/* What a walk may cost, whatever stack and tables say: beyond it is too deep. */
	UNWIND_MAX_COPIES = 1536,
	UNWIND_MAX_OPERATIONS = 4096, /* of expressions */
	UNWIND_MAX_SWITCHES = 16,     /* to other stacks, by CFI_OTHER_STACK */
};

/* The mapping of the last pc, and what its table's header says. */
struct unwind_place {
	__u64 start, end, bias;
	__u32 kind; /* enum unwind_code_kind */
	__u32 table;
	__u64 text_start, text_end;
	__u32 bucket_shift, off_index, off_rows, off_rules, off_code;
	__u32 no_table; /* the header could not be read: as if there were none */
};

/* Where a binary search is. In memory, since the verifier would follow each way of it through what it knows of registers. */
struct unwind_search {
	volatile __u32 low, high, found;
};

struct cfi_evaluation {
	__u64 stack[CFI_STACK_DEPTH]; /* top at depth - 1 */
	__u32 depth;
	__u32 at;     /* in the code */
	__u32 result; /* enum cfi_evaluation_result */
	__u32 end;    /* enum stack_end, when it failed */
};

/* A rule of any form, and what it makes of the registers. */
enum {
	CFI_RESTORED = CFI_SAVED + 2, /* the return address and the stack pointer behind those that are saved */
	CFI_SIGCONTEXT_WORDS = 17,
};
struct cfi_any {
	struct cfi_rule rule;
	__u64 cfa;
	__u64 value[CFI_RESTORED];
	__s16 operand[CFI_RESTORED];
	__u8 where[CFI_RESTORED]; /* enum cfi_where */
	__u64 slot;               /* where the return address was read; 0: in no memory */
	__u64 context[CFI_SIGCONTEXT_WORDS];
	__u32 known; /* bit i: value[i] is */
	__u32 end;   /* enum stack_end, when a value cannot be had */
};

/* The rule at an address, as a mapping list and its tables had it: stacks are much alike from sample to sample. Kept from walk to walk, and believed as
 * long as the list is the same. A line of the cache, where a search touches ten. */
enum { UNWIND_REMEMBERED = 256 }; /* a power of two */
struct unwind_remembered {
	__u64 pc, serial;     /* serial 0: nothing */
	struct cfi_rule rule; /* of the common form; or its flags are CFI_END, and nothing else counts */
	__u32 quick; /* for cfi_step_quick: CFI_QUICK and the like, and UNWIND_KNOWN of the registers that are restored; 0: not by it */
	__u8 at[CFI_SAVED]; /* where they are in the UNWIND_REACH_BYTES below the CFA */
	__u8 reserved[6];
};

struct unwind_window {
	__u64 start;              /* address of bytes[0] */
	__u64 n;                  /* bytes that are valid, at least a word; 0: none */
	__u64 memory;             /* of user mode */
	__u32 copies, operations; /* by this walk so far */
	__u32 switches;           /* likewise */
	struct unwind_place place;
	struct unwind_search search;
	struct cfi_any any; /* a rule beyond the common ones, while it is applied */
	struct cfi_evaluation evaluation;
	__u8 bytes[UNWIND_WINDOW_BYTES + UNWIND_REACH_BYTES + 8]
		__attribute__((aligned(64))); /* as what is copied there, which takes half the time then */
	struct unwind_remembered remembered[UNWIND_REMEMBERED] __attribute__((aligned(64)));
};

/* Subprograms: as BPF, functions that the verifier looks at once, whoever calls them. */
#ifdef __bpf__
#define UNWIND_SUBPROGRAM __attribute__((noinline))
#else
#define UNWIND_SUBPROGRAM static __attribute__((unused))
#endif

/* CALLBACK(index, &CONTEXT) up to N times, until it returns other than 0. */
#ifdef __bpf__
#define UNWIND_LOOP(N, CALLBACK, CONTEXT) ((void)bpf_loop(N, CALLBACK, &(CONTEXT), 0))
#else
#define UNWIND_LOOP(N, CALLBACK, CONTEXT)                                                   \
	do {                                                                                \
		for (__u32 index = 0; index < (N) && !CALLBACK(index, &(CONTEXT)); index++) \
			;                                                                   \
	} while (0)
#endif

/* Keeps the compiler from knowing more of a number than the verifier does. */
#define UNWIND_OPAQUE(number) __asm__ volatile("" : "+r"(number))

/* What was read is no longer so: another stack, or the same one under its lock. */
static __attribute__((always_inline)) inline void unwind_window_forget(struct unwind_window *window)
{
	window->start = window->n = 0;
	window->place.start = window->place.end = 0;
}

/* For a new walk. */
static __attribute__((always_inline)) inline void unwind_window_reset(struct unwind_window *window)
{
	unwind_window_forget(window);
	window->copies = window->operations = window->switches = 0;
}

static __attribute__((always_inline)) inline void unwind_set_memory(struct unwind_window *window, void *memory)
{
#ifdef __bpf__
	(void)window, (void)memory;
#else
	window->memory = (__u64)(unsigned long)memory;
#endif
}

static __attribute__((always_inline)) inline void *unwind_memory(const struct unwind_window *window)
{
#ifdef __bpf__
	(void)window;
	return (void *)0;
#else
	return (void *)(unsigned long)window->memory; // NOLINT(performance-no-int-to-ptr)
#endif
}

/* Has the window hold what can be had of [low, high) and what follows up to the end of high's page; high - low at most UNWIND_REACH_BYTES. */
UNWIND_SUBPROGRAM int unwind_window_move(struct unwind_window *window, __u64 low, __u64 high)
{
	__u64 rest = UNWIND_STACK_PAGE_BYTES - ((high - 1) & (UNWIND_STACK_PAGE_BYTES - 1));
	__u64 start = low & ~(__u64)(UNWIND_LINE_BYTES - 1);
	__u64 bytes = high - 1 - start + rest;
	if (!window)
		return -1;
	window->n = 0;
	if (low >= high || bytes > UNWIND_STACK_PAGE_BYTES + UNWIND_REACH_BYTES + UNWIND_LINE_BYTES ||
	    window->copies >= UNWIND_MAX_COPIES)
		return -1;
	window->copies++;
	if (unwind_read(window->bytes, (__u32)bytes, start, unwind_memory(window)) < 0)
		return -1;
	window->start = start;
	window->n = bytes;
	return 0;
}

/* Has the window hold the words of a frame that ends at high, as far as they are in [low, high), where low is the frame's stack pointer. Whatever
 * it does not hold afterwards, unwind_word reads. */
static __attribute__((always_inline)) inline void unwind_window_cover(struct unwind_window *window, __u64 low,
								      __u64 high)
{
	__u64 reach = high - UNWIND_REACH_BYTES;
	__u64 first = low > reach ? low : reach;
	if (first - window->start > window->n || high - window->start > window->n)
		(void)unwind_window_move(window, first, high);
}

/* The word at bytes, which need not be aligned. For BPF, clang would make eight loads of a copy, one for each byte. */
static __attribute__((always_inline)) inline __u64 unwind_unaligned(const __u8 *bytes)
{
#ifdef __bpf__
	return *(const __u64 *)bytes;
#else
	__u64 word;
	__builtin_memcpy(&word, bytes, sizeof(word));
	return word;
#endif
}

/* The word at address: from the window, else by itself. 0, or negative when it cannot be read. */
static __attribute__((always_inline)) inline long unwind_word(const struct unwind_window *window, __u64 address,
							      __u64 *ret)
{
	__u64 offset = address - window->start;
	if (offset + 8 > window->n || offset > UNWIND_WINDOW_BYTES)
		return unwind_read(ret, 8, address, unwind_memory(window));
	offset &= UNWIND_WINDOW_BYTES - 1;
	UNWIND_OPAQUE(offset);
	offset &= UNWIND_WINDOW_BYTES - 1;
	*ret = unwind_unaligned(window->bytes + offset);
	return 0;
}
