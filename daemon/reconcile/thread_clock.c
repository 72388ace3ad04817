#include "reconcile/thread_clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/hash.h"

/* Threads are named by a hostile process: the hash is seeded, and running out of memory is an answer, not an abort. */
#define HASH_FUNCTION(key, length, value) ((value) = (unsigned)hash_bytes((key), (length), hash_seed()))
#define HASH_NONFATAL_OOM                 1
#define uthash_nonfatal_oom(element)      ((element)->added = false)
#include <uthash.h>

enum {
	NS_PER_TICK = 10000000, /* USER_HZ is 100 on every architecture that Linux has kept */
	SWEEP_FROM = 1024,      /* threads */
};

struct thread_key {
	uint32_t tid;
	uint32_t reserved;
	uint64_t start_ticks;
};

struct thread {
	struct thread_key key;
	uint64_t task;       /* 0: not sampled yet */
	uint64_t runtime_ns; /* at the last sample */
	bool added;
	bool gone; /* at the last sweep */
	UT_hash_handle hh;
};

struct thread_clock {
	struct thread *threads;
	size_t sweep_at; /* threads */
};

/* uthash's macros are beyond the analyzer. NOLINTBEGIN(clang-analyzer-unix.Malloc) */
struct thread_clock *thread_clock_new(void)
{
	struct thread_clock *clock = calloc(1, sizeof(*clock));
	if (clock)
		clock->sweep_at = SWEEP_FROM;
	return clock;
}

void thread_clock_free(struct thread_clock *clock)
{
	if (!clock)
		return;
	struct thread *thread, *next;
	HASH_ITER (hh, clock->threads, thread, next) {
		HASH_DEL(clock->threads, thread);
		free(thread);
	}
	free(clock);
}

size_t thread_clock_count(const struct thread_clock *clock)
{
	return HASH_COUNT(clock->threads);
}

/* Finds or adds the thread; a new one has run for initial_ns. NULL when out of memory. */
static struct thread *thread_at(struct thread_clock *clock, struct thread_key key, uint64_t initial_ns)
{
	struct thread *thread;
	HASH_FIND(hh, clock->threads, &key, sizeof(key), thread);
	if (thread)
		return thread;
	thread = calloc(1, sizeof(*thread));
	if (!thread)
		return NULL;
	*thread = (struct thread){.key = key, .runtime_ns = initial_ns, .added = true};
	HASH_ADD(hh, clock->threads, key, sizeof(key), thread);
	if (!thread->added) {
		free(thread);
		return NULL;
	}
	return thread;
}

int thread_clock_baseline(struct thread_clock *clock, uint32_t tid, uint64_t start_ticks, uint64_t runtime_ns)
{
	struct thread_key key = {.tid = tid, .start_ticks = start_ticks};
	/* A thread that is known already (armed again after an exec or for another rate) goes on from where it is. */
	return thread_at(clock, key, runtime_ns) ? 0 : -ENOMEM;
}

/* Another task than the leader may have taken over the leader's identity: then its own clock goes on. */
static void follow_task(const struct thread_clock *clock, struct thread *leader, uint64_t task, uint64_t runtime_ns)
{
	const struct thread *before = NULL;
	for (const struct thread *thread = clock->threads; thread; thread = thread->hh.next)
		if (thread != leader && thread->task == task)
			before = thread; /* the newest: the address may have been another's, who is gone */
	if (before)
		leader->runtime_ns = before->runtime_ns;
	else if (leader->task) /* the task was never sampled before: what it ran is not known, and little */
		leader->runtime_ns = runtime_ns;
}

int thread_clock_advance(struct thread_clock *clock, const struct thread_moment *moment, uint64_t *ret_cpu_ns)
{
	struct thread_key key = {.tid = moment->tid, .start_ticks = moment->start_ns / NS_PER_TICK};
	struct thread *thread = thread_at(clock, key, 0);
	if (!thread)
		return -ENOMEM;
	if (moment->is_leader && thread->task != moment->task)
		follow_task(clock, thread, moment->task, moment->runtime_ns);
	thread->task = moment->task;
	bool forward = moment->runtime_ns > thread->runtime_ns;
	*ret_cpu_ns = forward ? moment->runtime_ns - thread->runtime_ns : 0;
	if (forward)
		thread->runtime_ns = moment->runtime_ns;
	return 0;
}

void thread_clock_sweep(struct thread_clock *clock, int (*exists)(void *context, uint32_t tid), void *context)
{
	if (HASH_COUNT(clock->threads) < clock->sweep_at)
		return;
	struct thread *thread, *next;
	size_t alive = 0;
	HASH_ITER (hh, clock->threads, thread, next) {
		bool was_gone = thread->gone;
		thread->gone = !exists(context, thread->key.tid);
		alive += !thread->gone;
		if (!thread->gone || !was_gone)
			continue;
		HASH_DEL(clock->threads, thread);
		free(thread);
	}
	/* Doubling keeps the cost of sweeping proportional to the number of threads that come and go. Those that have just gone do not
	   count: the next sweep forgets them. */
	clock->sweep_at = 2 * alive + SWEEP_FROM;
}
/* NOLINTEND(clang-analyzer-unix.Malloc) */
