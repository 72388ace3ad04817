/* Has the sampling program unwind by the tables of the files that a target maps: after each snapshot of its mappings that is different. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "app/pipeline.h"
#include "app/target.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "model/unwind_table.h"
#include "symbolize/symbolize.h"

enum { TABLE_SECONDS = 10 };

struct unwind_job {
	struct target *target; /* a reference */
	struct maps *maps;     /* a reference */
	bool incomplete;       /* some table could not be had now */
	int result;
};

static bool same_mapping(const struct mapping *a, const struct mapping *b)
{
	return a->start == b->start && a->end == b->end && a->file_offset == b->file_offset && a->kind == b->kind &&
	       a->file == b->file;
}

static bool same_maps(const struct maps *a, const struct maps *b)
{
	if (!a || a->n != b->n || a->program != b->program || a->exec_pages != b->exec_pages)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!same_mapping(&a->mappings[i], &b->mappings[i]))
			return false;
	return true;
}

/* --- on a worker thread --- */

static void load_table(const struct pipeline *pipeline, struct scratch *scratch, uint64_t file_id, struct file *file,
		       struct unwind_mapping *mapping)
{
	struct unwind_table table = {0};
	int r = symbolize_unwind_table(pipeline->symbolize, file_id, file ? file->fd : -1,
				       unwind_maps_room(pipeline->unwind_maps),
				       clock_monotonic_ns() + TABLE_SECONDS * NS_PER_S, scratch, &table);
	if (r == -EFBIG)
		unwind_maps_count_refused(pipeline->unwind_maps);
	if (r == 0)
		r = unwind_maps_load(pipeline->unwind_maps, file_id, file, table.bytes, table.n_bytes, &mapping->table);
	if (r == 0)
		mapping->kind = UNWIND_CODE_TABLE;
	else if (r == -EFBIG || r == -ENOSPC)
		mapping->kind = UNWIND_CODE_REFUSED;
	else if (r == -ENOEXEC)
		mapping->kind = UNWIND_CODE_JIT; /* shared memory with code in it */
	else if (r != -ENODATA && r != -EOPNOTSUPP)
		mapping->kind = UNWIND_CODE_PENDING;
}

/* Finds, or loads, the table of the file behind a mapping. */
static void find_table(const struct pipeline *pipeline, struct scratch *scratch, const struct mapping *from,
		       struct unwind_mapping *mapping)
{
	bool is_vdso = from->kind == MAPPING_VDSO;
	if (!is_vdso && (!from->file || from->file->fd < 0))
		return;
	uint64_t file_id = is_vdso ? SYMBOLIZE_VDSO_FILE_ID : from->file->id;
	mapping->table = unwind_maps_find(pipeline->unwind_maps, file_id);
	if (mapping->table)
		mapping->kind = UNWIND_CODE_TABLE;
	else
		load_table(pipeline, scratch, file_id, is_vdso ? NULL : from->file, mapping);
}

/* The same file is often mapped in neighbouring pieces. */
static const struct unwind_mapping *same_file(const struct maps *maps, const struct unwind_mapping *made, size_t i)
{
	return i > 0 && maps->mappings[i].file && maps->mappings[i - 1].file == maps->mappings[i].file ? &made[i - 1]
												       : NULL;
}

static void work_unwind(void *context)
{
	struct unwind_job *job = context;
	struct target *target = job->target;
	const struct maps *maps = job->maps;
	_cleanup_(scratch_release) struct scratch scratch = {}; /* one for all of its tables */
	_cleanup_free_ struct unwind_mapping *mappings = calloc(maps->n + 1, sizeof(*mappings));
	if (!mappings) {
		job->result = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *from = &maps->mappings[i];
		const struct unwind_mapping *same = same_file(maps, mappings, i);
		mappings[i] = (struct unwind_mapping){.start = from->start,
						      .end = from->end,
						      .file_offset = from->file_offset,
						      .kind = from->kind == MAPPING_ANONYMOUS ? UNWIND_CODE_JIT
											      : UNWIND_CODE_PLAIN};
		if (same) {
			mappings[i].kind = same->kind;
			mappings[i].table = loaded_table_ref(same->table);
		} else {
			find_table(target->pipeline, &scratch, from, &mappings[i]);
		}
		job->incomplete = job->incomplete || mappings[i].kind == UNWIND_CODE_PENDING;
	}
	job->result = unwind_maps_show(target->pipeline->unwind_maps, target->slot, maps->program, maps->exec_pages,
				       mappings, maps->n, &target->unwind.list);
	for (size_t i = 0; i < maps->n; i++)
		loaded_table_unref(mappings[i].table);
} /* _cleanup_ frees them. NOLINT(clang-analyzer-unix.Malloc) */

/* --- on the event loop --- */

static void start(struct target *target, struct maps *maps);

static void free_job(struct unwind_job *job)
{
	target_unref(job->target);
	maps_unref(job->maps);
	free(job);
}

static void done_unwind(void *context, bool worked)
{
	struct unwind_job *job = context;
	struct target_unwind *unwind = &job->target->unwind;
	if (worked && job->result == 0) {
		maps_unref(unwind->shown);
		unwind->shown = maps_ref(job->maps);
		unwind->incomplete = job->incomplete;
	} else if (worked) {
		log_debug("process %d: no unwind tables: %s", job->target->pid, strerror(-job->result));
	}
	unwind->busy = false;
	if (job->target->ending)
		target_unwind_end(job->target);
	else if (unwind->next && worked)
		start(job->target, TAKE_PTR(unwind->next));
	target_await_less(job->target);
	free_job(job);
}

