/* The barrier-lock table of a target: looked for when its mappings, its program or the table itself have changed, and told to the BPF program. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "app/target_job.h"
#include "base/clock.h"
#include "base/log.h"
#include "collect/sampler.h"
#include "collect/table_config.h"

enum {
	MIN_INTERVAL_MS = 20,
	MAX_INTERVAL_MS = 2000,
	REST = 9, /* times as long as a look took */
};

void target_note_table(struct target *target, const struct record *record, bool confirmed)
{
	struct target_table *table = &target->table;
	if (table->seen && record->map_count == table->map_count && record->exec_id == table->exec_id &&
	    !(record->flags & RECORD_TABLE_AGED))
		return;
	if (table->seen && record->exec_id != table->exec_id)
		table->next_ns = 0;       /* the new program's table is needed now */
	if (!confirmed || !table->absent) /* else the look at the attach still holds */
		table->wanted = true;
	table->seen = true;
	table->map_count = record->map_count;
	table->exec_id = record->exec_id;
}

void target_job_read_table(struct target_job *job)
{
	uint64_t begin_ns = clock_monotonic_ns();
	struct barrier_table *table = calloc(1, sizeof(*table));
	job->table = calloc(1, sizeof(*job->table));
	job->table_result = -ENOMEM;
	if (table && job->table)
		job->table_result = barrier_table_read(job->target->pid, table, &job->table_err);
	/* It may have executed a program by now that is no business of who attached it. */
	if (job->table_result == 0 && !target_job_may_look(&job->request.requester, job->target->pid))
		job->table_result = -EPERM;
	if (job->table_result == 0)
		table_config_fill(table, job->exec_id, job->table);
	free(table);
	job->spent_ns = clock_monotonic_ns() - begin_ns;
}

static void work_table(void *context)
{
	target_job_read_table(context);
}

static void tell_program(struct target *target, const struct table_config *config)
{
	struct target_table *table = &target->table;
	bool same =
		config ? table->published && memcmp(&table->config, config, sizeof(*config)) == 0 : !table->published;
	if (same)
		return;
	int r = sampler_set_table(target->pipeline->sampler, target->slot, config);
	table->published = config && r == 0;
	if (table->published) {
		table->config = *config;
		log_debug("process %d publishes a barrier-lock table at %llx", target->pid, config->self_va);
	}
	if (r < 0)
		log_warning("cannot tell the BPF program of process %d's barrier-lock table: %s", target->pid,
			    strerror(-r));
}

/* Not a word on the table, but that there was no memory or the like to look at it: what was known of it stays. */
static bool is_unknown(int result)
{
	return result < 0 && result != -ENOENT && result != -EPROTO && result != -EPERM && result != -ESRCH;
}

void target_job_take_table(struct target_job *job)
{
	struct target *target = job->target;
	struct target_table *table = &target->table;
	bool changed = false;
	if (is_unknown(job->table_result) || (table->seen && table->exec_id != job->exec_id)) {
		table->wanted = true;
	} else if (target->holds_slot && !process_has_exited(target->pidfd)) {
		changed = (job->table_result == 0) != table->published ||
			  (table->published && memcmp(&table->config, job->table, sizeof(table->config)) != 0);
		tell_program(target, job->table_result == 0 ? job->table : NULL);
	}
	table->absent = job->table_result == -ENOENT;
	if (job->table_result == -EPROTO && job->table_err.text[0])
		memcpy(table->problem, job->table_err.text, sizeof(table->problem));
	else
		table->problem[0] = '\0';
	/* A program that maps and unmaps all the time must not have its mappings read all the time. */
	table->interval_ns = changed ? MIN_INTERVAL_MS * NS_PER_MS : 2 * table->interval_ns;
	if (table->interval_ns < MIN_INTERVAL_MS * NS_PER_MS)
		table->interval_ns = MIN_INTERVAL_MS * NS_PER_MS;
	if (table->interval_ns > MAX_INTERVAL_MS * NS_PER_MS)
		table->interval_ns = MAX_INTERVAL_MS * NS_PER_MS;
	uint64_t rest_ns = REST * job->spent_ns;
	table->next_ns = clock_monotonic_ns() + (rest_ns > table->interval_ns ? rest_ns : table->interval_ns);
}

static void done_table(struct target_job *job)
{
	struct target *target = target_ref(job->target);
	pipeline_drain(target->pipeline); /* has it executed another program meanwhile? */
	target_job_take_table(job);
	target_job_finish(job);
	target_refresh_table(target); /* it may have changed again */
	target_unref(target);
}

/* Whatever came of it. */
static void looked(void *context, struct target *target, const struct error *err)
{
	(void)context;
	target->table.busy = false;
	target->table.wanted |= err != NULL;
}

static void refresh_table(struct target *target)
{
	struct target_table *table = &target->table;
	struct target_job *job = target_job_new(target, looked, NULL);
	if (!job)
		return;
	table->wanted = false;
	table->busy = true;
	job->exec_id = table->seen ? table->exec_id : 0;
	target_job_submit(job, &target->mappings, work_table, done_table);
}

static void on_time(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	target_refresh_table(context);
}

static void refresh_later(struct target *target, uint64_t wait_ns)
{
	struct target_table *table = &target->table;
	struct timeval wait = {.tv_sec = (time_t)(wait_ns / NS_PER_S),
			       .tv_usec = (suseconds_t)(wait_ns % NS_PER_S / 1000 + 1)};
	if (!table->timer)
		table->timer = event_new(target->pipeline->base, -1, 0, on_time, target);
	if (table->timer) /* else the next drain tries again */
		event_add(table->timer, &wait);
}

void target_refresh_table(struct target *target)
{
	struct target_table *table = &target->table;
	uint64_t now_ns = clock_monotonic_ns();
	if (target->state != SPROF__CONTROL__TARGET_STATE__TARGET_LIVE || target->ending || !table->wanted ||
	    table->busy)
		return;
	if (now_ns >= table->next_ns)
		refresh_table(target);
	else
		refresh_later(target, table->next_ns - now_ns);
}

void target_table_end(struct target *target)
{
	if (target->table.timer)
		event_free(target->table.timer);
	target->table.timer = NULL;
}
