/* GET /v1/targets/PID/table: what a process publishes in its barrier-lock table, decoded and judged. Works whether or not the process is attached;
 * whoever may attach it may ask. Event loop only. */
#pragma once
#include "app/pipeline.h"

/* So many looks may be stuck together, each with a thread of pipeline->lookers, before no other is taken. */
enum { TABLE_REQUESTS_STUCK_MAX = 16 };

/* Completes the reply, now or within some seconds, since a process can make its reader wait for good (userfaultfd on its stacks): such a look is given up, and its
 * thread is left to it. One at a time for each process, and for each user who is no administrator. */
void table_request_start(struct pipeline *pipeline, struct serve_reply *reply, pid_t pid);