/* Takes the reference of maps. */
static void start(struct target *target, struct maps *maps)
{
	struct unwind_job *job = calloc(1, sizeof(*job));
	if (!job) { /* the next snapshot tries again */
		maps_unref(maps);
		return;
	}
	*job = (struct unwind_job){.target = target_ref(target), .maps = maps};
	target->unwind.busy = true;
	if (jobs_submit(target->pipeline->makers, NULL, JOB_LAST, work_unwind, done_unwind, job) == 0)
		return;
	target->unwind.busy = false;
	free_job(job);
}

void target_unwind(struct target *target, struct maps *maps)
{
	struct target_unwind *unwind = &target->unwind;
	if (target->ending || !maps || !maps->program || (!unwind->busy && same_maps(unwind->shown, maps))) {
		maps_unref(maps);
		return;
	}
	if (!unwind->busy) {
		start(target, maps);
		return;
	}
	maps_unref(unwind->next);
	unwind->next = maps;
}

void target_unwind_retry(struct target *target)
{
	struct target_unwind *unwind = &target->unwind;
	if (unwind->incomplete && !unwind->busy && !target->ending)
		start(target, maps_ref(unwind->shown));
}

/* --- before the first sample --- */

/* Every process needs the vdso's, and having it made starts the reader. */
static void work_prepare(void *context)
{
	const struct pipeline *pipeline = context;
	const struct mapping vdso = {.kind = MAPPING_VDSO};
	struct unwind_mapping found = {.kind = UNWIND_CODE_PLAIN};
	_cleanup_(scratch_release) struct scratch scratch = {};
	find_table(pipeline, &scratch, &vdso, &found);
	loaded_table_unref(found.table);
}

static void done_prepare(void *context, bool worked)
{
	(void)context, (void)worked;
}

void target_unwind_prepare(struct pipeline *pipeline)
{
	(void)jobs_submit(pipeline->makers, NULL, JOB_LAST, work_prepare, done_prepare, pipeline);
}

/* --- tables that nobody needs any more --- */

static uint64_t keep_ns(const struct pipeline *pipeline)
{
	return pipeline->settings->exited_seconds * NS_PER_S;
}

static void work_expire(void *context)
{
	const struct pipeline *pipeline = context;
	unwind_maps_expire(pipeline->unwind_maps, clock_monotonic_ns() - keep_ns(pipeline));
}

static void expire_later(struct pipeline *pipeline);

static void done_expire(void *context, bool worked)
{
	struct pipeline *pipeline = context;
	struct unwind_maps_figures figures;
	unwind_maps_figures(pipeline->unwind_maps, &figures);
	if (worked && figures.kept_bytes)
		expire_later(pipeline);
}

static void on_expire(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct pipeline *pipeline = context;
	(void)jobs_submit(pipeline->makers, NULL, JOB_LAST, work_expire, done_expire, pipeline);
}

/* They are kept for as long as the profile of a process that has ended, should another one run the same program. */
static void expire_later(struct pipeline *pipeline)
{
	struct timeval wait = {.tv_sec = (time_t)(keep_ns(pipeline) / NS_PER_S) + 1};
	if (!pipeline->keep_timer)
		pipeline->keep_timer = event_new(pipeline->base, -1, 0, on_expire, pipeline);
	if (pipeline->keep_timer && !event_pending(pipeline->keep_timer, EV_TIMEOUT, NULL))
		event_add(pipeline->keep_timer, &wait);
}

/* --- the end --- */

struct leftover {
	struct unwind_maps *maps;
	struct unwind_list list;
};

static void work_leftover(void *context)
{
	struct leftover *leftover = context;
	unwind_list_release(leftover->maps, &leftover->list);
}

static void done_leftover(void *context, bool worked)
{
	if (!worked)
		work_leftover(context);
	free(context);
}

/* Letting tables go waits for the kernel. */
static void release_later(struct pipeline *pipeline, struct unwind_list *list)
{
	struct leftover *leftover = pipeline->makers && list->n_pages ? malloc(sizeof(*leftover)) : NULL;
	if (leftover) {
		*leftover = (struct leftover){.maps = pipeline->unwind_maps, .list = *list};
		if (jobs_submit(pipeline->makers, NULL, JOB_LAST, work_leftover, done_leftover, leftover) == 0) {
			*list = (struct unwind_list){.fd = -1};
			return;
		}
		free(leftover);
	}
	unwind_list_release(pipeline->unwind_maps, list);
}

void target_unwind_end(struct target *target)
{
	struct target_unwind *unwind = &target->unwind;
	if (unwind->busy || !target->pipeline->unwind_maps)
		return; /* when the job is done */
	maps_unref(TAKE_PTR(unwind->shown));
	maps_unref(TAKE_PTR(unwind->next));
	unwind->incomplete = false;
	unwind_maps_hide(target->pipeline->unwind_maps, target->slot, &unwind->list);
	release_later(target->pipeline, &unwind->list);
	if (target->pipeline->makers)
		expire_later(target->pipeline);
}
