/* CPython in a target: found after each snapshot of its mappings that shows another program or a library of it, told to the sampling program; and the
 * code objects that samples name are read from the process soon after they were met, since they may not stay. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "app/pipeline.h"
#include "app/target.h"
#include "app/target_job.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "collect/python_code.h"
#include "collect/python_runtime.h"
#include "collect/sampler.h"
#include "symbolize/symbolize.h"

enum {
	SYMBOLS_SECONDS = 10,
	FIRST_WAIT_MS = 20, /* for an interpreter that is not initialized yet; then twice as long each time */
	LAST_WAIT_MS = 5000,
	CODES_MIB = 16,
	BATCH = 256,         /* code objects that are read in one job */
	READ_REST_MS = 50,   /* between jobs that read something */
	IDLE_REST_MS = 2000, /* after one that found nothing to read */
};

/* --- finding the interpreter --- */

struct find_job {
	struct target *target; /* a reference */
	struct maps *maps;     /* a reference */
	struct requester requester;
	const struct python_layout *layout;
	struct python_config config;
	int result;
};

static const struct mapping *next_candidate(const struct maps *maps, size_t *i)
{
	while (*i < maps->n) {
		const struct mapping *mapping = &maps->mappings[(*i)++];
		if (mapping->file && mapping->file->fd >= 0 && python_is_named_so(mapping->name))
			return mapping;
	}
	return NULL;
}

static int find_in(const struct find_job *job, const struct mapping *mapping, const struct python_layout **ret_layout,
		   struct python_config *ret)
{
	static const char *const symbols[PYTHON_SYMBOL_COUNT] = {PYTHON_SYMBOLS};
	uint64_t addresses[PYTHON_SYMBOL_COUNT];
	int r = symbolize_find_symbols(job->target->pipeline->symbolize, mapping->file->id, mapping->file->fd, symbols,
				       PYTHON_SYMBOL_COUNT, clock_monotonic_ns() + SYMBOLS_SECONDS * NS_PER_S,
				       addresses);
	for (size_t i = 0; r == 0 && i < PYTHON_SYMBOL_COUNT; i++) {
		if (addresses[i] == UINT64_MAX)
			return -ENOENT;
		addresses[i] += mapping->start - mapping->file_offset;
	}
	return r == 0 ? python_runtime_read(job->target->pid, addresses, ret_layout, ret) : r;
}

static void work_find(void *context)
{
	struct find_job *job = context;
	const struct mapping *mapping;
	size_t i = 0;
	job->result = -ENOENT;
	while (job->result < 0 && (mapping = next_candidate(job->maps, &i))) {
		int r = find_in(job, mapping, &job->layout, &job->config);
		if (r == 0 || job->result != -EAGAIN)
			job->result = r;
	}
	/* It may have executed a program by now that is no business of who attached it. */
	if (job->result == 0 && !target_job_may_look(&job->requester, job->target->pid))
		job->result = -EPERM;
	job->config.program = job->maps->program;
	job->config.salt = job->target->serial * 0x9e3779b9u;
}

static void free_find(struct find_job *job)
{
	target_unref(job->target);
	maps_unref(job->maps);
	free(job);
}

static void start_find(struct target *target, struct maps *maps);

static void on_find_again(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct target *target = context;
	struct target_python *python = &target->python;
	if (!python->busy_finding && python->maps && !target->ending)
		start_find(target, maps_ref(python->maps));
}

/* Not there yet: later. */
static void find_later(struct target *target)
{
	struct target_python *python = &target->python;
	python->wait_ms = python->wait_ms ? 2 * python->wait_ms : FIRST_WAIT_MS;
	if (python->wait_ms > LAST_WAIT_MS)
		python->wait_ms = LAST_WAIT_MS;
	struct timeval wait = {.tv_sec = python->wait_ms / 1000,
			       .tv_usec = (suseconds_t)(python->wait_ms % 1000) * 1000};
	if (!python->timer)
		python->timer = event_new(target->pipeline->base, -1, 0, on_find_again, target);
	if (python->timer) /* else the next snapshot tries again */
		event_add(python->timer, &wait);
}

static void tell_program(struct target *target, const struct find_job *job)
{
	struct target_python *python = &target->python;
	if (!python->codes)
		python->codes = python_codes_new((size_t)CODES_MIB << 20);
	int r = python->codes ? sampler_set_python(target->pipeline->sampler, target->slot, &job->config) : -ENOMEM;
	if (r < 0) {
		log_warning("cannot tell the BPF program of process %d's CPython: %s", target->pid, strerror(-r));
		return;
	}
	python->layout = job->layout;
	python->program = job->config.program;
	python->code_type = job->config.code_type;
	log_debug("process %d runs CPython %u.%u", target->pid, job->layout->version >> 8, job->layout->version & 0xff);
}

static void done_find(void *context, bool worked)
{
	struct find_job *job = context;
	struct target *target = job->target;
	struct target_python *python = &target->python;
	python->busy_finding = false;
	/* There are newer mappings: look again; also when something was found, if they are those of another program. */
	bool outdated = python->maps != job->maps;
	bool same_program = !outdated || python->maps->program == job->maps->program;
	/* Without a pidfd it is not attached yet: should the number be another process's by then, the attach fails. */
	if (worked && !target->ending && target->holds_slot && !process_has_exited(target->pidfd)) {
		if (job->result == 0 && same_program)
			tell_program(target, job);
		else if (outdated)
			start_find(target, maps_ref(python->maps));
		else if (job->result == -EAGAIN)
			find_later(target);
		else
			log_debug("process %d: no CPython that we know: %s", target->pid, strerror(-job->result));
	}
	target_await_less(target);
	free_find(job);
}

