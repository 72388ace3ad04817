/* Threads that are sampled in the kernel's own code for uprobes, which is mapped as [uprobes], or at a breakpoint. Part of sampler.bpf.c.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * Source: kernel/events/uprobes.c, arch/x86/kernel/uprobes.c. The trampoline, to which watched functions return, is one int3; since Linux 6.11 it is
 *     0 push rax, 1 push rcx, 2 push r11, 4 mov number, rax, 11 syscall, 13 pop r11, 15 pop rcx, 16 ret
 * and the system call, which forgets the return, has left the address in the place of rax. */
#pragma once

enum {
	UPROBES_AREA_BYTES = 4096,
	UPROBES_COPY_BYTES = 16, /* MAX_UINSN_BYTES */
	UPROBES_TRAMPOLINE_BYTES = 17,
	UPROBES_CALLED = 13, /* where the system call returns to */
	UPROBES_INT3 = 0xcc,
	UPROBES_FUNCTION_ALIGNMENT = 16,
};

/* Whether the thread has ever been at a uprobe. */
static __always_inline bool uprobes_met(struct task_struct *task)
{
	return bpf_core_field_exists(task->utask) && task->utask;
}

/* Bytes that the trampoline has on the stack at an offset of it. */
static __always_inline __u64 uprobes_pushed(__u64 offset)
{
	if (offset < 3)
		return offset * sizeof(__u64);
	if (offset < UPROBES_CALLED + 2)
		return 3 * sizeof(__u64);
	return (UPROBES_TRAMPOLINE_BYTES - offset) * sizeof(__u64);
}

/* In the trampoline a thread is in the function's caller again: the address is with the kernel, or on the stack again when the kernel has forgotten it. */
static __always_inline int uprobes_returned(struct unwind_registers *registers, __u64 offset,
					    struct return_instance *instance)
{
	__u64 sp = registers->sp, top = sp + uprobes_pushed(offset), pc = 0;
	if (instance) {
		__u64 after = BPF_CORE_READ(instance, stack) + sizeof(__u64);
		/* behind an int3 nothing is pushed */
		if (after == top || (offset == 1 && after == sp)) {
			top = after;
			pc = BPF_CORE_READ(instance, orig_ret_vaddr);
		}
	}
	if (!pc &&
	    (offset < UPROBES_CALLED || bpf_probe_read_user(&pc, sizeof(pc), (const void *)(top - sizeof(__u64)))))
		return -1;
	registers->pc = pc;
	registers->sp = top;
	registers->known &= UNWIND_KNOWN_PRESERVED;
	registers->pc_is_exact = 0;
	return 0;
}

/* Whether the push that a breakpoint stood for has been done: then the word at sp is some register's. Before, at the first instruction of a function, it is where
 * that returns to; at a later push it may be what the push before has saved, and is then mistaken for this one's. */
static __always_inline bool uprobes_has_pushed(const struct unwind_registers *registers)
{
	__u64 word = 0;
	if (bpf_probe_read_user(&word, sizeof(word), (const void *)registers->sp))
		return false;
	for (__u32 i = 0; i < UNWIND_RIP; i++)
		if (registers->by_number[i] == word)
			return true;
	return false;
}

/* The kernel has just taken the thread out of a breakpoint, behind which the registers still are, amidst the instruction that it stands for. Go and LLVM fill with
 * int3 too what is before a function, which begins at a multiple of 16. */
static __always_inline void uprobes_step_back(struct unwind_registers *registers)
{
	__u8 before = 0;
	if (registers->pc % UPROBES_FUNCTION_ALIGNMENT &&
	    bpf_probe_read_user(&before, sizeof(before), (const void *)(registers->pc - 1)) == 0 &&
	    before == UPROBES_INT3 && !uprobes_has_pushed(registers))
		registers->pc--;
}

/* Brings the registers of a leaf to where the program is without uprobes. area: where theirs is mapped; 0: nowhere, since the kernel emulates what their
 * breakpoints stand for, and watches no return. in_kernel: the thread is. Nonzero: they were there, or must stay. */
__attribute__((noinline)) int uprobes_leave(struct unwind_registers *registers, __u64 area, int in_kernel)
{
	struct task_struct *task = bpf_get_current_task_btf();
	if (!registers || !bpf_core_field_exists(task->utask))
		return -1;
	__u64 pc = registers->pc, offset = pc - area;
	if (!area || offset >= UPROBES_AREA_BYTES) {
		if (in_kernel)
			uprobes_step_back(registers);
		return -1;
	}
	if (offset < UPROBES_TRAMPOLINE_BYTES)
		return uprobes_returned(registers, offset, BPF_CORE_READ(task, utask, return_instances));
	/* An instruction under a breakpoint is executed in a copy of it. */
	__u64 copy = BPF_CORE_READ(task, utask, xol_vaddr);
	if (pc - copy >= UPROBES_COPY_BYTES)
		return -1;
	registers->pc = pc - copy + BPF_CORE_READ(task, utask, vaddr);
	return 0;
}
