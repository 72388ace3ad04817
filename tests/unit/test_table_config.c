#include <check.h>
#include <string.h>

#include "check_main.h"
#include "collect/table_config.h"

static struct barrier_table table;
static struct table_config config;

static void add(uint32_t kind, uint64_t lo, uint64_t hi, int32_t entry_offset)
{
	struct sprof_range *range = &table.ranges[table.n_ranges++];
	memset(range, 0, sizeof(*range));
	range->kind = (__typeof__(range->kind))kind;
	range->lo = lo;
	range->hi = hi;
	range->entry_offset = entry_offset;
}

static void check_span(struct table_span span, uint64_t lo, uint64_t hi)
{
	ck_assert_uint_eq(span.lo, lo);
	ck_assert_uint_eq(span.hi, hi);
}

START_TEST(trampolines_come_first_and_each_kind_has_its_span)
{
	memset(&table, 0, sizeof(table));
	add(SPROF_RANGE_SETS_SP, 0x1000, 0x1100, 0);
	add(SPROF_RANGE_TRAMPOLINE, 0x5000, 0x5100, 0x40);
	add(SPROF_RANGE_MANAGED_TEXT, 0x10, 0x900000, 0); /* which walks do without */
	add(SPROF_RANGE_STACK_TOP, 0x3000, 0x3010, 0);
	add(SPROF_RANGE_TRAMPOLINE, 0x4000, 0x4100, -0x20); /* entered from below */
	add(SPROF_RANGE_STACK_TOP, 0x9000, 0x8000, 0);      /* empty */
	table_config_fill(&table, 7, &config);
	ck_assert_uint_eq(config.exec_id, 7);
	ck_assert_uint_eq(config.n_ranges, 4);
	const uint64_t los[] = {0x5000, 0x4000, 0x1000, 0x3000};
	for (size_t i = 0; i < 4; i++)
		ck_assert_uint_eq(config.ranges[i].lo, los[i]);
	check_span(config.trampolines, 0x3fe0, 0x5100);
	check_span(config.stack_tops, 0x3000, 0x3010);
	check_span(config.code, 0x1000, 0x5100);
}
END_TEST

START_TEST(without_ranges_nothing_is_in_a_span)
{
	memset(&table, 0, sizeof(table));
	table_config_fill(&table, 0, &config);
	ck_assert_uint_eq(config.n_ranges, 0);
	ck_assert_uint_gt(config.code.lo, config.code.hi);
	ck_assert_uint_gt(config.trampolines.lo, config.trampolines.hi);
	ck_assert_uint_gt(config.stack_tops.lo, config.stack_tops.hi);
}
END_TEST

CHECK_MAIN("table_config", 4, trampolines_come_first_and_each_kind_has_its_span, without_ranges_nothing_is_in_a_span)
