/* One attached process: from attach to the moment its profile is let go.
 *
 * States: arming -> live -> exited or detached -> dropped. What blocks on the kernel runs as jobs: those that touch the perf events in the
 * target's `events` lane, one at a time and in order, reading its mappings in its `mappings` lane. Everything else, all of
 * this struct but `arming` included, belongs to the event loop.
 *
 * A target is reference-counted: the table of targets holds one, each job and each pull another. */
#pragma once
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "app/access.h"
#include "app/address_space.h"
#include "app/jobs.h"
#include "app/windows.h"
#include "base/error.h"
#include "bpf/record.h"
#include "bpf/table.h"
#include "collect/arming.h"
#include "collect/process.h"
#include "collect/process_place.h"
#include "collect/unwind_maps.h"
#include "control.pb-c.h"
#include "model/python_codes.h"
#include "store/store.h"

struct pipeline;
struct target;
struct target_job;
struct thread_clock;

enum { CGROUP_BYTES = 512 };

/* Its barrier-lock table, as the BPF program has been told. */
struct target_table {
	bool wanted;    /* is to be looked for */
	bool busy;      /* a job is looking */
	bool published; /* config is in force */
	bool absent;    /* the last look found none */
	bool seen;      /* the next two are of a record */
	uint32_t map_count;
	uint64_t exec_id;
	uint64_t next_ns, interval_ns; /* no look before this moment; between looks that find nothing new */
	struct event *timer;           /* for that moment */
	struct table_config config;
	char problem[ERROR_TEXT_BYTES]; /* why a table that it publishes is not used; empty: no such */
};

/* What the sampling program knows of the target's code. Event loop only; `list` is the job's while one runs. */
struct target_unwind {
	bool busy;               /* a job runs */
	struct unwind_list list; /* what is shown */
	struct maps *shown;      /* the snapshot of which it was made; NULL: none */
	struct maps *next;       /* of which one is to be made, when the job that runs is done */
	bool incomplete;         /* some table is still to come */
};

/* Its CPython. Event loop only. */
struct python_layout;
struct target_python {
	bool busy_finding, busy_reading; /* a job looks for it; a job reads code objects */
	bool read_some;                  /* the last look found code objects to be read */
	uint64_t program;                /* of which program it was found; 0: it was not */
	struct maps *maps;               /* the snapshot in which it is looked for; NULL: none */
	unsigned wait_ms;
	struct event *timer; /* to look again */
	const struct python_layout *layout;
	uint64_t code_type;
	struct python_codes *codes;    /* NULL: none were met */
	struct python_waiter *waiters; /* for what is read now */
};

struct target {
	struct target *next;
	struct pipeline *pipeline;
	unsigned references;

	pid_t pid;
	int pidfd;                /* -1 until attached */
	struct event *exit_event; /* on pidfd */
	struct process process;
	char cgroup[CGROUP_BYTES];
	struct process_place place; /* set by the attach, then constant; root_fd is ours */
	struct requester owner;     /* who attached it */
	bool ephemeral;             /* attached for the seconds of pulls only */
	struct target *
		before; /* of an ephemeral one: the same process's retained profile, which comes back after it; a reference */
	bool has_user; /* all that was sampled was wholly this user's own */
	uid_t user;
	gid_t user_group;

	Sprof__Control__TargetState state;
	Sprof__Control__Event event;
	uint32_t frequency_hz;
	uint16_t slot, generation;
	uint32_t serial;
	bool holds_slot, ending;
	struct lane events, mappings;
	struct target_unwind unwind;
	struct target_python python;
	struct target_job
		*starting; /* of its attach, while it waits for unwind tables and the interpreter; else NULL */
	void (*ready)(struct target *target); /* to be called when those are there, or when patience ends */
	struct event *patience;
	struct arming *arming; /* used in jobs of the events lane alone, as are the next two */
	uint64_t last_count, last_cpu_ns;
	struct event *watch_event; /* on the watch of `arming` */
	struct event *look_timer;  /* when to look after the events */
	uint64_t looked_ns;
	uint32_t look_delay_ms;
	bool hung_up; /* the watch told that the kernel has ended events */
	uint64_t checked_records, checked_cpu_ns;
	size_t threads;
	struct event *drop_timer;
	bool expired; /* its profile has been retained for as long as it should be */

	struct thread_clock *clock;
	struct address_space space;
	struct target_table table;
	struct event *refresh_timer; /* when its mappings may be read again */
	struct retention *retention;
	struct windows windows; /* of pulls of its next seconds */
	uint32_t n_pulls;

