/* When things begin and end: the table with the first fiber, a thread's record with its first switch, both anew in a forked child. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

enum {
	STACKS = 16384,
	MOST_STACKS = 1 << 18,
	PAGE = 4096,
	SPARE = 64 * 1024,         /* how much lower than asked for a thread's own stack is said to begin */
	REACH = 128 * 1024 * 1024, /* so much below its top a thread's own stack may be */
	SHADOW_STACK = 2,          /* of the thread control block's features, at fs:72 */
};

extern void *__libc_stack_end; /* glibc: where the kernel put the main thread's arguments */

static const uint32_t dead;
const uint32_t *preload_alive = &dead;
_Thread_local struct preload_self preload_self;

static struct {
	pthread_once_t once;
	struct sprof_table *table;
	uint32_t *alive; /* the word that preload_alive points to */
	pthread_key_t key;
	bool verbose;
} life = {.once = PTHREAD_ONCE_INIT};

/* --- the table --- */

static void say(const char *what, const char *why)
{
	if (life.verbose)
		(void)dprintf(STDERR_FILENO, "libsprof-preload[%d]: %s: %s\n", (int)getpid(), what, why);
}

static bool shadow_stack_is_on(void)
{
	uint32_t features;
	__asm__("movl %%fs:72, %0" : "=r"(features));
	return features & SHADOW_STACK;
}

static uint32_t wanted_stacks(void)
{
	const char *text = getenv("SPROF_PRELOAD_STACKS");
	char *end = NULL;
	unsigned long n = text ? strtoul(text, &end, 10) : STACKS;
	return text && (*text == 0 || *end != 0 || n < 2 || n > MOST_STACKS) ? STACKS : (uint32_t)n;
}

static void thread_ends(void *of)
{
	struct preload_self *self = of;
	if (self->thread && __atomic_load_n(preload_alive, __ATOMIC_RELAXED)) {
		preload_chain_end(self);
		struct sprof_stack *system = self->system;
		sprof_thread_detach(self->thread);
		sprof_stack_remove(life.table, system);
	}
	self->thread = NULL;
	self->system = NULL;
}

static void fork_child(void)
{
	preload_registry_fork_done();
	preload_self.thread = sprof_thread_self(life.table);
	struct sprof_status status = {.size = sizeof(status)};
	if (sprof_status(life.table, &status) == 0 && !(status.flags & SPROF_STATUS_FORK_LOST))
		__atomic_store_n(life.alive, 1, __ATOMIC_RELEASE);
}

/* A word that reads 0 in any child that has memory of its own, however it was made. */
static uint32_t *wiped_word(void)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return NULL;
	if (madvise(page, PAGE, MADV_WIPEONFORK) == 0)
		return page;
	munmap(page, PAGE);
	return NULL;
}

static int make_all(void)
{
	struct sprof_options options = {.size = sizeof(options), .stacks = wanted_stacks(), .barriers = 1};
	if (shadow_stack_is_on())
		return -ENOTSUP;
	life.alive = wiped_word();
	if (!life.alive)
		return -ENOMEM;
	int r = sprof_open(&options, &life.table);
	if (r < 0)
		return r;
	r = preload_registry_init(life.table);
	if (r == 0)
		r = -pthread_key_create(&life.key, thread_ends);
	/* After sprof_open: our handler before a fork comes first, the one in the child last. */
	if (r == 0)
		r = -pthread_atfork(preload_registry_fork_prepare, preload_registry_fork_done, fork_child);
	if (r < 0) {
		sprof_close(life.table);
		life.table = NULL;
	}
	return r;
}

static void open_once(void)
{
	int saved = errno;
	life.verbose = getenv("SPROF_PRELOAD_VERBOSE") != NULL;
	int r = make_all();
	if (r == 0) {
		preload_add_ranges(life.table);
		*life.alive = 1;
		__atomic_store_n(&preload_alive, life.alive, __ATOMIC_RELEASE);
		say("fibers are published", sprof_status_text(life.table));
	} else {
		say("fibers are not published", r == -ENOTSUP  ? "the process has shadow stacks"
						: r == -EEXIST ? "the program publishes a table itself"
							       : strerror(-r));
	}
	errno = saved;
}

bool preload_open(void)
{
	if (preload_self.inside)
		return false;
	preload_self.inside = true;
	pthread_once(&life.once, open_once);
	preload_self.inside = false;
	return __atomic_load_n(preload_alive, __ATOMIC_RELAXED) != 0;
}

struct sprof_table *preload_table(void)
{
	return life.table;
}

/* --- threads --- */

/* Where the thread's own stack ends: below the thread control block, with which glibc ends the stacks that it makes; the main thread's is the kernel's. */
static uint64_t system_top(void)
{
	uint64_t block = (uintptr_t)__builtin_thread_pointer();
	bool is_main = syscall(SYS_gettid) == getpid();
	return is_main ? ((uint64_t)(uintptr_t)__libc_stack_end | (PAGE - 1)) + 1 : block;
}

static bool reaches(uint64_t hi, uint64_t sp)
{
	return sp < hi && hi - sp < REACH;
}

static uint64_t low_for(uint64_t sp)
{
	return sp / PAGE * PAGE - SPARE;
}

bool preload_on_system(struct preload_self *self, uint64_t sp)
{
	struct sprof_stack *system = self->system;
	if (!system || !reaches(SPROF_LOAD(system->hi), sp))
		return false;
	if (sp < SPROF_LOAD(system->lo) && sprof_trylock(system)) {
		SPROF_STORE(system->lo, low_for(sp));
		sprof_unlock(system);
	}
	return true;
}

bool preload_enroll(struct preload_self *self, uint64_t sp)
{
	if (self->enrolled)
		return self->thread != NULL;
	int saved = errno;
	self->enrolled = true;
	self->thread = sprof_thread_attach(life.table);
	if (self->thread) {
		uint64_t hi = system_top();
		self->system = preload_registry_place(low_for(reaches(hi, sp) ? sp : hi), hi);
		uint32_t step = sprof_begin(self->thread);
		sprof_set_system(self->thread, self->system);
		sprof_set_current(self->thread, self->system);
		sprof_end(self->thread, step);
		self->top = self->system;
		pthread_setspecific(life.key, self);
	}
	errno = saved;
	return self->thread != NULL;
}
