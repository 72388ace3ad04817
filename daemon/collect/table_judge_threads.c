/* The records of threads. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "collect/table_judge_parts.h"

static const char *const ref_names[LOOK_REFS] = {"current", "user", "system", "foreign", "libcall"};

/* --- contexts --- */

static bool is_complete(const struct sprof_context *context)
{
	return context->pc && context->sp;
}

void judge_context(const struct table_look *look, struct findings *findings, const char *where, const char *name,
		   const struct sprof_context *context, const struct look_ref *ref)
{
	if (context->pc == 0 && context->sp == 0)
		return;
	if (context->pc == 0 || context->sp == 0) {
		findings_add(findings, FINDING_CONTEXT_HALF, 0, where, "%s has pc 0x%" PRIx64 " and sp 0x%" PRIx64,
			     name, context->pc, context->sp);
		return;
	}
	if (ref->state == LOOK_REF_NONE || ref->state == LOOK_REF_STALE)
		findings_add(findings, FINDING_CONTEXT_STACK, 0, where,
			     "%s is complete, and the stack that it is on is %s", name,
			     ref->state == LOOK_REF_NONE ? "none" : "gone");
	if (ref->state == LOOK_REF_STACK && (context->sp < ref->stack.lo || context->sp > ref->stack.hi))
		findings_add(findings, FINDING_CONTEXT_SP, 0, where,
			     "the sp of %s is 0x%" PRIx64 ", and stack %" PRIu32 " is 0x%" PRIx64 "-0x%" PRIx64, name,
			     context->sp, ref->ref.index, ref->stack.lo, ref->stack.hi);
	if (judge_is_trampoline(look, context->pc))
		findings_add(findings, FINDING_CONTEXT_TRAMPOLINE, 0, where,
			     "the pc of %s is 0x%" PRIx64 ", in a trampoline", name, context->pc);
	else if (!judge_is_code(look, context->pc))
		findings_add(findings, FINDING_CONTEXT_PC, 0, where,
			     "the pc of %s is 0x%" PRIx64 ", not executable memory", name, context->pc);
}

static void judge_contexts(const struct table_look *look, struct findings *findings, const char *where,
			   const struct look_thread *thread)
{
	const struct sprof_thread *record = &thread->record;
	judge_context(look, findings, where, "foreign_context", &record->foreign_context, &thread->refs[LOOK_FOREIGN]);
	judge_context(look, findings, where, "jump_context", &record->jump_context, &thread->refs[LOOK_USER]);
	judge_context(look, findings, where, "libcall_context", &record->libcall_context, &thread->refs[LOOK_LIBCALL]);
	if (record->foreign_depth == 0 && is_complete(&record->foreign_context))
		findings_add(findings, FINDING_CONTEXT_UNUSED, 0, where,
			     "foreign_context is complete, and foreign_depth is 0");
}

/* --- references and owners --- */

/* What foreign and libcall refer to matters only together with their contexts: writers leave the reference behind. */
static bool is_looked_at(const struct sprof_thread *record, int ref)
{
	if (ref == LOOK_FOREIGN)
		return record->foreign_depth > 0 && is_complete(&record->foreign_context);
	return ref != LOOK_LIBCALL || is_complete(&record->libcall_context);
}

static void judge_refs(struct findings *findings, const char *where, const struct look_thread *thread)
{
	for (int i = 0; i < LOOK_REFS; i++) {
		const struct look_ref *ref = &thread->refs[i];
		if (!is_looked_at(&thread->record, i))
			continue;
		if (ref->state == LOOK_REF_OUT_OF_RANGE)
			findings_add(findings, FINDING_REF_RANGE, 0, where, "%s refers to stack %" PRIu32 ", of fewer",
				     ref_names[i], ref->ref.index);
		else if (ref->state == LOOK_REF_STALE)
			findings_add(findings, FINDING_REF_STALE, 0, where,
				     "%s refers to generation %" PRIu32 " of stack %" PRIu32 ", which is at %" PRIu32,
				     ref_names[i], ref->ref.gen, ref->ref.index, ref->stack.self.gen);
		else if (ref->state == LOOK_REF_UNUSED)
			findings_add(findings, FINDING_REF_STALE, 0, where,
				     "%s refers to stack %" PRIu32 ", not in use", ref_names[i], ref->ref.index);
		else if (ref->state == LOOK_REF_STACK && ref->stack.owner_tid != thread->record.tid)
			findings_add(findings, FINDING_OWNER, 0, where,
				     "%s is stack %" PRIu32 ", whose owner_tid is %" PRIu32, ref_names[i],
				     ref->ref.index, ref->stack.owner_tid);
	}
}

/* --- identity --- */

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* Section 7: the difference to the process's start is compared, in which the offset of a time namespace cancels. */
static bool is_same_thread(const struct table_look *look, const struct sprof_thread *record,
			   const struct look_task *task)
{
	uint64_t of_process = look->table.header.proc_starttime;
	if (of_process == 0 || record->starttime == 0)
		return true;
	return distance(record->starttime - of_process + look->process.start_ticks, task->start_ticks) <= 1;
}

