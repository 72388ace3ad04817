#include "app/jobs.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { IDLE_SECONDS = 5, STACK_BYTES = 512 * 1024 };

struct job {
	struct job *next;
	struct lane *lane;
	job_fn work;
	job_done_fn done;
	void *context;
};

struct queue {
	struct job *first, *last;
};

struct jobs {
	struct event *finished_event; /* on finished_fd */
	int finished_fd;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t wanted, ended;
	struct queue waiting, finished;
	unsigned n_waiting, threads, idle, max_threads;
	bool stopping;
};

static void push(struct queue *queue, struct job *job)
{
	job->next = NULL;
	if (queue->last)
		queue->last->next = job;
	else
		queue->first = job;
	queue->last = job;
}

static struct job *pop(struct queue *queue)
{
	struct job *job = queue->first;
	if (!job)
		return NULL;
	queue->first = job->next;
	if (!queue->first)
		queue->last = NULL;
	return job;
}

/* The lock is held. NULL: nothing came for a while, or we are stopping. */
static struct job *wait_for_job(struct jobs *jobs)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SECONDS;
	int r = 0;
	jobs->idle++;
	while (!jobs->waiting.first && !jobs->stopping && r == 0)
		r = pthread_cond_timedwait(&jobs->wanted, &jobs->lock, &until);
	jobs->idle--;
	struct job *job = jobs->stopping ? NULL : pop(&jobs->waiting);
	jobs->n_waiting -= job != NULL;
	return job;
}

static void *worker(void *context)
{
	struct jobs *jobs = context;
	struct job *job;
	pthread_mutex_lock(&jobs->lock);
	while ((job = wait_for_job(jobs))) {
		pthread_mutex_unlock(&jobs->lock);
		job->work(job->context);
		pthread_mutex_lock(&jobs->lock);
		push(&jobs->finished, job);
		uint64_t one = 1;
		ssize_t written =
			write(jobs->finished_fd, &one, sizeof(one)); /* cannot fail: the counter is far from full */
		(void)written;
	}
	jobs->threads--;
	pthread_cond_signal(&jobs->ended);
	pthread_mutex_unlock(&jobs->lock);
	return NULL;
}

/* The lock is held. */
static int start_thread(struct jobs *jobs)
{
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	int r = pthread_create(&thread, &attributes, worker, jobs);
	pthread_attr_destroy(&attributes);
	if (r == 0)
		jobs->threads++;
	return -r;
}

static int dispatch(struct jobs *jobs, struct job *job)
{
	int r = 0;
	pthread_mutex_lock(&jobs->lock);
	/* A thread that was woken for an earlier job is still among the idle ones: it will not take this one. */
	if (!jobs->stopping && jobs->idle <= jobs->n_waiting && jobs->threads < jobs->max_threads)
		r = start_thread(jobs);
	if (r == 0 || jobs->threads > 0) {
		r = 0;
		push(&jobs->waiting, job);
		jobs->n_waiting++;
		pthread_cond_signal(&jobs->wanted);
	}
	pthread_mutex_unlock(&jobs->lock);
	return r;
}

static void next_in_lane(struct jobs *jobs, struct lane *lane)
{
	struct queue queue = {lane->first, lane->last};
	struct job *job = pop(&queue);
	lane->first = queue.first;
	lane->last = queue.last;
	lane->busy = job != NULL;
	if (job && dispatch(jobs, job) < 0) { /* no thread at all could be started: do it here rather than not at all */
		job->work(job->context);
		pthread_mutex_lock(&jobs->lock);
		push(&jobs->finished, job);
		pthread_mutex_unlock(&jobs->lock);
		event_active(jobs->finished_event, EV_READ, 0);
	}
}

static void finish(struct jobs *jobs, struct job *job, bool worked)
{
	/* done may free what the lane is part of when this was its last job: then the lane is let go before. */
	struct lane *lane = job->lane;
	bool more = lane && lane->first;
	if (lane && !more)
		lane->busy = false;
	job->done(job->context, worked);
	if (more)
		next_in_lane(jobs, lane);
	free(job);
}

