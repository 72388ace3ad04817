#include "app/target_job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collect/sampler.h"

struct target_job *target_job_new(struct target *target, target_fn done, void *context)
{
	struct target_job *job = calloc(1, sizeof(*job));
	if (!job)
		return NULL;
	job->target = target_ref(target);
	job->done = done;
	job->context = context;
	job->pidfd = -1;
	job->place = PROCESS_PLACE_UNKNOWN;
	job->request.requester = target->owner;
	return job;
}

void target_job_finish(struct target_job *job)
{
	if (job->done)
		job->done(job->context, job->target, job->err.code ? &job->err : NULL);
	target_unref(job->target);
	maps_unref(job->maps);
	if (job->pidfd >= 0)
		close(job->pidfd);
	if (job->place.root_fd >= 0)
		close(job->place.root_fd);
	arming_close(job->arming);
	free(job->baselines);
	free(job->table);
	free(job);
}

static void job_worked(void *context, bool worked)
{
	struct target_job *job = context;
	if (worked) {
		job->then(job);
		return;
	}
	error_set(&job->err, ECANCELED, "sprofd is ending");
	target_job_finish(job);
}

static void submit_in_order(struct target_job *job, struct lane *lane, enum job_order order, job_fn work,
			    void (*then)(struct target_job *))
{
	job->then = then;
	if (jobs_submit(job->target->pipeline->control, lane, order, work, job_worked, job) == 0)
		return;
	error_set(&job->err, ENOMEM, "out of memory or threads");
	target_job_finish(job);
}

void target_job_submit(struct target_job *job, struct lane *lane, job_fn work, void (*then)(struct target_job *))
{
	submit_in_order(job, lane, JOB_LAST, work, then);
}

void target_job_submit_next(struct target_job *job, struct lane *lane, job_fn work, void (*then)(struct target_job *))
{
	submit_in_order(job, lane, JOB_FIRST, work, then);
}

void target_job_missing(struct target *target, target_fn done, void *context)
{
	struct error err;
	error_set(&err, ENOMEM, "out of memory");
	if (done)
		done(context, target, &err);
}

bool target_job_may_look(const struct requester *requester, pid_t pid)
{
	return requester->administrator || process_is_wholly_own(pid, requester->uid, requester->gid);
}

void target_job_count(struct target_job *job)
{
	struct target *target = job->target;
	if (!target->arming)
		return;
	job->periods = arming_periods(target->arming, &job->periods_known);
	job->counted = sampler_counters(target->pipeline->sampler, target->slot, &job->counters) == 0;
}

void target_job_take_counts(struct target_job *job)
{
	struct target *target = job->target;
	if (!job->counted)
		return;
	target->periods = target->periods_before + job->periods;
	target->periods_known = job->periods_known;
	target->periods_entries = job->counters.entries;
	target->late_periods = job->counters.late_periods;
}

static void work_count(void *context)
{
	struct target_job *job = context;
	target_job_count(job);
	if (process_read(job->target->pid, &job->process) < 0)
		job->process.threads = 0; /* not known */
}

static void done_count(struct target_job *job)
{
	target_job_take_counts(job);
	if (job->process.threads && job->process.start_ticks == job->target->process.start_ticks) {
		job->target->threads = job->process.threads;
		memcpy(job->target->process.comm, job->process.comm, sizeof(job->process.comm));
	}
	target_job_finish(job);
}

void target_submit_count(struct target_job *job)
{
	target_job_submit(job, &job->target->events, work_count, done_count);
}
