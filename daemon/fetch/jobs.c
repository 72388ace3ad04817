#include "fetch/jobs.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fetch/debug_cache.h"
#include "fetch/transfer.h"
#include "proto/fetch_limits.h"

enum { JOBS_MAX = 64, RUNNING_MAX = 4, WAITERS_MAX = 8, MEMORIES_MAX = 1024 };
#define NOWHERE_NS (3600 * NS_PER_S)
#define FAILED_NS  (300 * NS_PER_S)

struct job {
	char build_id[FETCH_BUILD_ID_MAX_DIGITS + 1]; /* "": a free place */
	char urls[FETCH_URLS_MAX][FETCH_URL_MAX_BYTES + 1];
	size_t n_urls, next_url;
	uint64_t timeout_ns, until_ns; /* until_ns 0: not begun */
	uint64_t file_max_bytes, cache_max_bytes;
	uint64_t waiters[WAITERS_MAX]; /* 0: nobody */
	char why[CURL_ERROR_SIZE];     /* of the last failure; "": all said that they do not have it */
	struct transfer transfer;
};

/* What came to nothing. */
struct memory {
	char build_id[FETCH_BUILD_ID_MAX_DIGITS + 1];
	bool nowhere;
	uint64_t until_ns;
};

struct jobs {
	CURLM *multi;
	int cache_fd;
	jobs_done *done;
	void *context;
	size_t n_running, next_memory;
	struct job jobs[JOBS_MAX];
	struct memory memories[MEMORIES_MAX];
};

struct jobs *jobs_new(CURLM *multi, int cache_fd, jobs_done *done, void *context)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));
	if (jobs) {
		jobs->multi = multi;
		jobs->cache_fd = cache_fd;
		jobs->done = done;
		jobs->context = context;
	}
	return jobs;
}

void jobs_free(struct jobs *jobs)
{
	for (size_t i = 0; jobs && i < JOBS_MAX; i++) {
		struct job *job = &jobs->jobs[i];
		if (!job->transfer.easy)
			continue;
		transfer_stop(&job->transfer, jobs->multi);
		debug_cache_abort(jobs->cache_fd, job->build_id);
	}
	free(jobs);
}

bool jobs_request_is_sound(const Sprof__Fetch__Request *request)
{
	size_t digits = strlen(request->build_id);
	if (digits < FETCH_BUILD_ID_MIN_DIGITS || digits > FETCH_BUILD_ID_MAX_DIGITS ||
	    strspn(request->build_id, "0123456789abcdef") != digits)
		return false;
	if (request->n_url == 0 || request->n_url > FETCH_URLS_MAX || request->timeout_seconds == 0 ||
	    request->timeout_seconds > FETCH_TIMEOUT_MAX_S || request->file_max_bytes == 0 ||
	    request->file_max_bytes > INT64_MAX)
		return false;
	for (size_t i = 0; i < request->n_url; i++)
		if (!request->url[i][0] || strlen(request->url[i]) > FETCH_URL_MAX_BYTES)
			return false;
	return true;
}

static void remember(struct jobs *jobs, const char *build_id, bool nowhere)
{
	struct memory *memory = &jobs->memories[jobs->next_memory++ % MEMORIES_MAX];
	*memory = (struct memory){.nowhere = nowhere,
				  .until_ns = clock_monotonic_ns() + (nowhere ? NOWHERE_NS : FAILED_NS)};
	strcpy(memory->build_id, build_id);
}

static const struct memory *recall(const struct jobs *jobs, const char *build_id)
{
	uint64_t now_ns = clock_monotonic_ns();
	for (size_t i = 0; i < MEMORIES_MAX; i++)
		if (jobs->memories[i].until_ns > now_ns && strcmp(jobs->memories[i].build_id, build_id) == 0)
			return &jobs->memories[i];
	return NULL;
}

/* The last of it. */
static void decide(struct jobs *jobs, struct job *job, Sprof__Fetch__Reply__State state)
{
	if (state == SPROF__FETCH__REPLY__STATE__FAILED)
		log_info("sprofd-fetch: debug file %s: %s", job->build_id, job->why);
	if (state != SPROF__FETCH__REPLY__STATE__HERE)
		remember(jobs, job->build_id, state == SPROF__FETCH__REPLY__STATE__NOWHERE);
	for (size_t i = 0; i < WAITERS_MAX; i++)
		if (job->waiters[i])
			jobs->done(jobs->context, job->waiters[i], job->build_id, state, job->why);
	jobs->n_running--;
	job->build_id[0] = '\0';
}

static void fail(struct job *job, const char *why)
{
	strncpy(job->why, why, sizeof(job->why) - 1);
}

static int begin_transfer(struct jobs *jobs, struct job *job, uint64_t now_ns)
{
	int fd = debug_cache_begin(jobs->cache_fd, job->build_id);
	if (fd < 0)
		return fd;
	return transfer_begin(&job->transfer, jobs->multi, job, job->urls[job->next_url++], job->build_id, fd,
			      job->file_max_bytes, (job->until_ns - now_ns) / NS_PER_MS);
}

