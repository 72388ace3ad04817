/* The one table of outcomes: every entry of the BPF program ends in exactly one of them. Enum, counter, metric label and text
 * are all generated from here. Shared by BPF and userspace; SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

/* X(NAME, name, where, text)   where: BPF  counted by the BPF program, no record leaves it
 *                                     USER counted by the daemon, for a record it has read
 * CAPTURED is the BPF program's word for "a record left"; the daemon then gives each record its own outcome, SAMPLE or a
 * loss. So: entries == sum of the BPF losses + CAPTURED, and CAPTURED == SAMPLE + sum of the USER losses + in flight. */
#define OUTCOME_TABLE(X)                                                                       \
	X(CAPTURED, captured, BPF, "written to the ring buffer")                               \
	X(RING_FULL, ring_full, BPF, "the ring buffer was full: the daemon could not keep up") \
	X(NO_SCRATCH, no_scratch, BPF, "the kernel gave the BPF program no scratch memory")    \
	X(NOT_CURRENT_RATE, not_current_rate, BPF,                                             \
	  "from the event of the other rate while a rate changes: counted by its twin")        \
	X(DUPLICATE_EVENT, duplicate_event, BPF,                                               \
	  "a second event on a thread that was born while it was armed: counted by the first") \
	X(CLAIM_TABLE_FULL, claim_table_full, BPF,                                             \
	  "too many threads were born while being armed to tell doubles apart")                \
	X(UNKNOWN_TARGET, unknown_target, BPF, "from an event whose target is gone")           \
	X(SAMPLE, sample, USER, "in the profile")                                              \
	X(MALFORMED_RECORD, malformed_record, USER, "a record that makes no sense")            \
	X(STORE_FULL, store_full, USER, "the memory budget for profiles is spent")             \
	X(AGED_OUT, aged_out, USER, "was in the profile, and left it when its memory budget was spent")

enum outcome {
#define OUTCOME_ENUM(NAME, name, where, text) OUTCOME_##NAME,
	OUTCOME_TABLE(OUTCOME_ENUM)
#undef OUTCOME_ENUM
		OUTCOME_COUNT
};

/* Why the user part of a stack ends where it does. Each sample has exactly one. X(NAME, name, complete, text) */
#define STACK_END_TABLE(X)                                                                                         \
	X(NONE, none, 1, "no user stack: a thread of the kernel, or one that is exiting")                          \
	X(ROOT, root, 1,                                                                                           \
	  "the frame pointer was zero: where the chain ends, in a file's code without unwind information")         \
	X(BAD_RETURN_ADDRESS, bad_return_address, 0,                                                               \
	  "an address that is in no code that is known, and where the frame pointer leads to no caller")           \
	X(COMPAT, compat, 0, "32-bit code: only the sampled address is known")                                     \
	X(UNREADABLE, unreadable, 0, "stack memory could not be read at the moment of the sample")                 \
	X(TOO_DEEP, too_deep, 0, "deeper than is walked: the leaf's end alone")                                    \
	X(CUT, cut, 0, "deeper than the record holds: both ends are there, the frames between left out")           \
	X(OUTERMOST, outermost, 1,                                                                                 \
	  "the outermost frame, as its unwind information says: _start, or where a thread begins")                 \
	X(TABLES_NOT_READY, tables_not_ready, 0,                                                                   \
	  "no unwind tables yet, of the program (then by frame pointers) or of what it has just loaded")           \
	X(NO_UNWIND_INFO, no_unwind_info, 0,                                                                       \
	  "code without unwind information, where the frame pointer leads to no caller")                           \
	X(TABLE_REFUSED, table_refused, 0,                                                                         \
	  "code whose unwind table had no room in unwind_mib, and where the frame pointer leads to no caller")     \
	X(BAD_FRAME, bad_frame, 0, "the unwind information leads off the stack")                                   \
	X(HIJACKED, hijacked, 0, "a return that the kernel has hijacked for a uretprobe, of which it has no note") \
	X(REGISTER_LOST, register_lost, 0,                                                                         \
	  "the unwind information needs a register whose value in that frame is not known")                        \
	X(TABLE_ROOT, table_root, 1, "the end of a stack, as the barrier-lock table has it")                       \
	X(FOREIGN_LOCKED, foreign_locked, 0,                                                                       \
	  "in foreign code, while the stack of its caller was locked: the native frames alone")                    \
	X(USER_LOCKED, user_locked, 0, "the stack was locked by the runtime: not walked")                          \
	X(SYSTEM_ONLY, system_only, 0, "the user stack was locked by the runtime: the system stack alone")         \
	X(RESUMER_LOCKED, resumer_locked, 0,                                                                       \
	  "the stack of whoever resumed the fiber was locked by the runtime: the fiber alone")                     \
	X(STACK_CHANGED, stack_changed, 0, "the runtime changed the stack during the walk: its frames dropped")    \
	X(SETS_SP, sets_sp, 0, "in the middle of a stack switch: not walked")                                      \
	X(TABLE_SWITCHING, table_switching, 0, "the thread was changing its record in the barrier-lock table")     \
	X(BARRIER_MISMATCH, barrier_mismatch, 0,                                                                   \
	  "a hijacked return address that the barrier-lock table does not have next")                              \
	X(STACK_NOT_TRUSTED, stack_not_trusted, 0,                                                                 \
	  "the table names a stack that is gone, another thread's, or makes no sense")                             \
	X(TOO_MANY_STACKS, too_many_stacks, 0, "fibers that resumed one another, more than the record holds")      \
	X(TABLE_NOT_RESIDENT, table_not_resident, 0,                                                               \
	  "the barrier-lock table was not in memory: have it locked (mlock)")                                      \
	X(TABLE_CHANGED, table_changed, 0,                                                                         \
	  "the barrier-lock table, or its ranges of code, changed just before the walk or during it")              \
	X(TABLE_FOREIGN_PROCESS, table_foreign_process, 0,                                                         \
	  "a hijacked return address in a process that shares another's barrier-lock table (vfork)")

enum stack_end {
#define STACK_END_ENUM(NAME, name, complete, text) STACK_END_##NAME,
	STACK_END_TABLE(STACK_END_ENUM)
#undef STACK_END_ENUM
		STACK_END_COUNT
};

/* How far the frames of CPython are known, in a process that runs it. Each sample has exactly one. X(NAME, name, complete, text) */
#define PYTHON_END_TABLE(X)                                                                                       \
	X(NONE, none, 1, "not looked for: no CPython that is known, or it was not found yet")                     \
	X(WHOLE, whole, 1, "all frames of the thread")                                                            \
	X(NO_STATE, no_state, 1, "a thread that CPython does not know, or not yet, or no more: it has no frames") \
	X(TOO_DEEP, too_deep, 0, "deeper than the record holds: the innermost frames alone")                      \
	X(UNREADABLE, unreadable, 0, "the interpreter's memory could not be read at the moment of the sample")    \
	X(NOT_CODE, not_code, 0, "a frame without a code object: the frames before it alone")

enum python_end {
#define PYTHON_END_ENUM(NAME, name, complete, text) PYTHON_END_##NAME,
	PYTHON_END_TABLE(PYTHON_END_ENUM)
#undef PYTHON_END_ENUM
		PYTHON_END_COUNT
};
