/* The BPF side: loads the sampling program, gives out target slots, drains the ring buffer, reads the counters.
 * Thread: the event loop's alone, except where a function says any. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "bpf/python_config.h"
#include "bpf/record.h"
#include "bpf/table.h"

struct sampler;

struct sampler_options {
	size_t ring_bytes; /* a power of two, at least a page */
};

/* -EPERM, -ENOSYS, -ENOTSUP ... with a text that names the missing privilege or kernel feature and the remedy. */
int sampler_new(const struct sampler_options *options, struct sampler **ret, struct error *err);
void sampler_free(struct sampler *sampler);

/* The program that perf events of targets run. Any thread. */
int sampler_program_fd(const struct sampler *sampler);

/* The program's arrays of mapping lists and of unwind tables, for unwind_maps.h. Any thread. */
int sampler_lists_fd(const struct sampler *sampler);
int sampler_tables_fd(const struct sampler *sampler);

/* Becomes readable, edge-triggered alone (EPOLLET), when the ring buffer is a quarter full, and when a target's record tells of another
 * program or other mappings than its last (struct news). Otherwise nobody is woken: drain before looking at what has been sampled. */
int sampler_ring_fd(const struct sampler *sampler);

/* A slot for a new target with a serial of its own; its counters start at zero. -ENOSPC when all are taken. */
int sampler_slot_acquire(struct sampler *sampler, uint16_t *ret_slot, uint32_t *ret_serial, struct error *err);
/* After the target's events are closed. */
void sampler_slot_release(struct sampler *sampler, uint16_t slot);
/* From now on only events of this generation are accepted for the slot. */
void sampler_accept_generation(struct sampler *sampler, uint16_t slot, uint16_t generation);
/* No wake-ups for changed mappings of this slot before this moment (CLOCK_MONOTONIC), since nobody would look at them. */
void sampler_hush(struct sampler *sampler, uint16_t slot, uint64_t until_ns);
/* From now on the slot's threads are told apart by claims, since some may carry two events. Any thread. */
void sampler_check_claims(struct sampler *sampler, uint16_t slot);

/* What the slot's samples are told of the target's barrier-lock table from now on; NULL: it publishes none. Replaced in one piece: a walk sees the one or the
 * other. -errno of the kernel; then there is none. */
int sampler_set_table(struct sampler *sampler, uint16_t slot, const struct table_config *config);

/* What the slot's samples are told of the target's CPython from now on; NULL: it has none. -errno of the kernel; then it has none. */
int sampler_set_python(struct sampler *sampler, uint16_t slot, const struct python_config *config);
/* No wake-ups for new code objects of this slot before this moment (CLOCK_MONOTONIC), since nobody would read them. */
void sampler_hush_python(struct sampler *sampler, uint16_t slot, uint64_t until_ns);

/* Hands every record that is complete when it begins to `record`, in order, and of those that come meanwhile at most a ring buffer full. record->bytes is at least sizeof(struct record), at most `bytes`, which is what the
 * kernel delivered; nothing else is checked. Returns the number of records. */
typedef void (*sampler_record_fn)(void *context, const struct record *record, size_t bytes);
size_t sampler_drain(struct sampler *sampler, sampler_record_fn record, void *context);

struct sampler_ring {
	size_t bytes;
	size_t drained_bytes;      /* by the last drain: how full it was */
	size_t most_drained_bytes; /* by any drain */
};
void sampler_ring(const struct sampler *sampler, struct sampler_ring *ret);

/* The slot's counters, summed over CPUs, at one consistent moment: entries == the sum of outcomes, unless -EAGAIN: the target
 * was too busy for a consistent look within a fixed number of tries (*ret is then the last one). Any thread. */
int sampler_counters(struct sampler *sampler, uint16_t slot, struct target_counters *ret);

/* Frees the claims of threads that are gone, when more than half of the table is taken. Looks at /proc for each claim then. */
void sampler_sweep_claims(struct sampler *sampler);
