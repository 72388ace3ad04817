/* fork: the child goes on with a table of its own; the parent's does not change. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sprof/sprof.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check_main.h"

enum { STACKS = 16, BARRIERS = 8, FORKS = 100 };

static struct sprof_table *table;
static const struct sprof_header *header;
static struct sprof_stack *stacks[STACKS];
static struct sprof_thread *thread;

/* In a child: Check's assertions would fork-and-continue into its runner. */
#define MUST(what)                                                                       \
	do {                                                                             \
		if (!(what)) {                                                           \
			(void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
			_exit(1);                                                        \
		}                                                                        \
	} while (0)

static void setup(uint32_t flags)
{
	const struct sprof_options options = {
		.size = sizeof(options), .threads = 64, .stacks = 64, .barriers = BARRIERS, .flags = flags};
	ck_assert_int_eq(sprof_open(&options, &table), 0);
	header = sprof_table_address(table);
	for (uint64_t i = 0; i < STACKS; i++) {
		stacks[i] = sprof_stack_add(table, (i + 1) << 20, ((i + 1) << 20) + 0x1000);
		sprof_lock(stacks[i]);
		for (uint64_t b = 0; b < i % BARRIERS; b++)
			ck_assert_int_eq(sprof_barrier_append(table, stacks[i], stacks[i]->lo + 8 * b, b + 1), 0);
		sprof_unlock(stacks[i]);
	}
	thread = sprof_thread_attach(table);
	sprof_switch_begin(thread, NULL, stacks[3]);
	sprof_switch_end(thread);
	stacks[4]->owner_tid = 1; /* of some other thread */
}

static uint32_t status_flags(void)
{
	struct sprof_status status = {.size = sizeof(status)};
	return sprof_status(table, &status) == 0 ? status.flags : 0;
}

/* Device and inode of the file that is mapped at the table's address; 0: none. */
static unsigned long inode_of_table(void)
{
	char line[512];
	unsigned long start, inode = 0, found = 0;
	FILE *maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return 0;
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%*x %*s %*s %*s %lu", &start, &inode) == 2 &&
		    start == header->self_va && // NOLINT(cert-err34-c)
		    strstr(line, "/memfd:SPROF_BLT (deleted)"))
			found = inode;
	(void)fclose(maps);
	return found;
}

static bool is_mapped(const void *address)
{
	unsigned char residency;
	return mincore((void *)address, 4096, &residency) == 0;
}

