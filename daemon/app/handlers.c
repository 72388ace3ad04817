#include "app/handlers.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/attach.h"
#include "app/pipeline.h"
#include "app/pull.h"
#include "app/report.h"
#include "app/table_request.h"
#include "serve/openmetrics.h"

enum { REPORT_BUDGET_MIB = 16 };

static void reply_out_of_memory(struct serve_reply *reply)
{
	struct error err;
	error_set(&err, ENOMEM, "out of memory");
	serve_reply_error(reply, &err);
}

static void reply_target(struct serve_reply *reply, struct target *target)
{
	struct arena arena;
	arena_init(&arena, (size_t)REPORT_BUDGET_MIB << 20);
	pipeline_drain(target->pipeline);
	target_count(target);
	Sprof__Control__Target *message = report_target(&arena, target);
	if (message)
		serve_reply_message(reply, &message->base);
	else
		reply_out_of_memory(reply);
	arena_free(&arena);
}

/* The answer to a request that changed a target. */
static void reply_changed(void *context, struct target *target, const struct error *err)
{
	if (err)
		serve_reply_error(context, err);
	else
		reply_target(context, target);
}

static struct requester requester_of(const struct pipeline *pipeline, const struct serve_reply *reply)
{
	return access_requester(&pipeline->policy, serve_reply_peer(reply));
}

static void handle_attach(void *context, struct serve_reply *reply, const Sprof__Control__AttachRequest *message)
{
	struct pipeline *pipeline = context;
	struct target_request request = {
		.pid = (pid_t)message->pid,
		.event = message->event,
		.frequency_hz = message->frequency_hz ? message->frequency_hz : pipeline->settings->frequency_hz,
		.requester = requester_of(pipeline, reply),
	};
	attach_process(pipeline, &request, reply_changed, reply);
}

/* The live target that this peer may change. */
static struct target *live_target(struct pipeline *pipeline, struct serve_reply *reply, uint32_t pid)
{
	struct error err;
	struct requester requester = requester_of(pipeline, reply);
	struct target *target = pipeline_target_for(pipeline, (pid_t)pid, &requester, &err);
	if (target && !target->ending && pipeline_may_change(target, &requester))
		return target;
	if (target && !target->ending)
		error_set(&err, EPERM,
			  "process %d was attached by an administrator: its profile is yours to pull, not its sampling "
			  "to change",
			  pid);
	else if (target)
		error_set(&err, ESRCH, "process %d is not sampled any more (%s); its profile can still be pulled", pid,
			  target->state == SPROF__CONTROL__TARGET_STATE__TARGET_DETACHED ? "detached"
											 : "it has exited");
	serve_reply_error(reply, &err);
	return NULL;
}

static void handle_rate(void *context, struct serve_reply *reply, uint32_t pid, uint32_t frequency_hz)
{
	struct pipeline *pipeline = context;
	struct error err;
	uint32_t max_hz = pipeline_max_frequency();
	struct target *target = live_target(pipeline, reply, pid);
	if (!target)
		return;
	if (frequency_hz == 0 || frequency_hz > max_hz) {
		error_set(&err, ERANGE, "the frequency is 1 to %u Hz (kernel.perf_event_max_sample_rate), not %u",
			  max_hz, frequency_hz);
		serve_reply_error(reply, &err);
		return;
	}
	target_set_rate(target, frequency_hz, reply_changed, reply);
}

static void handle_detach(void *context, struct serve_reply *reply, uint32_t pid)
{
	struct target *target = live_target(context, reply, pid);
	if (target) {
		pipeline_keep(target); /* what was sampled until now stays pullable */
		target_end(target, SPROF__CONTROL__TARGET_STATE__TARGET_DETACHED, reply_changed, reply);
	}
}

/* A report on all targets waits until each has asked the kernel for its counts. */
struct report {
	struct pipeline *pipeline;
	struct serve_reply *reply;
	struct requester requester;
	void (*send)(struct report *report);
	unsigned pending;
};

static void report_part(void *context, struct target *target, const struct error *err)
{
	(void)target, (void)err;
	struct report *report = context;
	if (--report->pending > 0)
		return;
	report->send(report);
	free(report);
}

static void report_start(struct pipeline *pipeline, struct serve_reply *reply, void (*send)(struct report *))
{
	struct report *report = malloc(sizeof(*report));
	if (!report) {
		reply_out_of_memory(reply);
		return;
	}
	*report = (struct report){.pipeline = pipeline,
				  .reply = reply,
				  .requester = requester_of(pipeline, reply),
				  .send = send,
				  .pending = 1};
	for (struct target *target = pipeline->targets; target; target = target->next) {
		if (!pipeline_may_touch(target, &report->requester))
			continue;
		report->pending++;
		target_settle(target, SETTLE_COUNTS, report_part, report);
	}
	report_part(report, NULL, NULL);
}

