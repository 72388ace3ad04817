/* All stages, wired together: collect -> reconcile -> store -> symbolize -> pprof -> serve. Event loop only. */
#pragma once
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "app/access.h"
#include "app/settings.h"
#include "app/target.h"
#include "base/error.h"
#include "model/file.h"
#include "serve/serve.h"

struct sampler;
struct symbolize;

struct pipeline {
	const struct settings *settings;
	struct event_base *base;
	struct sampler *sampler;
	struct file_registry *files;
	struct symbolize *symbolize;
	struct jobs *control;  /* short work on the kernel */
	struct jobs *builders; /* profiles */
	struct serve *serve;
	struct access_policy policy;
	struct target *targets; /* one for each number at most */
	struct target *by_slot[MAX_TARGET_SLOTS];
	unsigned n_targets;
	struct attaching *attaching; /* those that are being attached, not in the table yet */
	unsigned n_pulls;
	bool ending; /* as soon as no pull is left */
	struct event *drain_timer, *ring_event, *supervise_timer;
	uint64_t records_read, stray_records;
	uint64_t past_losses[OUTCOME_COUNT]; /* of targets that were dropped */
	uint64_t past_entries, past_samples;
	uint64_t started_unix_ns;
	uint32_t max_frequency_hz; /* the kernel's limit */
};

int pipeline_new(struct event_base *base, const struct settings *settings, int listen_fd, gid_t group,
		 struct pipeline **ret, struct error *err);
void pipeline_free(struct pipeline *pipeline);

/* Reads all that is in the ring buffer. */
void pipeline_drain(struct pipeline *pipeline);
/* Runs or rests the drain timer, as there are targets to drain. */
void pipeline_update_timer(struct pipeline *pipeline);

/* The target in the table, or NULL. */
struct target *pipeline_find(struct pipeline *pipeline, pid_t pid);
/* A target has ended: its profile is kept for a while. */
void pipeline_target_ended(struct pipeline *pipeline, struct target *target);
/* Takes it out of the table and drops the table's reference. */
void pipeline_drop(struct pipeline *pipeline, struct target *target);

/* Looks the target up for this requester. NULL with err: -ESRCH unknown, or its number was reused; -EPERM not the requester's to touch. */
struct target *pipeline_target_for(struct pipeline *pipeline, pid_t pid, const struct requester *requester,
				   struct error *err);
bool pipeline_may_touch(const struct target *target, const struct requester *requester);
/* Attaches, or joins what is attached already: a pull joins any, an attach one of the same rate and event (another is -EEXIST). done is
 * called in every case. */
void pipeline_attach(struct pipeline *pipeline, const struct target_request *request, target_fn done, void *context);
/* A target that was attached for pulls only ends, and leaves nothing behind, when none is left. */
void pipeline_end_ephemeral(struct pipeline *pipeline, struct target *target);

/* Ends the event loop when the pulls that are under way have been answered with what there is, or after two seconds. */
void pipeline_end(struct pipeline *pipeline);
void pipeline_pull_ended(struct pipeline *pipeline);
