/* Stacks deeper than a record: walked in user mode, reconciled, and held against the frames that were put there. */
#include <check.h>
#include <sprof/barrier_abi.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "unwind_memory.h"

#include "bpf/walk.h"
#include "model/sample.h"
#include "reconcile/reconcile.h"

enum { FRAME_BYTES = 32, MAX_DEPTH = WALK_FRAMES + WALK_BEYOND + 100, LEAF = 0x401000 };
static const __u64 base = 0x7ffd00000000;

static struct walk walk;
static struct reconcile_room room;
static struct sample sample;

static __u64 caller(size_t i)
{
	return 0x500000 + i;
}

/* depth frames, by frame pointer; the last one's frame pointer is `last`. */
static void walk_deep(size_t depth, __u64 last)
{
	static unsigned char stack[MAX_DEPTH * FRAME_BYTES];
	static struct unwind_list_page list[2];
	plain_list(list);
	for (size_t i = 0; i + 1 < depth; i++) {
		__u64 frame[] = {i + 2 < depth ? base + (i + 1) * FRAME_BYTES : last, caller(i)};
		memcpy(stack + i * FRAME_BYTES, frame, sizeof(frame));
	}
	struct recorded_memory memory = {
		.start = base, .n = sizeof(stack), .bytes = stack, .list = list, .list_pages = 2};
	memset(&walk, 0xee, sizeof(walk));
	walk.registers = unwind_leaf(LEAF, base, base);
	walk.tables = (struct unwind_tables){.ready = 1};
	walk_reset(&walk);
	walk_start(&walk, NULL, NULL, &memory);
	for (int i = 0; i < WALK_STEPS && !walk_step(&walk, NULL, &memory); i++)
		;
}

/* The record of the walk, with n_runs runs of one Python frame each. */
static struct record *new_record(size_t n_runs, const __u16 *c_frames)
{
	__u32 left_out = walk_keep_ends(&walk);
	size_t bytes = sizeof(struct record) + walk.n * 8 +
		       n_runs * (sizeof(struct record_python_frame) + sizeof(struct record_python_run));
	struct record *record = calloc(1, bytes); /* its very size, so that AddressSanitizer sees */
	*record = (struct record){.bytes = (__u32)bytes,
				  .tid = 1,
				  .pid = 1,
				  .n_user = (__u16)walk.n,
				  .n_left_out = (__u16)left_out,
				  .user_end = (__u8)walk.end,
				  .n_python = (__u16)n_runs,
				  .n_python_runs = (__u16)n_runs,
				  .python_end = PYTHON_END_WHOLE};
	memcpy(record->frames, walk.frames, walk.n * 8);
	struct record_python_frame *frames = (void *)(record->frames + walk.n);
	struct record_python_run *runs = (void *)(frames + n_runs);
	for (size_t i = 0; i < n_runs; i++) {
		frames[i] = (struct record_python_frame){.code = 0x9000 + i, .identity = 1};
		runs[i] = (struct record_python_run){.n = 1, .c_frame = c_frames[i]};
	}
	return record;
}

static enum outcome reconcile(struct record *record)
{
	struct thread_clock *clock = thread_clock_new();
	room.codes = python_codes_new(1 << 20);
	enum outcome outcome = reconcile_record(record, record->bytes, NULL, clock, &room, &sample);
	python_codes_unref(room.codes);
	thread_clock_free(clock);
	return outcome;
}

static void expect(size_t at, __u64 frame)
{
	ck_assert_msg(sample.user[at] == frame, "frame %zu is %llx, not %llx", at, (unsigned long long)sample.user[at],
		      (unsigned long long)frame);
}

static void expect_leaf_end(size_t n)
{
	expect(0, LEAF);
	for (size_t i = 1; i < n; i++)
		expect(i, caller(i - 1));
}

static void expect_both_ends(size_t depth)
{
	ck_assert_uint_eq(sample.n_user, RECORD_MAX_USER_FRAMES + 1);
	expect_leaf_end(RECORD_LEAF_FRAMES);
	expect(RECORD_LEAF_FRAMES, SAMPLE_FRAME_LEFT_OUT);
	for (size_t i = 0; i < RECORD_ROOT_FRAMES; i++)
		expect(RECORD_LEAF_FRAMES + 1 + i, caller(depth - RECORD_ROOT_FRAMES + i - 1));
}

START_TEST(what_the_record_holds_is_whole)
{
	for (size_t depth = WALK_FRAMES - 1; depth <= RECORD_MAX_USER_FRAMES; depth++) {
		walk_deep(depth, 0);
		struct record *record = new_record(0, NULL);
		ck_assert_int_eq(reconcile(record), OUTCOME_SAMPLE);
		ck_assert_int_eq((int)sample.user_end, STACK_END_ROOT);
		ck_assert_uint_eq(sample.n_user, depth);
		expect_leaf_end(depth);
		free(record);
	}
}
END_TEST

