/* What the files of libsprof share: the handle, which is private memory of the process, and the table it stands for. */
#pragma once
#include <errno.h>
#include <sprof/sprof.h>
#include <stdbool.h>

struct sprof_table {
	struct sprof_header *header; /* first byte of the table */
	struct sprof_thread *threads;
	struct sprof_stack *stacks;
	struct sprof_range *ranges;
	size_t table_bytes, handle_bytes;
	uint32_t cap_thread, cap_stack, cap_range;
	uint32_t open_flags;
	uint32_t stacks_used; /* no stack at or above this place was ever added */
	uint32_t claim_lock;  /* of slots that change hands; see thread.c */
	uint32_t status;      /* SPROF_STATUS_* */
	int publish_error, lock_error;
	uint64_t threads_refused, stacks_refused, barriers_refused, ranges_refused;
	/* from prepare to parent or child */
	struct sprof_header *copy;
	uint32_t copied_stacks;
	uint32_t fork_tid;
	bool copy_private;
	uint64_t *held;  /* bit i: prepare has the lock of stack i */
	uint64_t used[]; /* bit i: stack i is in use */
};

static inline bool bit_get(const uint64_t *bits, uint32_t i)
{
	return __atomic_load_n(&bits[i / 64], __ATOMIC_RELAXED) >> (i % 64) & 1;
}
static inline void bit_set(uint64_t *bits, uint32_t i)
{
	__atomic_fetch_or(&bits[i / 64], 1ull << (i % 64), __ATOMIC_ACQ_REL);
}
static inline void bit_clear(uint64_t *bits, uint32_t i)
{
	__atomic_fetch_and(&bits[i / 64], ~(1ull << (i % 64)), __ATOMIC_RELEASE);
}
static inline void count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* All other names are hidden; the prefix keeps the static library out of its users' way. */
#define table_map        sprof_internal_table_map
#define table_unmap      sprof_internal_table_unmap
#define table_lock_pages sprof_internal_table_lock_pages
#define table_init_stack sprof_internal_table_init_stack
#define read_starttime   sprof_internal_read_starttime
#define thread_find      sprof_internal_thread_find
#define thread_clear     sprof_internal_thread_clear
#define thread_take      sprof_internal_thread_take
#define relax            sprof_internal_relax
#define spin_lock        sprof_internal_spin_lock
#define spin_unlock      sprof_internal_spin_unlock
#define ranges_lock      sprof_internal_ranges_lock
#define ranges_unlock    sprof_internal_ranges_unlock
#define fork_register    sprof_internal_fork_register
#define fork_unregister  sprof_internal_fork_unregister

/* Shared, sealed, named memory of that size, zeroed, that a forked child does not get; or private memory, *ret_publish_error saying
 * why (-ECANCELED: it was asked for). NULL: there is no memory. */
void *table_map(size_t bytes, bool private, int *ret_publish_error);
void table_unmap(void *memory, size_t bytes);
/* Makes all pages resident, locked if that can be had: 0, or -errno of locking. */
int table_lock_pages(void *memory, size_t bytes);
/* A place of the table that no stack was ever in. */
void table_init_stack(const struct sprof_table *table, struct sprof_stack *stacks, uint32_t i);

/* Field 22 of the stat file, in clock ticks; 0 when it cannot be read. AS-safe. */
uint64_t read_starttime(const char *path);

struct sprof_thread *thread_find(const struct sprof_table *table, uint32_t tid);
/* Makes the slot at probe i of tid change from `from` to `to` (tids). False: it was not, or no longer, `from`. */
bool thread_take(struct sprof_table *table, uint32_t tid, uint32_t i, uint32_t from, uint32_t to);
void thread_clear(struct sprof_thread *thread); /* all but tid and seq */

/* Gives the CPU away, longer the more often it was called. Leaves errno alone. */
void relax(unsigned *round);
void spin_lock(uint32_t *lock);
void spin_unlock(uint32_t *lock);
void ranges_lock(struct sprof_header *header);
void ranges_unlock(struct sprof_header *header);

/* The table that fork() takes care of. -EEXIST: there is one. -ENOMEM: the handlers cannot be registered. */
int fork_register(struct sprof_table *table);
void fork_unregister(struct sprof_table *table);
