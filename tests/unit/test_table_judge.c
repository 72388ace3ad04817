/* What the judge says of looks that no process gives reliably, and what it must not say. Each defect of a real table is in
 * tests/system/test_table_tool.py. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "collect/table_judge.h"

enum { CODE = 0x400000, CODE_END = 0x410000, MEMORY = 0x700000, MEMORY_END = 0x800000, ENTRY = 0x401000, TID = 77 };

/* A process with one thread on one stack, all of it right. */
struct world {
	struct table_look look;
	struct look_mapping mappings[3];
	struct look_task task;
	struct look_thread thread;
	struct look_stack stacks[2];
	struct look_barrier barriers[2];
};

static struct look_ref ref_to(const struct look_stack *stack)
{
	return (struct look_ref){.ref = stack->record.self, .state = LOOK_REF_STACK, .stack = stack->record};
}

static void make_stack(struct look_stack *stack, uint32_t index, uint64_t lo)
{
	stack->index = index;
	stack->version = 6;
	stack->record = (struct sprof_stack){.seq_begin = 6,
					     .seq_end = 6,
					     .lo = lo,
					     .hi = lo + 0x10000,
					     .off_barrier = 16384 + index * 256,
					     .cap = 16,
					     .self = {index, 1},
					     .owner_tid = TID,
					     .resumer = {.index = SPROF_INDEX_NONE}};
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	w->mappings[0] = (struct look_mapping){.start = CODE, .end = CODE_END, .readable = true, .executable = true};
	w->mappings[1] = (struct look_mapping){.start = MEMORY, .end = MEMORY_END, .readable = true, .is_memory = true};
	w->task = (struct look_task){.tid = TID, .inner_tid = TID, .start_ticks = 1010};
	make_stack(&w->stacks[0], 0, MEMORY);
	make_stack(&w->stacks[1], 1, MEMORY + 0x10000);
	w->thread = (struct look_thread){
		.place = TID % 64, .record = {.tid = TID, .seq = 2, .starttime = 1010}, .stable = true};
	w->thread.refs[LOOK_CURRENT] = w->thread.refs[LOOK_USER] = ref_to(&w->stacks[0]);
	w->thread.refs[LOOK_SYSTEM] = ref_to(&w->stacks[1]);
	for (unsigned i = 0; i < 2; i++)
		w->barriers[i] = (struct look_barrier){{MEMORY + 0x100 + 64 * i, CODE + 5}, ENTRY, true};
	w->stacks[0].record.n = w->stacks[0].n_barriers = 2;
	struct table_look *look = &w->look;
	look->state = LOOK_VALID;
	look->process = (struct barrier_table_process){.tgid = TID, .start_ticks = 1000, .shares_time = true};
	look->memory = (struct look_memory){.pages_known = true, .pages = 8, .resident_pages = 8};
	look->table.header = (struct sprof_header){.hdr_size = 128,
						   .thread_size = 256,
						   .stack_size = 128,
						   .barrier_size = 16,
						   .range_size = 32,
						   .total_size = 32768,
						   .proc_starttime = 1000,
						   .tgid = TID,
						   .off_thread = 4096,
						   .off_stack = 4096 + 16 * 256,
						   .off_range = 128,
						   .cap_thread = 16,
						   .cap_stack = 16,
						   .cap_range = 64,
						   .n_probe = 1};
	w->thread.place = TID % 16;
	look->table.n_ranges = 1;
	look->table.ranges[0] = (struct sprof_range){.lo = ENTRY, .hi = ENTRY + 64, .kind = SPROF_RANGE_TRAMPOLINE};
	look->mappings = w->mappings, look->n_mappings = 2;
	look->tasks = &w->task, look->n_tasks = 1;
	look->threads = &w->thread, look->n_threads = 1;
	look->stacks = w->stacks, look->n_stacks = 2;
	look->barriers = w->barriers, look->n_barriers = 2;
	return w;
}

static struct findings judged(const struct world *w)
{
	struct findings findings = {0};
	table_judge(&w->look, &findings);
	return findings;
}

/* The findings, as "CODE where; CODE where", of this look. */
static const char *said(const struct world *w)
{
	static char text[2000];
	struct findings findings = judged(w);
	size_t n = 0;
	text[0] = '\0';
	for (size_t i = 0; i < findings.n && n < sizeof(text); i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s %s", i ? "; " : "",
				      finding_info(findings.list[i].code)->name, findings.list[i].where);
	findings_free(&findings);
	return text;
}

START_TEST(a_world_that_is_right)
{
	struct world *w = world_new();
	ck_assert_str_eq(said(w), "");
	free(w);
}
END_TEST

