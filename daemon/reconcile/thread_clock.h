/* How much CPU time each sample stands for: the thread's CPU time at this sample less that at its last. Samples that were lost thus
 * cost resolution, never CPU time, and short bursts, which a timer under-samples, weigh what they really took.
 * Thread: the event loop's alone. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct thread_clock;

struct thread_clock *thread_clock_new(void); /* NULL when out of memory */
void thread_clock_free(struct thread_clock *clock);

/* The thread was armed when it had run for runtime_ns already. start_ticks is USER_HZ since boot. -ENOMEM. */
int thread_clock_baseline(struct thread_clock *clock, uint32_t tid, uint64_t start_ticks, uint64_t runtime_ns);

/* A thread as a sample finds it. */
struct thread_moment {
	uint32_t tid;
	bool is_leader;    /* tid is the process's number */
	uint64_t start_ns; /* by the boot-time clock */
	uint64_t
		task; /* what stays when a thread executes a program and takes over the leader's number and start time */
	uint64_t runtime_ns; /* CPU time until now */
};

/* CPU time since the thread's last sample (or baseline; or its birth, when it was born after arming), in *ret_cpu_ns; 0 when the clock
 * went backwards. -ENOMEM: *ret_cpu_ns is untouched. */
int thread_clock_advance(struct thread_clock *clock, const struct thread_moment *moment, uint64_t *ret_cpu_ns);

/* Forgets threads that are gone, when many are known: those for which exists() was false this time and the last, since of one that has just
 * gone there may be records still to come. Called now and then, with the ring buffer drained in between. */
void thread_clock_sweep(struct thread_clock *clock, int (*exists)(void *context, uint32_t tid), void *context);
size_t thread_clock_count(const struct thread_clock *clock);
