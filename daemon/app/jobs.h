/* Work that may block (arming, reading /proc of a target, building profiles) leaves the event loop for worker threads, and comes back when done.
 *
 * A lane runs its jobs one after the other, in order: what belongs to one target is in its lane. Jobs without a lane run side by side. Threads are
 * started when needed, up to a maximum, and end when idle. All functions: event loop only. */
#pragma once
#include <event2/event.h>
#include <stdbool.h>

struct jobs;
struct job;

/* work runs on a worker thread; then done, on the event loop, with worked true. Neither may be NULL. The lane's next job starts after done. done may
 * free the lane if no other job waits in it. When everything ends, done is called with worked false for jobs that never ran. */
typedef void (*job_fn)(void *context);
typedef void (*job_done_fn)(void *context, bool worked);

struct lane {
	struct job *first, *last; /* waiting, behind the one that runs */
	bool busy;
};

struct jobs *jobs_new(struct event_base *base, unsigned max_threads); /* NULL: out of memory */
/* Waits for the jobs that run; calls done for all that are left. What is submitted from then on is refused with -ECANCELED. NULL is fine. */
void jobs_stop(struct jobs *jobs);
/* Stops, and frees. NULL is fine. */
void jobs_free(struct jobs *jobs);
/* For jobs that may never come back, when the process is about to end: as jobs_free, but waits for at most so long. What still runs then is left behind, done is never called
 * for it, and all that it uses must stay. True: nothing does. NULL is fine. */
bool jobs_leave(struct jobs *jobs, unsigned wait_ms);
enum job_order {
	JOB_LAST,
	JOB_FIRST, /* before those that wait in the lane: the second half of a job, from its done */
};
/* lane may be NULL. -ENOMEM; -ECANCELED; -EAGAIN when no thread could be started. */
int jobs_submit(struct jobs *jobs, struct lane *lane, enum job_order order, job_fn work, job_done_fn done,
		void *context);
