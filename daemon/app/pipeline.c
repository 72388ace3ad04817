#include "app/pipeline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/handlers.h"
#include "app/report.h"
#include "app/table_request.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "collect/sampler.h"
#include "collect/unwind_maps.h"
#include "symbolize/symbolize.h"

enum {
	CHECK_SECONDS = 5, /* the ring wakes us when it fills, or tells of something new */
	SWEEP_SECONDS = 1, /* at most so often */
	CONTROL_THREADS = 8,
	BUILDER_THREADS = 2,
	MAKER_THREADS = 2,
	TRIM_SECONDS = 60,
	LOOKERS_LEAVE_MS = 1000,
	PYTHON_READERS = 64,
	MAX_FILES_HELD = 8192,
	NAMES_CACHE_MIB = 32,
	READER_TIMEOUT_MS = 5000,
	CLIENT_IDLE_SECONDS = 30,
	ENDING_SECONDS = 2,
	ENDED_BUDGET_MIB = 256,    /* of the profiles of all ended targets */
	WINDOWS_BUDGET_MIB = 1024, /* of the samples of all pulls that are under way */
};

/* --- records --- */

static void on_record(void *context, const struct record *record, size_t bytes)
{
	struct pipeline *pipeline = context;
	struct target *target = record->slot < MAX_TARGET_SLOTS ? pipeline->by_slot[record->slot] : NULL;
	pipeline->records_read++;
	if (target && target->serial == record->serial)
		target_record(target, record, bytes);
	else
		pipeline->stray_records++;
}

void pipeline_drain(struct pipeline *pipeline)
{
	if (sampler_drain(pipeline->sampler, on_record, pipeline) > 0)
		event_active(pipeline->drained_event, EV_TIMEOUT, 0);
}

static bool any_live(const struct pipeline *pipeline)
{
	for (size_t slot = 0; slot < MAX_TARGET_SLOTS; slot++)
		if (pipeline->by_slot[slot])
			return true;
	return false;
}

/* Threads that are gone are forgotten, at most once a second: looking for them costs. */
static void sweep(struct pipeline *pipeline)
{
	uint64_t now_ns = clock_monotonic_ns();
	if (now_ns < pipeline->swept_ns + SWEEP_SECONDS * NS_PER_S)
		return;
	pipeline->swept_ns = now_ns;
	for (struct target *target = pipeline->targets; target; target = target->next)
		target_forget_threads(target);
	sampler_sweep_claims(pipeline->sampler);
}

static void on_drained(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct pipeline *pipeline = context;
	uint64_t window_bytes = 0;
	for (struct target *target = pipeline->targets; target; target = target->next) {
		target_refresh_mappings(target);
		target_refresh_table(target);
		target_refresh_python(target);
		window_bytes += windows_bytes(&target->windows);
	}
	pipeline->windows_full = window_bytes > (uint64_t)WINDOWS_BUDGET_MIB << 20;
	sweep(pipeline);
}

static void on_ring(evutil_socket_t fd, short what, void *context)
{
	struct pipeline *pipeline = context;
	sampler_drain(pipeline->sampler, on_record, pipeline);
	on_drained(fd, what, pipeline);
}

static void on_check(evutil_socket_t fd, short what, void *context)
{
	struct pipeline *pipeline = context;
	on_ring(fd, what, pipeline);
	for (struct target *target = pipeline->targets; target; target = target->next) {
		target_check(target);
		target_unwind_retry(target);
	}
	pipeline_update_timer(pipeline);
}

/* With no target to look after the daemon sleeps. */
void pipeline_update_timer(struct pipeline *pipeline)
{
	struct timeval interval = {.tv_sec = CHECK_SECONDS};
	if (!any_live(pipeline))
		event_del(pipeline->check_timer);
	else if (!event_pending(pipeline->check_timer, EV_TIMEOUT, NULL))
		event_add(pipeline->check_timer, &interval);
}

/* --- the table of targets --- */

struct target *pipeline_find(struct pipeline *pipeline, pid_t pid)
{
	struct target *target = pipeline->targets;
	while (target && target->pid != pid)
		target = target->next;
	return target;
}

static void insert(struct pipeline *pipeline, struct target *target)
{
	target->next = pipeline->targets;
	pipeline->targets = target_ref(target);
	pipeline->n_targets++;
}

