/* Writers that never rest against readers that hold to the protocol: a snapshot that is accepted is whole. Every word of what the
 * writers publish follows from one number, so that a torn snapshot is seen. */
#include <pthread.h>
#include <signal.h>
#include <sprof/sprof.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "check_main.h"
#include "libsprof_reader.h"

enum { BARRIERS = 16, STACK_BYTES = 0x10000, PATIENCE_MS = 20000, WANTED = 2000 };

static struct sprof_table *table;
static struct sprof_stack *stack;
static struct sprof_thread *volatile thread;
static int stop;
static uint64_t held_by; /* how many writers are inside: never more than one */

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void setup(void)
{
	const struct sprof_options options = {
		.size = sizeof(options), .barriers = BARRIERS, .flags = SPROF_OPEN_NO_LOCK};
	ck_assert_int_eq(sprof_open(&options, &table), 0);
	stack = sprof_stack_add(table, STACK_BYTES, 2 * STACK_BYTES);
	stop = 0;
	thread = NULL;
}

static void mutate(uint64_t k)
{
	sprof_lock(stack);
	if (__atomic_fetch_add(&held_by, 1, __ATOMIC_RELAXED) != 0)
		abort();
	uint64_t lo = (k + 1) * STACK_BYTES;
	sprof_barrier_clear(stack);
	sprof_stack_move(table, stack, lo, lo + STACK_BYTES);
	for (uint64_t i = 0; i < k % BARRIERS + 1; i++)
		if (sprof_barrier_append(table, stack, lo + 16 * i, lo * 3 + i) != 0)
			abort();
	__atomic_fetch_sub(&held_by, 1, __ATOMIC_RELAXED);
	sprof_unlock(stack);
}

static bool is_whole(const struct sprof_stack *copy, const struct sprof_barrier *barriers)
{
	uint64_t k = copy->lo / STACK_BYTES - 1;
	if (copy->hi != copy->lo + STACK_BYTES || copy->seq_begin != copy->seq_end)
		return false;
	if (copy->n == 0) /* as added */
		return copy->lo == STACK_BYTES;
	if (copy->n != k % BARRIERS + 1)
		return false;
	for (uint32_t i = 0; i < copy->n; i++)
		if (barriers[i].slot != copy->lo + 16 * i || barriers[i].original_pc != copy->lo * 3 + i)
			return false;
	return true;
}

static void *write_stacks(void *number)
{
	for (uint64_t k = *(const unsigned *)number; !__atomic_load_n(&stop, __ATOMIC_RELAXED); k += 7)
		mutate(k % 100000);
	return NULL;
}

/* Until enough was accepted and enough refused, or it takes too long. 0; 1: a torn one; 2: too few. */
static int read_stacks(const struct table_source *source, uint64_t address)
{
	struct sprof_header header;
	uint64_t accepted = 0, refused = 0, until = now_ms() + PATIENCE_MS;
	if (!read_table(source, address, &header, sizeof(header)) || header.magic != SPROF_TABLE_MAGIC)
		return 3;
	while ((accepted < WANTED || refused < WANTED) && now_ms() < until) {
		struct sprof_stack copy;
		struct sprof_barrier barriers[BARRIERS] = {{0, 0}};
		enum read_result result = read_stack(source, address, &header, 0, &copy, barriers, BARRIERS);
		if (result == READ_UNREADABLE)
			return 4;
		if (result != READ_ACCEPTED)
			refused++;
		else if (!is_whole(&copy, barriers))
			return 1;
		else
			accepted++;
	}
	return accepted > 0 && refused > 0 ? 0 : 2;
}

static const unsigned numbers[] = {0, 1};

static void with_writers(unsigned n, void *(*body)(void *), int (*reader)(void))
{
	pthread_t ids[2];
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(pthread_create(&ids[i], NULL, body, (void *)&numbers[i]), 0);
	int r = reader();
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
	ck_assert_int_eq(r, 0);
	sprof_close(table);
}

static int read_from_here(void)
{
	return read_stacks(&(struct table_source){.pid = 0}, (uintptr_t)sprof_table_address(table));
}

START_TEST(by_another_thread)
{
	setup();
	with_writers(1, write_stacks, read_from_here);
}
END_TEST

START_TEST(two_writers)
{
	setup();
	with_writers(2, write_stacks, read_from_here);
	ck_assert_uint_eq(held_by, 0);
}
END_TEST

/* Forks a reader of this process, and gives its result. */
static int from_process(int (*body)(const struct table_source *, uint64_t), uint64_t address)
{
	int status = 0;
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	pid_t parent = getpid(), child = fork();
	if (child == 0)
		_exit(body(&(struct table_source){.pid = parent}, address));
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return 5;
	return WEXITSTATUS(status);
}

