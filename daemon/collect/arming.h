/* The perf events of one target at one rate: one for each thread that the scan finds, inherited by all later threads, by no forked child.
 * Thread: one at a time; the calls block on the kernel, so they belong on a worker thread, not on the event loop. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum arming_event { ARMING_CPU_CLOCK, ARMING_CYCLES };

struct sampler;
struct arming;

struct arming_options {
	pid_t pid;
	uint16_t slot, generation;
	enum arming_event event;
	uint32_t frequency_hz;
};

/* CPU time that a thread had when it was armed: what it ran before is no business of ours. */
struct arming_baseline {
	pid_t tid;
	uint64_t start_ticks; /* /proc/PID/task/TID/stat field 22, USER_HZ since boot */
	uint64_t runtime_ns;
};

/* Returns once every thread has its event, still stopped (arming_start): rescans until a scan finds no new thread. Errors with a text and remedy:
 * -ESRCH gone, -EMFILE too many threads for the fd limit, -EACCES/-EPERM paranoid or privilege, -EOPNOTSUPP no PMU for cycles, -EAGAIN when threads are
 * born faster than they can be armed for several seconds. */
int arming_open(struct sampler *sampler, const struct arming_options *options, struct arming **ret, struct error *err);
/* Starts all events, those of inherited copies too. */
void arming_start(struct arming *arming);
/* Stops all events: when it returns the program does not run any more, and what was counted stays readable. */
void arming_stop(struct arming *arming);
/* Stops the events and frees all. NULL is fine. */
void arming_close(struct arming *arming);

/* An fd that hangs up when these events should be armed anew: the kernel has ended those of the first thread that was found, and of all born of it,
 * since they have exited or have executed a program with privileges. -1: there is none. It is closed with the arming. */
int arming_watch_fd(const struct arming *arming);

size_t arming_threads(const struct arming *arming);     /* open events */
uint64_t arming_period_ns(const struct arming *arming); /* nominal; for cycles that of the frequency asked for */

/* What the kernel counted on these events so far, over all threads, dead ones included: nanoseconds for the cpu-clock, else cycles. */
uint64_t arming_count(const struct arming *arming);
/* The same in periods. For cycles, whose period the kernel varies, 0 and *ret_known false. */
uint64_t arming_periods(const struct arming *arming, bool *ret_known);

/* Moves the baselines recorded since the last call to the caller (malloc'ed, may be NULL when 0). */
size_t arming_take_baselines(struct arming *arming, struct arming_baseline **ret);
