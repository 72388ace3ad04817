/* fork: the parent copies the table while it holds every lock, and the child puts the copy in the place of the table.
 *
 * The copy is made before the fork, not in the child: the parent lets go of the locks as soon as it has forked, and goes on changing the
 * table. For the moment of the fork the child is let inherit the table itself, so that no other mapping can land at its address before
 * the copy does; it does not touch it. */
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

static struct sprof_table *open_table; /* fork handlers take no argument */
static uint32_t fork_lock;
static uint32_t registered;

enum { PATIENCE_NS = 1000000000 };

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int fork_register(struct sprof_table *table)
{
	struct sprof_table *none = NULL;
	if (!(table->open_flags & SPROF_OPEN_NO_ATFORK) && !__atomic_exchange_n(&registered, 1, __ATOMIC_ACQ_REL) &&
	    pthread_atfork(sprof_fork_prepare, sprof_fork_parent, sprof_fork_child) != 0) {
		__atomic_store_n(&registered, 0, __ATOMIC_RELEASE);
		return -ENOMEM;
	}
	return __atomic_compare_exchange_n(&open_table, &none, table, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED) ? 0
													     : -EEXIST;
}

void fork_unregister(struct sprof_table *table)
{
	__atomic_compare_exchange_n(&open_table, &table, NULL, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* The clock is asked only when there is something to wait for. */
static bool lock_until(struct sprof_stack *stack, uint64_t *deadline)
{
	unsigned round = 0;
	while (!sprof_trylock(stack)) {
		if (*deadline == 0)
			*deadline = now_ns() + PATIENCE_NS;
		else if (now_ns() > *deadline)
			return false;
		relax(&round);
	}
	return true;
}

static void take_locks(struct sprof_table *table)
{
	uint64_t deadline = 0;
	spin_lock(&table->claim_lock);
	ranges_lock(table->header);
	table->copied_stacks = __atomic_load_n(&table->stacks_used, __ATOMIC_ACQUIRE);
	for (uint32_t i = 0; i < table->copied_stacks; i++)
		if (lock_until(&table->stacks[i], &deadline))
			bit_set(table->held, i);
}

static void release_locks(struct sprof_table *table)
{
	for (uint32_t i = 0; i < table->copied_stacks; i++)
		if (bit_get(table->held, i)) {
			bit_clear(table->held, i);
			sprof_unlock(&table->stacks[i]);
		}
	ranges_unlock(table->header);
	spin_unlock(&table->claim_lock);
}

static void copy_words(void *to, const void *from, size_t bytes)
{
	for (size_t i = 0; i < bytes / 8; i++)
		((sprof_ref_word_ *)to)[i] = __atomic_load_n((const sprof_ref_word_ *)from + i, __ATOMIC_RELAXED);
}

static void *in_copy(const struct sprof_table *table, const void *in_table)
{
	return (char *)table->copy + ((const char *)in_table - (const char *)table->header);
}

/* A place as it is under our lock, which the copy does not keep. */
static void copy_stack(const struct sprof_table *table, uint32_t i)
{
	const struct sprof_stack *from = &table->stacks[i];
	struct sprof_stack *to = in_copy(table, from);
	const char *barriers = (const char *)table->header + from->off_barrier;
	copy_words(to, from, sizeof(*to));
	copy_words(in_copy(table, barriers), barriers, to->n * sizeof(struct sprof_barrier));
	if (bit_get(table->held, i))
		to->seq_end = to->seq_begin;
}

/* Of all threads only the one that forks; and the slots that are out of use, since it may have held one of them. */
static void copy_threads(const struct sprof_table *table)
{
	for (uint32_t i = 0; i < table->cap_thread; i++) {
		const struct sprof_thread *from = &table->threads[i];
		uint32_t tid = SPROF_LOAD(from->tid);
		if (tid == table->fork_tid)
			copy_words(in_copy(table, from), from, sizeof(*from));
		else if (tid == SPROF_TID_RETIRED)
			((struct sprof_thread *)in_copy(table, from))->tid = tid;
	}
}

static void fill_copy(struct sprof_table *table)
{
	copy_words(table->copy, table->header, table->header->off_thread); /* header and ranges */
	table->copy->magic = 0;
	table->copy->flags = 0;
	table->copy->range_end = table->copy->range_begin;
	copy_threads(table);
	struct sprof_stack *stacks = in_copy(table, table->stacks);
	for (uint32_t i = 0; i < table->copied_stacks; i++)
		copy_stack(table, i);
	for (uint32_t i = table->copied_stacks; i < table->cap_stack; i++)
		table_init_stack(table, stacks, i);
}

static void make_copy(struct sprof_table *table)
{
	int error = 0;
	table->copy = table_map(table->table_bytes, table->publish_error < 0, &error);
	table->copy_private = error < 0;
	if (!table->copy)
		return;
	fill_copy(table);
	madvise(table->copy, table->table_bytes, MADV_DOFORK);
	madvise(table->header, table->table_bytes, MADV_DOFORK);
}

void sprof_fork_prepare(void)
{
	int saved = errno;
	spin_lock(&fork_lock); /* released by parent; the child releases its own copy */
	struct sprof_table *table = __atomic_load_n(&open_table, __ATOMIC_ACQUIRE);
	if (table) {
		table->fork_tid = (uint32_t)syscall(SYS_gettid);
		take_locks(table);
		make_copy(table);
	}
	errno = saved;
}

void sprof_fork_parent(void)
{
	int saved = errno;
	struct sprof_table *table = __atomic_load_n(&open_table, __ATOMIC_ACQUIRE);
	if (table) {
		if (table->publish_error == 0)
			madvise(table->header, table->table_bytes, MADV_DONTFORK);
		table_unmap(table->copy, table->table_bytes);
		table->copy = NULL;
		release_locks(table);
	}
	spin_unlock(&fork_lock);
	errno = saved;
}

/* Puts the copy in the table's place; without one, empty private memory. */
static bool replace_table(struct sprof_table *table)
{
	void *place = table->header;
	bool there = table->copy && mremap(table->copy, table->table_bytes, table->table_bytes,
					   MREMAP_MAYMOVE | MREMAP_FIXED, place) == place;
	table->copy = NULL;
	if (!there) /* should this fail as well, there is nothing left to do */
		(void)mmap(place, table->table_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			   -1, 0);
	return there;
}

/* The only thread there is has a new tid, and so another slot. Its old one, which it may still hold a handle of, is not used again. */
static void move_own_slot(struct sprof_table *table, uint32_t tid)
{
	struct sprof_thread *old = thread_find(table, table->fork_tid), *thread = NULL;
	if (!old)
		return;
	uint64_t starttime = read_starttime("/proc/thread-self/stat");
	for (uint32_t i = 0; i < SPROF_THREAD_PROBES && !thread; i++)
		if (thread_take(table, tid, i, SPROF_TID_FREE, tid) || thread_take(table, tid, i, table->fork_tid, tid))
			thread = &table->threads[SPROF_THREAD_SLOT(tid, i, table->cap_thread)];
	if (thread) {
		*thread = *old;
		thread->tid = tid;
		thread->starttime = starttime;
	} else {
		count(&table->threads_refused);
	}
	if (thread != old) {
		thread_clear(old);
		old->tid = SPROF_TID_RETIRED;
	}
}

static void adopt_stacks(struct sprof_table *table, uint32_t tid)
{
	bool busy = false;
	for (uint32_t i = 0; i < table->cap_stack; i++) {
		struct sprof_stack *stack = &table->stacks[i];
		bool used = i < table->copied_stacks && stack->hi != 0;
		(used ? bit_set : bit_clear)(table->used, i);
		stack->owner_tid = stack->owner_tid == table->fork_tid ? tid : 0;
		busy |= used && !bit_get(table->held, i);
		bit_clear(table->held, i);
	}
	table->stacks_used = table->copied_stacks;
	if (busy)
		table->status |= SPROF_STATUS_FORK_BUSY;
}

static void publish_in_child(struct sprof_table *table)
{
	table->header->tgid = (uint32_t)getpid();
	table->header->proc_starttime = read_starttime("/proc/self/stat");
	if (table->copy_private) {
		if (table->publish_error == 0)
			table->publish_error = -ENOMEM;
		table->status &= ~SPROF_STATUS_PUBLISHED;
	} else {
		madvise(table->header, table->table_bytes, MADV_DONTFORK);
	}
	if (table->status & SPROF_STATUS_LOCKED && !table->copy_private) {
		table->lock_error = table_lock_pages(table->header, table->table_bytes);
		table->header->flags = table->lock_error == 0 ? SPROF_HEADER_LOCKED : 0;
	}
	if (table->lock_error < 0 || table->copy_private)
		table->status &= ~SPROF_STATUS_LOCKED;
	__atomic_store_n(&table->header->magic, SPROF_TABLE_MAGIC, __ATOMIC_RELEASE);
}

/* Functions of a lost table go on being called with handles of before: they must find memory, and no room. */
static void lose(struct sprof_table *table)
{
	table->status = SPROF_STATUS_FORK_LOST;
	table->publish_error = -ENOMEM;
	table->cap_stack = 0;
	table->stacks_used = 0;
}

void sprof_fork_child(void)
{
	int saved = errno;
	struct sprof_table *table = __atomic_load_n(&open_table, __ATOMIC_ACQUIRE);
	if (table) {
		uint32_t tid = (uint32_t)syscall(SYS_gettid);
		if (replace_table(table)) {
			move_own_slot(table, tid);
			adopt_stacks(table, tid);
			publish_in_child(table);
		} else {
			lose(table);
		}
		spin_unlock(&table->claim_lock);
	}
	spin_unlock(&fork_lock);
	errno = saved;
}