START_TEST(what_changes_is_not_judged)
{
	struct world *w = world_new();
	w->thread.stable = false;
	w->thread.record.foreign_context = (struct sprof_context){1, 1, 1};
	w->thread.refs[LOOK_USER] = (struct look_ref){.ref = {99, 9}, .state = LOOK_REF_OUT_OF_RANGE};
	ck_assert_str_eq(said(w), "");
	w->stacks[0].lock = LOOK_CHANGING;
	w->stacks[0].record.lo = w->stacks[0].record.hi = 5;
	w->barriers[0].word = 1;
	ck_assert_str_eq(said(w), "STACK_RESTLESS stack 0");
	w->stacks[0].lock = LOOK_HELD;
	ck_assert_str_eq(said(w), "LOCK_HELD stack 0");
	free(w);
}
END_TEST

START_TEST(a_stack_whose_lock_was_held_says_nothing_of_its_thread)
{
	struct world *w = world_new();
	w->thread.refs[LOOK_USER].state = LOOK_REF_BUSY;
	w->thread.refs[LOOK_USER].stack = (struct sprof_stack){.owner_tid = 5};
	w->thread.record.jump_context = (struct sprof_context){CODE + 5, 5, 0};
	ck_assert_str_eq(said(w), "");
	free(w);
}
END_TEST

START_TEST(barriers_that_were_returned_through_meanwhile)
{
	struct world *w = world_new();
	w->barriers[0] = (struct look_barrier){{0, 0}, 0, false};
	w->stacks[0].pos = 1;
	ck_assert_str_eq(said(w), "");
	w->stacks[0].pos = 0;
	ck_assert_str_eq(said(w), "SLOT_OUTSIDE stack 0 barrier 0");
	free(w);
}
END_TEST

/* The slot of the next return may be overwritten by the trampoline right now: only the same pos and version in two looks tell. */
START_TEST(a_slot_that_is_being_left)
{
	struct world *w = world_new();
	struct findings first, second, joined;
	w->barriers[1].word = 5;
	w->stacks[0].pos = 1;
	first = judged(w);
	ck_assert_uint_eq(first.n, 1);
	w->stacks[0].version = w->stacks[0].record.seq_begin = w->stacks[0].record.seq_end = 8;
	second = judged(w);
	ck_assert_int_eq(findings_join(&first, &second, &joined), 0);
	ck_assert_uint_eq(joined.n, 0);
	findings_free(&joined);
	ck_assert_int_eq(findings_join(&second, &second, &joined), 0);
	ck_assert_uint_eq(joined.n, 1);
	ck_assert_int_eq(joined.list[0].code, FINDING_SLOT_WORD);
	findings_free(&first), findings_free(&second), findings_free(&joined);
	free(w);
}
END_TEST

START_TEST(starttimes_differ_by_a_tick_and_a_constant)
{
	struct world *w = world_new();
	w->thread.record.starttime = 1011;
	ck_assert_str_eq(said(w), "");
	w->thread.record.starttime = 1012;
	ck_assert_str_eq(said(w), "THREAD_REUSED thread 77");
	w->look.process.shares_time = false; /* in there it is an hour earlier */
	w->look.table.header.proc_starttime = 50;
	w->thread.record.starttime = 60;
	ck_assert_str_eq(said(w), "TIME_NAMESPACE process");
	w->thread.record.starttime = 58;
	ck_assert_str_eq(said(w), "TIME_NAMESPACE process; THREAD_REUSED thread 77");
	w->thread.record.starttime = 0; /* not known */
	ck_assert_str_eq(said(w), "TIME_NAMESPACE process");
	free(w);
}
END_TEST

START_TEST(what_was_not_looked_at)
{
	struct world *w = world_new();
	w->look.threads_left_out = 3;
	w->look.stacks_left_out = 2;
	w->stacks[0].barriers_left_out = true;
	ck_assert_str_eq(said(w), "LEFT_OUT threads; LEFT_OUT stacks; LEFT_OUT stack 0");
	free(w);
}
END_TEST

START_TEST(chains_of_resumers)
{
	struct world *w = world_new();
	w->stacks[0].record.resumer_context = (struct sprof_context){CODE + 5, MEMORY + 0x10100, 0};
	w->stacks[0].resumer = ref_to(&w->stacks[1]);
	ck_assert_str_eq(said(w), "");
	w->stacks[0].resumer = ref_to(&w->stacks[0]); /* its own */
	w->stacks[0].record.resumer_context.sp = MEMORY + 0x100;
	ck_assert_str_eq(said(w), "RESUMER_CYCLE stack 0");
	w->stacks[0].resumer = ref_to(&w->stacks[1]); /* into a cycle that it is not part of: that one says so */
	w->stacks[0].record.resumer_context.sp = MEMORY + 0x10100;
	w->stacks[1].resumer = ref_to(&w->stacks[1]);
	w->stacks[1].record.resumer_context = w->stacks[0].record.resumer_context;
	ck_assert_str_eq(said(w), "RESUMER_CYCLE stack 1");
	w->stacks[1].resumer.state = LOOK_REF_BUSY;
	ck_assert_str_eq(said(w), "");
	free(w);
}
END_TEST

