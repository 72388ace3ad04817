/* The few kernel types that the BPF program reads, with only the fields it reads: CO-RE finds where they are in the running kernel.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 * Source: include/linux/{perf_event,sched,mm_types,pid}.h, kernel/sched/sched.h of Linux 6.1 to 6.18. */
#pragma once
#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct local64 { /* local64_t */
	long a;
};

struct perf_event_attr___attr { /* the user ABI's struct perf_event_attr */
	__u64 sig_data;
};

struct timerqueue_node {
	__s64 expires; /* ktime_t */
};

struct hrtimer {
	struct timerqueue_node node;
};

struct hw_perf_event {
	struct hrtimer hrtimer; /* of a cpu-clock event */
	__u64 sample_period;
	struct local64 prev_count;
};

struct perf_event {
	struct perf_event_attr___attr attr;
	struct hw_perf_event hw;
};

struct bpf_perf_event_data_kern { /* what the context of a perf_event program really is */
	void *regs;
	void *data;
	struct perf_event *event;
};

struct rq {
	__u64 clock, clock_task;
};

struct cfs_rq {
	struct rq *rq; /* CONFIG_FAIR_GROUP_SCHED */
};

struct sched_entity {
	__u64 exec_start, sum_exec_runtime;
	struct cfs_rq *cfs_rq; /* CONFIG_FAIR_GROUP_SCHED */
};

struct xol_area { /* kernel/events/uprobes.c */
	unsigned long vaddr;
};

struct uprobes_state {
	struct xol_area *xol_area;
};

struct return_instance {
	unsigned long stack, orig_ret_vaddr;
	struct return_instance *next;
};

struct uprobe_task {
	struct return_instance *return_instances;
	unsigned long vaddr, xol_vaddr;
};

struct mm_struct {
	struct uprobes_state uprobes_state;
	unsigned long exec_vm, start_stack;
	int map_count;
};

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct thread_struct {
	unsigned long fsbase;
};

struct task_struct {
	unsigned int flags;
	int pid, tgid;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct uprobe_task *utask; /* CONFIG_UPROBES */
	struct sched_entity se;
	__u64 start_boottime;
	__u64 self_exec_id;
	char comm[16];
	struct thread_struct thread;
};

struct pt_regs___kernel {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, cs, sp;
};

#pragma clang attribute pop

enum { TASK_PF_KTHREAD = 0x00200000 };      /* PF_KTHREAD */
#define INIT_PID_NAMESPACE_INUM 0xEFFFFFFCu /* PROC_PID_INIT_INO */