/* Out of the table, whose reference passes to the caller. */
static bool take_out(struct pipeline *pipeline, struct target *target)
{
	struct target **link = &pipeline->targets;
	while (*link && *link != target)
		link = &(*link)->next;
	if (!*link)
		return false;
	*link = target->next;
	pipeline->n_targets--;
	return true;
}

/* What it lost stays in the daemon's totals. */
static void forget(struct pipeline *pipeline, struct target *target)
{
	for (enum outcome outcome = 0; outcome < OUTCOME_COUNT; outcome++)
		if (report_is_loss(outcome))
			pipeline->past_losses[outcome] += report_loss(target, outcome);
	target_unref(target);
}

void pipeline_keep(struct target *target)
{
	target->ephemeral = false;
	if (target->before)
		forget(target->pipeline, target->before);
	target->before = NULL;
}

void pipeline_enter(struct pipeline *pipeline, struct target *target)
{
	struct target *before = pipeline_find(pipeline, target->pid);
	if (before) {
		take_out(pipeline, before);
		/* A pull of a few seconds does not cost the same process's retained profile. */
		if (target->ephemeral && before->process.start_ticks == target->process.start_ticks)
			target->before = before;
		else
			forget(pipeline, before);
	}
	insert(pipeline, target);
}

void pipeline_drop(struct pipeline *pipeline, struct target *target)
{
	if (!take_out(pipeline, target))
		return;
	struct target *before = target->before;
	target->before = NULL;
	forget(pipeline, target);
	if (before && !before->expired) {
		insert(pipeline, before);
		target_unref(before);
	} else if (before) {
		forget(pipeline, before);
	}
}

static void on_retention_over(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct target *target = context;
	target->expired = true;
	pipeline_drop(target->pipeline, target);
}

static uint64_t retained_bytes(const struct target *target)
{
	struct epoch_totals totals;
	retention_totals(target->retention, &totals);
	return totals.bytes;
}

/* Profiles of ended targets share a budget: the oldest go first. */
static void bound_ended(struct pipeline *pipeline)
{
	for (;;) {
		struct target *oldest = NULL;
		uint64_t bytes = 0;
		for (struct target *target = pipeline->targets; target; target = target->next) {
			if (!target->ended_ns)
				continue;
			bytes += retained_bytes(target);
			if (!oldest || target->ended_ns < oldest->ended_ns)
				oldest = target;
		}
		if (bytes <= (uint64_t)ENDED_BUDGET_MIB << 20)
			return;
		pipeline_drop(pipeline, oldest);
	}
}

void pipeline_end_ephemeral(struct pipeline *pipeline, struct target *target)
{
	if (!target->ephemeral || target->n_pulls > 0)
		return;
	if (target->ending)
		pipeline_drop(pipeline, target);
	else
		target_end(target, SPROF__CONTROL__TARGET_STATE__TARGET_DETACHED, NULL, NULL);
}

void pipeline_target_ended(struct pipeline *pipeline, struct target *target)
{
	log_info("process %d (%s) %s: %lu samples", target->pid, target->process.comm,
		 target->state == SPROF__CONTROL__TARGET_STATE__TARGET_EXITED ? "exited" : "detached",
		 target->outcomes[OUTCOME_SAMPLE]);
	if (target->ephemeral && target->n_pulls == 0) {
		pipeline_drop(pipeline, target);
		return;
	}
	struct timeval seconds = {.tv_sec = pipeline->settings->exited_seconds};
	target->drop_timer = event_new(pipeline->base, -1, 0, on_retention_over, target);
	if (!target->drop_timer || event_add(target->drop_timer, &seconds) < 0)
		pipeline_drop(pipeline, target); /* without memory for a timer nothing is kept */
	bound_ended(pipeline);
}

/* --- who may --- */

bool pipeline_may_touch(const struct target *target, const struct requester *requester)
{
	if (requester->administrator)
		return true;
	if (!target->owner.administrator)
		return target->owner.uid == requester->uid;
	/* An administrator attached it: its profile is for the user whose process it has wholly been all the while. */
	return target->has_user && target->user == requester->uid && target->user_group == requester->gid;
}

bool pipeline_may_change(const struct target *target, const struct requester *requester)
{
	return requester->administrator || (!target->owner.administrator && target->owner.uid == requester->uid);
}

/* The number belongs to another process by now. */
static bool number_reused(const struct target *target)
{
	struct process now;
	return target->state != SPROF__CONTROL__TARGET_STATE__TARGET_LIVE && process_read(target->pid, &now) == 0 &&
	       now.start_ticks != target->process.start_ticks;
}

