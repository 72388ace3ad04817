/* Ranges of code, and what code is. */
#include <inttypes.h>
#include <stdio.h>

#include "collect/table_judge_parts.h"

enum { MAX_CFA_OFFSET = 1 << 20 };

bool judge_is_code(const struct table_look *look, uint64_t pc)
{
	const struct look_mapping *mapping = table_look_mapping(look, pc);
	return mapping && mapping->executable;
}

bool judge_is_entry(const struct table_look *look, uint64_t pc)
{
	for (uint32_t i = 0; i < look->table.n_ranges; i++)
		if (look->table.ranges[i].kind == SPROF_RANGE_TRAMPOLINE && judge_entry(&look->table.ranges[i]) == pc)
			return true;
	return false;
}

bool judge_is_trampoline(const struct table_look *look, uint64_t pc)
{
	for (uint32_t i = 0; i < look->table.n_ranges; i++) {
		const struct sprof_range *range = &look->table.ranges[i];
		if (range->kind == SPROF_RANGE_TRAMPOLINE && pc >= range->lo && pc < range->hi)
			return true;
	}
	return judge_is_entry(look, pc);
}

static bool lies_in_trampoline(const struct table_look *look, uint64_t pc)
{
	for (uint32_t i = 0; i < look->table.n_ranges; i++) {
		const struct sprof_range *range = &look->table.ranges[i];
		if (range->kind == SPROF_RANGE_TRAMPOLINE && pc >= range->lo && pc < range->hi)
			return true;
	}
	return false;
}

static void judge_trampoline(const struct table_look *look, struct findings *findings, const char *where,
			     const struct sprof_range *range)
{
	uint64_t entry = judge_entry(range);
	if (!lies_in_trampoline(look, entry))
		findings_add(findings, FINDING_ENTRY_NOWHERE, 0, where,
			     "its entry 0x%" PRIx64 " (lo %+" PRId32 ") lies in no TRAMPOLINE range", entry,
			     range->entry_offset);
	if (range->cfa_register != SPROF_CFA_SP && range->cfa_register != SPROF_CFA_FP)
		findings_add(findings, FINDING_CFA_REGISTER, 0, where, "cfa_register is %u", range->cfa_register);
	if (range->cfa_offset % 8 != 0 || range->cfa_offset > MAX_CFA_OFFSET || range->cfa_offset < -MAX_CFA_OFFSET)
		findings_add(findings, FINDING_CFA_OFFSET, 0, where, "cfa_offset is %" PRId32, range->cfa_offset);
	else if (entry == range->lo && range->cfa_register == SPROF_CFA_SP && range->cfa_offset != 0)
		findings_add(findings, FINDING_CFA_AT_ENTRY, 0, where,
			     "it begins at the entry, with cfa_offset %" PRId32, range->cfa_offset);
	if (range->fp_offset % 8 != 0 || range->fp_offset > 0)
		findings_add(findings, FINDING_FP_OFFSET, 0, where, "fp_offset is %d", range->fp_offset);
}

static void judge_overlaps(const struct table_look *look, struct findings *findings, const char *where, uint32_t i)
{
	const struct sprof_range *range = &look->table.ranges[i];
	for (uint32_t other = 0; other < i; other++) {
		const struct sprof_range *before = &look->table.ranges[other];
		if (before->kind == range->kind && range->kind == SPROF_RANGE_TRAMPOLINE && range->lo < before->hi &&
		    before->lo < range->hi)
			findings_add(findings, FINDING_RANGES_OVERLAP, 0, where,
				     "it overlaps range %" PRIu32 " (0x%" PRIx64 "-0x%" PRIx64 "): both are TRAMPOLINE",
				     other, before->lo, before->hi);
	}
}

/* The first and the last byte: a range may go over several mappings of one file. */
static bool is_executable(const struct table_look *look, const struct sprof_range *range)
{
	return judge_is_code(look, range->lo) && judge_is_code(look, range->hi - 1);
}

void judge_ranges(const struct table_look *look, struct findings *findings)
{
	for (uint32_t i = 0; i < look->table.n_ranges; i++) {
		const struct sprof_range *range = &look->table.ranges[i];
		char where[FINDING_WHERE_BYTES];
		if (range->kind == SPROF_RANGE_NONE)
			continue;
		snprintf(where, sizeof(where), "range %" PRIu32, i);
		if (range->kind > SPROF_RANGE_MANAGED_TEXT) {
			findings_add(findings, FINDING_RANGE_KIND, 0, where, "its kind is %" PRIu32, range->kind);
			continue;
		}
		if (range->lo >= range->hi) {
			findings_add(findings, FINDING_RANGE_EMPTY, 0, where,
				     "lo 0x%" PRIx64 " is not below hi 0x%" PRIx64, range->lo, range->hi);
			continue;
		}
		if (!is_executable(look, range))
			findings_add(findings, FINDING_RANGE_NOT_CODE, look->table.ranges_version, where,
				     "0x%" PRIx64 "-0x%" PRIx64 " is not all executable memory", range->lo, range->hi);
		if (range->kind == SPROF_RANGE_TRAMPOLINE) {
			judge_trampoline(look, findings, where, range);
			judge_overlaps(look, findings, where, i);
		}
	}
}