/* The next server, or the end. */
static void go_on(struct jobs *jobs, struct job *job)
{
	uint64_t now_ns = clock_monotonic_ns();
	bool late = now_ns + NS_PER_MS > job->until_ns;
	if (job->next_url < job->n_urls && !late) {
		if (begin_transfer(jobs, job, now_ns) == 0)
			return;
		fail(job, "it cannot be written to the cache directory, or there is no memory");
	} else if (job->next_url < job->n_urls) {
		fail(job, "not within timeout_seconds");
	}
	debug_cache_abort(jobs->cache_fd, job->build_id);
	decide(jobs, job, job->why[0] ? SPROF__FETCH__REPLY__STATE__FAILED : SPROF__FETCH__REPLY__STATE__NOWHERE);
}

static void take_end(struct jobs *jobs, struct job *job, CURLcode result)
{
	const char *why = "";
	enum transfer_end end = transfer_end(&job->transfer, jobs->multi, result, &why);
	if (end == TRANSFER_WHOLE && debug_cache_commit(jobs->cache_fd, job->build_id) < 0) {
		end = TRANSFER_FAILED;
		why = "it cannot be written to the cache directory";
	}
	if (end == TRANSFER_WHOLE) {
		debug_cache_trim(jobs->cache_fd, job->cache_max_bytes);
		job->why[0] = '\0';
		decide(jobs, job, SPROF__FETCH__REPLY__STATE__HERE);
		return;
	}
	if (end != TRANSFER_NOT_FOUND)
		fail(job, why);
	go_on(jobs, job);
}

static void start_waiting(struct jobs *jobs)
{
	for (size_t i = 0; i < JOBS_MAX && jobs->n_running < RUNNING_MAX; i++) {
		struct job *job = &jobs->jobs[i];
		if (!job->build_id[0] || job->until_ns)
			continue;
		job->until_ns = clock_monotonic_ns() + job->timeout_ns;
		jobs->n_running++;
		go_on(jobs, job);
	}
}

void jobs_run(struct jobs *jobs)
{
	int left = 0;
	const CURLMsg *message;
	while ((message = curl_multi_info_read(jobs->multi, &left))) {
		char *job = NULL;
		if (message->msg != CURLMSG_DONE)
			continue;
		CURLcode result = message->data.result;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &job);
		take_end(jobs, (struct job *)(void *)job, result);
	}
	start_waiting(jobs);
}

/* The job of that build id, or a free place; NULL: there is none. */
static struct job *place_of(struct jobs *jobs, const char *build_id)
{
	struct job *free_place = NULL;
	for (size_t i = 0; i < JOBS_MAX; i++) {
		if (strcmp(jobs->jobs[i].build_id, build_id) == 0)
			return &jobs->jobs[i];
		if (!jobs->jobs[i].build_id[0])
			free_place = &jobs->jobs[i];
	}
	return free_place;
}

static void fill(struct job *job, const Sprof__Fetch__Request *request)
{
	*job = (struct job){.n_urls = request->n_url,
			    .timeout_ns = request->timeout_seconds * NS_PER_S,
			    .cache_max_bytes = request->cache_max_bytes};
	/* What the cache could not hold is not worth its way. */
	job->file_max_bytes =
		request->file_max_bytes < request->cache_max_bytes ? request->file_max_bytes : request->cache_max_bytes;
	strcpy(job->build_id, request->build_id);
	for (size_t i = 0; i < request->n_url; i++)
		strcpy(job->urls[i], request->url[i]);
}

static bool add_waiter(struct job *job, uint64_t waiter)
{
	for (size_t i = 0; i < WAITERS_MAX; i++) {
		if (job->waiters[i] && job->waiters[i] != waiter)
			continue;
		job->waiters[i] = waiter;
		return true;
	}
	return false;
}

void jobs_add(struct jobs *jobs, const Sprof__Fetch__Request *request, uint64_t waiter)
{
	const char *build_id = request->build_id;
	const struct memory *memory = recall(jobs, build_id);
	struct job *job = place_of(jobs, build_id);
	if (debug_cache_has(jobs->cache_fd, build_id))
		jobs->done(jobs->context, waiter, build_id, SPROF__FETCH__REPLY__STATE__HERE, "");
	else if (memory)
		jobs->done(jobs->context, waiter, build_id,
			   memory->nowhere ? SPROF__FETCH__REPLY__STATE__NOWHERE : SPROF__FETCH__REPLY__STATE__FAILED,
			   "as before, a short while ago");
	else if (!job)
		jobs->done(jobs->context, waiter, build_id, SPROF__FETCH__REPLY__STATE__FAILED, "too many are wanted");
	else {
		if (!job->build_id[0])
			fill(job, request);
		(void)add_waiter(job, waiter); /* else it asks again */
		start_waiting(jobs);
	}
}

void jobs_forget_waiter(struct jobs *jobs, uint64_t waiter)
{
	for (size_t i = 0; i < JOBS_MAX; i++)
		for (size_t k = 0; k < WAITERS_MAX; k++)
			if (jobs->jobs[i].waiters[k] == waiter)
				jobs->jobs[i].waiters[k] = 0;
}
