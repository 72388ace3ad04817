/* The walk of a user stack. One piece of code that builds as BPF and as a user-mode library (tests, fuzzing).
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * The including file provides __u8 .. __u64 and, before inclusion,
 *     long unwind_read(void *to, __u32 bytes, __u64 address, void *memory)   0, or negative when it cannot be read
 * A step never trusts what it reads: every outcome is a stack_end, and the stack pointer only ever grows, so that a walk ends.
 *
 * Memory is read through a window: one copy up to the end of the page serves all frames that lie in it, since a copy of 4 KiB
 * costs twice one of 8 bytes. */
#pragma once
#include "bpf/outcome.h"

#define UNWIND_NOINLINE __attribute__((noinline))

enum {
	UNWIND_PAGE_BYTES = 4096,
	UNWIND_FRAME_BYTES = 16, /* saved frame pointer, return address */
};

struct unwind_window {
	__u64 start; /* address of bytes[0] */
	__u64 n;     /* bytes that are valid; 0: none */
	__u8 bytes[UNWIND_PAGE_BYTES];
};

struct unwind_registers {
	__u64 pc, sp, fp;
};

/* A walk goes on, or ends with (enum stack_end). */
#define UNWIND_GOES_ON (-1)

/* Reads the two words at address through the window. 0, or negative when the memory cannot be read. */
static __attribute__((always_inline)) inline long unwind_read_frame(struct unwind_window *window, __u64 address,
								    __u64 frame[2], void *memory)
{
	__u64 offset = address - window->start;
	if (address < window->start || window->n < UNWIND_FRAME_BYTES || offset > window->n - UNWIND_FRAME_BYTES) {
		__u64 rest = UNWIND_PAGE_BYTES - (address & (UNWIND_PAGE_BYTES - 1));
		if (rest < UNWIND_FRAME_BYTES) /* the frame itself lies across two pages */
			return unwind_read(frame, UNWIND_FRAME_BYTES, address, memory);
		window->n = 0;
		if (rest > UNWIND_PAGE_BYTES) /* never; said for the verifier */
			return -1;
		if (unwind_read(window->bytes, (__u32)rest, address, memory) < 0)
			return -1;
		window->start = address;
		window->n = rest;
		offset = 0;
	}
	offset &= UNWIND_PAGE_BYTES - 1;
	if (offset > UNWIND_PAGE_BYTES - UNWIND_FRAME_BYTES)
		return -1;
	frame[0] = *(__u64 *)(window->bytes + offset);
	frame[1] = *(__u64 *)(window->bytes + offset + 8);
	return 0;
}

/* One step by frame pointer (System V ABI, x86-64: [fp] is the caller's fp, [fp + 8] the return address): makes *registers the
 * caller's. UNWIND_GOES_ON, or why the stack ends with the frame that *registers still describes. */
static __attribute__((always_inline)) inline int unwind_step_frame_pointer(struct unwind_registers *registers,
									   struct unwind_window *window, void *memory)
{
	__u64 frame[2] = {0, 0};
	if (registers->fp == 0)
		return STACK_END_ROOT;
	if (registers->fp < registers->sp || (registers->fp & 7))
		return STACK_END_BAD_FRAME_POINTER;
	if (unwind_read_frame(window, registers->fp, frame, memory) < 0)
		return STACK_END_UNREADABLE;
	if (frame[1] == 0)
		return STACK_END_ROOT;
	registers->sp = registers->fp + UNWIND_FRAME_BYTES;
	registers->fp = frame[0];
	registers->pc = frame[1];
	return UNWIND_GOES_ON;
}
