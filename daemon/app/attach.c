#include "app/attach.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"

enum { MAX_TARGETS_OF_A_USER = 32 }; /* of those who are no administrators */

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
	pipeline_keep(target); /* it was attached for a pull only, perhaps, and now it stays */
	if (request->requester.administrator)
		target->owner = request->requester;
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
		pipeline_enter(pipeline, target);
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
	uint32_t max_hz = pipeline_max_frequency();
	if (waiter->request.frequency_hz > max_hz)
		return error_set(
			err, ERANGE,
			"the kernel samples at most %u times a second (kernel.perf_event_max_sample_rate), not %u",
			max_hz, waiter->request.frequency_hz);
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

void attach_process(struct pipeline *pipeline, const struct target_request *request, target_fn done, void *context)
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
