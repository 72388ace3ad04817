#include "app/report.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "collect/sampler.h"
#include "collect/unwind_maps.h"
#include "symbolize/symbolize.h"

static const struct {
	const char *name, *text;
} outcomes[OUTCOME_COUNT] = {
#define OUTCOME_ROW(NAME, name, where, text) {#name, text},
	OUTCOME_TABLE(OUTCOME_ROW)
#undef OUTCOME_ROW
};

static const struct {
	const char *name, *text;
	bool whole;
} stack_ends[STACK_END_COUNT] = {
#define STACK_END_ROW(NAME, name, whole, text) {#name, text, whole},
	STACK_END_TABLE(STACK_END_ROW)
#undef STACK_END_ROW
};

const char *report_outcome_name(enum outcome outcome)
{
	return outcomes[outcome].name;
}
const char *report_outcome_text(enum outcome outcome)
{
	return outcomes[outcome].text;
}

static const struct {
	const char *name, *text;
} python_ends[PYTHON_END_COUNT] = {
#define PYTHON_END_ROW(NAME, name, whole, text) {#name, text},
	PYTHON_END_TABLE(PYTHON_END_ROW)
#undef PYTHON_END_ROW
};

static void comment_stack_ends(const struct epoch_totals *sum, struct profile *profile)
{
	uint64_t whole = 0;
	for (enum stack_end end = 0; end < STACK_END_COUNT; end++)
		whole += stack_ends[end].whole ? sum->stack_ends[end] : 0;
	profile_comment(profile, "effective rate %.1f Hz of CPU time",
			(double)sum->samples * (double)NS_PER_S / (double)(sum->cpu_ns ? sum->cpu_ns : 1));
	profile_comment(profile, "stacks walked to their root: %.1f %% (%lu of %lu)",
			100.0 * (double)whole / (double)sum->samples, whole, sum->samples);
	for (enum stack_end end = 0; end < STACK_END_COUNT; end++)
		if (sum->stack_ends[end])
			profile_comment(profile, "stacks ended %s %lu: %s", stack_ends[end].name, sum->stack_ends[end],
					stack_ends[end].text);
}

static void comment_python_ends(const struct epoch_totals *sum, struct profile *profile)
{
	for (enum python_end end = 0; end < PYTHON_END_COUNT; end++)
		if (sum->python_ends[end])
			profile_comment(profile, "python frames %s %lu: %s", python_ends[end].name,
					sum->python_ends[end], python_ends[end].text);
}

void report_stacks(struct epoch *const *epochs, size_t n_epochs, bool has_python, uint64_t cut, struct profile *profile)
{
	struct epoch_totals sum = {0}, part;
	for (size_t i = 0; i < n_epochs; i++) {
		epoch_totals(epochs[i], &part);
		epoch_totals_add(&sum, &part);
	}
	if (sum.samples == 0)
		return;
	comment_stack_ends(&sum, profile);
	if (has_python)
		comment_python_ends(&sum, profile);
	if (cut)
		profile_comment(profile, "stacks cut %s %lu: %s", stack_ends[STACK_END_BAD_RETURN_ADDRESS].name, cut,
				stack_ends[STACK_END_BAD_RETURN_ADDRESS].text);
}

bool report_is_loss(enum outcome outcome)
{
	return outcome != OUTCOME_CAPTURED && outcome != OUTCOME_SAMPLE;
}

uint64_t report_loss(const struct target *target, enum outcome outcome)
{
	return target->counters.outcomes[outcome] + target->outcomes[outcome]; /* one of the two is always 0 */
}

struct counts {
	Sprof__Control__Count **list;
	size_t n;
};

/* Room for `most` counts in the arena. */
static bool counts_init(struct arena *arena, struct counts *counts, size_t most)
{
	*counts = (struct counts){.list = arena_alloc(arena, most * sizeof(counts->list[0]))};
	return counts->list;
}

static bool counts_add(struct arena *arena, struct counts *counts, const char *name, const char *text, uint64_t count)
{
	Sprof__Control__Count *message = arena_alloc(arena, sizeof(*message));
	if (!message)
		return false;
	sprof__control__count__init(message);
	message->name = (char *)name;
	message->text = (char *)text;
	message->count = count;
	counts->list[counts->n++] = message;
	return true;
}

