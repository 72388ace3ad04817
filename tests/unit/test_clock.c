#include <check.h>
#include <time.h>

#include "base/clock.h"
#include "check_main.h"

START_TEST(each_reads_its_own_clock)
{
	struct {
		clockid_t clock;
		uint64_t (*read_ns)(void);
	} clocks[] = {{CLOCK_MONOTONIC, clock_monotonic_ns},
		      {CLOCK_BOOTTIME, clock_boottime_ns},
		      {CLOCK_REALTIME, clock_realtime_ns},
		      {CLOCK_THREAD_CPUTIME_ID, clock_thread_cpu_ns},
		      {CLOCK_PROCESS_CPUTIME_ID, clock_process_cpu_ns}};
	for (size_t i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++) {
		struct timespec before, after;
		clock_gettime(clocks[i].clock, &before);
		uint64_t ns = clocks[i].read_ns();
		clock_gettime(clocks[i].clock, &after);
		ck_assert_uint_ge(ns, (uint64_t)before.tv_sec * NS_PER_S + (uint64_t)before.tv_nsec);
		ck_assert_uint_le(ns, (uint64_t)after.tv_sec * NS_PER_S + (uint64_t)after.tv_nsec);
	}
}
END_TEST

CHECK_MAIN("clock", 10, each_reads_its_own_clock)