static void send_list(struct report *report)
{
	struct arena arena;
	arena_init(&arena, (size_t)REPORT_BUDGET_MIB << 20);
	Sprof__Control__TargetList *list = report_list(&arena, report->pipeline, &report->requester);
	if (list)
		serve_reply_message(report->reply, &list->base);
	else
		reply_out_of_memory(report->reply);
	arena_free(&arena);
}

static void send_status(struct report *report)
{
	struct arena arena;
	arena_init(&arena, (size_t)REPORT_BUDGET_MIB << 20);
	Sprof__Control__Status *status = report_status(&arena, report->pipeline, &report->requester);
	if (status)
		serve_reply_message(report->reply, &status->base);
	else
		reply_out_of_memory(report->reply);
	arena_free(&arena);
}

static void send_metrics(struct report *report)
{
	struct arena arena;
	char *text;
	size_t bytes;
	arena_init(&arena, (size_t)REPORT_BUDGET_MIB << 20);
	Sprof__Control__Status *status = report_status(&arena, report->pipeline, &report->requester);
	if (status && openmetrics_format(status, &text, &bytes) == 0)
		serve_reply_bytes(report->reply, OPENMETRICS_CONTENT_TYPE, NULL, (uint8_t *)text, bytes);
	else
		reply_out_of_memory(report->reply);
	arena_free(&arena);
}

static void handle_list(void *context, struct serve_reply *reply)
{
	report_start(context, reply, send_list);
}

static void handle_status(void *context, struct serve_reply *reply)
{
	report_start(context, reply, send_status);
}

static void handle_metrics(void *context, struct serve_reply *reply)
{
	report_start(context, reply, send_metrics);
}

static void settled_target(void *context, struct target *target, const struct error *err)
{
	(void)err;
	reply_target(context, target);
}

static void handle_target(void *context, struct serve_reply *reply, uint32_t pid)
{
	struct error err;
	struct requester requester = requester_of(context, reply);
	struct target *target = pipeline_target_for(context, (pid_t)pid, &requester, &err);
	if (target)
		target_settle(target, SETTLE_COUNTS, settled_target, reply);
	else
		serve_reply_error(reply, &err);
}

static void handle_table(void *context, struct serve_reply *reply, uint32_t pid)
{
	table_request_start(context, reply, (pid_t)pid);
}

/* A line of the index. The process chose its name: it must not drive the terminal of who reads it. */
static void print_target(FILE *file, const struct target *target)
{
	fprintf(file, "%d ", target->pid);
	for (const char *c = target->process.comm; *c; c++)
		fputc(isprint((unsigned char)*c) ? *c : '?', file);
	fprintf(file, ": /debug/pprof/profile?pid=%d\n", target->pid);
}

static void handle_index(void *context, struct serve_reply *reply)
{
	struct pipeline *pipeline = context;
	char *text = NULL;
	size_t bytes = 0;
	struct requester requester = requester_of(pipeline, reply);
	FILE *file = open_memstream(&text, &bytes);
	if (!file) {
		reply_out_of_memory(reply);
		return;
	}
	fprintf(file, "sprofd " SPROF_VERSION "\n\n"
		      "profile?pid=N&seconds=S   CPU profile of process N over the next S seconds (30 if it is not "
		      "attached)\n"
		      "profile?pid=N             all that is retained of an attached process\n\nprocesses:\n");
	for (const struct target *target = pipeline->targets; target; target = target->next)
		if (pipeline_may_touch(target, &requester))
			print_target(file, target);
	if (fclose(file) == 0)
		serve_reply_bytes(reply, "text/plain; charset=utf-8", NULL, (uint8_t *)text, bytes);
	else
		reply_out_of_memory(reply);
}

static void handle_pull(void *context, struct serve_reply *reply, const struct serve_pull *request)
{
	pull_start(context, reply, request);
}

const struct serve_handlers *handlers_table(void)
{
	static const struct serve_handlers table = {
		.attach = handle_attach,
		.rate = handle_rate,
		.detach = handle_detach,
		.list = handle_list,
		.target = handle_target,
		.table = handle_table,
		.status = handle_status,
		.metrics = handle_metrics,
		.index = handle_index,
		.pull = handle_pull,
	};
	return &table;
}