/* Counts and offsets of a hostile table: no overflow, no loop without end. */
START_TEST(extreme_values)
{
	struct world *w = world_new();
	w->stacks[0].n_barriers = 0;
	for (unsigned i = 0; i < 64; i++)
		w->look.table.ranges[i] = (struct sprof_range){.lo = i % 2 ? ~0ull - 1 : 0,
							       .hi = ~0ull,
							       .kind = 1 + i % 4,
							       .entry_offset = i % 2 ? INT32_MIN : INT32_MAX,
							       .cfa_offset = INT32_MIN,
							       .fp_offset = INT16_MIN};
	w->look.table.n_ranges = 64;
	w->stacks[0].record = (struct sprof_stack){.lo = 0,
						   .hi = ~0ull,
						   .off_barrier = ~0ull,
						   .cap = ~0u,
						   .n = ~0u,
						   .self = {~0u, ~0u},
						   .pos = ~0ull,
						   .resumer = {~0u - 1, 1}};
	w->stacks[0].pos = ~0ull;
	w->stacks[1].record.off_barrier = ~0ull - 8;
	w->thread.record.tid = ~0u - 1;
	w->thread.record.starttime = ~0ull;
	struct findings findings = judged(w);
	for (size_t i = 0; i < findings.n; i++)
		ck_assert_uint_lt(strlen(findings.list[i].what), FINDING_WHAT_BYTES - 1);
	ck_assert_uint_gt(findings.n, 10);
	findings_free(&findings);
	free(w);
}
END_TEST

/* --- the list of findings --- */

START_TEST(the_list_of_each_code_is_bounded)
{
	struct findings findings = {0}, joined;
	for (unsigned i = 0; i < 100; i++)
		findings_add(&findings, FINDING_SLOT_ORDER, 0, "stack 1", "number %u", i);
	for (unsigned i = 0; i < 40; i++)
		findings_add(&findings, FINDING_OWNER, 0, "thread 1", "number %u", i);
	ck_assert_uint_eq(findings.n, 2 * FINDINGS_OF_A_CODE);
	ck_assert_uint_eq(findings.counts[FINDING_SLOT_ORDER], 100);
	ck_assert_int_eq(findings_join(&findings, &findings, &joined), 0);
	ck_assert_uint_eq(joined.n, 2 * FINDINGS_OF_A_CODE);
	ck_assert_uint_eq(joined.counts[FINDING_SLOT_ORDER], 100);
	ck_assert_uint_eq(joined.counts[FINDING_OWNER], 40);
	findings_free(&findings), findings_free(&joined);
}
END_TEST

START_TEST(what_two_looks_say_together)
{
	struct findings a = {0}, b = {0}, joined;
	findings_add(&a, FINDING_SLOT_ORDER, 0, "stack 1", "certain, and gone");
	findings_add(&a, FINDING_OWNER, 0, "thread 1", "seen once");
	findings_add(&a, FINDING_OWNER, 0, "thread 2", "seen twice");
	findings_add(&a, FINDING_SEQ_ODD, 3, "thread 3", "another change");
	findings_add(&b, FINDING_OWNER, 0, "thread 2", "seen twice, the second time");
	findings_add(&b, FINDING_SEQ_ODD, 5, "thread 3", "another change");
	findings_add(&b, FINDING_STACK_N, 0, "stack 4", "certain, and new");
	ck_assert_int_eq(findings_join(&a, &b, &joined), 0);
	ck_assert_uint_eq(joined.n, 3);
	ck_assert_str_eq(joined.list[0].what, "seen twice, the second time");
	ck_assert_str_eq(joined.list[1].what, "certain, and new");
	ck_assert_str_eq(joined.list[2].what, "certain, and gone");
	ck_assert_uint_eq(joined.counts[FINDING_SEQ_ODD], 0);
	findings_free(&a), findings_free(&b), findings_free(&joined);
}
END_TEST

START_TEST(each_finding_says_what_to_do)
{
	for (int code = 0; code < FINDING_COUNT; code++) {
		const struct finding_info *info = finding_info((enum finding_code)code);
		ck_assert_uint_gt(strlen(info->todo), 10);
		ck_assert_uint_lt(strlen(info->todo), 400);
		ck_assert_int_le(info->severity, FINDING_ERROR);
	}
}
END_TEST

CHECK_MAIN("table_judge", 30, a_world_that_is_right, what_changes_is_not_judged,
	   a_stack_whose_lock_was_held_says_nothing_of_its_thread, barriers_that_were_returned_through_meanwhile,
	   a_slot_that_is_being_left, starttimes_differ_by_a_tick_and_a_constant, what_was_not_looked_at,
	   chains_of_resumers, extreme_values, the_list_of_each_code_is_bounded, what_two_looks_say_together,
	   each_finding_says_what_to_do)
