/* GET /v1/targets/PID/table: what a process publishes in its barrier-lock table, decoded and judged. Works whether or not the process is attached;
 * whoever may attach it may ask. Event loop only. */
#pragma once
#include "app/pipeline.h"

/* Completes the reply, now or later. One at a time for each process, and for each user who is no administrator: a process can make its reader wait. */
void table_request_start(struct pipeline *pipeline, struct serve_reply *reply, pid_t pid);
