/* libsprof: publishes what a runtime does with its stacks (barrier_abi.h), so that sprofd can unwind them.
 *
 * Rules for all of it:
 * - Handles are NULL when there is no room; every function takes NULL and then does nothing (what it returns is said with it). So a
 *   full table or a denied memfd costs profiles, never the program. sprof_status tells what happened.
 * - Nothing allocates after sprof_open. Nothing blocks, but sprof_lock and sprof_fork_prepare, which wait for a holder.
 * - "AS-safe" is async-signal-safe. All functions may be called by any thread at any time but for what each says.
 * - The functions of sprof_inline.h are inlined by C and C++ compilers and exist in the library as well, for other languages.
 * - A record that a handle points to is shared with readers in other processes: change it through these functions only.
 * - Errors are returned as -errno; errno is left alone.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPROF_SPROF_H
#define SPROF_SPROF_H

#include <sprof/barrier_abi.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SPROF_API
#define SPROF_API __attribute__((visibility("default")))
#endif

struct sprof_table; /* an open table; one in a process */

/* --- The table ----------------------------------------------------------------------------------------------------------------- */

#define SPROF_OPEN_NO_LOCK   1u /* do not mlock */
#define SPROF_OPEN_NO_ATFORK 2u /* the caller calls sprof_fork_* itself */
#define SPROF_OPEN_PRIVATE   4u /* in private memory: nobody is to see it */

/* Zero-initialize and set size; 0 in a field is its default. */
struct sprof_options {
	uint32_t size;     /* sizeof(struct sprof_options) */
	uint32_t flags;    /* SPROF_OPEN_* */
	uint32_t threads;  /* default 1024; 256 bytes each */
	uint32_t stacks;   /* default 1024; 128 bytes each */
	uint32_t barriers; /* of each stack; default 32; 16 bytes each */
	uint32_t ranges;   /* default and maximum SPROF_MAX_RANGES */
};

/* Makes the table, registers for fork, and publishes it. options may be NULL. *ret_table is set in any case: to NULL on failure.
 * When a memfd or its sealing is denied, the table is made in private memory instead: all works, but no reader finds it, and
 * sprof_status says why. -EEXIST: one is open already; -EINVAL: options beyond the ABI's bounds; -ENOMEM.
 * Not AS-safe; not at the same time as sprof_close. */
SPROF_API int sprof_open(const struct sprof_options *options, struct sprof_table **ret_table);

/* Takes the table away. Nobody may use it or a handle of it any more. Not AS-safe. */
SPROF_API void sprof_close(struct sprof_table *table);

#define SPROF_STATUS_PUBLISHED 1u /* readers can find the table */
#define SPROF_STATUS_LOCKED    2u /* its pages are locked; without it a page that was swapped out cannot be read */
#define SPROF_STATUS_FORK_LOST 4u /* this is a forked child whose parent could not make a copy: the table is empty */
#define SPROF_STATUS_FORK_BUSY 8u /* a lock was held for a second while forking: that stack stays held in the child */

struct sprof_status {
	uint32_t size;             /* in: sizeof(struct sprof_status); out: bytes filled */
	uint32_t flags;            /* SPROF_STATUS_* */
	int32_t publish_error;     /* -errno of what denied publishing; 0: none */
	int32_t lock_error;        /* -errno of mlock */
	uint64_t threads_refused;  /* there was no free slot */
	uint64_t stacks_refused;   /* the table was full */
	uint64_t barriers_refused; /* a stack's barriers were full */
	uint64_t ranges_refused;
};

/* Fills *status, up to status->size. 0, or -EINVAL for a size too small; for NULL all zero but publish_error = -ENOENT. AS-safe. */
SPROF_API int sprof_status(const struct sprof_table *table, struct sprof_status *status);

/* The worst of the status in plain words, what to do included; "ok" if all is well. A constant. AS-safe. */
SPROF_API const char *sprof_status_text(const struct sprof_table *table);

/* The table's first byte (a struct sprof_header), for tools and tests; NULL for NULL. AS-safe. */
SPROF_API const void *sprof_table_address(const struct sprof_table *table);

/* --- Forking ------------------------------------------------------------------------------------------------------------------- */

/* fork() does all this by itself. For _Fork and raw clone without CLONE_VM: prepare before, then parent or child after, in the same
 * thread. prepare takes every stack's lock (so the caller must hold none) and copies the table; in the child, the copy takes the
 * place of the table, the calling thread's slot is moved to its new tid, and all other threads' slots and ownerships are gone.
 * A handle of the calling thread from before is dead in the child: ask sprof_thread_self. prepare and parent are not AS-safe; child is.
 * After vfork or clone with CLONE_VM, and in posix_spawn, a child must not use the table at all. */