static struct job *take(struct jobs *jobs, struct queue *queue)
{
	pthread_mutex_lock(&jobs->lock);
	struct job *job = pop(queue);
	pthread_mutex_unlock(&jobs->lock);
	return job;
}

static void on_finished(evutil_socket_t fd, short what, void *context)
{
	(void)what;
	struct jobs *jobs = context;
	struct job *job;
	uint64_t count;
	ssize_t got = read(fd, &count, sizeof(count));
	(void)got; /* EAGAIN after event_active */
	while ((job = take(jobs, &jobs->finished)))
		finish(jobs, job, true);
}

struct jobs *jobs_new(struct event_base *base, unsigned max_threads)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));
	if (!jobs)
		return NULL;
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&jobs->lock, NULL);
	pthread_cond_init(&jobs->wanted, &attributes);
	pthread_cond_init(&jobs->ended, &attributes);
	pthread_condattr_destroy(&attributes);
	jobs->max_threads = max_threads;
	jobs->finished_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (jobs->finished_fd >= 0)
		jobs->finished_event = event_new(base, jobs->finished_fd, EV_READ | EV_PERSIST, on_finished, jobs);
	if (!jobs->finished_event || event_add(jobs->finished_event, NULL) < 0) {
		jobs_free(jobs);
		return NULL;
	}
	return jobs;
}

/* Waits for the jobs that run, until then, or NULL. Whether they have all come back. */
static bool stop_threads(struct jobs *jobs, const struct timespec *until)
{
	int r = 0;
	pthread_mutex_lock(&jobs->lock);
	jobs->stopping = true;
	pthread_cond_broadcast(&jobs->wanted);
	while (jobs->threads > 0 && r == 0)
		r = until ? pthread_cond_timedwait(&jobs->ended, &jobs->lock, until)
			  : pthread_cond_wait(&jobs->ended, &jobs->lock);
	bool all = jobs->threads == 0;
	pthread_mutex_unlock(&jobs->lock);
	return all;
}

static void finish_all(struct jobs *jobs)
{
	struct job *job;
	while ((job = take(jobs, &jobs->finished)))
		finish(jobs, job, true);
	while ((job = take(jobs, &jobs->waiting))) /* lanes put their next one here */
		finish(jobs, job, false);
}

void jobs_stop(struct jobs *jobs)
{
	if (!jobs)
		return;
	(void)stop_threads(jobs, NULL);
	finish_all(jobs);
}

void jobs_free(struct jobs *jobs)
{
	if (!jobs)
		return;
	jobs_stop(jobs);
	if (jobs->finished_event)
		event_free(jobs->finished_event);
	if (jobs->finished_fd >= 0)
		close(jobs->finished_fd);
	pthread_cond_destroy(&jobs->wanted);
	pthread_cond_destroy(&jobs->ended);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}

bool jobs_leave(struct jobs *jobs, unsigned wait_ms)
{
	struct timespec until;
	if (!jobs)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(wait_ms / 1000 + 1); /* rounded up */
	if (stop_threads(jobs, &until)) {
		jobs_free(jobs);
		return true;
	}
	finish_all(jobs);
	event_free(TAKE_PTR(jobs->finished_event)); /* the base goes; the descriptor is still written to */
	return false;
}

static void wait_in_lane(struct lane *lane, enum job_order order, struct job *job)
{
	if (order == JOB_FIRST && lane->first) {
		job->next = lane->first;
		lane->first = job;
		return;
	}
	struct queue queue = {lane->first, lane->last};
	push(&queue, job);
	lane->first = queue.first;
	lane->last = queue.last;
}

int jobs_submit(struct jobs *jobs, struct lane *lane, enum job_order order, job_fn work, job_done_fn done,
		void *context)
{
	struct job *job = jobs->stopping ? NULL : malloc(sizeof(*job));
	if (!job)
		return jobs->stopping ? -ECANCELED : -ENOMEM;
	*job = (struct job){.lane = lane, .work = work, .done = done, .context = context};
	if (lane && lane->busy) {
		wait_in_lane(lane, order, job);
		return 0;
	}
	int r = dispatch(jobs, job);
	if (r < 0) {
		free(job);
		return r;
	}
	/* The queue has the job now. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
	if (lane)
		lane->busy = true;
	return 0;
}
