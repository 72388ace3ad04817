#include <check.h>

#include "base/clock.h"
#include "check_main.h"
#include "reconcile/thread_clock.h"

enum { TICK_NS = 10000000 };

static uint64_t advance(struct thread_clock *clock, uint32_t tid, uint64_t start_ns, uint64_t runtime_ns)
{
	uint64_t cpu_ns = UINT64_MAX;
	ck_assert_int_eq(thread_clock_advance(clock, tid, start_ns, runtime_ns, &cpu_ns), 0);
	return cpu_ns;
}

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

START_TEST(an_exec_by_a_worker_counts_its_time_once)
{
	struct thread_clock *clock = thread_clock_new();
	thread_clock_baseline(clock, 10, 1, 50); /* the leader: it waits */
	ck_assert_int_eq(thread_clock_program(clock, 7, 11, 5 * TICK_NS, 1000), 0);
	ck_assert_uint_eq(advance(clock, 11, 5 * TICK_NS, 1000), 1000);
	ck_assert_int_eq(thread_clock_program(clock, 7, 12, 6 * TICK_NS, 9000), 0);
	ck_assert_uint_eq(advance(clock, 12, 6 * TICK_NS, 9000), 9000);
	/* The worker 11 executes a program: from now on it has the leader's number and start. */
	ck_assert_int_eq(thread_clock_program(clock, 8, 10, TICK_NS, 1030), 0);
	ck_assert_uint_eq(thread_clock_count(clock), 1);
	ck_assert_uint_eq(advance(clock, 10, TICK_NS, 1030), 30);
	ck_assert_int_eq(thread_clock_program(clock, 8, 10, TICK_NS, 1040), 0);
	ck_assert_uint_eq(advance(clock, 10, TICK_NS, 1040), 10);
	/* The only thread executes one. */
	ck_assert_int_eq(thread_clock_program(clock, 9, 10, TICK_NS, 1041), 0);
	ck_assert_uint_eq(advance(clock, 10, TICK_NS, 1041), 1);
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
	thread_clock_sweep(clock, is_even, &asked);
	ck_assert_uint_eq(thread_clock_count(clock), 1000);
	ck_assert_uint_eq(advance(clock, 1000, 0, 1007), 7); /* alive: goes on */
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
		if (thread_clock_advance(clock, tid, (uint64_t)tid * 1000, 500, &cpu_ns) < 0 || cpu_ns != 500)
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
	   an_exec_by_a_worker_counts_its_time_once, a_clock_that_goes_back_gives_nothing_twice,
	   sweeping_forgets_the_dead_alone, millions_of_short_threads_stay_bounded)
