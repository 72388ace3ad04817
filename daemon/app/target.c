#include "app/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/pipeline.h"
#include "base/clock.h"
#include "collect/sampler.h"
#include "reconcile/reconcile.h"

static void free_target(struct target *target)
{
	if (target->exit_event)
		event_free(target->exit_event);
	target_watch_end(target);
	target_table_end(target);
	if (target->drop_timer)
		event_free(target->drop_timer);
	if (target->refresh_timer)
		event_free(target->refresh_timer);
	if (target->patience)
		event_free(target->patience);
	if (target->pidfd >= 0)
		close(target->pidfd);
	if (target->place.root_fd >= 0)
		close(target->place.root_fd);
	arming_close(target->arming);
	target_unwind_end(target);
	target_python_end(target);
	if (target->holds_slot) {
		target->pipeline->by_slot[target->slot] = NULL;
		sampler_slot_release(target->pipeline->sampler, target->slot);
	}
	if (target->before)
		target_unref(target->before);
	thread_clock_free(target->clock);
	retention_free(target->retention);
	address_space_free(&target->space);
	free(target);
}

struct target *target_new(struct pipeline *pipeline, const struct target_request *request)
{
	struct target *target = calloc(1, sizeof(*target));
	if (!target)
		return NULL;
	*target = (struct target){
		.pipeline = pipeline,
		.references = 1,
		.pid = request->pid,
		.pidfd = -1,
		.place = PROCESS_PLACE_UNKNOWN,
		.owner = request->requester,
		.ephemeral = request->ephemeral,
		.state = SPROF__CONTROL__TARGET_STATE__TARGET_ARMING,
		.event = request->event,
		.frequency_hz = request->frequency_hz,
		.clock = thread_clock_new(),
		.retention = retention_new((size_t)pipeline->settings->target_mib << 20),
		.attached_unix_ns = clock_realtime_ns(),
		.attached_ns = clock_monotonic_ns(),
		.periods_known = request->event != SPROF__CONTROL__EVENT__EVENT_CYCLES,
	};
	address_space_init(&target->space);
	if (!target->clock || !target->retention) {
		free_target(target);
		return NULL;
	}
	return target;
}

struct target *target_ref(struct target *target)
{
	target->references++;
	return target;
}

void target_unref(struct target *target)
{
	if (--target->references == 0)
		free_target(target);
}

/* Retained samples that were dropped for newer ones change from samples to a loss with that name. */
static void count_aged_out(struct target *target, uint64_t aged_out)
{
	target->outcomes[OUTCOME_SAMPLE] -= aged_out;
	target->outcomes[OUTCOME_AGED_OUT] += aged_out;
}

void target_record(struct target *target, const struct record *record, size_t bytes)
{
	struct sample sample;
	const struct maps *maps = address_space_at(&target->space, record);
	target->pipeline->room.codes = target->python.codes;
	enum outcome outcome = reconcile_record(record, bytes, maps, target->clock, &target->pipeline->room, &sample);
	if (outcome == OUTCOME_SAMPLE) {
		bool first = !target->space.seen, new_program, new_stack = false;
		uint64_t aged_out = 0;
		sample.maps_version = address_space_note(&target->space, record, &new_program);
		target_note_table(target, record, first && !target->space.wanted);
		if (address_space_is_timed(&target->space, sample.user, sample.n_user))
			sample.code_ns = sample.time_ns;
		/* An exec renames the process, also one of which no sample before it tells, and its leader may. */
		if (new_program || record->tid == record->pid)
			memcpy(target->process.comm, sample.comm, sizeof(sample.comm));
		if (retention_add(target->retention, &sample, &new_stack, &aged_out) < 0)
			outcome = OUTCOME_STORE_FULL;
		count_aged_out(target, aged_out);
		if (!target->pipeline->windows_full) /* else as where there is no room: their count tells */
			windows_add(&target->windows, &sample);
		if (new_stack)
			address_space_note_stack(&target->space, sample.maps_version, record->map_count, sample.user,
						 sample.n_user);
	}
	target->outcomes[outcome]++;
}

void target_count(struct target *target)
{
	struct target_counters counters;
	if (target->holds_slot && sampler_counters(target->pipeline->sampler, target->slot, &counters) == 0)
		target->counters = counters;
}

uint64_t target_records(const struct target *target)
{
	uint64_t read = 0;
	for (size_t i = 0; i < OUTCOME_COUNT; i++)
		read += target->outcomes[i];
	return read;
}

uint64_t target_in_flight(const struct target *target)
{
	uint64_t read = target_records(target);
	uint64_t captured = target->counters.outcomes[OUTCOME_CAPTURED];
	return captured > read ? captured - read : 0;
}
