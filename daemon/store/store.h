/* What is kept of a target: its samples, aggregated by (stack, thread), in epochs.
 *
 * An epoch is self-contained: interned stacks and their counts over a span of time. It is filled by the event loop, then frozen;
 * a frozen epoch never changes and is shared by reference with the threads that build profiles. Its memory is bounded by a
 * budget, its hash is seeded, since targets choose what goes in.
 *
 * A retention is a target's series of epochs: it drops the oldest when its budget is spent, and counts what left with it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/profile.h"
#include "model/sample.h"

struct epoch;

/* budget_bytes bounds all of its memory. NULL when out of memory. One reference. */
struct epoch *epoch_new(size_t budget_bytes);
struct epoch *epoch_ref(struct epoch *epoch);
void epoch_unref(struct epoch *epoch); /* NULL is fine */

/* Adds one sample. 0; -ENOMEM when the budget is spent or memory is out (the epoch is as before); -EINVAL for too many frames
 * (more than UINT16_MAX). *ret_new_stack (may be NULL) tells whether this stack, with this maps_version, is seen for the first
 * time. Event loop only, not after the epoch was shared. */
int epoch_add(struct epoch *epoch, const struct sample *sample, bool *ret_new_stack);

struct epoch_totals {
	uint64_t samples, cpu_ns, bytes;
	uint64_t first_ns, last_ns; /* CLOCK_MONOTONIC of the first and last sample; 0 when empty */
	uint64_t n_stacks;          /* distinct; of a retention the sum over its epochs, which may share some */
	uint64_t stack_ends[STACK_END_COUNT];
	uint64_t python_ends[PYTHON_END_COUNT];
	uint32_t
		oldest_maps_version; /* the smallest that any sample has: snapshots of older ones are no longer needed */
};
void epoch_totals(const struct epoch *epoch, struct epoch_totals *ret);
/* Adds those of another span of time; a sum begins with all zeros. */
void epoch_totals_add(struct epoch_totals *sum, const struct epoch_totals *part);

struct retention;
/* budget_bytes bounds what is retained (not what snapshots still hold of epochs that were dropped); at least 128 KiB are granted.
 * Nothing is allocated for samples before the first one. NULL when out of memory. Event loop only. */
struct retention *retention_new(size_t budget_bytes);
void retention_free(struct retention *retention);
/* As epoch_add, into the newest epoch; opens a new one, and drops the oldest (adding its samples to *aged_out), as needed.
 * -ENOMEM only when memory is out, or the stack alone would take more than half of an epoch's budget (at least 31 KiB). */
int retention_add(struct retention *retention, const struct sample *sample, bool *ret_new_stack, uint64_t *aged_out);
/* A consistent copy of what is retained, for a profile: *ret is a malloc'ed array of *ret_n references to epochs that will not
 * change (a small current epoch is copied, a large one frozen). -ENOMEM. */
int retention_snapshot(struct retention *retention, struct epoch ***ret, size_t *ret_n);
void retention_totals(const struct retention *retention, struct epoch_totals *ret);

/* How addresses of a maps_version are resolved. Versions without a snapshot give NULL. */
typedef struct maps *(*store_maps_fn)(void *context,
				      uint32_t maps_version); /* borrowed; the same for the same version */

/* Sets the place of each of n moments, which ascend by address, and of one address by time; no two are the same. Of one address, a place is that of all times
 * between two at which it is. Called several times when there are many. */
typedef void (*store_places_fn)(void *context, struct code_moment *moments, size_t n);

struct store_build_options {
	bool include_kernel; /* else kernel frames are left out (a sample of nothing but kernel frames keeps one frame "[kernel]",
	                          a location without address whose only line has that name) */
	store_maps_fn maps;
	void *maps_context;
	store_places_fn places; /* NULL: what code is at an address does not depend on the time */
	void *places_context;
	size_t budget_bytes; /* of the profile in memory */
};

/* Merges the epochs into a profile: samples by (stack, thread, comm made valid UTF-8), locations unique by (mapping, address, place), a mapping that stands
 * in several versions at the same place is one. mappings[0] is the main program's in the newest version that has a snapshot; of
 * the others, only those that some location uses. Addresses of the kernel lie in "[kernel.kallsyms]", the kernel's half.
 * A caller's address is return address - 1. The user part of a stack is cut before the first caller that lies in no
 * executable mapping (counted in *ret_cut, in samples): a frame pointer chain through code without frame pointers makes such.
 * Stacks of a version without a snapshot are not cut, their addresses have no mapping. A sample without any frame gets one
 * placeholder location, whose only line is named "[no stack]", so that its CPU time is not lost.
 * Addresses in nameless mappings (mapping_is_nameless) have a place when there is options->places: of when they were sampled, or UINT64_MAX where that was
 * not noted. Frames of CPython's (SAMPLE_FRAME_PYTHON) lie in a mapping of their own, "[python]", with the frame for address.
 * Fills no other lines, no build-ids, comments, time, duration, period, pid, cgroup. -ENOMEM when the budget is spent.
 * Thread: any; options->maps and places are called in it, and what maps returns must stay until the profile is built. */
int store_build_profile(struct epoch *const *epochs, size_t n_epochs, const struct store_build_options *options,
			struct profile **ret, uint64_t *ret_cut);
