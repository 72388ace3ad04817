/* The table as a whole: whether there is one, its mapping, its header. */
#include "collect/table_judge.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "collect/table_judge_parts.h"

/* --- none, or not the one --- */

static bool is_the_table(const struct table_look *look, const struct look_mapping *mapping)
{
	return look->state == LOOK_VALID && mapping->start == look->table.start;
}

/* Mappings that look as if they should be the table. True if there was one that explains why none was found. */
static bool judge_other_mappings(const struct table_look *look, struct findings *findings)
{
	bool explained = false;
	for (size_t i = 0; i < look->n_mappings; i++) {
		const struct look_mapping *mapping = &look->mappings[i];
		char where[FINDING_WHERE_BYTES];
		snprintf(where, sizeof(where), "mapping 0x%" PRIx64, mapping->start);
		if (is_the_table(look, mapping) || (!mapping->has_magic && !mapping->has_name))
			continue;
		explained |= !mapping->is_named_as_table;
		if (mapping->is_named_as_table && look->state == LOOK_VALID)
			findings_add(findings, FINDING_OTHER_TABLE, 0, where,
				     "a further table's mapping: the valid one at the lowest address counts");
		else if (mapping->is_named_as_table)
			continue; /* the one that is judged */
		else if (mapping->has_name && !mapping->is_memory)
			findings_add(findings, FINDING_NO_MEMFD, 0, where, "has the name of a table, and is no memfd");
		else if (!mapping->shared)
			findings_add(findings, FINDING_PRIVATE_MEMORY, 0, where,
				     "%s in private memory, where no reader looks",
				     mapping->has_magic ? "a table" : "a mapping with the name of a table,");
		else if (mapping->has_magic || mapping->has_name)
			findings_add(findings, FINDING_WRONG_NAME, 0, where,
				     "a table that readers do not find: it is mapped from \"%s\"%s", mapping->name,
				     !mapping->has_name  ? ""
				     : mapping->readable ? ", not at offset 0"
							 : ", not readable");
	}
	return explained;
}

static void judge_absence(const struct table_look *look, struct findings *findings)
{
	bool explained = judge_other_mappings(look, findings);
	if (look->state == LOOK_INVALID)
		findings_add(findings, FINDING_INVALID, 0, "header", "%s", look->why.text);
	else if (look->state == LOOK_UNSETTLED)
		findings_add(findings, FINDING_UNSETTLED, 0, "header", "%s", look->why.text);
	else if (!explained)
		findings_add(findings, FINDING_NO_TABLE, 0, "process", "%s", look->why.text);
}

/* --- the mapping --- */

static void judge_memory(const struct table_look *look, struct findings *findings)
{
	const struct look_memory *memory = &look->memory;
	const unsigned all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	if (memory->seals_known && !(memory->seals & F_SEAL_SHRINK))
		findings_add(findings, FINDING_SHRINKABLE, 0, "mapping",
			     "the memfd is not sealed against shrinking (its seals are 0x%x)", memory->seals);
	else if (memory->seals_known && (memory->seals & all) != all)
		findings_add(findings, FINDING_UNSEALED, 0, "mapping", "the memfd lacks seals (it has 0x%x)",
			     memory->seals);
	if (memory->flags_known && !memory->locked)
		findings_add(findings, FINDING_NOT_LOCKED, 0, "mapping", "the table is not locked in memory%s",
			     look->table.header.flags & SPROF_HEADER_LOCKED ? ", although its flags say that it is"
									    : "");
	if (memory->flags_known && !memory->dont_fork)
		findings_add(findings, FINDING_INHERITED, 0, "mapping", "forked children inherit the mapping");
	if (memory->pages_known && memory->resident_pages < memory->pages)
		findings_add(findings, FINDING_NOT_RESIDENT, 0, "mapping",
			     "%" PRIu64 " of %" PRIu64 " pages are not resident",
			     memory->pages - memory->resident_pages, memory->pages);
}

/* --- the header --- */

static void judge_identity(const struct table_look *look, struct findings *findings)
{
	const struct sprof_header *header = &look->table.header;
	if (look->table.foreign_process)
		findings_add(findings, FINDING_FOREIGN_PROCESS, 0, "header",
			     "the table says that it is process %" PRIu32 "'s, begun at tick %" PRIu64
			     "; this one is %" PRIu32 ", begun at %" PRIu64
			     ": a vfork child, or it inherited the table by fork",
			     header->tgid, header->proc_starttime, look->process.tgid, look->process.start_ticks);
	if (header->proc_starttime == 0)
		findings_add(findings, FINDING_NO_STARTTIME, 0, "header", "proc_starttime is 0: not known");
	if (look->other_pid_namespace)
		findings_add(findings, FINDING_PID_NAMESPACE, 0, "process",
			     "it is in a pid namespace, in which its number is %" PRIu32, look->process.tgid);
	if (!look->process.shares_time)
		findings_add(findings, FINDING_TIME_NAMESPACE, 0, "process", "it is in another time namespace");
}

struct area {
	const char *name;
	uint64_t start, end, stride;
};

static int by_start(const void *a, const void *b)
{
	const struct area *one = a, *other = b;
	return one->start < other->start ? -1 : one->start > other->start;
}

static void judge_layout(const struct table_look *look, struct findings *findings)
{
	const struct sprof_header *h = &look->table.header;
	struct area areas[] = {
		{"the header", 0, h->hdr_size, 0},
		{"off_thread", h->off_thread, h->off_thread + (uint64_t)h->cap_thread * h->thread_size, h->thread_size},
		{"off_stack", h->off_stack, h->off_stack + (uint64_t)h->cap_stack * h->stack_size, h->stack_size},
		{"off_range", h->off_range, h->off_range + (uint64_t)h->cap_range * h->range_size, h->range_size},
	};
	enum { N = sizeof(areas) / sizeof(areas[0]) };
	for (size_t i = 1; i < N; i++)
		if (areas[i].start % (areas[i].stride == 0 ? 8 : areas[i].stride) != 0)
			findings_add(findings, FINDING_UNALIGNED, 0, areas[i].name,
				     "%" PRIu64 " is no multiple of the record size, %" PRIu64, areas[i].start,
				     areas[i].stride);
	qsort(areas, N, sizeof(areas[0]), by_start);
	for (size_t i = 1; i < N; i++)
		if (areas[i].start < areas[i - 1].end)
			findings_add(findings, FINDING_OVERLAPPING, 0, areas[i].name,
				     "the array begins at %" PRIu64 ", and %s ends at %" PRIu64, areas[i].start,
				     areas[i - 1].name, areas[i - 1].end);
}

static void judge_completeness(const struct table_look *look, struct findings *findings)
{
	if (look->threads_left_out)
		findings_add(findings, FINDING_LEFT_OUT, 0, "threads", "%" PRIu64 " more were not looked at",
			     look->threads_left_out);
	if (look->stacks_left_out)
		findings_add(findings, FINDING_LEFT_OUT, 0, "stacks", "%" PRIu64 " more were not looked at",
			     look->stacks_left_out);
}

void table_judge(const struct table_look *look, struct findings *findings)
{
	if (look->state != LOOK_VALID) {
		judge_absence(look, findings);
		return;
	}
	judge_other_mappings(look, findings);
	judge_memory(look, findings);
	judge_identity(look, findings);
	judge_layout(look, findings);
	judge_completeness(look, findings);
	judge_ranges(look, findings);
	/* Threads and stacks are those of the process that it belongs to; ours shares them (vfork), or has an old copy. */
	if (look->table.foreign_process)
		return;
	judge_threads(look, findings);
	judge_stacks(look, findings);
}
