/* Thread slots. A free slot is claimed by one compare-and-swap. A slot that a dead thread left behind changes hands under claim_lock:
 * without it a new thread that got the same tid, and finds "its" slot, could meet a third one that just found that tid dead. */
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

static struct sprof_thread *probe(const struct sprof_table *table, uint32_t tid, uint32_t i)
{
	return &table->threads[SPROF_THREAD_SLOT(tid, i, table->cap_thread)];
}

struct sprof_thread *thread_find(const struct sprof_table *table, uint32_t tid)
{
	uint32_t n = SPROF_LOAD(table->header->n_probe);
	for (uint32_t i = 0; i < n; i++) {
		struct sprof_thread *thread = probe(table, tid, i);
		if (SPROF_LOAD(thread->tid) == tid)
			return thread;
	}
	return NULL;
}

/* Readers look no further than n_probe: it is raised first. */
static void reach(struct sprof_table *table, uint32_t i)
{
	uint32_t n = SPROF_LOAD(table->header->n_probe);
	while (n <= i &&
	       !__atomic_compare_exchange_n(&table->header->n_probe, &n, i + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		;
}

bool thread_take(struct sprof_table *table, uint32_t tid, uint32_t i, uint32_t from, uint32_t to)
{
	struct sprof_thread *thread = probe(table, tid, i);
	if (SPROF_LOAD(thread->tid) != from)
		return false;
	reach(table, i);
	return __atomic_compare_exchange_n(&thread->tid, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void thread_clear(struct sprof_thread *thread)
{
	SPROF_STORE(thread->flags, 0);
	SPROF_STORE(thread->foreign_depth, 0);
	SPROF_STORE(thread->starttime, 0);
	sprof_ref_store_(&thread->current, NULL);
	sprof_ref_store_(&thread->user, NULL);
	sprof_ref_store_(&thread->system, NULL);
	sprof_ref_store_(&thread->foreign, NULL);
	sprof_ref_store_(&thread->libcall, NULL);
	sprof_context_store_(&thread->foreign_context, 0, 0, 0);
	sprof_context_store_(&thread->jump_context, 0, 0, 0);
	sprof_context_store_(&thread->libcall_context, 0, 0, 0);
}

/* The slot of a thread that is gone, maybe in the middle of a change. Nobody else writes it now. */
static void refill(struct sprof_thread *thread, uint32_t tid, uint64_t starttime)
{
	uint32_t seq = SPROF_LOAD(thread->seq) | 1;
	SPROF_STORE(thread->seq, seq);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	thread_clear(thread);
	SPROF_STORE(thread->starttime, starttime);
	__atomic_store_n(&thread->seq, seq + 1, __ATOMIC_RELEASE);
	__atomic_store_n(&thread->tid, tid, __ATOMIC_RELEASE);
}

static struct sprof_thread *claim_free(struct sprof_table *table, uint32_t tid, uint64_t starttime)
{
	for (uint32_t i = 0; i < SPROF_THREAD_PROBES; i++) {
		if (!thread_take(table, tid, i, SPROF_TID_FREE, tid))
			continue;
		struct sprof_thread *thread = probe(table, tid, i);
		sprof_seq_add_(thread, 1);
		SPROF_STORE(thread->starttime, starttime);
		sprof_seq_add_(thread, 1);
		return thread;
	}
	return NULL;
}

static bool is_dead(const struct sprof_table *table, uint32_t tid)
{
	return tid != SPROF_TID_FREE && tid != SPROF_TID_RETIRED &&
	       syscall(SYS_tgkill, (int)table->header->tgid, (int)tid, 0) < 0 && errno == ESRCH;
}

static struct sprof_thread *claim_dead(struct sprof_table *table, uint32_t tid, uint64_t starttime)
{
	for (uint32_t i = 0; i < SPROF_THREAD_PROBES; i++) {
		struct sprof_thread *thread = probe(table, tid, i);
		uint32_t dead = SPROF_LOAD(thread->tid);
		/* Retired meanwhile, so that no reader takes the old content for the new thread's. */
		if (is_dead(table, dead) && thread_take(table, tid, i, dead, SPROF_TID_RETIRED)) {
			refill(thread, tid, starttime);
			return thread;
		}
	}
	return NULL;
}

static struct sprof_thread *attach_slowly(struct sprof_table *table, uint32_t tid, uint64_t starttime)
{
	spin_lock(&table->claim_lock);
	struct sprof_thread *thread = thread_find(table, tid);
	if (thread)
		refill(thread, tid, starttime);
	else
		thread = claim_free(table, tid, starttime);
	if (!thread)
		thread = claim_dead(table, tid, starttime);
	spin_unlock(&table->claim_lock);
	return thread;
}

struct sprof_thread *sprof_thread_attach(struct sprof_table *table)
{
	if (!table)
		return NULL;
	int saved = errno;
	uint32_t tid = (uint32_t)syscall(SYS_gettid);
	uint64_t starttime = read_starttime("/proc/thread-self/stat");
	struct sprof_thread *thread = thread_find(table, tid);
	if (!thread) {
		thread = claim_free(table, tid, starttime);
		if (!thread)
			thread = attach_slowly(table, tid, starttime);
	} else if (SPROF_LOAD(thread->starttime) != starttime) { /* of an earlier thread of this tid */
		thread = attach_slowly(table, tid, starttime);
	}
	if (!thread)
		count(&table->threads_refused);
	errno = saved;
	return thread;
}

struct sprof_thread *sprof_thread_self(struct sprof_table *table)
{
	return table ? thread_find(table, (uint32_t)syscall(SYS_gettid)) : NULL;
}

void sprof_thread_detach(struct sprof_thread *thread)
{
	if (!thread)
		return;
	uint32_t step = sprof_begin(thread);
	thread_clear(thread);
	sprof_end(thread, step);
	__atomic_store_n(&thread->tid, SPROF_TID_FREE, __ATOMIC_RELEASE);
}
