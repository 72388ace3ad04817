#include "app/pipeline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/handlers.h"
#include "app/report.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "collect/sampler.h"
#include "symbolize/symbolize.h"

enum {
	DRAIN_INTERVAL_MS = 100, /* the ring wakes us when it fills faster */
	SUPERVISE_SECONDS = 1,
	CONTROL_THREADS = 8,
	BUILDER_THREADS = 2,
	MAX_FILES_HELD = 8192,
	NAMES_CACHE_MIB = 32,
	READER_TIMEOUT_MS = 5000,
	CLIENT_IDLE_SECONDS = 30,
	ENDING_SECONDS = 2,
	MAX_TARGETS_OF_A_USER = 32, /* of those who are no administrators */
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
	sampler_drain(pipeline->sampler, on_record, pipeline);
}

static bool any_live(const struct pipeline *pipeline)
{
	for (size_t slot = 0; slot < MAX_TARGET_SLOTS; slot++)
		if (pipeline->by_slot[slot])
			return true;
	return false;
}

static void on_drain(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct pipeline *pipeline = context;
	pipeline_drain(pipeline);
	for (struct target *target = pipeline->targets; target; target = target->next)
		target_refresh_mappings(target);
	pipeline_update_timer(pipeline);
}

static void on_supervise(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct pipeline *pipeline = context;
	for (struct target *target = pipeline->targets; target; target = target->next)
		target_supervise(target);
	sampler_sweep_claims(pipeline->sampler);
	pipeline_update_timer(pipeline);
}

/* With no target to drain the daemon sleeps. */
void pipeline_update_timer(struct pipeline *pipeline)
{
	if (!any_live(pipeline)) {
		event_del(pipeline->drain_timer);
		event_del(pipeline->supervise_timer);
		return;
	}
	struct timeval drain = {.tv_usec = DRAIN_INTERVAL_MS * 1000};
	struct timeval supervise = {.tv_sec = SUPERVISE_SECONDS};
	if (!event_pending(pipeline->drain_timer, EV_TIMEOUT, NULL))
		event_add(pipeline->drain_timer, &drain);
	if (!event_pending(pipeline->supervise_timer, EV_TIMEOUT, NULL))
		event_add(pipeline->supervise_timer, &supervise);
}

/* --- the table of targets --- */

struct target *pipeline_find(struct pipeline *pipeline, pid_t pid)
{
	struct target *target = pipeline->targets;
	while (target && target->pid != pid)
		target = target->next;
	return target;
}

static void enter(struct pipeline *pipeline, struct target *target)
{
	target->next = pipeline->targets;
	pipeline->targets = target_ref(target);
	pipeline->n_targets++;
}

void pipeline_drop(struct pipeline *pipeline, struct target *target)
{
	struct target **link = &pipeline->targets;
	while (*link && *link != target)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = target->next;
	pipeline->n_targets--;
	for (enum outcome outcome = 0; outcome < OUTCOME_COUNT; outcome++)
		if (report_is_loss(outcome))
			pipeline->past_losses[outcome] += report_loss(target, outcome);
	target_unref(target);
}

