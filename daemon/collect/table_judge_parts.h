/* What the files behind table_judge.h share. */
#pragma once
#include "collect/table_judge.h"

void judge_ranges(const struct table_look *look, struct findings *findings);
void judge_threads(const struct table_look *look, struct findings *findings);
void judge_stacks(const struct table_look *look, struct findings *findings);

/* A context of the record at `where` that points into the stack of ref. */
void judge_context(const struct table_look *look, struct findings *findings, const char *where, const char *name,
		   const struct sprof_context *context, const struct look_ref *ref);

/* Whether the address is in executable memory. */
bool judge_is_code(const struct table_look *look, uint64_t pc);
/* Whether the address lies in a TRAMPOLINE range, or is the entry of one. */
bool judge_is_trampoline(const struct table_look *look, uint64_t pc);
bool judge_is_entry(const struct table_look *look, uint64_t pc);
static inline uint64_t judge_entry(const struct sprof_range *range)
{
	return range->lo + (uint64_t)(int64_t)range->entry_offset;
}
