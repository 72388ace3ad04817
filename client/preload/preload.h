/* libsprof-preload: publishes the stacks of programs that know nothing of libsprof (docs/BARRIER-TABLE.md), so that a fiber's stack goes
 * on at whoever resumed it. Loaded by LD_PRELOAD it stands before makecontext, swapcontext, setcontext, longjmp and its kin, and
 * Boost.Context's make_fcontext, jump_fcontext and ontop_fcontext: each does its bookkeeping, then what it always did.
 *
 * Invariants
 * - The program behaves as without. Whatever cannot be had (table, place, lock) costs profiles alone. errno is left alone.
 * - Nothing is made before the program makes its first fiber; nothing is allocated after that but places in the table.
 * - The switching functions are async-signal-safe; one that has interrupted another on its thread does no bookkeeping.
 * - A child of a fork that pthread_atfork was not told of (_Fork, raw clone) finds preload_alive zeroed and leaves the table alone.
 *
 * x86-64 and glibc. SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <sprof/sprof.h>
#include <stdbool.h>

/* What a thread's switches are known by; written by the thread alone. */
struct preload_self {
	struct sprof_thread *thread; /* NULL: not enrolled, or there was no slot */
	struct sprof_stack *system;  /* the thread's own stack; NULL: no place for it */
	struct sprof_stack *top;     /* the last known stack that it ran on: the end of the chain of those that wait */
	bool inside;                 /* in our own code, which a signal may have interrupted */
	bool enrolled;               /* it was tried */
	bool ended;                  /* the thread is ending */
};
extern _Thread_local struct preload_self preload_self __attribute__((tls_model("initial-exec")));

/* A change of the thread's record that the assembly completes, by adding step to *seq: once the stack pointer has changed, or
 * in a SETS_SP range. seq NULL: there is nothing to complete. In rax and rdx. */
struct preload_change {
	uint32_t *seq;
	uint64_t step;
};

/* --- chain.c: who runs, who waits for whom --- */

/* The calling thread, at `site` (where the call returns to, the stack pointer then, the frame pointer), is about to change its stack pointer to
 * to_sp. pc 0: nobody will come back to the site. AS-safe. */
struct preload_change preload_switch(uint64_t to_sp, uint64_t pc, uint64_t sp, uint64_t fp);
/* Everything that the thread still owns is let go. */
void preload_chain_end(struct preload_self *self);
/* Whether stack is a peer: it was seen to go on to others without waiting for them. */
bool preload_is_peer(const struct sprof_stack *stack);

/* --- registry.c: the stacks that are known, by address --- */

/* Memory for so many stacks. 0 or -ENOMEM. */
int preload_registry_init(struct sprof_table *table);
/* A fiber is made on lo .. hi: what was there before is gone. False: it has no place. Waits for other threads that do the same. */
bool preload_registry_add(uint64_t lo, uint64_t hi);
/* The stack of a fiber that sp lies in; NULL: none, or it cannot be told now. AS-safe. */
struct sprof_stack *preload_registry_find(uint64_t sp);
/* A place for a stack that is not a fiber's; when the table is full, that of a fiber which does not run. */
struct sprof_stack *preload_registry_place(uint64_t lo, uint64_t hi);
struct sprof_stack *preload_stack_of(const struct sprof_ref *ref);
void preload_registry_fork_prepare(void);
void preload_registry_fork_done(void);

static inline bool preload_contains(const struct sprof_stack *stack, uint64_t sp)
{
	return sp >= SPROF_LOAD(stack->lo) && sp <= SPROF_LOAD(stack->hi) && SPROF_LOAD(stack->hi) != 0;
}

/* --- life.c: table, threads, forks --- */

/* Not 0 while the table is there to be used. In memory that a forked child finds zeroed. */
extern const uint32_t *preload_alive;
/* Makes the table when the first fiber is made. False: there is none. */
bool preload_open(void);
struct sprof_table *preload_table(void);
/* The calling thread gets its record and a place for its own stack. False: it has none. */
bool preload_enroll(struct preload_self *self, uint64_t sp);
/* Whether sp is on the thread's own stack; its bounds in the table are widened to hold it. */
bool preload_on_system(struct preload_self *self, uint64_t sp);

/* --- interpose.c --- */

/* Adds the ranges of code in which stack pointer and table may disagree. */
void preload_add_ranges(struct sprof_table *table);
