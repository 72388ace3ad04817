#include "collect/table_config.h"

#include <stdbool.h>
#include <string.h>

/* Those by which walks go. MANAGED_TEXT, of which there may be much, is told by the mappings. */
static bool walk_needs(const struct sprof_range *range)
{
	return range->lo < range->hi && (range->kind == SPROF_RANGE_TRAMPOLINE || range->kind == SPROF_RANGE_SETS_SP ||
					 range->kind == SPROF_RANGE_STACK_TOP);
}

static void widen(struct table_span *span, uint64_t lo, uint64_t hi)
{
	if (lo < span->lo)
		span->lo = lo;
	if (hi > span->hi)
		span->hi = hi;
}

static void add_range(struct table_config *config, const struct sprof_range *range)
{
	config->ranges[config->n_ranges++] = *range;
	widen(&config->code, range->lo, range->hi);
	if (range->kind == SPROF_RANGE_STACK_TOP)
		widen(&config->stack_tops, range->lo, range->hi);
	if (range->kind != SPROF_RANGE_TRAMPOLINE)
		return;
	widen(&config->trampolines, range->lo, range->hi);
	uint64_t entry = range->lo + (uint64_t)(int64_t)range->entry_offset;
	if (entry == UINT64_MAX)
		return;
	widen(&config->trampolines, entry, entry + 1);
	widen(&config->code, entry, entry + 1);
}

/* Those that are trampolines, or those that are not. */
static void add_ranges(struct table_config *config, const struct barrier_table *table, bool trampolines)
{
	for (uint32_t i = 0; i < table->n_ranges && i < SPROF_MAX_RANGES; i++) {
		const struct sprof_range *range = &table->ranges[i];
		if (walk_needs(range) && (range->kind == SPROF_RANGE_TRAMPOLINE) == trampolines)
			add_range(config, range);
	}
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
	ret->code.lo = ret->trampolines.lo = ret->stack_tops.lo = UINT64_MAX;
	add_ranges(ret, table, true); /* the first that are looked at when a barrier is met */
	add_ranges(ret, table, false);
}