static int wait_for(pid_t child)
{
	int status = 0;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/* What a child finds, and does, in its table. */
static void check_child(uint32_t parents_tid)
{
	uint32_t tid = (uint32_t)syscall(SYS_gettid);
	MUST(header->magic == SPROF_TABLE_MAGIC);
	MUST(header->tgid == (uint32_t)getpid());
	MUST(header->self_va == (uintptr_t)header);
	MUST(header->range_begin == header->range_end);
	struct sprof_thread *own = sprof_thread_self(table);
	MUST(own && own->tid == tid && !(own->seq & 1));
	MUST(memcmp(&own->current, &stacks[3]->self, 8) == 0);
	MUST(own == thread || thread->tid == SPROF_TID_RETIRED);
	MUST(sprof_thread_attach(table) == own);
	MUST(stacks[3]->owner_tid == tid && stacks[4]->owner_tid == 0);
	MUST(parents_tid != tid);
	for (uint64_t i = 0; i < STACKS; i++) {
		const struct sprof_barrier *barriers = sprof_barriers(table, stacks[i]);
		MUST(stacks[i]->seq_begin == stacks[i]->seq_end);
		MUST(stacks[i]->lo == (i + 1) << 20 && stacks[i]->n == i % BARRIERS);
		for (uint64_t b = 0; b < i % BARRIERS; b++)
			MUST(sprof_barrier_hit(stacks[i], barriers, stacks[i]->lo + 8 * b) == b + 1);
		sprof_lock(stacks[i]);
		sprof_barrier_clear(stacks[i]);
		sprof_unlock(stacks[i]);
	}
	struct sprof_stack *more = sprof_stack_add(table, 1, 2);
	MUST(more && more->self.index == STACKS);
	sprof_stack_remove(table, stacks[0]);
	MUST(sprof_stack_add(table, 1, 2) == stacks[0]);
}

START_TEST(a_child_has_its_own)
{
	setup(0);
	static char before[1 << 20];
	ck_assert_uint_le(header->total_size, sizeof(before));
	unsigned long inode = inode_of_table();
	ck_assert_uint_ne(inode, 0);
	pid_t child = fork();
	if (child == 0) {
		check_child(thread->tid == SPROF_TID_RETIRED ? 0 : thread->tid - 1);
		MUST(inode_of_table() != 0 && inode_of_table() != inode);
		MUST(status_flags() & SPROF_STATUS_PUBLISHED);
		pid_t grandchild = fork(); /* and once more: its thread is the child's */
		if (grandchild == 0) {
			MUST(sprof_thread_self(table)->tid == (uint32_t)getpid());
			MUST(thread == sprof_thread_self(table) || thread->tid == SPROF_TID_RETIRED);
			_exit(0);
		}
		int status = 0;
		MUST(waitpid(grandchild, &status, 0) == grandchild && status == 0);
		_exit(0);
	}
	memcpy(before, header, header->total_size);
	ck_assert_int_eq(wait_for(child), 0);
	ck_assert_mem_eq(before, header, header->total_size);
	ck_assert_uint_eq(inode_of_table(), inode);
	for (int i = 0; i < STACKS; i++)
		ck_assert_uint_eq(stacks[i]->seq_begin, stacks[i]->seq_end);
	ck_assert_ptr_eq(sprof_thread_self(table), thread);
	sprof_close(table);
}
END_TEST

START_TEST(the_mapping_is_not_inherited_by_itself)
{
	setup(0);
	pid_t child = _Fork(); /* no handlers */
	if (child == 0)
		_exit(is_mapped(header) ? 1 : 0);
	ck_assert_int_eq(wait_for(child), 0);
	child = fork();
	if (child == 0)
		_exit(0);
	ck_assert_int_eq(wait_for(child), 0);
	child = _Fork(); /* nor after a fork that was treated */
	if (child == 0)
		_exit(is_mapped(header) ? 1 : 0);
	ck_assert_int_eq(wait_for(child), 0);
	sprof_close(table);
}
END_TEST

START_TEST(by_hand)
{
	setup(SPROF_OPEN_NO_ATFORK);
	sprof_fork_prepare();
	ck_assert_int_eq(sprof_trylock(stacks[1]), 0);
	pid_t child = _Fork();
	if (child == 0) {
		sprof_fork_child();
		check_child(0);
		_exit(0);
	}
	sprof_fork_parent();
	ck_assert_int_eq(wait_for(child), 0);
	ck_assert_int_eq(sprof_trylock(stacks[1]), 1);
	sprof_unlock(stacks[1]);
	sprof_close(table);
}
END_TEST

START_TEST(stacks_come_and_go_while_forking)
{
	setup(SPROF_OPEN_NO_ATFORK);
	sprof_stack_remove(table, stacks[5]);
	sprof_fork_prepare();
	/* A signal handler may add one now. The place whose lock is held is passed by, and the child knows nothing of it. */
	struct sprof_stack *added = sprof_stack_add(table, 7, 8);
	ck_assert_ptr_nonnull(added);
	ck_assert_ptr_ne(added, stacks[5]);
	pid_t child = _Fork();
	if (child == 0) {
		sprof_fork_child();
		MUST(added->hi == 0 && added->self.gen == 1);
		MUST(sprof_stack_add(table, 7, 8) == stacks[5]);
		MUST(sprof_stack_add(table, 7, 8) == added);
		_exit(0);
	}
	sprof_fork_parent();
	ck_assert_int_eq(wait_for(child), 0);
	ck_assert_ptr_eq(sprof_stack_add(table, 7, 8), stacks[5]);
	sprof_close(table);
}
END_TEST

static int stop;
static const uint64_t first[2] = {0, 5};

/* Keeps each stack's barriers in step with its bounds, and counts in private memory what it did under the lock. */
static void *load(void *argument)
{
	uint64_t k = *(const uint64_t *)argument;
	struct sprof_thread *own = sprof_thread_attach(table);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		struct sprof_stack *stack = stacks[k++ % STACKS];
		uint64_t lo = (k % 1000 + 1) << 20;
		sprof_lock(stack);
		sprof_barrier_clear(stack);
		sprof_stack_move(table, stack, lo, lo + 0x1000);
		for (uint64_t i = 0; i < k % BARRIERS; i++)
			sprof_barrier_append(table, stack, lo + 8 * i, lo + i);
		sprof_unlock(stack);
		sprof_foreign_enter(own, stack, k, k, k);
		sprof_foreign_leave(own);
		sprof_stack_remove(table, sprof_stack_add(table, 1, 2));
		if (k % 64 == 0)
			sched_yield();
	}
	sprof_thread_detach(own);
	return NULL;
}

