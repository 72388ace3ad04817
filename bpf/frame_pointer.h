/* A step by frame pointer, where there is no unwind information. Part of unwind.h. SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * System V ABI, x86-64: [fp] is the caller's fp, [fp + 8] the return address. */
#pragma once

enum {
	UNWIND_FRAME_BYTES = 16,
	/* Instructions, little-endian */
	UNWIND_ENDBR64 = 0xfa1e0ff3,
	UNWIND_PUSH_RBP = 0x55,
	UNWIND_MOV_RSP_RBP = 0xe58948, /* as GNU as has it */
	UNWIND_MOV_RSP_RBP_TOO = 0xec8b48,
	UNWIND_RET = 0xc3,
};

struct unwind_frame {
	__u64 fp, pc; /* the caller's */
};

/* The frame that the frame pointer points to. UNWIND_GOES_ON, or the enum stack_end. */
static __attribute__((always_inline)) inline int unwind_read_frame(const struct unwind_registers *registers,
								   struct unwind_window *window,
								   const struct unwind_tables *tables,
								   struct unwind_frame *ret)
{
	__u64 fp = registers->fp;
	if (!(registers->known & UNWIND_KNOWN(UNWIND_RBP)))
		return STACK_END_REGISTER_LOST;
	if (fp == 0)
		return STACK_END_ROOT;
	if (fp < registers->sp || (fp & 7) ||
	    !unwind_may_go(registers, tables->stack_lo, tables->stack_hi, fp + UNWIND_FRAME_BYTES))
		return STACK_END_NO_UNWIND_INFO;
	unwind_window_cover(window, registers->sp, fp + UNWIND_FRAME_BYTES);
	if (unwind_word(window, fp, &ret->fp) < 0 || unwind_word(window, fp + 8, &ret->pc) < 0)
		return STACK_END_UNREADABLE;
	return ret->pc == 0 ? STACK_END_ROOT : UNWIND_GOES_ON;
}

static __attribute__((always_inline)) inline int unwind_take_frame(struct unwind_registers *registers,
								   const struct unwind_frame *frame, __u64 *ret_slot)
{
	*ret_slot = registers->fp + 8;
	registers->sp = registers->fp + UNWIND_FRAME_BYTES;
	registers->fp = frame->fp;
	registers->pc = frame->pc;
	registers->known = UNWIND_KNOWN_FRAME; /* what the function saved, and where, nobody knows */
	registers->pc_is_exact = 0;
	return UNWIND_GOES_ON;
}

/* Whether a call may return there. */
static __attribute__((always_inline)) inline bool unwind_is_code(struct unwind_window *window,
								 const struct unwind_tables *tables, __u64 pc)
{
	return pc == tables->hijacker || unwind_locate(window, tables->list, pc - 1) != UNWIND_NOWHERE;
}

/* A leaf that has no frame of its own yet, or no more: the frame pointer is still, or again, its caller's. Told by its next instruction. */
static __attribute__((always_inline)) inline bool unwind_read_leaf(const struct unwind_registers *registers,
								   struct unwind_window *window, __u64 *ret_slot)
{
	__u32 text = 0;
	*ret_slot = registers->sp;
	/* The first instruction of a file's code, as _init's often is, which has no unwind information: nothing falls into it, and
	 * nothing returns to it. It need not even be in memory yet. */
	if (window->place.end && registers->pc == window->place.start && window->place.kind == UNWIND_CODE_TABLE)
		return true;
	if (unwind_read(&text, sizeof(text), registers->pc, unwind_memory(window)) < 0)
		return false;
	if (text == UNWIND_ENDBR64 || (__u8)text == UNWIND_PUSH_RBP || (__u8)text == UNWIND_RET)
		return true;
	*ret_slot = registers->sp + 8;
	return (text & 0xffffff) == UNWIND_MOV_RSP_RBP || (text & 0xffffff) == UNWIND_MOV_RSP_RBP_TOO;
}

/* The caller of such a leaf, where it is in code that is known. */
static __attribute__((always_inline)) inline bool unwind_step_leaf(struct unwind_registers *registers,
								   struct unwind_window *window,
								   const struct unwind_tables *tables, __u64 *ret_slot)
{
	__u64 slot = 0, pc = 0, fp = registers->fp;
	if (!registers->pc_is_exact || !unwind_read_leaf(registers, window, &slot) ||
	    !unwind_may_go(registers, tables->stack_lo, tables->stack_hi, slot + 8))
		return false;
	unwind_window_cover(window, registers->sp, slot + 8);
	if (unwind_word(window, slot, &pc) < 0 || (slot > registers->sp && unwind_word(window, slot - 8, &fp) < 0) ||
	    !unwind_is_code(window, tables, pc))
		return false;
	registers->fp = fp;
	registers->sp = slot + 8;
	registers->pc = pc;
	registers->known &= UNWIND_KNOWN_PRESERVED;
	registers->pc_is_exact = 0;
	*ret_slot = slot;
	return true;
}

/* Without tables: what is found is only as good as the frame pointers, and the end says that. */
static __attribute__((always_inline)) inline int unwind_step_unprepared(struct unwind_registers *registers,
									struct unwind_window *window,
									const struct unwind_tables *tables,
									__u64 *ret_slot)
{
	struct unwind_frame frame = {0, 0};
	int r = unwind_read_frame(registers, window, tables, &frame);
	return r == UNWIND_GOES_ON ? unwind_take_frame(registers, &frame, ret_slot) : STACK_END_TABLES_NOT_READY;
}

/* In code without unwind information the frame pointer is followed when it leads to a caller whose code is known. */
static __attribute__((always_inline)) inline int unwind_step_frame_pointer(struct unwind_registers *registers,
									   struct unwind_window *window,
									   const struct unwind_tables *tables,
									   enum unwind_found found, __u64 *ret_slot)
{
	struct unwind_frame frame = {0, 0};
	int end = STACK_END_NO_UNWIND_INFO;
	if (found == UNWIND_NOWHERE)
		end = tables->outdated ? STACK_END_TABLES_NOT_READY : STACK_END_BAD_RETURN_ADDRESS;
	else if (window->place.kind == UNWIND_CODE_REFUSED)
		end = STACK_END_TABLE_REFUSED;
	else if (window->place.kind == UNWIND_CODE_PENDING)
		end = STACK_END_TABLES_NOT_READY;
	if (unwind_step_leaf(registers, window, tables, ret_slot))
		return UNWIND_GOES_ON;
	int r = unwind_read_frame(registers, window, tables, &frame);
	/* Code that a table would describe, were it there, need not keep frame pointers either. */
	bool may_be_root = end == STACK_END_NO_UNWIND_INFO && window->place.kind != UNWIND_CODE_JIT;
	if (r == STACK_END_UNREADABLE || (r == STACK_END_ROOT && may_be_root))
		return r;
	if (r != UNWIND_GOES_ON || !unwind_is_code(window, tables, frame.pc))
		return end;
	return unwind_take_frame(registers, &frame, ret_slot);
}
