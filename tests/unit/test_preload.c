/* libsprof-preload, which this program runs under (LD_PRELOAD): contexts do what they do without, and the table tells who waits for whom. */
#include <dlfcn.h>
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "check_main.h"
#include "own_table.h"

enum { STACK_BYTES = 65536, FIBERS = 8 };

static ucontext_t at_home, contexts[FIBERS];
static char stacks[FIBERS][STACK_BYTES] __attribute__((aligned(64)));

/* --- fibers --- */

static const struct sprof_stack *fiber_place(int i)
{
	return around(&stacks[i][STACK_BYTES / 2]);
}

static void make(int i, void (*function)(void), ucontext_t *link)
{
	ck_assert_int_eq(getcontext(&contexts[i]), 0);
	contexts[i].uc_stack.ss_sp = stacks[i];
	contexts[i].uc_stack.ss_size = STACK_BYTES;
	contexts[i].uc_link = link;
	makecontext(&contexts[i], function, 0);
}

START_TEST(is_loaded)
{
	Dl_info info;
	ck_assert(dladdr(dlsym(RTLD_DEFAULT, "swapcontext"), &info) != 0);
	ck_assert_msg(strstr(info.dli_fname, "libsprof-preload.so"), "%s", info.dli_fname);
	ck_assert_msg(table() == NULL, "a program without fibers has no table");
}
END_TEST

/* --- what contexts do --- */

static long seen[8];
static int seen_rounding;

static void takes_eight(long a, long b, long c, long d, long e, long f, long g, long h)
{
	const long all[] = {a, b, c, d, e, f, g, h};
	memcpy(seen, all, sizeof(all));
	seen_rounding = fegetround();
	(void)fesetround(FE_DOWNWARD);
}

START_TEST(context_semantics)
{
	sigset_t mask, now;
	ck_assert_int_eq(getcontext(&contexts[0]), 0);
	contexts[0].uc_stack.ss_sp = stacks[0];
	contexts[0].uc_stack.ss_size = STACK_BYTES;
	contexts[0].uc_link = &at_home;
	sigaddset(&contexts[0].uc_sigmask, SIGUSR1);
	makecontext(&contexts[0], (void (*)(void))takes_eight, 8, 1L, -2L, 3L, 4L, 5L, 6L, 7L, -8L);
	(void)fesetround(FE_UPWARD);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	ck_assert_int_eq(sigprocmask(SIG_SETMASK, &mask, NULL), 0);
	ck_assert_int_eq(swapcontext(&at_home, &contexts[0]), 0);
	const long all[] = {1, -2, 3, 4, 5, 6, 7, -8};
	ck_assert_mem_eq(seen, all, sizeof(all));
	ck_assert_int_eq(seen_rounding, FE_TONEAREST);
	ck_assert_int_eq(fegetround(), FE_UPWARD);
	ck_assert_int_eq(sigprocmask(SIG_SETMASK, NULL, &now), 0);
	ck_assert(sigismember(&now, SIGUSR2) == 1 && sigismember(&now, SIGUSR1) == 0);
	volatile int rounds = 0;
	ck_assert_int_eq(getcontext(&contexts[1]), 0);
	if (++rounds < 1000)
		ck_assert_int_eq(setcontext(&contexts[1]), -1);
	ck_assert_int_eq(rounds, 1000);
}
END_TEST

static void does_nothing(void)
{
}

START_TEST(without_link_the_thread_ends)
{
	make(0, does_nothing, NULL);
	ck_assert_int_eq(setcontext(&contexts[0]), -1);
}
END_TEST

/* --- who waits --- */

static void inner(void)
{
	for (;;) {
		ck_assert_ptr_eq(current(), fiber_place(1));
		assert_waits(fiber_place(0), fiber_place(1));
		assert_waits(system_place(), fiber_place(0));
		ck_assert_ptr_null(at(&system_place()->resumer));
		swapcontext(&contexts[1], &contexts[0]);
	}
}

static void outer(void)
{
	make(1, inner, NULL);
	for (int i = 0; i < 3; i++) {
		ck_assert_ptr_eq(current(), fiber_place(0));
		swapcontext(&contexts[0], &contexts[1]);
		assert_rests(fiber_place(1));
		assert_waits(system_place(), fiber_place(0));
	}
}

START_TEST(nested_fibers)
{
	make(0, outer, &at_home);
	swapcontext(&at_home, &contexts[0]);
	ck_assert_ptr_eq(current(), system_place());
	assert_rests(fiber_place(0));
	assert_rests(fiber_place(1));
}
END_TEST

/* Fibers of one ring go on to each other: none of them waits. */
static int ring_rounds;

static void in_ring(void)
{
	for (;;) {
		int i = ring_rounds++ % 3;
		if (ring_rounds > 9) {
			ck_assert_ptr_eq(current(), fiber_place(i));
			assert_waits(system_place(), fiber_place(i));
			assert_rests(fiber_place((i + 1) % 3));
			assert_rests(fiber_place((i + 2) % 3));
		}
		if (ring_rounds == 31)
			return;
		swapcontext(&contexts[i], &contexts[(i + 1) % 3]);
	}
}