static double effective_hz(const struct target *target, uint64_t cpu_ns)
{
	return cpu_ns ? (double)target->outcomes[OUTCOME_SAMPLE] * (double)NS_PER_S / (double)cpu_ns : 0;
}

static bool add_counts(struct arena *arena, const struct target *target, const struct epoch_totals *totals,
		       Sprof__Control__Target *message)
{
	struct counts losses, ends, python;
	if (!counts_init(arena, &losses, OUTCOME_COUNT) || !counts_init(arena, &ends, STACK_END_COUNT) ||
	    !counts_init(arena, &python, PYTHON_END_COUNT))
		return false;
	for (enum outcome outcome = 0; outcome < OUTCOME_COUNT; outcome++)
		if (report_is_loss(outcome) && report_loss(target, outcome) &&
		    !counts_add(arena, &losses, outcomes[outcome].name, outcomes[outcome].text,
				report_loss(target, outcome)))
			return false;
	for (enum stack_end end = 0; end < STACK_END_COUNT; end++)
		if (totals->stack_ends[end] &&
		    !counts_add(arena, &ends, stack_ends[end].name, stack_ends[end].text, totals->stack_ends[end]))
			return false;
	for (enum python_end end = 0; target->python.codes && end < PYTHON_END_COUNT; end++)
		if (totals->python_ends[end] &&
		    !counts_add(arena, &python, python_ends[end].name, python_ends[end].text, totals->python_ends[end]))
			return false;
	message->losses = losses.list;
	message->n_losses = losses.n;
	message->stack_ends = ends.list;
	message->n_stack_ends = ends.n;
	message->python_ends = python.list;
	message->n_python_ends = python.n;
	return true;
}

Sprof__Control__Target *report_target(struct arena *arena, const struct target *target)
{
	Sprof__Control__Target *message = arena_alloc(arena, sizeof(*message));
	struct epoch_totals totals;
	if (!message)
		return NULL;
	retention_totals(target->retention, &totals);
	sprof__control__target__init(message);
	message->pid = (uint32_t)target->pid;
	message->comm = arena_strndup(arena, target->process.comm, strlen(target->process.comm));
	message->state = target->state;
	message->event = target->event;
	message->frequency_hz = target->frequency_hz;
	message->threads = (uint32_t)target->threads;
	message->attached_unix_ns = target->attached_unix_ns;
	message->ended_unix_ns = target->ended_unix_ns;
	message->owner_uid = target->owner.uid;
	message->entries = target->counters.entries;
	message->samples = target->outcomes[OUTCOME_SAMPLE];
	message->in_flight = target_in_flight(target);
	if (target->periods_known) {
		message->not_delivered = (int64_t)(target->periods - target->periods_entries);
		message->late_periods = target->late_periods;
		message->not_delivered_ratio =
			target->periods ? (double)message->not_delivered / (double)target->periods : 0;
	}
	message->retained_bytes = totals.bytes;
	message->retained_since_unix_ns = totals.first_ns > target->attached_ns
						  ? target->attached_unix_ns + (totals.first_ns - target->attached_ns)
						  : target->attached_unix_ns;
	message->cpu_ns = totals.cpu_ns;
	message->effective_hz = effective_hz(target, totals.cpu_ns);
	message->note = arena_strndup(arena, target->note, strlen(target->note));
	return message->comm && message->note && add_counts(arena, target, &totals, message) ? message : NULL;
}

