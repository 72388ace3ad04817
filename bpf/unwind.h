/* The walk of a user stack, one step of it. One piece of code that builds as BPF and as a user-mode library (tests, fuzzing).
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * The including file provides __u8 .. __u64, __s16 .. __s64 and, before inclusion,
 *     long unwind_read(void *to, __u32 bytes, __u64 address, void *memory)                  0, or negative when it cannot be read
 *     const void *unwind_list_page(__u32 list, __u32 page, void *memory)                    of a mapping list; NULL when there is none
 *     void *unwind_table_open(__u32 table, void *memory)                                    a table (cfi_table.h); NULL when there is none
 *     const void *unwind_table_page(void *table, __u32 page)                                a page of it; NULL when there is none
 *
 * and may provide
 *     UNWIND_ORIGINAL(slot, memory)          the return address that the kernel replaced at that address for a uretprobe; 0 when it knows of none
 *
 *     UNWIND_THREAD_POINTER(memory)          the thread's fs base; 0 when it is not known
 *
 * A step never trusts what it reads: every outcome is a stack_end. The stack pointer only grows, but where a signal interrupted the
 * caller, which may have been on another stack, or where a rule says that the caller is on another: a walk ends by the number of frames that
 * its caller takes.
 *
 * As BPF: registers and window must lie in a map's value, not on the program's stack. */
#pragma once
#include "bpf/mapping_list.h"
#include "bpf/outcome.h"
#include "bpf/unwind_registers.h"

#ifndef UNWIND_ORIGINAL
#define UNWIND_ORIGINAL(slot, memory) 0
#endif

#ifndef UNWIND_THREAD_POINTER
#define UNWIND_THREAD_POINTER(memory) 0
#endif

#include "bpf/unwind_locate.h"

#include "bpf/cfi.h"
#include "bpf/frame_pointer.h"

/* By table or frame pointer. */
static __attribute__((always_inline)) inline int unwind_step_any(struct unwind_registers *registers,
								 struct unwind_window *window,
								 const struct unwind_tables *tables, __u64 *ret_slot)
{
	if (!tables->ready)
		return unwind_step_unprepared(registers, window, tables, ret_slot);
	__u64 pc = registers->pc - !registers->pc_is_exact;
	struct unwind_remembered *remembered = cfi_memory_of(window, pc);
	if (!tables->serial || remembered->serial != tables->serial || remembered->pc != pc) {
		enum unwind_found found = unwind_locate(window, tables->list, pc);
		int r = CFI_NO_ROW;
		if (found == UNWIND_IN_TABLE)
			r = cfi_look_up(registers, window, tables, pc, remembered, ret_slot);
		if (r == CFI_NO_ROW)
			return unwind_step_frame_pointer(registers, window, tables, found, ret_slot);
		if (r != UNWIND_GOES_ON)
			return r == CFI_DONE ? UNWIND_GOES_ON : r;
	}
	return cfi_step(registers, window, tables, remembered, ret_slot);
}

/* Makes *registers the caller's; *ret_slot is the address from which the return address was read, or 0 when it was not in memory.
 * UNWIND_GOES_ON, or the enum stack_end with which the stack ends at the frame before. */
static __attribute__((always_inline)) inline int unwind_step(struct unwind_registers *registers,
							     struct unwind_window *window,
							     const struct unwind_tables *tables, void *memory,
							     __u64 *ret_slot)
{
	unwind_set_memory(window, memory);
	*ret_slot = 0;
	int r = unwind_step_any(registers, window, tables, ret_slot);
	if (r != UNWIND_GOES_ON || !tables->hijacker || registers->pc != tables->hijacker)
		return r;
	__u64 original = UNWIND_ORIGINAL(*ret_slot, memory);
	registers->pc = original;
	return original ? UNWIND_GOES_ON : STACK_END_HIJACKED;
}
