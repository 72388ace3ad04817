/* A pull: from the request for a profile to its bytes. */
#pragma once
#include "app/pipeline.h"

/* Serves the request, now or when its seconds are over; attaches the process for that time if nobody has. Completes the reply. */
void pull_start(struct pipeline *pipeline, struct serve_reply *reply, const struct serve_pull *request);
