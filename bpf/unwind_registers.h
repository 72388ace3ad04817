/* The registers of a frame. Part of unwind.h. SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
#include "bpf/unwind_window.h"

/* Numbered as in DWARF (psABI x86-64, 3.6.2). */
enum unwind_register {
	UNWIND_RBX = 3,
	UNWIND_RBP = 6,
	UNWIND_RSP = 7,
	UNWIND_R12 = 12,
	UNWIND_RIP = 16,
	UNWIND_REGISTERS = 17,
};
#define UNWIND_KNOWN(number) (1u << (number))
enum {
	UNWIND_KNOWN_ALL = UNWIND_KNOWN(UNWIND_REGISTERS) - 1,
	UNWIND_KNOWN_FRAME = UNWIND_KNOWN(UNWIND_RBP) | UNWIND_KNOWN(UNWIND_RSP) | UNWIND_KNOWN(UNWIND_RIP),
	/* rbx rbp rsp r12 .. r15 rip: what a call leaves as it was, or can be found again */
	UNWIND_KNOWN_PRESERVED = UNWIND_KNOWN_FRAME | UNWIND_KNOWN(UNWIND_RBX) | 0xf000u,
};

/* The registers of a frame. Whoever moves on to another stack by himself sets pc, sp and fp, and known to UNWIND_KNOWN_FRAME. */
struct unwind_registers {
	union {
		struct {
			__u64 rax, rdx, rcx, rbx, rsi, rdi, fp, sp, r8, r9, r10, r11, r12, r13, r14, r15, pc;
		};
		__u64 by_number[UNWIND_REGISTERS];
	};
	__u32 known; /* UNWIND_KNOWN(number) of those that have their value in this frame; pc and sp always have */
	__u32 pc_is_exact; /* pc is where the frame goes on by itself (leaf; interrupted by a signal), not where a call returns to */
};

/* What is known of the target. */
struct unwind_tables {
	__u32 list;     /* its mapping list */
	__u64 serial;   /* of the list, under which rules are remembered; 0: none are */
	__u32 ready;    /* 0: there is no list, or it is another program's: only frame pointers are followed */
	__u32 outdated; /* executable mappings came or went since the list was made */
	__u64 hijacker; /* to which the kernel has functions return that it watches (uretprobes); 0: none */
	__u64 stack_lo, stack_hi; /* bounds of the stack that is walked; both 0: not known */
};

/* A walk goes on, or ends with (enum stack_end). */
#define UNWIND_GOES_ON (-1)

/* Whether a frame may end there: the stack pointer grows, and stays on its stack. */
static __attribute__((always_inline)) inline bool unwind_may_go(const struct unwind_registers *registers,
								__u64 stack_lo, __u64 stack_hi, __u64 sp)
{
	return sp > registers->sp && (!stack_hi || (sp >= stack_lo && sp <= stack_hi));
}

/* Register by number; false: its value in this frame is not known. */
static __attribute__((always_inline)) inline bool unwind_register(const struct unwind_registers *registers,
								  __u32 number, __u64 *ret)
{
	number &= 31;
	UNWIND_OPAQUE(number);
	if (number >= UNWIND_REGISTERS || !(registers->known & UNWIND_KNOWN(number)))
		return false;
	*ret = registers->by_number[number];
	return true;
}