static void on_retention_over(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct target *target = context;
	pipeline_drop(target->pipeline, target);
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

/* --- attach --- */

/* A process that is being attached, and everybody who waits for it. */
struct waiter {
	struct waiter *next;
	struct target_request request;
	target_fn done;
	void *context;
};

struct attaching {
	struct attaching *next;
	struct pipeline *pipeline;
	pid_t pid;
	struct waiter *waiters; /* the first asked first */
};

static bool belongs_to(const struct requester *owner, uid_t uid)
{
	return !owner->administrator && owner->uid == uid;
}

static int check_room(struct pipeline *pipeline, const struct target_request *request, struct error *err)
{
	unsigned live = 0, of_user = 0;
	for (const struct target *target = pipeline->targets; target; target = target->next) {
		live += !target->ending;
		of_user += belongs_to(&target->owner, request->requester.uid);
	}
	for (const struct attaching *attaching = pipeline->attaching; attaching; attaching = attaching->next) {
		live++;
		of_user += belongs_to(&attaching->waiters->request.requester, request->requester.uid);
	}
	if (live >= pipeline->settings->max_targets)
		return error_set(err, ENOSPC,
				 "%u processes are attached, as many as max_targets allows: detach some, or raise it "
				 "in sprofd.conf",
				 live);
	if (!request->requester.administrator && of_user >= MAX_TARGETS_OF_A_USER)
		return error_set(
			err, ENOSPC,
			"%u processes are attached or retained for you, as many as one user may have: detach some",
			of_user);
	return 0;
}

static bool same_settings(const struct target *target, const struct target_request *request)
{
	bool cycles = request->event == SPROF__CONTROL__EVENT__EVENT_CYCLES;
	return target->frequency_hz == request->frequency_hz &&
	       (target->event == SPROF__CONTROL__EVENT__EVENT_CYCLES) == cycles;
}

/* The process is attached already: whether that serves this request too. */
static int join(struct target *target, const struct target_request *request, struct error *err)
{
	if (!pipeline_may_touch(target, &request->requester))
		return error_set(
			err, EPERM,
			"process %d was attached by somebody else: ask root, or to be added to the socket's group",
			target->pid);
	if (request->ephemeral)
		return 0;
	if (!same_settings(target, request))
		return error_set(err, EEXIST,
				 "process %d is attached already, at %u Hz: use `sprofctl rate %d HZ` to change that, "
				 "or detach it first",
				 target->pid, target->frequency_hz, target->pid);
	target->ephemeral = false; /* it was attached for a pull only, perhaps, and now it stays */
	return 0;
}

static void answer(struct waiter *waiter, struct target *target, const struct error *err)
{
	struct error join_err;
	if (!err && join(target, &waiter->request, &join_err) < 0)
		err = &join_err;
	waiter->done(waiter->context, err ? NULL : target, err);
	free(waiter);
}

static bool asks_the_same(const struct target_request *a, const struct target_request *b)
{
	return a->requester.administrator == b->requester.administrator && a->requester.uid == b->requester.uid &&
	       a->requester.gid == b->requester.gid && a->event == b->event && a->frequency_hz == b->frequency_hz;
}

static void attach_or_join(struct pipeline *pipeline, struct waiter *waiter);

static void on_attached(void *context, struct target *target, const struct error *err)
{
	struct attaching *attaching = context;
	struct pipeline *pipeline = attaching->pipeline;
	const struct target_request first = attaching->waiters->request;
	struct attaching **link = &pipeline->attaching;
	while (*link != attaching)
		link = &(*link)->next;
	*link = attaching->next;
	if (!err) {
		/* Whoever had the number before, and its profile, make way for this one. */
		struct target *before = pipeline_find(pipeline, target->pid);
		if (before)
			pipeline_drop(pipeline, before);
		enter(pipeline, target);
		log_info("attached process %d (%s): %zu threads at %u Hz", target->pid, target->process.comm,
			 target->threads, target->frequency_hz);
	}
	for (struct waiter *waiter = attaching->waiters, *next; waiter; waiter = next) {
		next = waiter->next;
		/* Why the first may not is no answer to another who asks for something else. */
		if (err && !asks_the_same(&waiter->request, &first))
			attach_or_join(pipeline, waiter);
		else
			answer(waiter, target, err);
	}
	free(attaching);
	target_unref(target);
	pipeline_update_timer(pipeline);
}

static struct attaching *find_attaching(struct pipeline *pipeline, pid_t pid)
{
	struct attaching *attaching = pipeline->attaching;
	while (attaching && attaching->pid != pid)
		attaching = attaching->next;
	return attaching;
}

static void wait_for(struct attaching *attaching, struct waiter *waiter)
{
	struct waiter **link = &attaching->waiters;
	while (*link)
		link = &(*link)->next;
	*link = waiter;
}

static int start_attaching(struct pipeline *pipeline, struct waiter *waiter, struct error *err)
{
	if (waiter->request.frequency_hz > pipeline->max_frequency_hz)
		return error_set(
			err, ERANGE,
			"the kernel samples at most %u times a second (kernel.perf_event_max_sample_rate), not %u",
			pipeline->max_frequency_hz, waiter->request.frequency_hz);
	int r = check_room(pipeline, &waiter->request, err);
	if (r < 0)
		return r;
	struct attaching *attaching = malloc(sizeof(*attaching));
	struct target *target = attaching ? target_new(pipeline, &waiter->request) : NULL;
	if (!target) {
		free(attaching);
		return error_set(err, ENOMEM, "out of memory");
	}
	*attaching = (struct attaching){
		.next = pipeline->attaching, .pipeline = pipeline, .pid = waiter->request.pid, .waiters = waiter};
	pipeline->attaching = attaching;
	target_attach(target, on_attached, attaching);
	return 0;
}

static void attach_or_join(struct pipeline *pipeline, struct waiter *waiter)
{
	struct error err;
	struct target *target = pipeline_find(pipeline, waiter->request.pid);
	struct attaching *attaching = find_attaching(pipeline, waiter->request.pid);
	waiter->next = NULL;
	if (target && !target->ending)
		answer(waiter, target, NULL);
	else if (attaching)
		wait_for(attaching, waiter);
	else if (start_attaching(pipeline, waiter, &err) < 0)
		answer(waiter, NULL, &err);
}

void pipeline_attach(struct pipeline *pipeline, const struct target_request *request, target_fn done, void *context)
{
	struct error err;
	struct waiter *waiter = malloc(sizeof(*waiter));
	if (!waiter) {
		error_set(&err, ENOMEM, "out of memory");
		done(context, NULL, &err);
		return;
	}
	*waiter = (struct waiter){.request = *request, .done = done, .context = context};
	attach_or_join(pipeline, waiter);
} /* whoever attaches has the waiter now. NOLINT(clang-analyzer-unix.Malloc) */

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
		for (struct window *window = target->windows; window; window = window->next)
			window->cut_short(window->context);
	event_base_loopexit(pipeline->base, &limit);
}

