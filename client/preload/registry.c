/* Known stacks: an array sorted by address, under a lock for writers and a version for readers, who never wait; before it a table of
 * guesses by address, each verified against the stack's own bounds, so that it may be stale.
 *
 * Nobody tells when a stack is freed. A stack is forgotten when another is made on its memory, and when its place is needed. */
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include "preload.h"

struct known {
	uint64_t lo, hi;
	struct sprof_stack *stack;
};

enum {
	GUESSES = 16384,  /* a power of two */
	GUESS_SHIFT = 10, /* one for each KiB: no fiber's stack is smaller */
	NEST = 8,         /* stacks within stacks */
	READ_TRIES = 64,
	LOCK_YIELDS = 1000,
	LOCK_TRIES = LOCK_YIELDS + 1000,
	PAUSE_NS = 1000000,
};

static struct {
	struct sprof_table *table;
	struct sprof_stack *stacks; /* of the table */
	struct known *known;
	uint32_t cap, n, hand; /* hand: where the next place is looked for that could be given up */
	uint32_t lock, abandoned;
	bool forking;            /* and has the lock; libsprof lets one fork at a time */
	uint32_t version;        /* odd: being changed */
	uint32_t guess[GUESSES]; /* place + 1; 0: none */
} registry;

int preload_registry_init(struct sprof_table *table)
{
	const struct sprof_header *header = sprof_table_address(table);
	uint32_t cap = header->cap_stack;
	void *memory =
		mmap(NULL, cap * sizeof(struct known), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	registry.table = table;
	registry.cap = cap;
	registry.known = memory;
	registry.stacks = (struct sprof_stack *)((const char *)header + header->off_stack);
	return 0;
}

struct sprof_stack *preload_stack_of(const struct sprof_ref *ref)
{
	uint64_t word = sprof_ref_load_(ref);
	struct sprof_ref copy;
	__builtin_memcpy(&copy, &word, sizeof(copy));
	if (copy.gen == 0 || copy.index >= registry.cap)
		return NULL;
	struct sprof_stack *stack = &registry.stacks[copy.index];
	return SPROF_LOAD(stack->self.gen) == copy.gen ? stack : NULL;
}

/* --- looking up --- */

static uint32_t *guess_of(uint64_t sp)
{
	uint64_t page = sp >> GUESS_SHIFT;
	return &registry.guess[(page ^ page >> 14) & (GUESSES - 1)];
}

/* The index of the first that begins above sp. */
static uint32_t first_above(uint64_t sp)
{
	uint32_t low = 0, high = SPROF_LOAD(registry.n);
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (SPROF_LOAD(registry.known[middle].lo) <= sp)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The innermost, since a fiber's stack may lie in another's. */
static struct sprof_stack *search(uint64_t sp)
{
	uint32_t i = first_above(sp);
	for (uint32_t k = 0; k < NEST && i > 0; k++) {
		const struct known *known = &registry.known[--i];
		if (sp <= SPROF_LOAD(known->hi))
			return SPROF_LOAD(known->stack);
	}
	return NULL;
}

struct sprof_stack *preload_registry_find(uint64_t sp)
{
	uint32_t *guess = guess_of(sp);
	uint32_t place = SPROF_LOAD(*guess);
	struct sprof_stack *stack = place ? &registry.stacks[place - 1] : NULL;
	if (stack && preload_contains(stack, sp))
		return stack;
	for (unsigned i = 0; i < READ_TRIES; i++) {
		uint32_t version = __atomic_load_n(&registry.version, __ATOMIC_ACQUIRE);
		if (version & 1)
			continue;
		stack = search(sp);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (SPROF_LOAD(registry.version) != version)
			continue;
		if (stack)
			SPROF_STORE(*guess, stack->self.index + 1);
		return stack;
	}
	return NULL;
}

/* --- changing --- */

/* False: whoever has it does not give it back: a signal handler left it for good. From then on no fiber gets a place. */
static bool lock(void)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	for (unsigned i = 0; i < LOCK_TRIES && !SPROF_LOAD(registry.abandoned); i++) {
		if (!__atomic_exchange_n(&registry.lock, 1, __ATOMIC_ACQUIRE))
			return true;
		if (i < LOCK_YIELDS)
			sched_yield();
		else
			nanosleep(&pause, NULL);
	}
	SPROF_STORE(registry.abandoned, 1);
	return false;
}

static void unlock(void)
{
	__atomic_store_n(&registry.lock, 0, __ATOMIC_RELEASE);
}

static void change(void)
{
	SPROF_STORE(registry.version, registry.version + 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void changed(void)
{
	__atomic_store_n(&registry.version, registry.version + 1, __ATOMIC_RELEASE);
}

static void copy_known(uint32_t to, uint32_t from)
{
	SPROF_STORE(registry.known[to].lo, registry.known[from].lo);
	SPROF_STORE(registry.known[to].hi, registry.known[from].hi);
	SPROF_STORE(registry.known[to].stack, registry.known[from].stack);
}

static void insert(uint64_t lo, uint64_t hi, struct sprof_stack *stack)
{
	uint32_t place = first_above(lo);
	change();
	for (uint32_t i = registry.n; i > place; i--)
		copy_known(i, i - 1);
	SPROF_STORE(registry.known[place].lo, lo);
	SPROF_STORE(registry.known[place].hi, hi);
	SPROF_STORE(registry.known[place].stack, stack);
	SPROF_STORE(registry.n, registry.n + 1);
	changed();
}

static void forget(uint32_t i)
{
	struct sprof_stack *stack = registry.known[i].stack;
	change();
	for (; i + 1 < registry.n; i++)
		copy_known(i, i + 1);
	SPROF_STORE(registry.n, registry.n - 1);
	changed();
	sprof_stack_remove(registry.table, stack);
}

/* Gives up the place of a fiber that neither runs nor waits; it has none from now on. */
static bool make_room(void)
{
	for (uint32_t i = 0; i < registry.n; i++) {
		uint32_t at = (registry.hand + i) % registry.n;
		if (SPROF_LOAD(registry.known[at].stack->owner_tid) == 0) {
			registry.hand = at;
			forget(at);
			return true;
		}
	}
	return false;
}

static struct sprof_stack *place(uint64_t lo, uint64_t hi)
{
	struct sprof_stack *stack = sprof_stack_add(registry.table, lo, hi);
	return stack || !make_room() ? stack : sprof_stack_add(registry.table, lo, hi);
}

struct sprof_stack *preload_registry_place(uint64_t lo, uint64_t hi)
{
	if (!lock())
		return NULL;
	struct sprof_stack *stack = place(lo, hi);
	unlock();
	return stack;
}

/* Makes way for a stack at lo .. hi. Returns one that is there already, with the very same bounds. */
static struct sprof_stack *make_way(uint64_t lo, uint64_t hi, bool *ret_within)
{
	uint32_t i = first_above(hi - 1);
	for (uint32_t k = 0; i > 0; k++) {
		const struct known *known = &registry.known[--i];
		if (known->lo == lo && known->hi == hi)
			return known->stack;
		if (known->hi <= lo) {
			if (k >= NEST)
				break;
			continue;
		}
		bool around = known->lo <= lo && known->hi >= hi;
		if (around && SPROF_LOAD(known->stack->owner_tid) != 0)
			*ret_within = true; /* the fiber that makes this one, on its own stack */
		else
			forget(i);
	}
	return NULL;
}

/* A new fiber on the memory of an old one. */
static void renew(struct sprof_stack *stack)
{
	sprof_lock(stack);
	SPROF_STORE(stack->owner_tid, 0);
	sprof_set_resumer(stack, NULL, 0, 0, 0);
	sprof_unlock(stack);
}

bool preload_registry_add(uint64_t lo, uint64_t hi)
{
	bool within = false;
	if (lo >= hi || !lock())
		return false;
	struct sprof_stack *stack = make_way(lo, hi, &within);
	if (stack) {
		renew(stack);
	} else if ((stack = place(lo, hi)) != NULL) {
		insert(lo, hi, stack);
		for (uint32_t i = 0; within && i < GUESSES; i++) /* the outer stack was the guess for these addresses */
			SPROF_STORE(registry.guess[i], 0);
	}
	unlock();
	return stack != NULL;
}

void preload_registry_fork_prepare(void)
{
	registry.forking = lock();
}

void preload_registry_fork_done(void)
{
	if (registry.forking)
		unlock();
}