START_TEST(both_ends_of_what_is_deeper)
{
	for (size_t depth = RECORD_MAX_USER_FRAMES + 1; depth <= WALK_FRAMES + WALK_BEYOND; depth += 17) {
		walk_deep(depth, 0);
		struct record *record = new_record(0, NULL);
		ck_assert_uint_eq(record->n_left_out, depth - RECORD_MAX_USER_FRAMES);
		ck_assert_int_eq(reconcile(record), OUTCOME_SAMPLE);
		ck_assert_int_eq((int)sample.user_end, STACK_END_CUT);
		expect_both_ends(depth);
		free(record);
	}
}
END_TEST

/* Why the root was not come to is the more important. */
START_TEST(a_deep_stack_that_ends_otherwise_says_so)
{
	walk_deep(3000, base - 64);
	struct record *record = new_record(0, NULL);
	ck_assert_int_eq(reconcile(record), OUTCOME_SAMPLE);
	ck_assert_int_eq((int)sample.user_end, STACK_END_NO_UNWIND_INFO);
	expect_both_ends(3000);
	free(record);
}
END_TEST

START_TEST(deeper_than_is_walked_is_the_end_of_the_leaf)
{
	for (size_t depth = WALK_FRAMES + WALK_BEYOND + 1; depth < MAX_DEPTH; depth += 9) {
		walk_deep(depth, 0);
		struct record *record = new_record(0, NULL);
		ck_assert_uint_eq(record->n_left_out, WALK_BEYOND);
		ck_assert_int_eq(reconcile(record), OUTCOME_SAMPLE);
		ck_assert_int_eq((int)sample.user_end, STACK_END_TOO_DEEP);
		ck_assert_uint_eq(sample.n_user, WALK_FRAMES);
		expect_leaf_end(WALK_FRAMES);
		free(record);
	}
}
END_TEST

/* Python frames stand before the frame of C that runs them, or before what stands for it. */
START_TEST(python_frames_among_them)
{
	enum { DEPTH = 3000, CUT = RECORD_LEAF_FRAMES };
	const __u16 c_frames[] = {1, CUT + 10, CUT + 20, DEPTH - RECORD_ROOT_FRAMES, DEPTH - 1};
	const size_t expected[] = {1, CUT + 1, CUT + 2, CUT + 4, RECORD_MAX_USER_FRAMES + 4};
	walk_deep(DEPTH, 0);
	struct record *record = new_record(5, c_frames);
	ck_assert_int_eq(reconcile(record), OUTCOME_SAMPLE);
	ck_assert_uint_eq(sample.n_user, RECORD_MAX_USER_FRAMES + 1 + 5);
	for (size_t i = 0; i < 5; i++)
		expect(expected[i], SAMPLE_FRAME_PYTHON(i, 0));
	expect(CUT + 3, SAMPLE_FRAME_LEFT_OUT);
	expect(CUT + 5, caller(DEPTH - RECORD_ROOT_FRAMES - 1));
	expect(RECORD_MAX_USER_FRAMES + 5, caller(DEPTH - 2));
	free(record);
	walk_deep(MAX_DEPTH, 0);
	record = new_record(5, c_frames); /* behind the frames that are there */
	ck_assert_int_eq(reconcile(record), OUTCOME_SAMPLE);
	ck_assert_uint_eq(sample.n_user, RECORD_LEAF_FRAMES + 5);
	expect(1, SAMPLE_FRAME_PYTHON(0, 0));
	for (size_t i = 1; i < 5; i++)
		expect(RECORD_LEAF_FRAMES + i, SAMPLE_FRAME_PYTHON(i, 0));
	free(record);
}
END_TEST

START_TEST(counts_that_make_no_sense_are_refused)
{
	walk_deep(3000, 0);
	struct record *record = new_record(0, NULL);
	record->n_user--; /* neither both ends nor the leaf's */
	record->bytes -= 8;
	ck_assert_int_eq(reconcile(record), OUTCOME_MALFORMED_RECORD);
	record->bytes -= 8 * (record->n_user - RECORD_LEAF_FRAMES);
	record->n_user = RECORD_LEAF_FRAMES; /* the leaf's, but it says that there is a root */
	ck_assert_int_eq(reconcile(record), OUTCOME_MALFORMED_RECORD);
	record->user_end = STACK_END_TOO_DEEP;
	ck_assert_int_eq(reconcile(record), OUTCOME_SAMPLE);
	free(record);
}
END_TEST

CHECK_MAIN("deep_stack", 60, what_the_record_holds_is_whole, both_ends_of_what_is_deeper,
	   a_deep_stack_that_ends_otherwise_says_so, deeper_than_is_walked_is_the_end_of_the_leaf,
	   python_frames_among_them, counts_that_make_no_sense_are_refused)
