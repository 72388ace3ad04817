#include "collect/table_config.h"

#include <stdbool.h>
#include <string.h>

/* Those by which walks go. MANAGED_TEXT, of which there may be much, is told by the mappings. */
static bool walk_needs(const struct sprof_range *range)
{
	return range->lo < range->hi && (range->kind == SPROF_RANGE_TRAMPOLINE || range->kind == SPROF_RANGE_SETS_SP ||
					 range->kind == SPROF_RANGE_STACK_TOP);
}

static void widen(struct table_config *config, uint64_t lo, uint64_t hi)
{
	if (lo < config->code_lo)
		config->code_lo = lo;
	if (hi > config->code_hi)
		config->code_hi = hi;
}

void table_config_fill(const struct barrier_table *table, uint64_t exec_id, struct table_config *ret)
{
	const struct sprof_header *header = &table->header;
	memset(ret, 0, sizeof(*ret)); /* padding too: two are compared as bytes */
	ret->self_va = header->self_va;
	ret->total_size = header->total_size;
	ret->exec_id = exec_id;
	ret->off_thread = header->off_thread;
	ret->off_stack = header->off_stack;
	ret->proc_starttime = header->proc_starttime;
	ret->thread_size = header->thread_size;
	ret->stack_size = header->stack_size;
	ret->cap_thread = header->cap_thread;
	ret->cap_stack = header->cap_stack;
	ret->flags = table->foreign_process ? TABLE_FOREIGN_PROCESS : 0;
	ret->ranges_version = table->ranges_version;
	ret->code_lo = UINT64_MAX;
	for (uint32_t i = 0; i < table->n_ranges && i < SPROF_MAX_RANGES; i++) {
		const struct sprof_range *range = &table->ranges[i];
		if (!walk_needs(range))
			continue;
		ret->ranges[ret->n_ranges++] = *range;
		widen(ret, range->lo, range->hi);
		uint64_t entry = range->lo + (uint64_t)(int64_t)range->entry_offset;
		if (range->kind == SPROF_RANGE_TRAMPOLINE && entry < UINT64_MAX)
			widen(ret, entry, entry + 1);
	}
}