/* Takes the reference of maps. */
static void start_find(struct target *target, struct maps *maps)
{
	struct find_job *job = calloc(1, sizeof(*job));
	if (!job) { /* the next snapshot tries again */
		maps_unref(maps);
		return;
	}
	*job = (struct find_job){.target = target_ref(target), .maps = maps, .requester = target->owner};
	target->python.busy_finding = true;
	if (jobs_submit(target->pipeline->python_readers, NULL, JOB_LAST, work_find, done_find, job) == 0)
		return;
	target->python.busy_finding = false;
	free_find(job);
}

static size_t count_candidates(const struct maps *maps)
{
	size_t n = 0, i = 0;
	while (next_candidate(maps, &i))
		n++;
	return n;
}

void target_python(struct target *target, struct maps *maps)
{
	struct target_python *python = &target->python;
	bool known = maps && python->program && python->program == maps->program;
	if (!target->pipeline->settings->python || target->ending || !maps || !maps->program || known) {
		maps_unref(maps);
		return;
	}
	if (python->program) { /* of another program */
		(void)sampler_set_python(target->pipeline->sampler, target->slot, NULL);
		python->program = 0;
	}
	maps_unref(python->maps);
	python->maps = maps;
	python->wait_ms = 0;
	if (!python->busy_finding && count_candidates(maps) > 0)
		start_find(target, maps_ref(maps));
}

/* --- reading code objects --- */

struct python_waiter {
	struct python_waiter *next;
	target_fn done;
	void *context;
};

struct read_job {
	struct target *target;      /* a reference */
	struct python_codes *codes; /* a reference */
	struct requester requester;
	const struct python_layout *layout;
	uint64_t code_type;
	struct python_code_unread unread[BATCH];
	size_t n;
};

static void tell_nothing(struct read_job *job)
{
	for (size_t i = 0; i < job->n; i++)
		python_codes_tell(job->codes, job->unread[i].number, NULL);
}

static void free_read(struct read_job *job)
{
	python_codes_unref(job->codes);
	target_unref(job->target);
	free(job);
}

/* What was read of it is told at once: whoever builds a profile meanwhile has it. Of a process that has exited, or whose number belongs to another by
 * now, nothing is: it is looked at after the reading. */
static void work_read(void *context)
{
	struct read_job *job = context;
	struct python_code_room *room = malloc(sizeof(*room));
	if (!room) {
		tell_nothing(job);
		return;
	}
	for (size_t i = 0; i < job->n; i++) {
		struct python_code code;
		const struct python_code_unread *unread = &job->unread[i];
		int r = python_code_read(job->target->pid, job->layout, job->code_type, &unread->key, room, &code);
		bool good = r == 0 && !process_has_exited(job->target->pidfd) &&
			    target_job_may_look(&job->requester, job->target->pid);
		python_codes_tell(job->codes, unread->number, good ? &code : NULL);
	}
	free(room);
}

static void done_read(void *context, bool worked)
{
	struct read_job *job = context;
	struct target *target = job->target;
	struct target_python *python = &target->python;
	python->busy_reading = false;
	if (worked)
		target_refresh_python(target); /* there may be more */
	while (python->waiters && !python->busy_reading) {
		struct python_waiter *waiter = python->waiters;
		python->waiters = waiter->next;
		waiter->done(waiter->context, target, NULL);
		free(waiter);
	}
	free_read(job);
}

static void hush(struct target *target, unsigned rest_ms)
{
	if (target->holds_slot)
		sampler_hush_python(target->pipeline->sampler, target->slot,
				    clock_monotonic_ns() + rest_ms * NS_PER_MS);
}

void target_refresh_python(struct target *target)
{
	struct target_python *python = &target->python;
	if (!python->codes || !python->program || python->busy_reading || target->ending)
		return;
	struct read_job *job = malloc(sizeof(*job));
	if (!job)
		return;
	job->n = python_codes_begin(python->codes, job->unread, BATCH);
	if (job->n == 0) { /* the program remembers little: do not be woken for what it forgot */
		hush(target, python->read_some ? READ_REST_MS : IDLE_REST_MS);
		python->read_some = false;
		free(job);
		return;
	}
	python->read_some = true;
	job->target = target_ref(target);
	job->codes = python_codes_ref(python->codes);
	job->requester = target->owner;
	job->layout = python->layout;
	job->code_type = python->code_type;
	python->busy_reading = true;
	if (jobs_submit(target->pipeline->python_readers, NULL, JOB_LAST, work_read, done_read, job) == 0)
		return;
	python->busy_reading = false;
	tell_nothing(job);
	free_read(job);
}

void target_python_settle(struct target *target, target_fn done, void *context)
{
	struct target_python *python = &target->python;
	struct python_waiter *waiter = python->busy_reading ? malloc(sizeof(*waiter)) : NULL;
	if (!waiter) {
		done(context, target, NULL);
		return;
	}
	*waiter = (struct python_waiter){.next = python->waiters, .done = done, .context = context};
	python->waiters = waiter;
}

void target_python_end(struct target *target)
{
	struct target_python *python = &target->python;
	if (python->timer)
		event_free(python->timer);
	python->timer = NULL;
	maps_unref(TAKE_PTR(python->maps));
	python_codes_unref(TAKE_PTR(python->codes));
}