static int read_from_process(void)
{
	return from_process(read_stacks, (uintptr_t)sprof_table_address(table));
}

START_TEST(by_another_process)
{
	setup();
	with_writers(1, write_stacks, read_from_process);
}
END_TEST

/* Threads: contexts k, k+1, k+2; current and user the same. */
static void libcall(uint64_t k)
{
	sprof_libcall_enter(thread, k & 1 ? stack : NULL, k, k + 1, k + 2);
}

static uint64_t handled;

static void handler(int number)
{
	struct sprof_thread *t = thread;
	(void)number;
	struct sprof_context saved = t->libcall_context;
	struct sprof_ref ref = t->libcall;
	SPROF_STORE(handled, handled + 4);
	libcall(handled + 1000000);
	uint32_t step = sprof_begin(t); /* what was there before, be it half done */
	SPROF_STORE(t->libcall_context.pc, saved.pc);
	SPROF_STORE(t->libcall_context.sp, saved.sp);
	SPROF_STORE(t->libcall_context.fp, saved.fp);
	SPROF_STORE(t->libcall.gen, ref.gen);
	SPROF_STORE(t->libcall.index, ref.index);
	sprof_end(t, step);
}

static void *write_thread(void *unused)
{
	(void)unused;
	struct sprof_thread *mine = sprof_thread_attach(table);
	__atomic_store_n(&thread, mine, __ATOMIC_RELEASE);
	struct sprof_stack *other = sprof_stack_add(table, 1, 2);
	for (uint64_t k = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); k++) {
		libcall(k);
		sprof_switch_begin(mine, k & 1 ? stack : other, k & 1 ? other : stack);
		sprof_switch_end(mine);
	}
	return NULL;
}

static bool thread_is_whole(const struct sprof_thread *copy)
{
	const struct sprof_context *c = &copy->libcall_context;
	if (memcmp(&copy->current, &copy->user, sizeof(copy->user)) != 0)
		return false;
	if (c->pc == 0 && c->sp == 0) /* as attached */
		return c->fp == 0;
	return c->sp == c->pc + 1 && c->fp == c->pc + 2 && (c->pc & 1) == (copy->libcall.gen != 0);
}

static int read_threads(const struct table_source *source, uint64_t address)
{
	uint64_t accepted = 0, refused = 0, until = now_ms() + PATIENCE_MS;
	while ((accepted < WANTED || refused < WANTED) && now_ms() < until) {
		struct sprof_thread copy;
		enum read_result result = read_thread(source, address, &copy);
		if (result == READ_UNREADABLE)
			return 4;
		if (result != READ_ACCEPTED)
			refused++;
		else if (!thread_is_whole(&copy))
			return 1;
		else
			accepted++;
	}
	return accepted > 0 && refused > 0 ? 0 : 2;
}

static void await_thread(void)
{
	while (!__atomic_load_n(&thread, __ATOMIC_ACQUIRE))
		usleep(100);
}

static int read_thread_from_here(void)
{
	await_thread();
	return read_threads(&(struct table_source){.pid = 0}, (uintptr_t)thread);
}

static int read_thread_in_signals(void)
{
	int r = 0;
	for (uint64_t until = now_ms() + PATIENCE_MS; r == 0 && SPROF_LOAD(handled) < 400 && now_ms() < until;)
		r = read_thread_from_here();
	return r;
}

static int read_thread_from_process(void)
{
	await_thread();
	return from_process(read_threads, (uintptr_t)thread);
}

START_TEST(a_thread_by_another_thread)
{
	setup();
	with_writers(1, write_thread, read_thread_from_here);
}
END_TEST

START_TEST(a_thread_by_another_process)
{
	setup();
	with_writers(1, write_thread, read_thread_from_process);
}
END_TEST

static void *send_signals(void *unused)
{
	(void)unused;
	await_thread();
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		sigval_t none = {.sival_int = 0};
		sigqueue(getpid(), SIGUSR1, none);
		usleep(20);
	}
	return NULL;
}

static void *write_or_signal(void *which)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	if (*(const unsigned *)which == 0) /* the only thread that takes the signal */
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	return *(const unsigned *)which == 0 ? write_thread(NULL) : send_signals(NULL);
}

START_TEST(a_thread_that_handles_signals)
{
	sigset_t set;
	setup();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	/* The thread attaches before it can be interrupted: until then the handler has nothing to write. */
	ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
	with_writers(2, write_or_signal, read_thread_in_signals);
	ck_assert_uint_ge(handled, 400);
}
END_TEST

CHECK_MAIN("libsprof_reader", 60, by_another_thread, two_writers, by_another_process, a_thread_by_another_thread,
	   a_thread_by_another_process, a_thread_that_handles_signals)
