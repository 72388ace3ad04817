/* The perf events of a target: armed, armed anew for another rate or program, ended. */
#include <errno.h>
#include <string.h>

#include "app/target_job.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "collect/proc_maps.h"
#include "collect/sampler.h"
#include "reconcile/thread_clock.h"

/* For so long an attach waits for the unwind tables of what the process maps, and for its interpreter to be found: nearly all are sooner there. */
enum { READY_WAIT_MS = 300 };

static void take_baselines(struct target *target, struct target_job *job)
{
	for (size_t i = 0; i < job->n_baselines;
	     i++) /* without memory a thread's first sample weighs too much; samples then fail too */
		(void)thread_clock_baseline(target->clock, (uint32_t)job->baselines[i].tid,
					    job->baselines[i].start_ticks, job->baselines[i].runtime_ns);
}

static int open_events(struct target_job *job, uint16_t generation, uint32_t frequency_hz, struct arming **ret)
{
	struct target *target = job->target;
	struct arming_options options = {
		.pid = target->pid,
		.slot = target->slot,
		.generation = generation,
		.event = target->event == SPROF__CONTROL__EVENT__EVENT_CYCLES ? ARMING_CYCLES : ARMING_CPU_CLOCK,
		.frequency_hz = frequency_hz,
	};
	int r = arming_open(target->pipeline->sampler, &options, ret, &job->err);
	if (r == 0) {
		job->n_baselines = arming_take_baselines(*ret, &job->baselines);
		job->threads = arming_threads(*ret);
	}
	return r;
}

/* --- attach --- */

static void on_exit_fd(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	target_end(context, SPROF__CONTROL__TARGET_STATE__TARGET_EXITED, NULL, NULL);
}

static void work_start(void *context)
{
	struct target_job *job = context;
	if (job->target->arming)
		arming_start(job->target->arming);
}

static void done_start(struct target_job *job)
{
	struct target *target = job->target;
	if (target->state == SPROF__CONTROL__TARGET_STATE__TARGET_ARMING)
		target->state = SPROF__CONTROL__TARGET_STATE__TARGET_LIVE;
	target->attached_unix_ns = clock_realtime_ns();
	target->attached_ns = clock_monotonic_ns();
	if (!target->ending)
		target_watch_begin(target);
	pipeline_update_timer(target->pipeline);
	target_job_finish(job);
}

/* Whether it is still the process of the pidfd, and one that the requester may look into. Once events are open this holds for all that
 * they sample: the kernel itself ends those of a process that executes a program with privileges. 0, or -errno with a text. */
static int check_access(int pidfd, const struct requester *requester, pid_t pid, struct error *err)
{
	bool may = target_job_may_look(requester, pid);
	if (process_has_exited(pidfd))
		return error_set(err, ESRCH, "process %d exited while it was being attached", pid);
	if (!may)
		return error_set(
			err, EPERM,
			"process %d is not wholly yours (its user and group ids, no capabilities, dumpable): ask "
			"root, or to be added to the socket's group",
			pid);
	return 0;
}

static void work_look(void *context)
{
	struct target_job *job = context;
	const struct target_request *request = &job->request;
	if (process_open(request->pid, &job->pidfd, &job->process, &job->err) < 0)
		return;
	if (check_access(job->pidfd, &request->requester, request->pid, &job->err) < 0)
		return;
	process_cgroup(request->pid, job->cgroup, sizeof(job->cgroup));
	process_place_read(&job->process, &job->place);
	int r = proc_maps_read(request->pid, job->target->pipeline->files, &job->maps);
	if (r == -EACCES || r == -EPERM)
		error_set(&job->err, EACCES,
			  "cannot read the mappings of process %d: sprofd needs CAP_SYS_PTRACE (start it as root or by "
			  "systemctl)",
			  request->pid);
}

static void work_attach(void *context)
{
	struct target_job *job = context;
	const struct target_request *request = &job->request;
	target_job_read_table(job);
	if (open_events(job, 0, request->frequency_hz, &job->arming) < 0)
		return;
	job->has_user = process_whole_owner(request->pid, &job->user, &job->user_group);
	/* Again, since it may have exited or executed another program meanwhile. */
	(void)check_access(job->pidfd, &request->requester, request->pid, &job->err);
}

static void done_attach(struct target_job *job)
{
	struct target *target = job->target;
	target->arming = TAKE_PTR(job->arming);
	if (!job->err.code) {
		target->pidfd = TAKE_FD(job->pidfd);
		target->exit_event = event_new(target->pipeline->base, target->pidfd, EV_READ, on_exit_fd, target);
		if (!target->exit_event || event_add(target->exit_event, NULL) < 0)
			error_set(&job->err, ENOMEM, "out of memory");
	}
	if (job->err.code) {
		target_job_finish(job);
		return;
	}
	target->process = job->process;
	target->has_user = job->has_user;
	target->user = job->user;
	target->user_group = job->user_group;
	target->threads = job->threads;
	memcpy(target->cgroup, job->cgroup, sizeof(target->cgroup));
	target->place = job->place;
	job->place = PROCESS_PLACE_UNKNOWN;
	take_baselines(target, job);
	(void)address_space_update(&target->space, 0, TAKE_PTR(job->maps), 0);
	target_job_take_table(job);
	target_job_submit_next(job, &target->events, work_start, done_start);
}