/* --- life --- */

static uint32_t kernel_max_frequency(void)
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
	struct symbolize_options symbolize = {
		.reader_path = settings->reader,
		.cache_bytes = (size_t)NAMES_CACHE_MIB << 20,
		.reader_timeout_ms = READER_TIMEOUT_MS,
		.kallsyms_path = "/proc/kallsyms",
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
					 EV_READ | EV_ET | EV_PERSIST, on_drain, pipeline);
	if (!pipeline->ring_event || event_add(pipeline->ring_event, NULL) < 0)
		return error_set(err, ENOMEM, "out of memory");
	return 0;
}

static int make_workers(struct pipeline *pipeline, struct error *err)
{
	pipeline->files = file_registry_new(MAX_FILES_HELD);
	pipeline->control = jobs_new(pipeline->base, CONTROL_THREADS);
	pipeline->builders = jobs_new(pipeline->base, BUILDER_THREADS);
	pipeline->drain_timer = event_new(pipeline->base, -1, 0, on_drain, pipeline);
	pipeline->supervise_timer = event_new(pipeline->base, -1, 0, on_supervise, pipeline);
	if (!pipeline->files || !pipeline->control || !pipeline->builders || !pipeline->drain_timer ||
	    !pipeline->supervise_timer)
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
		.max_frequency_hz = kernel_max_frequency(),
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
	*ret = pipeline;
	return 0;
}

void pipeline_free(struct pipeline *pipeline)
{
	if (!pipeline)
		return;
	/* The process ends after this: what jobs and pulls still hold goes with it. First those who call, then what they call. */
	serve_free(pipeline->serve);
	jobs_stop(pipeline->builders);
	jobs_stop(pipeline->control);
	jobs_free(pipeline->builders); /* not before: what was done for a pull may submit its profile */
	jobs_free(pipeline->control);
	while (pipeline->targets) {
		struct target *target = pipeline->targets;
		pipeline->targets = target->next;
		target_unref(target);
	}
	if (pipeline->ring_event)
		event_free(pipeline->ring_event);
	if (pipeline->drain_timer)
		event_free(pipeline->drain_timer);
	if (pipeline->supervise_timer)
		event_free(pipeline->supervise_timer);
	symbolize_free(pipeline->symbolize);
	sampler_free(pipeline->sampler);
	file_registry_free(pipeline->files);
	free(pipeline);
}
