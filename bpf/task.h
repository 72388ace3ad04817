/* What the sampling program reads of the kernel: the event that fired, the task it fired on, the registers. Part of sampler.bpf.c.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
#include "bpf/kernel.h"
#include "bpf/record.h"
#include "bpf/unwind_registers.h"

enum {
	MAX_PID_NAMESPACE_LEVEL = 32, /* MAX_PID_NS_LEVEL */
	MAX_UNBOOKED_NS = 1000000000, /* the scheduler books at every tick */
};

const volatile __u32 daemon_pid_namespace;               /* inum of the daemon's */
__u32 pid_namespace_level = MAX_PID_NAMESPACE_LEVEL + 1; /* of the daemon's, learned at the first sample */

/* --- words of the kernel --- */

/* Since Linux 6.2. */
extern void *bpf_rdonly_cast(const void *pointer, __u32 type) __ksym __weak;

/* The word at an address that the verifier knows nothing of; 0 where there is none. By a plain load where the kernel can be told that the word is the
 * first of some structure: the five of a sample took 75 ns by calls of the helper. */
static __always_inline __u64 kernel_word(const void *address)
{
	if (bpf_rdonly_cast) {
		const struct pt_regs___kernel *any =
			bpf_rdonly_cast(address, bpf_core_type_id_kernel(struct pt_regs___kernel));
		return any->r15; /* the first, on x86-64 */
	}
	__u64 word = 0;
	bpf_probe_read_kernel(&word, sizeof(word), address);
	return word;
}

/* --- the event --- */

static struct perf_event *event_of(struct bpf_perf_event_data *ctx)
{
	return (void *)kernel_word((void *)ctx + bpf_core_field_offset(struct bpf_perf_event_data_kern, event));
}

#define event_word(event, field) kernel_word((void *)(event) + bpf_core_field_offset(struct perf_event, field))

/* How many whole periods the event's timer is late: with interrupts off for so long, or while a hypervisor ran something else. The kernel
 * counts them as time of the event, and goes on with the next (kernel/events/core.c, perf_swevent_hrtimer). */
static __u64 late_periods(struct perf_event *event, __u64 cookie, __u64 now_ns)
{
	if (!(cookie & COOKIE_CPU_CLOCK))
		return 0;
	__u64 due_ns = event_word(event, hw.hrtimer.node.expires);
	__u64 period_ns = event_word(event, hw.sample_period);
	return period_ns && now_ns > due_ns ? (now_ns - due_ns) / period_ns : 0;
}

/* CPU time of the thread up to now: what the scheduler has booked, and what it has not yet. The cpu-clock's own reading, taken
 * just before this program, is the scheduler's clock; the run queue says how much of that clock (interrupts, a stealing
 * hypervisor) it does not book to tasks. The run queue is found through the task, since few kernels export its symbol. */
static __u64 runtime_of(struct task_struct *task, struct perf_event *event, bool cpu_clock)
{
	__u64 clock = 0, clock_task = 0, now;
	if (bpf_core_field_exists(task->se.cfs_rq)) {
		struct rq *rq = task->se.cfs_rq->rq; /* loads that the verifier follows: a fault reads 0 */
		clock = rq->clock;
		clock_task = rq->clock_task;
	}
	now = clock;
	if (cpu_clock)
		now = event_word(event, hw.prev_count);
	__u64 unbooked = now - (clock - clock_task) - task->se.exec_start;
	return task->se.sum_exec_runtime + (unbooked < MAX_UNBOOKED_NS ? unbooked : 0); /* else the clocks disagree */
}

/* --- numbers of tasks --- */

static __u32 number_at(struct task_struct *task, __u32 level, bool *matches)
{
	/* numbers[] is as long as the level: its elements lie behind the declared end, so the address is made by hand, from a
	 * pointer that was read as a plain number: Linux 6.1 allows no variable offset on one whose type it knows. */
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct upid number = {};
	bpf_probe_read_kernel(&number, sizeof(number),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid));
	*matches = BPF_CORE_READ(number.ns, ns.inum) == daemon_pid_namespace;
	return (__u32)number.nr;
}

/* The task's number in the daemon's pid namespace; 0 when it has none there. */
static __u32 number_in_daemon_namespace(struct task_struct *task)
{
	if (daemon_pid_namespace == INIT_PID_NAMESPACE_INUM)
		return (__u32)task->pid;
	bool matches = false;
	if (pid_namespace_level <= MAX_PID_NAMESPACE_LEVEL) {
		__u32 number = number_at(task, pid_namespace_level, &matches);
		return matches ? number : 0;
	}
	__u32 level = task->thread_pid->level;
	for (__u32 i = 0; i <= MAX_PID_NAMESPACE_LEVEL; i++) {
		if (i > level)
			break;
		__u32 number = number_at(task, i, &matches);
		if (matches) {
			pid_namespace_level = i;
			return number;
		}
	}
	return 0;
}

/* The number of a task in its innermost pid namespace: what gettid() returns there. */
static __u32 innermost_number(struct task_struct *task)
{
	__u32 level = task->thread_pid->level;
	bool matches;
	return level == 0 || level > MAX_PID_NAMESPACE_LEVEL ? (__u32)task->pid : number_at(task, level, &matches);
}

/* --- registers --- */

/* The registers with which the thread entered the kernel: all of them, as the entry code saves them all (PUSH_AND_CLEAR_REGS). */
static void take_entry_registers(struct unwind_registers *to, const struct pt_regs___kernel *from)
{
	to->rax = from->ax, to->rdx = from->dx, to->rcx = from->cx, to->rbx = from->bx;
	to->rsi = from->si, to->rdi = from->di, to->fp = from->bp, to->sp = from->sp;
	to->r8 = from->r8, to->r9 = from->r9, to->r10 = from->r10, to->r11 = from->r11;
	to->r12 = from->r12, to->r13 = from->r13, to->r14 = from->r14, to->r15 = from->r15;
	to->pc = from->ip;
}

static void take_interrupted_registers(struct unwind_registers *to, const volatile bpf_user_pt_regs_t *from)
{
	to->rax = from->rax, to->rdx = from->rdx, to->rcx = from->rcx, to->rbx = from->rbx;
	to->rsi = from->rsi, to->rdi = from->rdi, to->fp = from->rbp, to->sp = from->rsp;
	to->r8 = from->r8, to->r9 = from->r9, to->r10 = from->r10, to->r11 = from->r11;
	to->r12 = from->r12, to->r13 = from->r13, to->r14 = from->r14, to->r15 = from->r15;
	to->pc = from->rip;
}

/* The registers of the user's leaf frame. false: the thread has no user side. */
static bool user_registers(struct bpf_perf_event_data *ctx, struct task_struct *task, bool kernel_mode,
			   struct unwind_registers *ret, __u64 *ret_cs)
{
	if (!task->mm || (task->flags & TASK_PF_KTHREAD))
		return false;
	if (kernel_mode) {
		struct pt_regs___kernel *entry = (void *)bpf_task_pt_regs(task);
		take_entry_registers(ret, entry);
		*ret_cs = entry->cs;
	} else {
		take_interrupted_registers(ret, &ctx->regs);
		__u64 cs = ctx->regs.cs;
		UNWIND_OPAQUE(cs); /* or the loads of both branches become one, by a pointer that is either's */
		*ret_cs = cs;
	}
	ret->known = UNWIND_KNOWN_ALL;
	ret->pc_is_exact = 1;
	return ret->pc != 0;
}