static void check_loaded_child(void)
{
	uint32_t slots = 0;
	const struct sprof_thread *threads = (const struct sprof_thread *)((const char *)header + header->off_thread);
	for (uint32_t i = 0; i < header->cap_thread; i++)
		slots += threads[i].tid != SPROF_TID_FREE && threads[i].tid != SPROF_TID_RETIRED;
	MUST(slots == 1);
	for (int s = 0; s < STACKS; s++) {
		struct sprof_stack *stack = stacks[s];
		const struct sprof_barrier *barriers = sprof_barriers(table, stack);
		MUST(stack->seq_begin == stack->seq_end);
		MUST(stack->hi == stack->lo + 0x1000);
		for (uint32_t i = 0; i < stack->n; i++)
			MUST(barriers[i].slot == stack->lo + 8 * i && barriers[i].original_pc == stack->lo + i);
		sprof_lock(stack);
		sprof_stack_move(table, stack, 5, 6);
		sprof_unlock(stack);
	}
	MUST(!(status_flags() & (SPROF_STATUS_FORK_BUSY | SPROF_STATUS_FORK_LOST)));
}

START_TEST(a_hundred_forks_under_load)
{
	pthread_t ids[2];
	setup(0);
	for (int i = 0; i < STACKS; i++)
		sprof_barrier_clear(stacks[i]);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&ids[i], NULL, load, (void *)&first[i]), 0);
	for (int i = 0; i < FORKS; i++) {
		pid_t child = fork();
		if (child == 0) {
			check_loaded_child();
			_exit(0);
		}
		ck_assert_int_eq(wait_for(child), 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
	ck_assert_uint_ne(inode_of_table(), 0);
	sprof_close(table);
}
END_TEST

static void *fork_often(void *unused)
{
	(void)unused;
	for (int i = 0; i < 20; i++) {
		pid_t child = fork();
		if (child == 0)
			_exit(header->tgid == (uint32_t)getpid() ? 0 : 1);
		int status = -1;
		if (waitpid(child, &status, 0) != child || status != 0)
			return (void *)1;
	}
	return NULL;
}

START_TEST(two_threads_fork_at_once)
{
	pthread_t id;
	void *result;
	setup(0);
	ck_assert_int_eq(pthread_create(&id, NULL, fork_often, NULL), 0);
	ck_assert_ptr_null(fork_often(NULL));
	ck_assert_int_eq(pthread_join(id, &result), 0);
	ck_assert_ptr_null(result);
	sprof_close(table);
}
END_TEST

/* vfork and posix_spawn: the child shares the memory, and is not the process that the table names. */
START_TEST(a_vfork_child_leaves_it_alone)
{
	static char before[1 << 20];
	setup(0);
	memcpy(before, header, header->total_size);
	static volatile uint32_t named;
	static volatile pid_t childs_pid;
	pid_t child = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork)
	if (child == 0) {
		named = header->tgid;                    // NOLINT(clang-analyzer-unix.Vfork)
		childs_pid = (pid_t)syscall(SYS_getpid); // NOLINT(clang-analyzer-unix.Vfork)
		_exit(0);
	}
	ck_assert_int_eq(wait_for(child), 0);
	ck_assert_uint_eq(named, (uint32_t)getpid());
	ck_assert_int_eq(childs_pid, child);
	char *const arguments[] = {"true", NULL};
	ck_assert_int_eq(posix_spawnp(&child, "true", NULL, NULL, arguments, NULL), 0);
	ck_assert_int_eq(wait_for(child), 0);
	ck_assert_mem_eq(before, header, header->total_size);
	sprof_close(table);
}
END_TEST

