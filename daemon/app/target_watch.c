/* Looks after the perf events of a live target: the kernel ends those of a process that executes a set-id or unreadable program, and
 * tells by the arming's watch. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "app/target_job.h"
#include "base/clock.h"
#include "reconcile/thread_clock.h"

enum {
	SILENT_MS = 50, /* of CPU time without a sample, and something may be wrong */
	FIRST_DELAY_MS = 100,
	LONGEST_DELAY_MS = 6400,
	CALM_SECONDS = 10,
};

/* Whether it has used CPU time of which the events tell nothing. */
static bool is_silent(struct target *target)
{
	uint64_t count = arming_count(target->arming), cpu_ns = process_cpu_ns(target->pid);
	bool silent = count == target->last_count && cpu_ns >= target->last_cpu_ns + SILENT_MS * NS_PER_MS;
	if (silent || count != target->last_count)
		target->last_cpu_ns = cpu_ns;
	target->last_count = count;
	return silent;
}

static void work_look(void *context)
{
	struct target_job *job = context;
	struct target *target = job->target;
	if (!target->arming || process_read(target->pid, &job->process) < 0 || process_has_exited(target->pidfd))
		return;
	bool silent = is_silent(target);
	if (!silent && !job->hung_up)
		return;
	/* A leader that ends has no memory any more, which would tell whose process it is: perhaps all of it ends, perhaps another
	   thread is executing a program and will take the leader's place. */
	bool leader_gone = job->process.is_exiting || job->process.state == 'Z';
	job->look_again = leader_gone && !job->request.requester.administrator;
	job->rearm = !job->look_again;
	if (job->rearm && !target_job_may_look(&job->request.requester, target->pid))
		error_set(
			&job->err, EPERM,
			"exec_not_permitted: the process has executed a program that its requester may not look into");
}

static void rearmed(void *context, struct target *target, const struct error *err)
{
	(void)context;
	if (err && err->code != ESRCH) /* it was about to exit */
		snprintf(target->note, sizeof(target->note), "not armed again after an exec: %.300s", err->text);
}

static void look_soon(struct target *target);

static void done_look(struct target_job *job)
{
	struct target *target = job->target;
	if (target->ending) {
		target_job_finish(job);
		return;
	}
	if (job->err.code) {
		snprintf(target->note, sizeof(target->note), "%s", job->err.text);
		target_end(target, SPROF__CONTROL__TARGET_STATE__TARGET_DETACHED, NULL, NULL);
	} else if (job->rearm) {
		target->space.wanted = true;
		target_set_rate(target, target->frequency_hz, rearmed, NULL);
	} else if (job->look_again) {
		look_soon(target);
	}
	target_job_finish(job);
}

static void look(struct target *target)
{
	struct target_job *job = target->ending ? NULL : target_job_new(target, NULL, NULL);
	if (!job)
		return;
	job->hung_up = target->hung_up;
	target_job_submit(job, &target->events, work_look, done_look);
}

static void on_look(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	look(context);
}

/* At once, unless that was not long ago: a process that makes us look again and again is looked at ever more seldom. */
static void look_soon(struct target *target)
{
	uint64_t now_ns = clock_monotonic_ns();
	if (now_ns > target->looked_ns + CALM_SECONDS * NS_PER_S)
		target->look_delay_ms = 0;
	uint32_t delay_ms = target->look_delay_ms;
	struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = (suseconds_t)(delay_ms % 1000) * 1000};
	target->looked_ns = now_ns + delay_ms * NS_PER_MS;
	target->look_delay_ms = !delay_ms ? FIRST_DELAY_MS : delay_ms < LONGEST_DELAY_MS ? 2 * delay_ms : delay_ms;
	if (!target->look_timer)
		target->look_timer = event_new(target->pipeline->base, -1, 0, on_look, target);
	if (target->look_timer)
		event_add(target->look_timer, &delay);
}

static void on_hang_up(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct target *target = context;
	target->hung_up = true; /* until it is armed again */
	look_soon(target);
}

void target_watch_begin(struct target *target)
{
	int fd = arming_watch_fd(target->arming);
	if (target->watch_event)
		event_free(target->watch_event);
	target->hung_up = false;
	target->watch_event = fd < 0 ? NULL : event_new(target->pipeline->base, fd, EV_READ, on_hang_up, target);
	if (target->watch_event)
		event_add(target->watch_event, NULL); /* without it target_check notices, later */
}

void target_watch_end(struct target *target)
{
	if (target->watch_event)
		event_free(target->watch_event);
	if (target->look_timer)
		event_free(target->look_timer);
	target->watch_event = target->look_timer = NULL;
}

void target_check(struct target *target)
{
	if (target->state != SPROF__CONTROL__TARGET_STATE__TARGET_LIVE || target->ending || target->events.busy)
		return;
	uint64_t records = target_records(target);
	bool sampled = records != target->checked_records;
	target->checked_records = records;
	if (sampled)
		return;
	uint64_t cpu_ns = process_cpu_ns(target->pid);
	if (cpu_ns < target->checked_cpu_ns + SILENT_MS * NS_PER_MS)
		return;
	target->checked_cpu_ns = cpu_ns;
	look(target);
}

static int thread_exists(void *context, uint32_t tid)
{
	char path[64];
	const struct target *target = context;
	snprintf(path, sizeof(path), "/proc/%d/task/%u", (int)target->pid, tid);
	return access(path, F_OK) == 0;
}

void target_forget_threads(struct target *target)
{
	if (target->state == SPROF__CONTROL__TARGET_STATE__TARGET_LIVE && !target->ending)
		thread_clock_sweep(target->clock, thread_exists, target);
}
