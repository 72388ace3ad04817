/* What the daemon tells the BPF program about a target's barrier-lock table: where its arrays are, and a copy of its ranges of code. All of it
 * was checked (daemon/collect/barrier_table.h); what the program then reads there is the target's, and is not to be trusted.
 * Shared by BPF and userspace; SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 * The including file provides the fixed-width types. */
#pragma once
#include <sprof/barrier_abi.h>

enum table_flag {
	TABLE_FOREIGN_PROCESS =
		1, /* another process's table, seen by a child that shares its memory: good for nothing but the ranges */
};

/* Where code may be that a walk asks about: lo <= pc < hi; empty when lo >= hi. */
struct table_span {
	__u64 lo, hi;
};

struct table_config {
	__u64 self_va, total_size;
	__u64 exec_id; /* of the program that published it; 0: not known yet */
	__u64 off_thread, off_stack;
	__u64 proc_starttime; /* ticks; 0: not known */
	__u32 thread_size, stack_size, cap_thread, cap_stack;
	__u32 flags; /* enum table_flag */
	__u32 n_ranges;
	__u64 ranges_version;                        /* of the copy */
	struct table_span code;                      /* all of the ranges below, and the entries of trampolines */
	struct table_span trampolines;               /* those, with their entries */
	struct table_span stack_tops;                /* STACK_TOP */
	struct sprof_range ranges[SPROF_MAX_RANGES]; /* those that the walk needs, trampolines first */
};