	uint64_t outcomes[OUTCOME_COUNT]; /* the daemon's own, for records it has read */
	struct target_counters counters;  /* the last consistent look; the final one after the end */
	uint64_t periods_before;          /* the kernel's count of earlier rates */
	/* the kernel's count now; at the same moment the entries, and how many periods passed while a timer was late */
	uint64_t periods, periods_entries, late_periods;
	bool periods_known;

	uint64_t attached_unix_ns, attached_ns, ended_unix_ns, ended_ns;
	char note[ERROR_TEXT_BYTES];
};

struct target_request {
	pid_t pid;
	Sprof__Control__Event event;
	uint32_t frequency_hz;
	struct requester requester;
	bool ephemeral; /* for pulls only: ends with the last of them */
};

/* Called once with err NULL when it worked. */
typedef void (*target_fn)(void *context, struct target *target, const struct error *err);

/* A new target with one reference, not in any table. NULL when out of memory. */
struct target *target_new(struct pipeline *pipeline, const struct target_request *request);
struct target *target_ref(struct target *target);
void target_unref(struct target *target);

/* Arms every thread, then calls done. On failure the target is dead: unref it. */
void target_attach(struct target *target, target_fn done, void *context);
/* Changes the frequency of a live target: nothing is lost or counted twice. */
void target_set_rate(struct target *target, uint32_t frequency_hz, target_fn done, void *context);
/* Ends sampling: state says why (exited, detached). done may be NULL. */
void target_end(struct target *target, Sprof__Control__TargetState state, target_fn done, void *context);

enum target_settling {
	SETTLE_COUNTS, /* the kernel's counts (periods) */
	SETTLE_ALL,    /* and the mappings */
};
/* Brings the target up to date, for at most two seconds, then calls done. */
void target_settle(struct target *target, enum target_settling what, target_fn done, void *context);
/* Its events are armed, or armed anew: looks after them from now on, until target_watch_end. The kernel ends those of a process that executes a
 * set-id or unreadable program: then it is armed again, or ends with a note when its requester may not look into what it is now. */
void target_watch_begin(struct target *target);
void target_watch_end(struct target *target);
/* Now and then, after a drain: notices that a process runs of which no sample comes, should the watch have missed why. */
void target_check(struct target *target);
/* After each drain: reads the mappings again when they have changed, at once or as soon as that is due; forgets threads that are gone. */
void target_refresh_mappings(struct target *target);
void target_forget_threads(struct target *target);

/* After each drain: looks for its barrier-lock table again when that is due, or sets a timer. */
void target_refresh_table(struct target *target);
void target_table_end(struct target *target);
/* What a record tells of the table. confirmed: it is the first one, and nothing was mapped since the attach. */
void target_note_table(struct target *target, const struct record *record, bool confirmed);

/* The target's code was found to be mapped like this: has the sampling program unwind by it. Takes the reference. */
void target_unwind(struct target *target, struct maps *maps);
/* A target is about to be attached: what its tables will be needed for is made ready, meanwhile. */
void target_unwind_prepare(struct pipeline *pipeline);
/* Now and then: tables that could not be had are asked for again. */
void target_unwind_retry(struct target *target);
/* Nothing is sampled any more: lets the tables go. Once or more. */
void target_unwind_end(struct target *target);

/* The same snapshot: looks for CPython in it. Takes the reference. */
void target_python(struct target *target, struct maps *maps);
/* After each drain: has the code objects read that were met in samples. */
void target_refresh_python(struct target *target);
/* Calls done when those that are being read have been, or at once. */
void target_python_settle(struct target *target, target_fn done, void *context);
void target_python_end(struct target *target);

/* Calls ready once the unwind tables are there and CPython has been looked for, or after wait_ms (less than a second) at the latest; at once when there
 * is nothing to wait for. */
void target_await(struct target *target, unsigned wait_ms, void (*ready)(struct target *target));
/* One of the two is done. */
void target_await_less(struct target *target);
/* Calls ready now, if it has not been. */
void target_hurry(struct target *target);

/* A record of this target. */
void target_record(struct target *target, const struct record *record, size_t bytes);
/* How many of its records have been read. */
uint64_t target_records(const struct target *target);
/* Refreshes counters when live. The ring buffer should have been drained right before. */
void target_count(struct target *target);
uint64_t target_in_flight(const struct target *target);
