#include "app/table_request.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "app/jobs.h"
#include "app/table_report.h"
#include "app/target_job.h"
#include "base/cleanup.h"
#include "serve/json.h"

enum {
	MESSAGE_BUDGET_MIB = 64,
	LOOK_SECONDS = 10, /* twice as long as a table of the largest kind takes on a busy machine */
};

struct table_request {
	struct table_request *next;
	struct pipeline *pipeline;
	struct serve_reply *reply; /* NULL once it is answered */
	struct event *limit;       /* when that is to be, whatever becomes of the look */
	atomic_bool overdue;
	pid_t pid;
	struct requester requester;
	bool wants_protobuf;
	/* what the work makes */
	uint8_t *bytes;
	size_t n_bytes;
	struct error err;
};

static int encode(struct table_request *request, const ProtobufCMessage *message)
{
	if (!request->wants_protobuf)
		return json_format(message, (char **)&request->bytes, &request->n_bytes);
	size_t bytes = protobuf_c_message_get_packed_size(message);
	request->bytes = malloc(bytes + 1);
	if (!request->bytes)
		return -ENOMEM;
	request->n_bytes = protobuf_c_message_pack(message, request->bytes);
	return 0;
}

/* A process that has executed another program meanwhile may be somebody else's business. */
static int check_access(const struct table_request *request, int pidfd, struct error *err)
{
	bool may = target_job_may_look(&request->requester, request->pid);
	if (process_has_exited(pidfd))
		return error_set(err, ESRCH, "process %d has exited", request->pid);
	if (!may)
		return error_set(
			err, EPERM,
			"process %d is not wholly yours (its user and group ids, no capabilities, dumpable): ask "
			"root, or to be added to the socket's group",
			request->pid);
	return 0;
}

static int inspect(struct table_request *request, const struct process *process, int pidfd)
{
	struct table_inspection inspection;
	struct arena arena;
	int r = table_inspect(request->pid, &inspection, &request->err);
	if (r < 0)
		return r;
	arena_init(&arena, (size_t)MESSAGE_BUDGET_MIB << 20);
	r = check_access(request, pidfd, &request->err);
	if (r == 0) {
		Sprof__Control__Table *table = table_report(&arena, process, &inspection);
		if (!table || encode(request, &table->base) < 0)
			r = error_set(&request->err, ENOMEM, "out of memory");
	}
	arena_free(&arena);
	table_inspection_free(&inspection);
	return r;
}

static void work(void *context)
{
	struct table_request *request = context;
	struct process process;
	_cleanup_close_ int pidfd = -1;
	if (request->overdue) /* it waited for those before it, and nobody waits for it any more */
		return;
	if (process_open(request->pid, &pidfd, &process, &request->err) < 0 ||
	    check_access(request, pidfd, &request->err) < 0)
		return;
	(void)inspect(request, &process, pidfd);
}

static void answer(struct table_request *request)
{
	struct serve_reply *reply = TAKE_PTR(request->reply);
	if (request->err.code)
		serve_reply_error(reply, &request->err);
	else
		serve_reply_bytes(reply, request->wants_protobuf ? "application/x-protobuf" : "application/json", NULL,
				  TAKE_PTR(request->bytes), request->n_bytes);
}

static void end(struct table_request *request)
{
	struct table_request **link = &request->pipeline->table_requests;
	while (*link != request)
		link = &(*link)->next;
	*link = request->next;
	if (request->limit)
		event_free(request->limit);
	free(request->bytes);
	free(request);
}

static void done(void *context, bool worked)
{
	struct table_request *request = context;
	if (!worked)
		error_set(&request->err, ECANCELED, "sprofd is ending");
	if (request->reply)
		answer(request);
	end(request);
}

static int set_stuck(const struct table_request *request, struct error *err)
{
	return error_set(err, EBUSY,
			 "process %d makes whoever reads its memory wait (userfaultfd, or a file system that does not "
			 "answer): nothing can be told of its table until it lets go",
			 request->pid);
}

/* The work has the request for as long as it is stuck, but the reply is ours. */
static void on_limit(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct table_request *request = context;
	struct error err;
	request->overdue = true;
	set_stuck(request, &err);
	serve_reply_error(TAKE_PTR(request->reply), &err);
}

static int set_limit(struct table_request *request)
{
	struct timeval limit = {.tv_sec = LOOK_SECONDS};
	request->limit = event_new(request->pipeline->base, -1, 0, on_limit, request);
	return request->limit && event_add(request->limit, &limit) == 0 ? 0 : -ENOMEM;
}

static int check_busy(const struct pipeline *pipeline, pid_t pid, const struct requester *requester, struct error *err)
{
	unsigned stuck = 0;
	for (const struct table_request *other = pipeline->table_requests; other; other = other->next) {
		stuck += other->overdue;
		if (other->pid != pid && (requester->administrator || other->requester.uid != requester->uid))
			continue;
		return other->overdue ? set_stuck(other, err)
				      : error_set(err, EBUSY,
						  "the table of process %d is being looked at for %s: ask again when "
						  "that is done",
						  other->pid,
						  other->requester.uid == requester->uid ? "you" : "somebody else");
	}
	if (stuck >= TABLE_REQUESTS_STUCK_MAX)
		return error_set(err, EBUSY,
				 "%u processes make whoever reads their memory wait, and no more tables can be looked "
				 "at until one lets go: end them",
				 stuck);
	return 0;
}

void table_request_start(struct pipeline *pipeline, struct serve_reply *reply, pid_t pid)
{
	struct error err;
	struct requester requester = access_requester(&pipeline->policy, serve_reply_peer(reply));
	if (check_busy(pipeline, pid, &requester, &err) < 0) {
		serve_reply_error(reply, &err);
		return;
	}
	struct table_request *request = calloc(1, sizeof(*request));
	if (!request) {
		error_set(&err, ENOMEM, "out of memory");
		serve_reply_error(reply, &err);
		return;
	}
	*request = (struct table_request){
		.next = pipeline->table_requests,
		.pipeline = pipeline,
		.reply = reply,
		.pid = pid,
		.requester = requester,
		.wants_protobuf = serve_reply_wants_protobuf(reply),
	};
	pipeline->table_requests = request;
	if (set_limit(request) < 0 || jobs_submit(pipeline->lookers, NULL, JOB_LAST, work, done, request) < 0) {
		error_set(&request->err, ENOMEM, "out of memory or threads");
		done(request, true);
	}
}
