#include <check.h>

#include "base/clock.h"
#include "check_main.h"
#include "reconcile/thread_clock.h"

enum { TICK_NS = 10000000 };

static uint64_t advance(struct thread_clock *clock, uint32_t tid, uint64_t start_ns, uint64_t runtime_ns)
{
	uint64_t cpu_ns = UINT64_MAX;
	struct thread_moment moment = {.tid = tid, .start_ns = start_ns, .task = tid, .runtime_ns = runtime_ns};
	ck_assert_int_eq(thread_clock_advance(clock, &moment, &cpu_ns), 0);
	return cpu_ns;
}

/* The leader, whose number is 1, as the given task. */
static uint64_t advance_leader(struct thread_clock *clock, uint64_t task, uint64_t runtime_ns)
{
	uint64_t cpu_ns = UINT64_MAX;
	struct thread_moment moment = {.tid = 1, .is_leader = true, .task = task, .runtime_ns = runtime_ns};
	ck_assert_int_eq(thread_clock_advance(clock, &moment, &cpu_ns), 0);
	return cpu_ns;
}

START_TEST(a_thread_that_executes_a_program_goes_on_as_the_leader)
{
	struct thread_clock *clock = thread_clock_new();
	ck_assert_int_eq(thread_clock_baseline(clock, 1, 0, 50), 0);
	ck_assert_uint_eq(advance(clock, 2, 0, 300), 300); /* task 2 */
	/* The leader was never sampled, and thread 2 has its number now. */
	ck_assert_uint_eq(advance_leader(clock, 2, 310), 10);
	ck_assert_uint_eq(advance_leader(clock, 2, 330), 20);
	/* The same when the leader was sampled, with more CPU time and with less. */
	ck_assert_uint_eq(advance(clock, 3, 0, 7), 7);
	ck_assert_uint_eq(advance_leader(clock, 3, 9), 2);
	ck_assert_uint_eq(advance(clock, 4, 0, 5000), 5000);
	ck_assert_uint_eq(advance_leader(clock, 4, 5001), 1);
	/* A task of which nothing is known brings nothing with it. */
	ck_assert_uint_eq(advance_leader(clock, 99, 9000), 0);
	ck_assert_uint_eq(advance_leader(clock, 99, 9001), 1);
	thread_clock_free(clock);
}
END_TEST

START_TEST(a_newborn_thread_counts_from_birth)
{
	struct thread_clock *clock = thread_clock_new();
	ck_assert_uint_eq(advance(clock, 1, 0, 300), 300);
	ck_assert_uint_eq(advance(clock, 1, 0, 1000), 700);
	ck_assert_uint_eq(advance(clock, 2, 0, 50), 50); /* each its own */
	ck_assert_uint_eq(advance(clock, 1, 0, 1001), 1);
	thread_clock_free(clock);
	thread_clock_free(NULL);
}
END_TEST

START_TEST(what_ran_before_arming_is_not_counted)
{
	struct thread_clock *clock = thread_clock_new();
	const uint64_t start_ticks = 12345;
	ck_assert_int_eq(thread_clock_baseline(clock, 9, start_ticks, 70 * NS_PER_S), 0);
	/* The kernel gives the start in ticks to one and in nanoseconds to the other: the same thread, wherever in the tick. */
	ck_assert_uint_eq(advance(clock, 9, start_ticks * TICK_NS + TICK_NS - 1, 70 * NS_PER_S + 5), 5);
	ck_assert_uint_eq(advance(clock, 9, start_ticks * TICK_NS + TICK_NS - 1, 70 * NS_PER_S + 8), 3);
	ck_assert_uint_eq(thread_clock_count(clock), 1);
	thread_clock_free(clock);
}
END_TEST

START_TEST(a_second_baseline_does_not_swallow_time)
{
	struct thread_clock *clock = thread_clock_new();
	thread_clock_baseline(clock, 9, 1, 1000);
	ck_assert_uint_eq(advance(clock, 9, TICK_NS, 1500), 500);
	thread_clock_baseline(clock, 9, 1, 1900); /* armed again for another rate */
	ck_assert_uint_eq(advance(clock, 9, TICK_NS, 2000), 500);
	thread_clock_free(clock);
}
END_TEST