SPROF_API void sprof_fork_prepare(void);
SPROF_API void sprof_fork_parent(void);
SPROF_API void sprof_fork_child(void);

/* --- Threads ------------------------------------------------------------------------------------------------------------------- */

/* The calling thread's record, claimed if it has none. NULL: no free slot. A slot whose thread is gone without sprof_thread_detach
 * is used again. The record is used by its own thread alone. Not AS-safe. */
SPROF_API struct sprof_thread *sprof_thread_attach(struct sprof_table *table);

/* The calling thread's record, if it has one. AS-safe. */
SPROF_API struct sprof_thread *sprof_thread_self(struct sprof_table *table);

/* Gives the slot back; the thread's last call. AS-safe. */
SPROF_API void sprof_thread_detach(struct sprof_thread *thread);

/* Everything below up to "Stacks" is for the record's own thread, and AS-safe.
 *
 * A change is announced (version odd), made, and completed (even). In between no sample of the thread is believed. begin returns what
 * end must be given; pairs nest, also by a signal handler that interrupts one. 0 for NULL. */
SPROF_API uint32_t sprof_begin(struct sprof_thread *thread);
SPROF_API void sprof_end(struct sprof_thread *thread, uint32_t step);

/* The stacks of the thread, to be set between begin and end; NULL: none. */
SPROF_API void sprof_set_current(struct sprof_thread *thread, const struct sprof_stack *stack);
SPROF_API void sprof_set_user(struct sprof_thread *thread, struct sprof_stack *stack);   /* makes thread its owner */
SPROF_API void sprof_set_system(struct sprof_thread *thread, struct sprof_stack *stack); /* makes thread its owner */

/* Switches from one fiber's stack to another's: begin, then change the stack pointer, then end as the first thing on the new stack
 * (a new fiber's first function, too), with the record of the thread that arrived there. NULL for a stack that is not in the table.
 * Not for signal handlers that may interrupt a switch. begin disowns from; it may be resumed elsewhere once end has been called. */
SPROF_API void sprof_switch_begin(struct sprof_thread *thread, struct sprof_stack *from, struct sprof_stack *to);
SPROF_API void sprof_switch_end(struct sprof_thread *thread);

/* The same for coroutines that return to whoever resumed them: while `to` runs, its walk continues in `from` at the given context
 * (where the resume call returns to). from stays owned. yield undoes it: `from` is the coroutine that suspends itself. */
SPROF_API void sprof_resume_begin(struct sprof_thread *thread, struct sprof_stack *from, struct sprof_stack *to,
				  uint64_t pc, uint64_t sp, uint64_t fp);
SPROF_API void sprof_yield_begin(struct sprof_thread *thread, struct sprof_stack *from, struct sprof_stack *to);

/* To the thread's system stack, leaving the user stack at the given context; and back. Each is followed by sprof_switch_end once the
 * stack pointer has changed. */
SPROF_API void sprof_system_begin(struct sprof_thread *thread, uint64_t pc, uint64_t sp, uint64_t fp);
SPROF_API void sprof_user_begin(struct sprof_thread *thread);

/* Around a call of foreign code from managed code on `stack`; the context is the managed caller's: where the call returns to, its
 * stack pointer then, its frame pointer. Calls nest by way of callbacks: callback_enter where foreign code calls managed code (which has no
 * foreign context of its own), callback_leave with the context of the foreign call that it returns into (where the stack is now).
 * When other threads move stacks of threads in foreign code, hold the stack's lock around leave and callback_enter. */
SPROF_API void sprof_foreign_enter(struct sprof_thread *thread, const struct sprof_stack *stack, uint64_t pc,
				   uint64_t sp, uint64_t fp);
SPROF_API void sprof_foreign_leave(struct sprof_thread *thread);
SPROF_API void sprof_callback_enter(struct sprof_thread *thread);
SPROF_API void sprof_callback_leave(struct sprof_thread *thread, const struct sprof_stack *stack, uint64_t pc,
				    uint64_t sp, uint64_t fp);

/* Around a library call made by the runtime itself: the context to fall back to when nothing else can be walked. */
SPROF_API void sprof_libcall_enter(struct sprof_thread *thread, const struct sprof_stack *stack, uint64_t pc,
				   uint64_t sp, uint64_t fp);
SPROF_API void sprof_libcall_leave(struct sprof_thread *thread);

/* Whether the thread works for the collector: its samples that cannot be walked count as [GC]. */
SPROF_API void sprof_gc(struct sprof_thread *thread, int on);

/* --- Stacks -------------------------------------------------------------------------------------------------------------------- */

/* Adds a stack, lo <= sp <= hi. NULL: the table is full, or lo >= hi. AS-safe. */
SPROF_API struct sprof_stack *sprof_stack_add(struct sprof_table *table, uint64_t lo, uint64_t hi);

