/* How much processor time one piece of work on a hostile file may take. Reading the clock costs, so it is done once in a while. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { WORK_STEPS_BETWEEN_CLOCKS = 1 << 16 };

struct work {
	uint64_t until_ns; /* of this process's CPU time */
	uint32_t steps;
	bool spent;
};

static inline uint64_t work_clock_ns(void)
{
	struct timespec now = {0};
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static inline void work_begin(struct work *work, uint64_t budget_ns)
{
	*work = (struct work){.until_ns = work_clock_ns() + budget_ns};
}

/* Counts some steps of a few nanoseconds each. True: the time is spent; stop. */
static inline bool work_spent(struct work *work, uint64_t steps)
{
	work->steps += steps < WORK_STEPS_BETWEEN_CLOCKS ? (uint32_t)steps : WORK_STEPS_BETWEEN_CLOCKS;
	if (work->steps >= WORK_STEPS_BETWEEN_CLOCKS) {
		work->steps = 0;
		work->spent |= work_clock_ns() > work->until_ns;
	}
	return work->spent;
}
