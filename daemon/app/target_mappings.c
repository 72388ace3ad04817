/* The mappings of a target, read again when they have changed; and bringing everything that is known of a target up to date. */
#include <errno.h>
#include <stdlib.h>

#include "app/target_job.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "collect/proc_maps.h"
#include "collect/sampler.h"

enum {
	SETTLE_SECONDS = 2,
	MAPPINGS_REST = 9, /* times as long as reading them took */
	LONGEST_REST_S = 2,
};

/* --- mappings --- */

static void work_mappings(void *context)
{
	struct target_job *job = context;
	const struct target *target = job->target;
	uint64_t begin_ns = clock_monotonic_ns();
	proc_maps_read(target->pid, target->pipeline->files, &job->maps);
	/* It may have executed a program by now whose addresses are no business of who attached it. */
	if (!target_job_may_look(&job->request.requester, target->pid)) {
		maps_unref(job->maps);
		job->maps = NULL;
	}
	job->spent_ns = clock_monotonic_ns() - begin_ns;
}

static void done_mappings(struct target_job *job)
{
	/* The number may have been reused while we read: then the process of our pidfd has exited. */
	if (process_has_exited(job->target->pidfd)) {
		maps_unref(job->maps);
		job->maps = NULL;
	}
	pipeline_drain(job->target->pipeline); /* has it executed another program meanwhile? */
	if (job->maps) {
		target_unwind(job->target, maps_ref(job->maps));
		target_python(job->target, maps_ref(job->maps));
	}
	(void)address_space_update(&job->target->space, job->version, TAKE_PTR(job->maps), clock_monotonic_ns());
	/* A target with very many mappings that never rest must not keep a thread busy. */
	struct address_space *space = &job->target->space;
	uint64_t rest_ns = MAPPINGS_REST * job->spent_ns;
	uint64_t rested_ns =
		clock_monotonic_ns() + (rest_ns < LONGEST_REST_S * NS_PER_S ? rest_ns : LONGEST_REST_S * NS_PER_S);
	if (space->next_ns < rested_ns)
		space->next_ns = rested_ns;
	struct target *target = target_ref(job->target);
	target_job_finish(job);
	if (target->holds_slot)
		sampler_hush(target->pipeline->sampler, target->slot, target->space.next_ns);
	target_refresh_mappings(target); /* they may have changed again */
	target_unref(target);
}

static void read_mappings(struct target *target, target_fn done, void *context)
{
	struct target_job *job = target_job_new(target, done, context);
	if (!job) {
		target_job_missing(target, done, context);
		return;
	}
	job->version = address_space_begin(&target->space);
	target_job_submit(job, &target->mappings, work_mappings, done_mappings);
}

static void on_refresh(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	target_refresh_mappings(context);
}

/* Not yet: later, and until then nobody is woken for it. */
static void refresh_later(struct target *target, uint64_t wait_ns)
{
	struct timeval wait = {.tv_sec = (time_t)(wait_ns / NS_PER_S),
			       .tv_usec = (suseconds_t)(wait_ns % NS_PER_S / 1000 + 1)};
	sampler_hush(target->pipeline->sampler, target->slot, target->space.next_ns);
	if (!target->refresh_timer)
		target->refresh_timer = event_new(target->pipeline->base, -1, 0, on_refresh, target);
	if (target->refresh_timer) /* else the next drain tries again */
		event_add(target->refresh_timer, &wait);
}

void target_refresh_mappings(struct target *target)
{
	struct address_space *space = &target->space;
	if (target->state != SPROF__CONTROL__TARGET_STATE__TARGET_LIVE || target->ending || !space->wanted ||
	    target->mappings.busy)
		return;
	uint64_t now_ns = clock_monotonic_ns();
	if (address_space_due(space, now_ns))
		read_mappings(target, NULL, NULL);
	else
		refresh_later(target, space->next_ns - now_ns);
}

/* --- settle --- */

struct settling {
	struct target *target; /* a reference */
	target_fn done;        /* NULL once called */
	void *context;
	struct event *timer;
	unsigned pending;
};

static void settled(struct settling *settling)
{
	if (settling->done) {
		target_fn done = settling->done;
		settling->done = NULL;
		event_del(settling->timer);
		pipeline_drain(settling->target->pipeline);
		target_count(settling->target);
		done(settling->context, settling->target, NULL);
	}
	if (settling->pending > 0)
		return;
	target_unref(settling->target);
	event_free(settling->timer);
	free(settling);
}

static void part_settled(void *context, struct target *target, const struct error *err)
{
	(void)target, (void)err; /* what could not be refreshed stays as it was */
	struct settling *settling = context;
	if (--settling->pending == 0)
		settled(settling);
}

static void settled_enough(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	settled(context);
}

void target_settle(struct target *target, enum target_settling what, target_fn done, void *context)
{
	struct settling *settling = calloc(1, sizeof(*settling));
	struct event *timer = settling ? event_new(target->pipeline->base, -1, 0, settled_enough, settling) : NULL;
	if (!timer) {
		free(settling);
		target_job_missing(target, done, context);
		return;
	}
	pipeline_drain(target->pipeline); /* are the mappings still those? */
	*settling = (struct settling){
		.target = target_ref(target), .done = done, .context = context, .timer = timer, .pending = 1};
	struct timeval limit = {.tv_sec = SETTLE_SECONDS};
	event_add(timer, &limit);
	if (target->state == SPROF__CONTROL__TARGET_STATE__TARGET_LIVE && !target->ending) {
		struct target_job *job = target_job_new(target, part_settled, settling);
		if (job) {
			settling->pending++;
			target_submit_count(job);
		}
		if (what == SETTLE_ALL && (target->space.wanted || target->mappings.busy)) {
			settling->pending++;
			read_mappings(target, part_settled, settling);
		}
		if (what == SETTLE_ALL) {
			settling->pending++;
			target_refresh_python(target);
			target_python_settle(target, part_settled, settling);
		}
	}
	/* The count began at 1, so none of the parts can have been the last. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
	part_settled(settling, target, NULL);
}