START_TEST(peers_do_not_wait)
{
	for (int i = 0; i < 3; i++)
		make(i, in_ring, &at_home);
	swapcontext(&at_home, &contexts[0]);
	ck_assert_int_eq(ring_rounds, 31);
	ck_assert_ptr_eq(current(), system_place());
}
END_TEST

static sigjmp_buf home_jump, fiber_jump;

/* With _FORTIFY_SOURCE, siglongjmp is __longjmp_chk, which goes upwards only: as from a fiber's static stack to the thread's own. */
extern void jump_unchecked(sigjmp_buf buf, int value) __asm__("siglongjmp");

static void by_jumps(void)
{
	for (volatile int i = 0;; i++) {
		ck_assert_ptr_eq(current(), fiber_place(0));
		assert_waits(system_place(), fiber_place(0));
		if (sigsetjmp(fiber_jump, i & 1) == 0)
			siglongjmp(home_jump, i + 1);
	}
}

START_TEST(jumps_between_stacks)
{
	make(0, by_jumps, NULL);
	for (volatile int i = 0; i < 6; i++) {
		int from = sigsetjmp(home_jump, i & 1);
		if (from == 0 && i == 0)
			setcontext(&contexts[0]);
		if (from == 0)
			jump_unchecked(fiber_jump, 0);
		ck_assert_int_eq(from, i + 1);
		ck_assert_ptr_eq(current(), system_place());
		assert_rests(fiber_place(0));
	}
}
END_TEST

static ucontext_t within;

static void runs_within(void)
{
	ck_assert_ptr_eq(current(), around(__builtin_frame_address(0)));
	ck_assert_ptr_ne(current(), fiber_place(0));
	assert_waits(around(&stacks[0][64]), current());
}

static void makes_within(void)
{
	char stack[STACK_BYTES / 4];
	ck_assert_int_eq(getcontext(&within), 0);
	within.uc_stack.ss_sp = stack;
	within.uc_stack.ss_size = sizeof(stack);
	within.uc_link = &contexts[0];
	makecontext(&within, runs_within, 0);
	swapcontext(&contexts[0], &within);
	ck_assert_ptr_eq(current(), around(&stacks[0][64]));
}

START_TEST(stack_within_a_stack)
{
	make(0, makes_within, &at_home);
	swapcontext(&at_home, &contexts[0]);
	ck_assert_ptr_eq(current(), system_place());
}
END_TEST

/* --- threads, forks, signals, a full table --- */

static void yields_for_ever(void)
{
	for (;;) {
		ck_assert_ptr_eq(current(), fiber_place(0));
		assert_waits(system_place(), fiber_place(0));
		swapcontext(&contexts[0], &at_home);
	}
}

static void *goes_on_elsewhere(void *of)
{
	(void)of;
	swapcontext(&at_home, &contexts[0]);
	ck_assert_ptr_eq(current(), system_place());
	return NULL;
}

START_TEST(threads_take_over)
{
	const struct sprof_stack *place;
	uint32_t in_use = 0;
	make(0, yields_for_ever, NULL);
	swapcontext(&at_home, &contexts[0]);
	for (int i = 0; i < 10; i++) {
		pthread_t thread;
		ck_assert_int_eq(pthread_create(&thread, NULL, goes_on_elsewhere, NULL), 0);
		ck_assert_int_eq(pthread_join(thread, NULL), 0);
	}
	place = stack_places();
	for (uint32_t i = table()->cap_stack; i > 0; i--)
		in_use += place++->hi != 0;
	ck_assert_uint_eq(in_use, 2); /* ours and the fiber's: threads that have ended have none */
}
END_TEST

static pid_t (*fork_somehow)(void);

static pid_t raw_fork(void)
{
	return (pid_t)syscall(SYS_fork);
}

static void forks(void)
{
	pid_t child = fork_somehow();
	if (child == 0) {
		if (fork_somehow == fork) {
			ck_assert_uint_eq(table()->tgid, (uint32_t)getpid());
			ck_assert_ptr_eq(current(), fiber_place(0));
			assert_waits(system_place(), fiber_place(0));
		}
		make(1, does_nothing, &contexts[0]);
		swapcontext(&contexts[0], &contexts[1]);
		if (fork_somehow == fork)
			ck_assert_ptr_eq(current(), fiber_place(0));
		_exit(7);
	}
	int status = 0;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %#x", status);
	ck_assert_ptr_eq(current(), fiber_place(0));
}

START_TEST(forks_in_fibers)
{
	pid_t (*const ways[])(void) = {fork, _Fork, raw_fork};
	for (int i = 0; i < 3; i++) {
		fork_somehow = ways[i];
		make(0, forks, &at_home);
		swapcontext(&at_home, &contexts[0]);
	}
}
END_TEST

static volatile int running = -1, done;
static volatile unsigned long switches;

/* A scheduler of the old kind: the timer's signal takes the processor away. */
static void on_timer(int number)
{
	(void)number;
	int from = running, to = done ? -1 : (from + 1) % FIBERS;
	running = to;
	switches++;
	if (from >= 0 || to >= 0)
		swapcontext(from < 0 ? &at_home : &contexts[from], to < 0 ? &at_home : &contexts[to]);
}

