/* The barrier-lock table of a process (docs/BARRIER-TABLE.md, sections 6 to 8): where it is, whether it is valid, whose it is, and its ranges.
 * The table belongs to an untrusted process: it is read through its file (collect/table_memory.h), never mapped, and each count and offset is bounded before use.
 * Thread: any; reading blocks on the kernel (the target's mmap lock), on nothing else that the process does: for worker threads. */
#pragma once
#include <sprof/barrier_abi.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct proc_maps_line;

struct barrier_table {
	/* Passed barrier_table_check. n_range is that of the ranges below; range_begin and range_end are both ranges_version; what a writer may change at
	 * any time (n_probe) is as it was read, within bounds. */
	struct sprof_header header;
	uint32_t n_ranges;
	struct sprof_range ranges
		[SPROF_MAX_RANGES]; /* by their place in the table, free ones (kind 0) among them; what they say is unchecked */
	uint64_t ranges_version; /* range_end, for as long as this copy holds */
	bool foreign_process; /* it says that it is another process's: this one is a vfork child, or inherited it by fork */
	uint64_t start, end; /* of the mapping; start is header.self_va */
	pid_t tid;           /* a thread by which the process's memory can be read: pid, unless its leader has ended */
};

/* Finds and reads the table of process pid: a memfd by its name and its device, whose header is valid. Of several the valid one at the lowest address counts; one that is the process's own goes before one that
 * is not. 0 (*ret may be of a foreign process: look);
 * -ENOENT: it publishes none;
 * -EAGAIN: one that is just being made, taken away or changed: try again later (a fixed number of tries has been made);
 * -EPROTO: one that is not valid; err says which field of it, what it is, what it should be, and what to do;
 * -ESRCH: the process is gone; -EPERM: it may not be looked into; other -errno of reading /proc. */
int barrier_table_read(pid_t pid, struct barrier_table *ret, struct error *err);

/* --- the parts of it --- */

/* Whether the mapping has the name and the form of a table's: shared, readable, at offset 0, "/memfd:SPROF_BLT (deleted)". */
bool barrier_table_is_mapping(const struct proc_maps_line *line);

/* Whether this header can be that of a table whose mapping begins at start and is `bytes` long; whose it is does not matter. Pure.
 * 0; -EPROTO with err; -EAGAIN with err: magic is 0. Once it is 0 every array lies inside the mapping, behind the header, and nothing overflows. */
int barrier_table_check(const struct sprof_header *header, uint64_t start, uint64_t bytes, struct error *err);

/* What a process is, to compare a header with. */
struct barrier_table_process {
	uint32_t tgid;        /* in its innermost pid namespace */
	uint64_t start_ticks; /* as our /proc shows it */
	bool shares_time;     /* with us: then start_ticks can be compared */
};
/* -ESRCH; other -errno of reading /proc. */
int barrier_table_process_read(pid_t pid, struct barrier_table_process *ret);
/* Whether the table says that it is this process's (section 7). Pure. */
bool barrier_table_belongs_to(const struct sprof_header *header, const struct barrier_table_process *process);
