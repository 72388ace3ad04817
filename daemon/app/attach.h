/* Attaching processes: one attach serves everybody who asks for the same process at the same time. Event loop only. */
#pragma once
#include "app/pipeline.h"

/* Attaches, or joins what is attached already: a pull joins any, an attach one of the same rate and event (another is -EEXIST). done is
 * called in every case. */
void attach_process(struct pipeline *pipeline, const struct target_request *request, target_fn done, void *context);