static void judge_identity(const struct table_look *look, struct findings *findings, const char *where,
			   const struct look_thread *thread)
{
	const struct look_task *task = table_look_task(look, thread->record.tid);
	if (!task && look->n_tasks < LOOK_MAX_TASKS)
		findings_add(findings, FINDING_THREAD_DEAD, 0, where,
			     "slot %" PRIu32 " is of a thread that is not there any more", thread->place);
	else if (task && thread->stable && !is_same_thread(look, &thread->record, task))
		findings_add(findings, FINDING_THREAD_REUSED, 0, where,
			     "its starttime is %" PRIu64 " (the process's %" PRIu64 "), and the thread of this number "
			     "began at %" PRIu64 " (the process at %" PRIu64 ")",
			     thread->record.starttime, look->table.header.proc_starttime, task->start_ticks,
			     look->process.start_ticks);
}

/* Which probe of its tid the place is; SPROF_THREAD_PROBES: none. */
static uint32_t probe_of(const struct table_look *look, const struct look_thread *thread)
{
	uint32_t i = 0, cap = look->table.header.cap_thread;
	while (i < SPROF_THREAD_PROBES && SPROF_THREAD_SLOT(thread->record.tid, i, cap) != thread->place)
		i++;
	return i;
}

static void judge_place(const struct table_look *look, struct findings *findings, const char *where,
			const struct look_thread *thread)
{
	uint32_t probe = probe_of(look, thread);
	uint32_t cap = look->table.header.cap_thread;
	if (probe == SPROF_THREAD_PROBES)
		findings_add(findings, FINDING_THREAD_PROBE, 0, where,
			     "it is in slot %" PRIu32 ", which is no probe of its tid: the first is %" PRIu64,
			     thread->place, (uint64_t)SPROF_THREAD_SLOT(thread->record.tid, 0, cap));
	else if (probe >= look->table.header.n_probe)
		findings_add(findings, FINDING_THREAD_BEYOND, 0, where,
			     "it is in slot %" PRIu32 ", at probe %" PRIu32 ", and n_probe is %" PRIu32, thread->place,
			     probe, look->table.header.n_probe);
}

/* --- all --- */

struct tid_place {
	uint32_t tid, place;
};

static int by_tid(const void *a, const void *b)
{
	const struct tid_place *one = a, *other = b;
	if (one->tid != other->tid)
		return one->tid < other->tid ? -1 : 1;
	return one->place < other->place ? -1 : one->place > other->place;
}

/* tids: sorted. */
static void judge_twins(const struct tid_place *tids, size_t n, struct findings *findings)
{
	for (size_t i = 1; i < n; i++) {
		char where[FINDING_WHERE_BYTES];
		if (tids[i].tid != tids[i - 1].tid)
			continue;
		snprintf(where, sizeof(where), "thread %" PRIu32, tids[i].tid);
		findings_add(findings, FINDING_THREAD_TWICE, 0, where, "it has slot %" PRIu32 " and slot %" PRIu32,
			     tids[i - 1].place, tids[i].place);
	}
}

/* Both tids and tasks are sorted. */
static void judge_missing(const struct table_look *look, const struct tid_place *tids, size_t n,
			  struct findings *findings)
{
	size_t missing = 0, at = 0;
	for (size_t i = 0; i < look->n_tasks; i++) {
		while (at < n && tids[at].tid < look->tasks[i].inner_tid)
			at++;
		missing += at == n || tids[at].tid != look->tasks[i].inner_tid;
	}
	if (missing && !look->threads_left_out)
		findings_add(findings, FINDING_THREADS_MISSING, 0, "threads", "%zu of %zu threads have no record",
			     missing, look->n_tasks);
}

static void judge_tids(const struct table_look *look, struct findings *findings)
{
	struct tid_place *tids = calloc(look->n_threads + 1, sizeof(*tids));
	if (!tids) {
		findings->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < look->n_threads; i++)
		tids[i] = (struct tid_place){look->threads[i].record.tid, look->threads[i].place};
	qsort(tids, look->n_threads, sizeof(*tids), by_tid);
	judge_twins(tids, look->n_threads, findings);
	judge_missing(look, tids, look->n_threads, findings);
	free(tids);
}

void judge_threads(const struct table_look *look, struct findings *findings)
{
	for (size_t i = 0; i < look->n_threads; i++) {
		const struct look_thread *thread = &look->threads[i];
		char where[FINDING_WHERE_BYTES];
		snprintf(where, sizeof(where), "thread %" PRIu32, thread->record.tid);
		judge_place(look, findings, where, thread);
		judge_identity(look, findings, where, thread);
		if (thread->record.seq & 1 && !thread->stable)
			findings_add(findings, FINDING_SEQ_ODD, thread->record.seq, where,
				     "its seq stays odd, at %" PRIu32, thread->record.seq);
		if (!thread->stable)
			continue;
		judge_refs(findings, where, thread);
		judge_contexts(look, findings, where, thread);
	}
	judge_tids(look, findings);
}