struct target *pipeline_target_for(struct pipeline *pipeline, pid_t pid, const struct requester *requester,
				   struct error *err)
{
	struct target *target = pipeline_find(pipeline, pid);
	if (target && number_reused(target)) {
		pipeline_drop(pipeline, target);
		target = NULL;
	}
	if (!target) {
		error_set(err, ESRCH, "process %d is not attached: run `sprofctl attach %d`", pid, pid);
		return NULL;
	}
	if (!pipeline_may_touch(target, requester)) {
		error_set(err, EPERM,
			  "process %d was attached by somebody else: ask root, or to be added to the socket's group",
			  pid);
		return NULL;
	}
	return target;
}

/* --- ending --- */

static void end_loop(struct pipeline *pipeline)
{
	event_base_loopbreak(pipeline->base);
}

void pipeline_pull_ended(struct pipeline *pipeline)
{
	if (--pipeline->n_pulls == 0 && pipeline->ending)
		end_loop(pipeline);
}

void pipeline_end(struct pipeline *pipeline)
{
	struct timeval limit = {.tv_sec = ENDING_SECONDS};
	if (pipeline->ending || pipeline->n_pulls == 0) { /* told twice: at once */
		end_loop(pipeline);
		return;
	}
	pipeline->ending = true;
	for (struct target *target = pipeline->targets; target; target = target->next)
		for (struct window *window = target->windows.open; window; window = window->next)
			window->cut_short(window->context);
	event_base_loopexit(pipeline->base, &limit);
}

/* --- life --- */

uint32_t pipeline_max_frequency(void)
{
	uint32_t hz;
	_cleanup_fclose_ FILE *file = fopen("/proc/sys/kernel/perf_event_max_sample_rate", "re");
	return file && fscanf(file, "%u", &hz) == 1 && hz > 0 ? hz : 100000;
}

static int make_stages(struct pipeline *pipeline, struct error *err)
{
	const struct settings *settings = pipeline->settings;
	struct sampler_options sampler = {.ring_bytes = (size_t)settings->ring_mib << 20};
	while (sampler.ring_bytes & (sampler.ring_bytes - 1)) /* a power of two: the next smaller one */
		sampler.ring_bytes &= sampler.ring_bytes - 1;
	int r = sampler_new(&sampler, &pipeline->sampler, err);
	if (r < 0)
		return r;
	pipeline->unwind_maps =
		unwind_maps_new(sampler_lists_fd(pipeline->sampler), sampler_tables_fd(pipeline->sampler),
				(size_t)settings->unwind_mib << 20);
	if (!pipeline->unwind_maps)
		return error_set(err, ENOMEM, "out of memory");
	struct symbolize_options symbolize = {
		.reader_path = settings->reader,
		.cache_bytes = (size_t)NAMES_CACHE_MIB << 20,
		.reader_timeout_ms = READER_TIMEOUT_MS,
		.kallsyms_path = "/proc/kallsyms",
		.fetch = {.urls = settings->debuginfod_urls,
			  .socket = settings->debuginfod_socket,
			  .cache_dir = settings->debuginfod_cache_dir,
			  .timeout_seconds = settings->debuginfod_timeout_seconds,
			  .file_max_mib = settings->debuginfod_max_mib,
			  .cache_max_mib = settings->debuginfod_cache_mib},
	};
	if (access(settings->reader, X_OK) < 0)
		log_warning("cannot run %s (%s): functions of files will have no names; install sprofd-elf there, or "
			    "set reader= in "
			    "sprofd.conf",
			    settings->reader, strerror(errno));
	r = symbolize_new(&symbolize, &pipeline->symbolize, err);
	if (r < 0)
		return r;
	pipeline->ring_event = event_new(pipeline->base, sampler_ring_fd(pipeline->sampler),
					 EV_READ | EV_ET | EV_PERSIST, on_ring, pipeline);
	if (!pipeline->ring_event || event_add(pipeline->ring_event, NULL) < 0)
		return error_set(err, ENOMEM, "out of memory");
	return 0;
}

static void on_trim(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct pipeline *pipeline = context;
	if (symbolize_trim(pipeline->symbolize, clock_monotonic_ns() - (TRIM_SECONDS - 1) * NS_PER_S))
		pipeline_trim_later(pipeline);
}

