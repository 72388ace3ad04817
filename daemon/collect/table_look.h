/* One look at all that a process publishes in its barrier-lock table, and at what surrounds it, for the tool with which a writer is debugged
 * (`sprofctl table`). The process goes on meanwhile: each record is copied in one piece, under its version, or said not to be. What is kept is
 * bounded, whatever the table says. Nothing is judged here: see table_judge.h.
 * Thread: one at a time; blocks on the kernel: for worker threads. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collect/barrier_table.h"

enum {
	LOOK_MAX_THREADS = 16384, /* records in use; more are counted */
	LOOK_MAX_STACKS = 16384,
	LOOK_MAX_BARRIERS = 131072, /* of all stacks together */
	LOOK_MAX_MAPPINGS = 65536,
	LOOK_MAX_TASKS = 16384,
	LOOK_NAME_BYTES = 64,
};

/* Why there is a table to look at, or none. */
enum look_state {
	LOOK_VALID,
	LOOK_NONE,      /* none is published */
	LOOK_UNSETTLED, /* being made, taken away, or its ranges stay locked */
	LOOK_INVALID,
};

struct look_mapping {
	uint64_t start, end;
	bool readable, executable, shared;
	bool is_memory;         /* anonymous, or a memfd: reading it cannot wait for a file system */
	bool is_named_as_table; /* "/memfd:SPROF_BLT (deleted)" at offset 0 */
	bool has_name;          /* of a table, whatever else it is */
	bool has_magic;         /* its first word is a table's magic; not looked at where the name says as much */
	char name[LOOK_NAME_BYTES];
};

struct look_task {
	pid_t tid;
	uint32_t inner_tid;
	uint64_t start_ticks;
	char comm[LOOK_NAME_BYTES];
};

enum { LOOK_CURRENT, LOOK_USER, LOOK_SYSTEM, LOOK_FOREIGN, LOOK_LIBCALL, LOOK_REFS };
enum look_ref_state {
	LOOK_REF_NONE,
	LOOK_REF_OUT_OF_RANGE,
	LOOK_REF_STALE,
	LOOK_REF_UNUSED,
	LOOK_REF_STACK,
	LOOK_REF_BUSY
};

struct look_ref {
	struct sprof_ref ref;
	enum look_ref_state state; /* BUSY: its stack's lock was held, so nothing is known of it */
	struct sprof_stack stack;  /* STALE, UNUSED and STACK: as it was at the very moment of the thread's record */
};

struct look_thread {
	uint32_t place;
	struct sprof_thread record;
	struct look_ref refs[LOOK_REFS];
	bool stable; /* record and refs are of one moment; false: seq was odd, or changed, each time */
};

enum look_lock { LOOK_FREE, LOOK_HELD, LOOK_CHANGING };

struct look_stack {
	uint32_t index;
	enum look_lock lock; /* not FREE: the rest is for show only */
	uint64_t version;    /* seq_begin */
	struct sprof_stack record;
	uint64_t pos;           /* as read after everything else; barriers from here on were installed all the while */
	size_t first_barrier;   /* barriers[first_barrier] is number record.pos */
	uint32_t n_barriers;    /* that were copied */
	bool barriers_left_out; /* there was no room, or the array does not lie in the table */
	struct look_ref resumer;
};

struct look_barrier {
	struct sprof_barrier barrier;
	uint64_t word; /* what stands in the slot */
	bool word_read;
};

struct look_memory { /* of the table's mapping, as the kernel has it */
	bool seals_known, flags_known, pages_known;
	unsigned seals; /* F_SEAL_* */
	bool locked, dont_fork;
	uint64_t pages, resident_pages;
};

struct table_look {
	enum look_state state;
	struct error why; /* unless VALID */
	struct barrier_table table;
	int table_fd; /* reads it, of a VALID one; -1 once table_look_take is done */
	struct barrier_table_process process;
	bool other_pid_namespace;
	struct look_memory memory;
	struct look_mapping *mappings; /* by address, not overlapping */
	size_t n_mappings;
	struct look_task *tasks; /* by inner_tid */
	size_t n_tasks;
	struct look_thread *threads; /* by place */
	size_t n_threads;
	struct look_stack *stacks; /* by index */
	size_t n_stacks;
	struct look_barrier *barriers;
	size_t n_barriers;
	uint64_t threads_left_out, stacks_left_out;
};

/* 0, with *ret filled also when there is no valid table (state says so; nothing but why, mappings and tasks is there then); -ESRCH; -EPERM; -ENOMEM; other
 * -errno of reading /proc. Release with table_look_free. */
int table_look_take(pid_t pid, struct table_look *ret, struct error *err);
void table_look_free(struct table_look *look);

/* The mapping that holds the address, or NULL. */
const struct look_mapping *table_look_mapping(const struct table_look *look, uint64_t address);
/* The task with this number in its innermost namespace, or NULL. */
const struct look_task *table_look_task(const struct table_look *look, uint32_t inner_tid);
