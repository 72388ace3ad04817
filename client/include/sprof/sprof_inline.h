/* The bodies of the hot functions of sprof.h, which documents them.
 *
 * What is ordered by what: the record of a thread is written by that thread and read by a profiler that interrupted it on its own CPU, or
 * by a tool on another. The lock of a stack is the writer's half of a sequence lock. All accesses to shared words are atomic.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPROF_SPROF_INLINE_H
#define SPROF_SPROF_INLINE_H
#include <sprof/sprof.h>

#ifndef SPROF_INLINE /* for inlining only: where a compiler does not, it calls the library's */
#define SPROF_INLINE extern __inline __attribute__((__gnu_inline__))
#endif
#define SPROF_HELPER \
	extern __inline __attribute__((__gnu_inline__, __always_inline__)) /* always inlined, part of no API */

#define SPROF_LOAD(word)         __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define SPROF_STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELAXED)

#ifdef __cplusplus
extern "C" {
#endif

/* Adds to a version that only this thread writes, so that a signal handler in between cannot make a value appear twice. */
SPROF_HELPER void sprof_seq_add_(struct sprof_thread *thread, uint32_t step)
{
#if defined(__x86_64__)
	/* One instruction is atomic to signals; x86 keeps stores in order. */
	__asm__ volatile("addl %1, %0" : "+m"(thread->seq) : "ri"(step) : "memory", "cc");
#else
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_fetch_add(&thread->seq, step, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
#endif
}

/* References are read and stored as one word. */
typedef uint64_t __attribute__((__may_alias__)) sprof_ref_word_;

SPROF_HELPER uint64_t sprof_ref_load_(const struct sprof_ref *ref)
{
	return __atomic_load_n((const sprof_ref_word_ *)(const void *)ref, __ATOMIC_RELAXED);
}

SPROF_HELPER void sprof_ref_store_(struct sprof_ref *to, const struct sprof_stack *stack)
{
	__atomic_store_n((sprof_ref_word_ *)(void *)to, stack ? sprof_ref_load_(&stack->self) : 0, __ATOMIC_RELAXED);
}

SPROF_HELPER void sprof_context_store_(struct sprof_context *to, uint64_t pc, uint64_t sp, uint64_t fp)
{
	SPROF_STORE(to->pc, pc);
	SPROF_STORE(to->sp, sp);
	SPROF_STORE(to->fp, fp);
}

SPROF_INLINE uint32_t sprof_begin(struct sprof_thread *thread)
{
	uint32_t step;
	if (!thread)
		return 0;
	step = 1 + (SPROF_LOAD(thread->seq) & 1);
	sprof_seq_add_(thread, step);
	return step;
}

SPROF_INLINE void sprof_end(struct sprof_thread *thread, uint32_t step)
{
	if (thread)
		sprof_seq_add_(thread, step);
}

SPROF_INLINE void sprof_set_current(struct sprof_thread *thread, const struct sprof_stack *stack)
{
	if (thread)
		sprof_ref_store_(&thread->current, stack);
}

SPROF_INLINE void sprof_set_user(struct sprof_thread *thread, struct sprof_stack *stack)
{
	if (!thread)
		return;
	if (stack)
		SPROF_STORE(stack->owner_tid, thread->tid);
	sprof_ref_store_(&thread->user, stack);
}

SPROF_INLINE void sprof_set_system(struct sprof_thread *thread, struct sprof_stack *stack)
{
	if (!thread)
		return;
	if (stack)
		SPROF_STORE(stack->owner_tid, thread->tid);
	sprof_ref_store_(&thread->system, stack);
}

SPROF_INLINE void sprof_switch_begin(struct sprof_thread *thread, struct sprof_stack *from, struct sprof_stack *to)
{
	if (!thread)
		return;
	sprof_seq_add_(thread, 1);
	if (from)
		SPROF_STORE(from->owner_tid, 0);
	sprof_set_user(thread, to);
	sprof_ref_store_(&thread->current, to);
}

SPROF_INLINE void sprof_switch_end(struct sprof_thread *thread)
{
	if (thread)
		sprof_seq_add_(thread, 1);
}

SPROF_INLINE void sprof_set_resumer(struct sprof_stack *stack, const struct sprof_stack *resumer, uint64_t pc,
				    uint64_t sp, uint64_t fp)
{
	if (!stack)
		return;
	sprof_context_store_(&stack->resumer_context, resumer ? pc : 0, resumer ? sp : 0, resumer ? fp : 0);
	sprof_ref_store_(&stack->resumer, resumer);
}

SPROF_INLINE void sprof_resume_begin(struct sprof_thread *thread, struct sprof_stack *from, struct sprof_stack *to,
				     uint64_t pc, uint64_t sp, uint64_t fp)
{
	if (!thread)
		return;
	sprof_seq_add_(thread, 1);
	sprof_set_resumer(to, from, pc, sp, fp);
	sprof_set_user(thread, to);
	sprof_ref_store_(&thread->current, to);
}

SPROF_INLINE void sprof_yield_begin(struct sprof_thread *thread, struct sprof_stack *from, struct sprof_stack *to)
{
	if (!thread)
		return;
	sprof_seq_add_(thread, 1);
	sprof_set_resumer(from, 0, 0, 0, 0);
	if (from)
		SPROF_STORE(from->owner_tid, 0);
	sprof_set_user(thread, to);
	sprof_ref_store_(&thread->current, to);
}

SPROF_INLINE void sprof_system_begin(struct sprof_thread *thread, uint64_t pc, uint64_t sp, uint64_t fp)
{
	if (!thread)
		return;
	sprof_seq_add_(thread, 1);
	sprof_context_store_(&thread->jump_context, pc, sp, fp);
	__atomic_store_n((sprof_ref_word_ *)(void *)&thread->current, sprof_ref_load_(&thread->system),
			 __ATOMIC_RELAXED);
}

SPROF_INLINE void sprof_user_begin(struct sprof_thread *thread)
{
	if (!thread)
		return;
	sprof_seq_add_(thread, 1);
	sprof_context_store_(&thread->jump_context, 0, 0, 0);
	__atomic_store_n((sprof_ref_word_ *)(void *)&thread->current, sprof_ref_load_(&thread->user), __ATOMIC_RELAXED);
}

SPROF_INLINE void sprof_foreign_enter(struct sprof_thread *thread, const struct sprof_stack *stack, uint64_t pc,
				      uint64_t sp, uint64_t fp)
{
	uint32_t step = sprof_begin(thread);
	if (!thread)
		return;
	SPROF_STORE(thread->foreign_depth, thread->foreign_depth + 1);
	sprof_ref_store_(&thread->foreign, stack);
	sprof_context_store_(&thread->foreign_context, pc, sp, fp);
	sprof_end(thread, step);
}

SPROF_INLINE void sprof_foreign_leave(struct sprof_thread *thread)
{
	uint32_t step = sprof_begin(thread);
	if (!thread)
		return;
	if (thread->foreign_depth > 0)
		SPROF_STORE(thread->foreign_depth, thread->foreign_depth - 1);
	sprof_context_store_(&thread->foreign_context, 0, 0, 0);
	sprof_end(thread, step);
}

SPROF_INLINE void sprof_callback_enter(struct sprof_thread *thread)
{
	uint32_t step = sprof_begin(thread);
	if (!thread)
		return;
	sprof_context_store_(&thread->foreign_context, 0, 0, 0);
	sprof_end(thread, step);
}

SPROF_INLINE void sprof_callback_leave(struct sprof_thread *thread, const struct sprof_stack *stack, uint64_t pc,
				       uint64_t sp, uint64_t fp)
{
	uint32_t step = sprof_begin(thread);
	if (!thread)
		return;
	sprof_ref_store_(&thread->foreign, stack);
	sprof_context_store_(&thread->foreign_context, pc, sp, fp);
	sprof_end(thread, step);
}

SPROF_INLINE void sprof_libcall_enter(struct sprof_thread *thread, const struct sprof_stack *stack, uint64_t pc,
				      uint64_t sp, uint64_t fp)
{
	uint32_t step = sprof_begin(thread);
	if (!thread)
		return;
	sprof_ref_store_(&thread->libcall, stack);
	sprof_context_store_(&thread->libcall_context, pc, sp, fp);
	sprof_end(thread, step);
}

SPROF_INLINE void sprof_libcall_leave(struct sprof_thread *thread)
{
	uint32_t step = sprof_begin(thread);
	if (!thread)
		return;
	sprof_context_store_(&thread->libcall_context, 0, 0, 0);
	sprof_end(thread, step);
}

SPROF_INLINE void sprof_gc(struct sprof_thread *thread, int on)
{
	if (thread)
		SPROF_STORE(thread->flags, on ? thread->flags | SPROF_THREAD_GC : thread->flags & ~SPROF_THREAD_GC);
}

SPROF_INLINE int sprof_trylock(struct sprof_stack *stack)
{
	uint64_t version;
	if (!stack)
		return 1;
	version = __atomic_load_n(&stack->seq_end, __ATOMIC_ACQUIRE);
	if (!__atomic_compare_exchange_n(&stack->seq_begin, &version, version + 1, 0, __ATOMIC_ACQUIRE,
					 __ATOMIC_RELAXED))
		return 0;
	__atomic_thread_fence(__ATOMIC_RELEASE); /* nothing under the lock may be seen before seq_begin: dmb on arm64 */
	return 1;
}

SPROF_INLINE void sprof_lock(struct sprof_stack *stack)
{
	if (!sprof_trylock(stack))
		sprof_lock_slow(stack);
}

SPROF_INLINE void sprof_unlock(struct sprof_stack *stack)
{
	if (stack)
		__atomic_store_n(&stack->seq_end, SPROF_LOAD(stack->seq_begin), __ATOMIC_RELEASE);
}

SPROF_INLINE uint64_t sprof_barrier_hit(struct sprof_stack *stack, const struct sprof_barrier *barriers, uint64_t slot)
{
	uint64_t i, n;
	if (!stack || !barriers)
		return 0;
	n = SPROF_LOAD(stack->n);
	for (i = SPROF_LOAD(stack->pos); i < n; i++)
		if (SPROF_LOAD(barriers[i].slot) == slot) {
			SPROF_STORE(stack->pos, i + 1);
			return SPROF_LOAD(barriers[i].original_pc);
		}
	return 0;
}

#ifdef __cplusplus
}
#endif
#endif