START_TEST(a_reused_number_is_another_thread)
{
	struct thread_clock *clock = thread_clock_new();
	ck_assert_uint_eq(advance(clock, 5, TICK_NS, 1000), 1000);
	ck_assert_uint_eq(advance(clock, 5, 2 * TICK_NS, 400), 400);
	ck_assert_uint_eq(thread_clock_count(clock), 2);
	thread_clock_free(clock);
}
END_TEST

START_TEST(a_clock_that_goes_back_gives_nothing_twice)
{
	struct thread_clock *clock = thread_clock_new();
	ck_assert_uint_eq(advance(clock, 5, 0, 1000), 1000);
	ck_assert_uint_eq(advance(clock, 5, 0, 900), 0);
	ck_assert_uint_eq(advance(clock, 5, 0, 950), 0); /* not 50: that time has been given */
	ck_assert_uint_eq(advance(clock, 5, 0, 1000), 0);
	ck_assert_uint_eq(advance(clock, 5, 0, 1010), 10);
	ck_assert_uint_eq(advance(clock, 5, 0, 0), 0);
	ck_assert_uint_eq(advance(clock, 5, 0, UINT64_MAX), UINT64_MAX - 1010);
	thread_clock_free(clock);
}
END_TEST

static int is_even(void *context, uint32_t tid)
{
	++*(unsigned *)context;
	return tid % 2 == 0;
}

START_TEST(sweeping_forgets_the_dead_alone)
{
	struct thread_clock *clock = thread_clock_new();
	unsigned asked = 0;
	for (uint32_t tid = 1; tid <= 1000; tid++)
		advance(clock, tid, 0, tid);
	thread_clock_sweep(clock, is_even, &asked);
	ck_assert_uint_eq(asked, 0); /* few threads: not worth it */
	for (uint32_t tid = 1001; tid <= 2000; tid++)
		advance(clock, tid, 0, tid);
	thread_clock_sweep(clock, is_even, &asked);
	ck_assert_uint_eq(asked, 2000);
	ck_assert_uint_eq(advance(clock, 999, 0, 1003), 4); /* gone, but its last record comes only now */
	for (uint32_t tid = 3002; tid <= 5200; tid += 2)
		advance(clock, tid, 0, tid);
	thread_clock_sweep(clock, is_even, &asked);
	ck_assert_uint_eq(thread_clock_count(clock), 1000 + 1100); /* the odd ones were gone for the second time */
	ck_assert_uint_eq(advance(clock, 1000, 0, 1007), 7);       /* alive: goes on */
	ck_assert_uint_eq(advance(clock, 999, 0, 1007), 1007);
	/* When all live, sweeping again and again does not ask again and again. */
	asked = 0;
	for (int i = 0; i < 100; i++)
		thread_clock_sweep(clock, is_even, &asked);
	ck_assert_uint_eq(asked, 0);
	thread_clock_free(clock);
}
END_TEST

static int is_recent(void *context, uint32_t tid)
{
	return tid + 8 > *(const uint32_t *)context;
}

START_TEST(millions_of_short_threads_stay_bounded)
{
	struct thread_clock *clock = thread_clock_new();
	size_t most = 0;
	for (uint32_t tid = 1; tid <= 2000000; tid++) {
		uint64_t cpu_ns;
		struct thread_moment moment = {
			.tid = tid, .start_ns = (uint64_t)tid * 1000, .task = tid, .runtime_ns = 500};
		if (thread_clock_advance(clock, &moment, &cpu_ns) < 0 || cpu_ns != 500)
			ck_abort_msg("thread %u", tid);
		if (tid % 1000 == 0)
			thread_clock_sweep(clock, is_recent, &tid);
		if (thread_clock_count(clock) > most)
			most = thread_clock_count(clock);
	}
	ck_assert_uint_le(most, 8192);
	thread_clock_free(clock);
}
END_TEST

CHECK_MAIN("thread_clock", 60, a_newborn_thread_counts_from_birth, what_ran_before_arming_is_not_counted,
	   a_second_baseline_does_not_swallow_time, a_reused_number_is_another_thread,
	   a_thread_that_executes_a_program_goes_on_as_the_leader, a_clock_that_goes_back_gives_nothing_twice,
	   sweeping_forgets_the_dead_alone, millions_of_short_threads_stay_bounded)
