/* Files that are wanted: each is looked for once, whoever asks, on one server after the other; a few at a time. What was not found or failed is
 * remembered for a while. One thread. */
#pragma once
#include <curl/curl.h>
#include <stdbool.h>

#include "fetch.pb-c.h"

struct jobs;

/* Calls done when a job is decided, for each waiter; why may be "". */
typedef void jobs_done(void *context, uint64_t waiter, const char *build_id, Sprof__Fetch__Reply__State state,
		       const char *why);

struct jobs *jobs_new(CURLM *multi, int cache_fd, jobs_done *done, void *context); /* NULL: out of memory */
void jobs_free(struct jobs *jobs);                                                 /* NULL is fine */

/* Done is called for it, perhaps at once. request is one that request_is_sound. */
void jobs_add(struct jobs *jobs, const Sprof__Fetch__Request *request, uint64_t waiter);
/* Nobody of that number waits any more. What is under way goes on: it is for the cache too. */
void jobs_forget_waiter(struct jobs *jobs, uint64_t waiter);
/* Takes what curl has to tell, and starts what waited for its turn. */
void jobs_run(struct jobs *jobs);

bool jobs_request_is_sound(const Sprof__Fetch__Request *request);