static void arm(struct target *target)
{
	target_job_submit_next(TAKE_PTR(target->starting), &target->events, work_attach, done_attach);
}

/* The unwind tables and the interpreter come before the events, so that all samples are walked by them. */
static void done_look(struct target_job *job)
{
	struct target *target = job->target;
	if (job->err.code) {
		target_job_finish(job);
		return;
	}
	target->starting = job;
	target_python(target, maps_ref(job->maps)); /* first, since it asks for less */
	target_unwind(target, maps_ref(job->maps));
	target_await(target, READY_WAIT_MS, arm);
}

void target_attach(struct target *target, target_fn done, void *context)
{
	struct error err;
	int r = sampler_slot_acquire(target->pipeline->sampler, &target->slot, &target->serial, &err);
	if (r < 0) {
		done(context, target, &err);
		return;
	}
	target->holds_slot = true;
	target->pipeline->by_slot[target->slot] = target;
	target_unwind_prepare(target->pipeline);
	struct target_job *job = target_job_new(target, done, context);
	if (!job) {
		target_job_missing(target, done, context);
		return;
	}
	job->request.pid = target->pid;
	job->request.frequency_hz = target->frequency_hz;
	target_job_submit(job, &target->events, work_look, done_look);
}

/* --- rate --- */

static void work_close_old(void *context)
{
	struct target_job *job = context;
	arming_stop(job->arming);
	job->periods = arming_periods(job->arming, &job->periods_known);
	arming_close(TAKE_PTR(job->arming));
}

static void done_close_old(struct target_job *job)
{
	job->target->periods_before += job->periods;
	target_job_finish(job);
}

static void work_rate(void *context)
{
	struct target_job *job = context;
	if (!job->target->arming) {
		error_set(&job->err, ESRCH, "process %d is not sampled any more", job->target->pid);
		return;
	}
	struct target *target = job->target;
	if (open_events(job, (uint16_t)(target->generation + 1), job->request.frequency_hz, &job->arming) < 0 ||
	    check_access(target->pidfd, &job->request.requester, target->pid, &job->err) < 0)
		return;
	job->has_user = target->has_user && process_is_wholly_own(target->pid, target->user, target->user_group);
	/* Both rates run until the event loop switches from the one to the other: at no moment is there none. */
	arming_start(job->arming);
}

static void done_rate(struct target_job *job)
{
	struct target *target = job->target;
	if (job->err.code) {
		target_job_finish(job);
		return;
	}
	/* No baselines: a thread that is not known yet was born while we sampled, and counts from its birth. */
	target->has_user = job->has_user;
	target->generation++;
	sampler_accept_generation(target->pipeline->sampler, target->slot, target->generation);
	struct arming *old = target->arming;
	target->arming = job->arming;
	job->arming = old;
	target->threads = job->threads;
	target->frequency_hz = job->request.frequency_hz;
	if (!target->ending) /* before the old watch is closed */
		target_watch_begin(target);
	target_job_submit_next(job, &target->events, work_close_old, done_close_old);
}

void target_set_rate(struct target *target, uint32_t frequency_hz, target_fn done, void *context)
{
	struct target_job *job = target_job_new(target, done, context);
	if (!job) {
		target_job_missing(target, done, context);
		return;
	}
	job->request.frequency_hz = frequency_hz;
	target_job_submit(job, &target->events, work_rate, done_rate);
}

/* --- end --- */

static void work_end(void *context)
{
	struct target_job *job = context;
	struct target *target = job->target;
	if (!target->arming)
		return;
	arming_stop(target->arming);
	target_job_count(job);
	arming_close(TAKE_PTR(target->arming));
}

static void done_end(struct target_job *job)
{
	struct target *target = job->target;
	struct pipeline *pipeline = target->pipeline;
	if (!job->ends) { /* somebody else ended it first, and that is what counts */
		target_job_finish(job);
		return;
	}
	pipeline_drain(pipeline);
	target_count(target);
	target_job_take_counts(job);
	target_unwind_end(target); /* nothing is sampled any more */
	target->threads = 0;
	target->state = job->end_state;
	target->ended_unix_ns = clock_realtime_ns();
	target->ended_ns = clock_monotonic_ns();
	if (target->holds_slot) {
		pipeline->by_slot[target->slot] = NULL;
		sampler_slot_release(pipeline->sampler, target->slot);
		target->holds_slot = false;
	}
	for (struct window *window = target->windows.open, *next; window; window = next) {
		next = window->next;
		window->cut_short(window->context); /* may close it */
	}
	pipeline_target_ended(pipeline, target);
	target_job_finish(job);
}

void target_end(struct target *target, Sprof__Control__TargetState state, target_fn done, void *context)
{
	struct target_job *job = target_job_new(target, done, context);
	if (!job) {
		target_job_missing(target, done, context);
		return;
	}
	if (target->exit_event)
		event_del(target->exit_event);
	target_watch_end(target);
	job->end_state = state;
	job->ends = !target->ending;
	target->ending = true;
	target_job_submit(job, &target->events, work_end, done_end);
}