START_TEST(a_child_without_shared_memory)
{
	struct rlimit old;
	setup(0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	const struct rlimit limit = {.rlim_cur = 0, .rlim_max = old.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	pid_t child = fork();
	if (child == 0) {
		MUST(setrlimit(RLIMIT_NOFILE, &old) == 0);
		MUST(!(status_flags() & SPROF_STATUS_PUBLISHED));
		MUST(strstr(sprof_status_text(table), "not published"));
		MUST(inode_of_table() == 0);
		MUST(thread->tid == SPROF_TID_RETIRED || sprof_thread_self(table) == thread);
		MUST(stacks[5]->n == 5 && sprof_trylock(stacks[5]));
		_exit(0);
	}
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(wait_for(child), 0);
	ck_assert_uint_ne(status_flags() & SPROF_STATUS_PUBLISHED, 0);
	sprof_close(table);
}
END_TEST

#ifndef SPROF_SANITIZE
START_TEST(a_child_without_memory)
{
	struct rlimit old;
	setup(0);
	unsigned long pages = 0;
	FILE *statm = fopen("/proc/self/statm", "re");
	ck_assert_ptr_nonnull(statm);
	ck_assert_int_eq(fscanf(statm, "%lu", &pages), 1); // NOLINT(cert-err34-c)
	ck_assert_int_eq(fclose(statm), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	const struct rlimit limit = {.rlim_cur = pages * 4096, .rlim_max = old.rlim_max}; /* no room for a copy */
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
	pid_t child = fork();
	if (child == 0) {
		MUST(setrlimit(RLIMIT_AS, &old) == 0);
		MUST(status_flags() == SPROF_STATUS_FORK_LOST);
		MUST(sprof_thread_self(table) == NULL);
		MUST(sprof_stack_add(table, 1, 2) == NULL);
		MUST(stacks[5]->n == 0);
		MUST(sprof_barrier_append(table, stacks[5], 1, 2) == -ENOSPC);
		sprof_lock(stacks[5]);
		sprof_unlock(stacks[5]);
		_exit(0);
	}
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &old), 0);
	ck_assert_int_eq(wait_for(child), 0);
	ck_assert_uint_eq(stacks[5]->n, 5);
	sprof_close(table);
}
END_TEST
#endif

START_TEST(a_lock_that_is_held_while_forking)
{
	setup(0);
	sprof_lock(stacks[7]);
	pid_t child = fork(); /* a mistake: costs a second, and no more */
	if (child == 0) {
		MUST(status_flags() & SPROF_STATUS_FORK_BUSY);
		MUST(stacks[7]->seq_begin != stacks[7]->seq_end);
		sprof_unlock(stacks[7]);
		MUST(sprof_trylock(stacks[7]) == 1);
		_exit(0);
	}
	ck_assert_int_eq(sprof_trylock(stacks[7]), 0);
	sprof_unlock(stacks[7]);
	ck_assert_int_eq(wait_for(child), 0);
	ck_assert_int_eq(sprof_trylock(stacks[7]), 1);
	sprof_unlock(stacks[7]);
	sprof_close(table);
}
END_TEST

CHECK_MAIN("libsprof_fork", 60, a_child_has_its_own, the_mapping_is_not_inherited_by_itself, by_hand,
	   stacks_come_and_go_while_forking, a_hundred_forks_under_load, two_threads_fork_at_once,
	   a_vfork_child_leaves_it_alone, a_child_without_shared_memory,
#ifndef SPROF_SANITIZE
	   a_child_without_memory,
#endif
	   a_lock_that_is_held_while_forking)