/* Removes it, with its barriers. Takes its lock; no thread may own it any more. AS-safe where sprof_lock is. */
SPROF_API void sprof_stack_remove(struct sprof_table *table, struct sprof_stack *stack);

/* The lock of a stack, to be held while its bounds, its barriers, its slots or contexts that point into it change. Between threads of
 * the process it is a plain mutual exclusion (not recursive; never wait for anything while holding it); a profiler sees it as a
 * version. trylock returns 1 if it took the lock (for NULL as well), 0 if not.
 * lock waits: never in a signal handler, which may have interrupted the holder. trylock and unlock are AS-safe. */
SPROF_API int sprof_trylock(struct sprof_stack *stack);
SPROF_API void sprof_lock(struct sprof_stack *stack);
SPROF_API void sprof_unlock(struct sprof_stack *stack);

/* With the lock held: the stack now is at lo .. hi. Its contents, and so its slots, moved by hi - the former hi; barriers move along,
 * and so do the owning thread's contexts that point into it. Resumer contexts that point into it: sprof_set_resumer. AS-safe. */
SPROF_API void sprof_stack_move(struct sprof_table *table, struct sprof_stack *stack, uint64_t lo, uint64_t hi);

/* With the lock of `resumer` held: where `stack` continues at its end; resumer NULL: nowhere. AS-safe. */
SPROF_API void sprof_set_resumer(struct sprof_stack *stack, const struct sprof_stack *resumer, uint64_t pc, uint64_t sp,
				 uint64_t fp);

/* --- Barriers ------------------------------------------------------------------------------------------------------------------ */

/* All but sprof_barrier_hit with the stack's lock held, by its owner or while the owner is stopped outside a trampoline, and AS-safe.
 * The table only: the caller writes the slots, under the same lock, and installs a barrier only if 0 was returned.
 *
 * append: above (older than) all others; push: below (younger). -ENOSPC: full, or NULL; -EINVAL: not in order of slots. */
SPROF_API int sprof_barrier_append(struct sprof_table *table, struct sprof_stack *stack, uint64_t slot,
				   uint64_t original_pc);
SPROF_API int sprof_barrier_push(struct sprof_table *table, struct sprof_stack *stack, uint64_t slot,
				 uint64_t original_pc);

/* The youngest barrier; 1 if there is one and *ret is filled, 0 if not. pop removes it: its slot has been restored. AS-safe. */
SPROF_API int sprof_barrier_peek(struct sprof_table *table, const struct sprof_stack *stack, struct sprof_barrier *ret);
SPROF_API int sprof_barrier_pop(struct sprof_table *table, struct sprof_stack *stack, struct sprof_barrier *ret);

/* Where the youngest barrier leads from now on. -ENOENT: there is none. */
SPROF_API int sprof_barrier_replace(struct sprof_table *table, struct sprof_stack *stack, uint64_t original_pc);

/* Unwinding (exception, longjmp) to sp: removes all barriers with slot < sp, and returns how many. Unlock only once
 * the stack pointer is there: until then their frames can be walked. */
SPROF_API uint32_t sprof_barrier_unwind(struct sprof_table *table, struct sprof_stack *stack, uint64_t sp);

/* Removes all: the slots have been restored. */
SPROF_API void sprof_barrier_clear(struct sprof_stack *stack);

/* The barriers of a stack, for sprof_barrier_hit; the same for as long as the table is open. AS-safe. */
SPROF_API struct sprof_barrier *sprof_barriers(struct sprof_table *table, const struct sprof_stack *stack);

/* The trampoline's part, without the lock, by the thread that runs on the stack: the return address at `slot` led here (on x86-64 slot
 * is sp - 8 at the trampoline's entry). Returns where to go on, having advanced pos; 0: the table does not know this slot, which is a
 * mistake of the caller and leaves it no way on. barriers: of this stack. Barriers younger than slot are passed over. AS-safe. */
SPROF_API uint64_t sprof_barrier_hit(struct sprof_stack *stack, const struct sprof_barrier *barriers, uint64_t slot);

/* --- Ranges of code ------------------------------------------------------------------------------------------------------------ */

/* Adds a copy of *range and returns its index, or -ENOSPC (full, or NULL), -EINVAL. Waits for others that do. Not AS-safe. */
SPROF_API int sprof_range_add(struct sprof_table *table, const struct sprof_range *range);
SPROF_API void sprof_range_remove(struct sprof_table *table, int index);

/* For the inline sprof_lock. */
SPROF_API void sprof_lock_slow(struct sprof_stack *stack);

#ifdef __cplusplus
}
#endif
#include <sprof/sprof_inline.h>
#endif