void pipeline_trim_later(struct pipeline *pipeline)
{
	const struct timeval wait = {.tv_sec = TRIM_SECONDS};
	if (!pipeline->trim_timer)
		pipeline->trim_timer = event_new(pipeline->base, -1, 0, on_trim, pipeline);
	if (pipeline->trim_timer) /* else they stay until after another pull */
		event_add(pipeline->trim_timer, &wait);
}

static int make_workers(struct pipeline *pipeline, struct error *err)
{
	pipeline->files = file_registry_new(MAX_FILES_HELD);
	pipeline->control = jobs_new(pipeline->base, CONTROL_THREADS);
	pipeline->builders = jobs_new(pipeline->base, BUILDER_THREADS);
	pipeline->makers = jobs_new(pipeline->base, MAKER_THREADS);
	pipeline->lookers = jobs_new(pipeline->base, TABLE_REQUESTS_STUCK_MAX);
	pipeline->python_readers = jobs_new(pipeline->base, PYTHON_READERS);
	pipeline->drained_event = event_new(pipeline->base, -1, 0, on_drained, pipeline);
	pipeline->check_timer = event_new(pipeline->base, -1, 0, on_check, pipeline);
	if (!pipeline->files || !pipeline->control || !pipeline->builders || !pipeline->makers || !pipeline->lookers ||
	    !pipeline->python_readers || !pipeline->drained_event || !pipeline->check_timer)
		return error_set(err, ENOMEM, "out of memory");
	return 0;
}

int pipeline_new(struct event_base *base, const struct settings *settings, int listen_fd, gid_t group,
		 struct pipeline **ret, struct error *err)
{
	struct pipeline *pipeline = calloc(1, sizeof(*pipeline));
	if (!pipeline)
		return error_set(err, ENOMEM, "out of memory");
	*pipeline = (struct pipeline){
		.settings = settings,
		.base = base,
		.policy = {.daemon_uid = geteuid(), .group = group},
		.started_unix_ns = clock_realtime_ns(),
	};
	struct serve_options serve = {
		.listen_fd = listen_fd,
		.max_connections = settings->max_connections,
		.idle_timeout_s = CLIENT_IDLE_SECONDS,
	};
	int r = make_workers(pipeline, err);
	if (r == 0)
		r = make_stages(pipeline, err);
	if (r == 0)
		r = serve_new(base, &serve, handlers_table(), pipeline, &pipeline->serve, err);
	if (r < 0) {
		pipeline_free(pipeline);
		return r;
	}
	target_unwind_prepare(pipeline); /* the first attach then finds the reader there */
	*ret = pipeline;
	return 0;
}

void pipeline_free(struct pipeline *pipeline)
{
	if (!pipeline)
		return;
	/* The process ends after this: what jobs and pulls still hold goes with it. First those who call, then what they call. */
	serve_free(pipeline->serve);
	symbolize_end(pipeline->symbolize);
	jobs_stop(pipeline->builders);
	jobs_stop(pipeline->control);
	/* A process may keep whoever reads its memory for good. */
	bool all_came_back = jobs_leave(pipeline->lookers, LOOKERS_LEAVE_MS);
	all_came_back &= jobs_leave(pipeline->python_readers, LOOKERS_LEAVE_MS);
	for (size_t slot = 0; slot < MAX_TARGET_SLOTS; slot++)
		if (pipeline->by_slot[slot])
			target_hurry(pipeline->by_slot[slot]);
	jobs_free(pipeline->makers);
	pipeline->makers = NULL;       /* what targets leave behind is done at once from now on */
	jobs_free(pipeline->builders); /* not before: what was done for a pull may submit its profile */
	jobs_free(pipeline->control);
	while (pipeline->targets) {
		struct target *target = pipeline->targets;
		pipeline->targets = target->next;
		target_unref(target);
	}
	if (pipeline->ring_event)
		event_free(pipeline->ring_event);
	if (pipeline->drained_event)
		event_free(pipeline->drained_event);
	if (pipeline->check_timer)
		event_free(pipeline->check_timer);
	if (pipeline->keep_timer)
		event_free(pipeline->keep_timer);
	if (pipeline->trim_timer)
		event_free(pipeline->trim_timer);
	if (!all_came_back) /* they may yet do so, and then use any of this */
		return;
	symbolize_free(pipeline->symbolize);
	unwind_maps_free(pipeline->unwind_maps);
	sampler_free(pipeline->sampler);
	file_registry_free(pipeline->files);
	free(pipeline);
}
