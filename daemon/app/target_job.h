/* The jobs of a target: what target_events.c, target_watch.c and target_mappings.c share. */
#pragma once
#include "app/pipeline.h"
#include "app/target.h"

struct target_job {
	struct target *target; /* a reference */
	target_fn done;        /* may be NULL */
	void *context;
	void (*then)(struct target_job *job); /* on the event loop, after the work */
	struct error err;
	/* what the work finds, for the event loop */
	struct target_request request;
	int pidfd;
	struct process process;
	char cgroup[CGROUP_BYTES];
	struct process_place place;
	struct maps *maps;
	uint32_t version;
	uint64_t spent_ns; /* on reading the mappings */
	struct table_config *table;
	int table_result; /* of barrier_table_read */
	struct error table_err;
	uint64_t exec_id; /* of the program that was known to run when the job began; 0: not known */
	struct arming *arming;
	struct arming_baseline *baselines;
	size_t n_baselines, threads;
	uint64_t periods, periods_entries;
	struct target_counters counters;
	bool periods_known, counted, hung_up, rearm, look_again, ends, has_user;
	uid_t user;
	gid_t user_group;
	Sprof__Control__TargetState end_state;
};

/* A job that holds a reference to the target and knows its owner as of now. NULL when out of memory. */
struct target_job *target_job_new(struct target *target, target_fn done, void *context);
/* Calls back, lets go. */
void target_job_finish(struct target_job *job);
/* Tells done, if any, that there was no memory for a job. */
void target_job_missing(struct target *target, target_fn done, void *context);

/* Runs work on a worker thread, then `then` on the event loop; when that cannot be, finishes the job with an error. */
void target_job_submit(struct target_job *job, struct lane *lane, job_fn work, void (*then)(struct target_job *));
/* The second half of what the job does: before anything that was submitted meanwhile. */
void target_job_submit_next(struct target_job *job, struct lane *lane, job_fn work, void (*then)(struct target_job *));

/* Whether the requester may look into what the process runs now. Any thread. */
bool target_job_may_look(const struct requester *requester, pid_t pid);

/* The kernel's counts and the program's at one moment: work, and what the event loop then does with them. */
void target_job_count(struct target_job *job);
void target_job_take_counts(struct target_job *job);
/* A submitted job that does only that. */
void target_submit_count(struct target_job *job);

/* Looks for the barrier-lock table: work, and what the event loop then does with what was found. */
void target_job_read_table(struct target_job *job);
void target_job_take_table(struct target_job *job);