static int report_targets(struct arena *arena, struct pipeline *pipeline, const struct requester *requester,
			  Sprof__Control__Target ***ret, size_t *ret_n)
{
	Sprof__Control__Target **list = arena_alloc(arena, pipeline->n_targets * sizeof(*list));
	size_t n = 0;
	if (!list)
		return -1;
	pipeline_drain(pipeline);
	for (struct target *target = pipeline->targets; target; target = target->next) {
		if (!pipeline_may_touch(target, requester))
			continue;
		target_count(target);
		list[n] = report_target(arena, target);
		if (!list[n++])
			return -1;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

Sprof__Control__TargetList *report_list(struct arena *arena, struct pipeline *pipeline,
					const struct requester *requester)
{
	Sprof__Control__TargetList *message = arena_alloc(arena, sizeof(*message));
	if (!message)
		return NULL;
	sprof__control__target_list__init(message);
	return report_targets(arena, pipeline, requester, &message->targets, &message->n_targets) == 0 ? message : NULL;
}

static uint64_t rss_bytes(void)
{
	unsigned long size, resident = 0;
	_cleanup_fclose_ FILE *file = fopen("/proc/self/statm", "re");
	if (!file || fscanf(file, "%lu %lu", &size, &resident) != 2)
		return 0;
	return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Every reason, also those that never happened: a metric that appears only with the first loss cannot be watched. */
static bool add_all_losses(struct arena *arena, const struct pipeline *pipeline, Sprof__Control__Status *status)
{
	struct counts losses;
	if (!counts_init(arena, &losses, OUTCOME_COUNT))
		return false;
	for (enum outcome outcome = 0; outcome < OUTCOME_COUNT; outcome++) {
		uint64_t count = pipeline->past_losses[outcome];
		if (!report_is_loss(outcome))
			continue;
		for (const struct target *target = pipeline->targets; target; target = target->next)
			count += report_loss(target, outcome);
		if (outcome == OUTCOME_MALFORMED_RECORD)
			count += pipeline->stray_records;
		if (!counts_add(arena, &losses, outcomes[outcome].name, outcomes[outcome].text, count))
			return false;
	}
	status->losses = losses.list;
	status->n_losses = losses.n;
	return true;
}

static Sprof__Control__UnwindTables *report_unwind_tables(struct arena *arena, const struct pipeline *pipeline)
{
	Sprof__Control__UnwindTables *message = arena_alloc(arena, sizeof(*message));
	struct unwind_maps_figures figures;
	if (!message)
		return NULL;
	unwind_maps_figures(pipeline->unwind_maps, &figures);
	sprof__control__unwind_tables__init(message);
	message->budget_bytes = figures.budget_bytes;
	message->table_bytes = figures.table_bytes;
	message->list_bytes = figures.list_bytes;
	message->tables = figures.tables;
	message->lists = figures.lists;
	message->refused = figures.refused;
	message->kept_bytes = figures.kept_bytes;
	return message;
}

Sprof__Control__Status *report_status(struct arena *arena, struct pipeline *pipeline, const struct requester *requester)
{
	Sprof__Control__Status *status = arena_alloc(arena, sizeof(*status));
	struct sampler_ring ring;
	struct symbolize_status symbolize;
	struct utsname kernel = {0};
	if (!status)
		return NULL;
	sampler_ring(pipeline->sampler, &ring);
	symbolize_status(pipeline->symbolize, &symbolize);
	uname(&kernel);
	sprof__control__status__init(status);
	status->version = SPROF_VERSION;
	status->pid = (uint32_t)getpid();
	status->started_unix_ns = pipeline->started_unix_ns;
	status->kernel = arena_strndup(arena, kernel.release, strlen(kernel.release));
	status->ring_bytes = ring.bytes;
	status->ring_used_max_bytes = ring.most_drained_bytes;
	status->max_frequency_hz = pipeline_max_frequency();
	status->rss_bytes = rss_bytes();
	status->cpu_ns = clock_process_cpu_ns();
	status->files_held = file_registry_count(pipeline->files);
	status->reader_running = symbolize.reader_running;
	status->reader_restarts = symbolize.reader_restarts;
	status->perf_event_paranoid = (uint32_t)access_perf_event_paranoid();
	status->unwind_tables = report_unwind_tables(arena, pipeline);
	if (!status->kernel || !status->unwind_tables ||
	    report_targets(arena, pipeline, requester, &status->targets, &status->n_targets) < 0)
		return NULL;
	status->records_read = pipeline->records_read;
	return add_all_losses(arena, pipeline, status) ? status : NULL;
}