/* Blocked while contexts are exchanged, else a second signal would find that half done. */
static void mask_timer(int how)
{
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGVTALRM);
	ck_assert_int_eq(sigprocmask(how, &mask, NULL), 0);
}

static void busy(void)
{
	mask_timer(SIG_UNBLOCK);
	for (;;) {
		jmp_buf buf;
		if (_setjmp(buf) == 0)
			_longjmp(buf, 1);
		if (switches > 300)
			done = 1;
	}
}

START_TEST(switches_by_signals)
{
	struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
	const struct itimerval every = {.it_interval = {.tv_usec = 500}, .it_value = {.tv_usec = 500}};
	ck_assert_int_eq(sigaction(SIGVTALRM, &action, NULL), 0);
	mask_timer(SIG_BLOCK);
	for (int i = 0; i < FIBERS; i++)
		make(i, busy, NULL);
	mask_timer(SIG_UNBLOCK);
	ck_assert_int_eq(setitimer(ITIMER_VIRTUAL, &every, NULL), 0);
	while (!done)
		;
	ck_assert_int_eq(setitimer(ITIMER_VIRTUAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL), 0);
	ck_assert_uint_gt(switches, 300);
}
END_TEST

START_TEST(more_fibers_than_places)
{
	enum { MANY = 100 };
	static ucontext_t many[MANY];
	char *memory = malloc((size_t)MANY * 16384);
	ck_assert_ptr_nonnull(memory);
	setenv("SPROF_PRELOAD_STACKS", "8", 1);
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(getcontext(&many[i]), 0);
		many[i].uc_stack.ss_sp = memory + (size_t)i * 16384;
		many[i].uc_stack.ss_size = 16384;
		many[i].uc_link = &at_home;
		makecontext(&many[i], does_nothing, 0);
	}
	ck_assert_uint_eq(table()->cap_stack, 8);
	for (int i = 0; i < MANY; i++)
		swapcontext(&at_home, &many[i]);
	make(0, outer, &at_home); /* the newest always has a place */
	swapcontext(&at_home, &contexts[0]);
	free(memory);
}
END_TEST

struct own {
	ucontext_t home, fiber, nested;
	unsigned seed;
	int rounds;
};
static _Thread_local struct own *own;

static void runs_nested(void)
{
	own->rounds++;
}

static void *make_context(ucontext_t *context, void (*function)(void), ucontext_t *link)
{
	size_t bytes = 16384 + (size_t)rand_r(&own->seed) % 8 * 4096;
	char *memory = malloc(bytes); /* of stacks that overlap with those of others before */
	if (!memory || getcontext(context) != 0)
		abort(); /* a forked child may find the lock of Check's assertions held */
	context->uc_stack.ss_sp = memory;
	context->uc_stack.ss_size = bytes;
	context->uc_link = link;
	makecontext(context, function, 0);
	return memory;
}

static void makes_nested(void)
{
	void *memory = make_context(&own->nested, runs_nested, &own->fiber);
	swapcontext(&own->fiber, &own->nested);
	free(memory);
}

/* While another thread forks there are two tables: they are looked at when all have ended. */
static void *makes_fibers(void *of)
{
	struct own mine = {.seed = (unsigned)(uintptr_t)of};
	own = &mine;
	for (int i = 0; i < 300; i++) {
		void *memory = make_context(&mine.fiber, makes_nested, &mine.home);
		swapcontext(&mine.home, &mine.fiber);
		free(memory);
		if (i % 100 == 0) {
			pid_t child = fork();
			if (child == 0) {
				(void)make_context(&mine.fiber, makes_nested, &mine.home);
				swapcontext(&mine.home, &mine.fiber);
				_exit(mine.rounds == i + 2 ? 0 : 1);
			}
			int status = -1;
			ck_assert_int_eq(waitpid(child, &status, 0), child);
			ck_assert_int_eq(status, 0);
		}
	}
	ck_assert_int_eq(mine.rounds, 300);
	return NULL;
}

START_TEST(many_threads_make_fibers)
{
	pthread_t threads[FIBERS];
	setenv("SPROF_PRELOAD_STACKS", "24", 1);
	for (uintptr_t i = 0; i < FIBERS; i++) {
		void *seed = (void *)i; // NOLINT(performance-no-int-to-ptr)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, makes_fibers, seed), 0);
	}
	for (int i = 0; i < FIBERS; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	const struct sprof_header *header = table();
	for (uint32_t i = 0; i < header->cap_stack; i++) {
		ck_assert_uint_eq(stack_places()[i].seq_begin, stack_places()[i].seq_end);
		ck_assert_uint_eq(stack_places()[i].owner_tid, 0);
	}
}
END_TEST

CHECK_MAIN("preload", 60, is_loaded, context_semantics, without_link_the_thread_ends, nested_fibers, peers_do_not_wait,
	   jumps_between_stacks, stack_within_a_stack, threads_take_over, forks_in_fibers, switches_by_signals,
	   more_fibers_than_places, many_threads_make_fibers)
