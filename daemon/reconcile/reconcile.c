#include "reconcile/reconcile.h"

#include <stdbool.h>
#include <string.h>

#include "reconcile/deep_stack.h"
#include "reconcile/python_frames.h"
#include "reconcile/segments.h"

static bool is_well_formed(const struct record *record, size_t bytes)
{
	/* The ring buffer rounds up to 8 bytes; sizes come from our own program, and are checked all the same. */
	size_t n_frames = (size_t)record->n_kernel + record->n_user;
	return record->n_kernel <= RECORD_MAX_KERNEL_FRAMES && record->n_user <= RECORD_MAX_USER_FRAMES &&
	       record->n_segments <= RECORD_MAX_SEGMENTS && record->n_barriers <= RECORD_LEAF_FRAMES &&
	       (record->n_segments > 0 || record->n_barriers == 0) &&
	       record->bytes == sizeof(*record) + n_frames * sizeof(record->frames[0]) +
					record->n_segments * sizeof(struct record_segment) +
					record->n_barriers * sizeof(__u64) +
					record->n_python * sizeof(struct record_python_frame) +
					record->n_python_runs * sizeof(struct record_python_run) &&
	       record->bytes <= bytes && record->user_end < STACK_END_COUNT && record->tid != 0 &&
	       record->n_python <= RECORD_MAX_PYTHON_FRAMES && record->n_python_runs <= RECORD_MAX_PYTHON_RUNS &&
	       record->python_end < PYTHON_END_COUNT && deep_stack_check(record);
}

enum outcome reconcile_record(const struct record *record, size_t bytes, const struct maps *maps,
			      struct thread_clock *clock, struct reconcile_room *room, struct sample *ret)
{
	struct segments_stack stack;
	if (bytes < sizeof(*record) || !is_well_formed(record, bytes) || python_frames_check(record) < 0 ||
	    segments_reconcile(record, maps, room->user, &stack) < 0)
		return OUTCOME_MALFORMED_RECORD;
	deep_stack_join(record, room->user, &stack);
	python_frames_merge(record, room->codes, room->user, &stack);
	uint64_t cpu_ns;
	struct thread_moment moment = {
		.tid = record->tid,
		.is_leader = record->tid == record->pid,
		.start_ns = record->thread_start_ns,
		.task = record->task,
		.runtime_ns = record->runtime_ns,
	};
	if (thread_clock_advance(clock, &moment, &cpu_ns) < 0)
		return OUTCOME_STORE_FULL;
	*ret = (struct sample){
		.time_ns = record->time_ns,
		.cpu_ns = cpu_ns,
		.tid = record->tid,
		.user_end = stack.end,
		.python_end = (enum python_end)record->python_end,
		.n_kernel = record->n_kernel,
		.n_user = stack.n,
		.kernel = (const uint64_t *)record->frames,
		.user = stack.user,
	};
	memcpy(ret->comm, record->comm, sizeof(ret->comm));
	ret->comm[sizeof(ret->comm) - 1] = '\0';
	return OUTCOME_SAMPLE;
}
