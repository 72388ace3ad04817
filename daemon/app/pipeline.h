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
#include "reconcile/reconcile.h"
#include "serve/serve.h"

struct sampler;
struct symbolize;
struct unwind_maps;

struct pipeline {
	const struct settings *settings;
	struct event_base *base;
	struct sampler *sampler;
	struct file_registry *files;
	struct symbolize *symbolize;
	struct unwind_maps *unwind_maps;
	struct jobs *control;        /* short work on the kernel */
	struct jobs *builders;       /* profiles */
	struct jobs *makers;         /* of unwind tables: apart, since a file can take long */
	struct event *trim_timer;    /* when names of the kernel that no pull needs are let go */
	struct event *keep_timer;    /* when tables that nobody needs are let go */
	struct jobs *lookers;        /* at barrier-lock tables: apart, since a process can make its reader wait */
	struct jobs *python_readers; /* of CPython's state, one at a time for each target: the same */
	struct table_request *table_requests; /* that are under way */
	struct serve *serve;
	struct access_policy policy;
	struct target *targets; /* one for each number at most */
	struct target *by_slot[MAX_TARGET_SLOTS];
	unsigned n_targets;
	struct attaching *attaching; /* those that are being attached, not in the table yet */
	struct pull *pulls;
	unsigned n_pulls;
	bool windows_full; /* pulls that are under way hold as much memory as they may together */
	bool ending;       /* as soon as no pull is left */
	struct event *ring_event;
	struct event *drained_event; /* made active by each drain: what then is to be done */
	struct event *check_timer;
	uint64_t swept_ns;
	uint64_t records_read, stray_records;
	uint64_t past_losses[OUTCOME_COUNT]; /* of targets that were dropped */
	uint64_t past_entries, past_samples;
	uint64_t started_unix_ns;
	struct reconcile_room room; /* for the record at hand */
};

int pipeline_new(struct event_base *base, const struct settings *settings, int listen_fd, gid_t group,
		 struct pipeline **ret, struct error *err);
void pipeline_free(struct pipeline *pipeline);

/* Reads all that is in the ring buffer: before anybody is told what has been sampled, since else it is read only when it fills, when a
 * target's program or mappings have changed, and every few seconds. */
void pipeline_drain(struct pipeline *pipeline);
/* A profile was made: what that took, and no other needs for a while, is let go. */
void pipeline_trim_later(struct pipeline *pipeline);
/* Runs or rests the timer, as there are targets to look after. */
void pipeline_update_timer(struct pipeline *pipeline);

/* The target in the table, or NULL. */
struct target *pipeline_find(struct pipeline *pipeline, pid_t pid);
/* A target has ended: its profile is kept for a while. */
void pipeline_target_ended(struct pipeline *pipeline, struct target *target);
/* Puts it into the table, which takes a reference. Whoever had the number before makes way: for an ephemeral target of the same process until that
 * is dropped, else for good. */
void pipeline_enter(struct pipeline *pipeline, struct target *target);
/* An ephemeral target stays from now on. */
void pipeline_keep(struct target *target);
/* Takes it out of the table and drops the table's reference. */
void pipeline_drop(struct pipeline *pipeline, struct target *target);

/* Looks the target up for this requester. NULL with err: -ESRCH unknown, or its number was reused; -EPERM not the requester's to touch. */
struct target *pipeline_target_for(struct pipeline *pipeline, pid_t pid, const struct requester *requester,
				   struct error *err);
/* The kernel's limit, which it lowers when samples take long. */
uint32_t pipeline_max_frequency(void);
/* Whether the requester may have its profile. */
bool pipeline_may_touch(const struct target *target, const struct requester *requester);
/* Whether the requester may change its rate and detach it: who attached it, and administrators. */
bool pipeline_may_change(const struct target *target, const struct requester *requester);
/* A target that was attached for pulls only ends, and leaves nothing behind, when none is left. */
void pipeline_end_ephemeral(struct pipeline *pipeline, struct target *target);

/* Ends the event loop when the pulls that are under way have been answered with what there is, or after two seconds. */
void pipeline_end(struct pipeline *pipeline);
void pipeline_pull_ended(struct pipeline *pipeline);
