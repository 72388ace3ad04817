/* How much CPU time each sample stands for: the thread's CPU time at this sample less that at its last. Samples that were lost thus
 * cost resolution, never CPU time, and short bursts, which a timer under-samples, weigh what they really took.
 * Thread: the event loop's alone. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct thread_clock;

struct thread_clock *thread_clock_new(void); /* NULL when out of memory */
void thread_clock_free(struct thread_clock *clock);

/* The thread was armed when it had run for runtime_ns already. start_ticks is USER_HZ since boot. -ENOMEM. */
int thread_clock_baseline(struct thread_clock *clock, uint32_t tid, uint64_t start_ticks, uint64_t runtime_ns);

/* CPU time since the thread's last sample (or baseline; or its birth, when it was born after arming), in *ret_cpu_ns; 0 when the clock
 * went backwards. start_ns is the boot-time clock's. task is what stays when a thread executes a program and takes over the leader's number and
 * start time: its own clock goes on then, not the leader's. -ENOMEM: *ret_cpu_ns is untouched. */
int thread_clock_advance(struct thread_clock *clock, uint32_t tid, uint64_t start_ns, uint64_t task, uint64_t runtime_ns,
			 uint64_t *ret_cpu_ns);

/* A record comes from a thread of the program exec_id (the first time: whichever that is). An exec leaves one thread, which goes on under the
 * leader's number and start time but with its own CPU time: of the runtimes known the largest below its own is where it goes on
 * from, whichever thread it was, and all others are forgotten. -ENOMEM. */
int thread_clock_program(struct thread_clock *clock, uint64_t exec_id, uint32_t tid, uint64_t start_ns,
			 uint64_t runtime_ns);

/* Forgets threads that are gone, when many are known: those for which exists() was false this time and the last, since of one that has just
 * gone there may be records still to come. Called now and then, with the ring buffer drained in between. */
void thread_clock_sweep(struct thread_clock *clock, int (*exists)(void *context, uint32_t tid), void *context);
size_t thread_clock_count(const struct thread_clock *clock);
