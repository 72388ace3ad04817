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
 * went backwards. start_ns is the boot-time clock's. -ENOMEM: *ret_cpu_ns is untouched. */
int thread_clock_advance(struct thread_clock *clock, uint32_t tid, uint64_t start_ns, uint64_t runtime_ns,
			 uint64_t *ret_cpu_ns);

/* Forgets threads that are gone, when many are known: those for which exists() is false. Called now and then. */
void thread_clock_sweep(struct thread_clock *clock, int (*exists)(void *context, uint32_t tid), void *context);
size_t thread_clock_count(const struct thread_clock *clock);
