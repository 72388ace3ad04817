/* How the frames of CPython's and those of C are put together. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "reconcile/reconcile.h"

static struct reconcile_room room;
static struct thread_clock *thread_times;
static struct sample sample;

enum { C_FRAMES = 6 };

/* C frames 0x1000 ...; Python frames at 0x5000, 0x5001 ..., in runs of n[i] at C frame c_frame[i]. */
static struct record *new_record(unsigned n_python, unsigned n_runs, const uint16_t *n, const uint16_t *c_frame)
{
	size_t bytes = sizeof(struct record) + C_FRAMES * sizeof(__u64) +
		       n_python * sizeof(struct record_python_frame) + n_runs * sizeof(struct record_python_run);
	struct record *record = calloc(1, bytes);
	ck_assert_ptr_nonnull(record);
	*record = (struct record){.bytes = (__u32)bytes,
				  .tid = 42,
				  .pid = 42,
				  .runtime_ns = 1,
				  .n_user = C_FRAMES,
				  .user_end = STACK_END_OUTERMOST,
				  .n_python = (__u16)n_python,
				  .n_python_runs = (__u16)n_runs,
				  .python_end = PYTHON_END_WHOLE};
	for (unsigned i = 0; i < C_FRAMES; i++)
		record->frames[i] = 0x1000 + i;
	struct record_python_frame *frames = (void *)(record->frames + C_FRAMES);
	for (unsigned i = 0; i < n_python; i++)
		frames[i] = (struct record_python_frame){.code = 0x5000 + i, .identity = 1, .instruction = 2 * i};
	struct record_python_run *runs = (void *)(frames + n_python);
	for (unsigned i = 0; i < n_runs; i++)
		runs[i] = (struct record_python_run){.n = n[i], .c_frame = c_frame[i]};
	return record;
}

static enum outcome reconcile(struct record *record)
{
	thread_times = thread_clock_new();
	room.codes = python_codes_new(1 << 20);
	enum outcome outcome = reconcile_record(record, record->bytes, NULL, thread_times, &room, &sample);
	thread_clock_free(thread_times);
	python_codes_unref(room.codes);
	free(record);
	return outcome;
}

#define PYTHON(i) SAMPLE_FRAME_PYTHON(i, 2 * (i))

static void check(const uint64_t *expected, size_t n)
{
	ck_assert_uint_eq(sample.n_user, n);
	for (size_t i = 0; i < n; i++)
		ck_assert_uint_eq(sample.user[i], expected[i]);
}

START_TEST(runs_stand_before_their_c_frames)
{
	const uint16_t n[] = {2, 1}, c_frame[] = {1, 4};
	ck_assert_int_eq(reconcile(new_record(3, 2, n, c_frame)), OUTCOME_SAMPLE);
	const uint64_t expected[] = {0x1000, PYTHON(0), PYTHON(1), 0x1001, 0x1002, 0x1003, PYTHON(2), 0x1004, 0x1005};
	check(expected, 9);
	ck_assert_int_eq((int)sample.python_end, PYTHON_END_WHOLE);
}
END_TEST

/* The sampled address is exact; as a caller's it would be looked up one below. */
START_TEST(the_interpreter_itself_is_the_leaf)
{
	const uint16_t n[] = {1}, c_frame[] = {0};
	ck_assert_int_eq(reconcile(new_record(1, 1, n, c_frame)), OUTCOME_SAMPLE);
	const uint64_t expected[] = {PYTHON(0), 0x1001, 0x1001, 0x1002, 0x1003, 0x1004, 0x1005};
	check(expected, 7);
}
END_TEST

START_TEST(runs_beyond_the_walk_are_kept)
{
	const uint16_t n[] = {1, 1, 1}, c_frame[] = {5, RECORD_NO_C_FRAME, RECORD_NO_C_FRAME};
	ck_assert_int_eq(reconcile(new_record(4, 3, n, c_frame)), OUTCOME_SAMPLE);
	const uint64_t expected[] = {0x1000,    0x1001, 0x1002,    0x1003,    0x1004,
				     PYTHON(0), 0x1005, PYTHON(1), PYTHON(2), PYTHON(3)};
	check(expected, 10);
}
END_TEST

START_TEST(as_many_as_fit)
{
	static uint16_t n[RECORD_MAX_PYTHON_RUNS], c_frame[RECORD_MAX_PYTHON_RUNS];
	for (size_t i = 0; i < RECORD_MAX_PYTHON_RUNS; i++) {
		n[i] = 2;
		c_frame[i] = i < C_FRAMES ? (uint16_t)i : RECORD_NO_C_FRAME;
	}
	ck_assert_int_eq(reconcile(new_record(RECORD_MAX_PYTHON_FRAMES, RECORD_MAX_PYTHON_RUNS, n, c_frame)),
			 OUTCOME_SAMPLE);
	ck_assert_uint_eq(sample.n_user, RECORD_MAX_PYTHON_FRAMES + C_FRAMES);
	ck_assert_uint_eq(sample.user[sample.n_user - 1], PYTHON(RECORD_MAX_PYTHON_FRAMES - 1));
}
END_TEST

START_TEST(records_that_make_no_sense)
{
	const struct {
		uint16_t n[2], c_frame[2];
	} bad[] = {{{1, 3}, {1, 2}},
		   {{1, 1}, {2, 2}},
		   {{1, 1}, {2, 1}},
		   {{1, 1}, {1, C_FRAMES}},
		   {{1, 1}, {RECORD_NO_C_FRAME, 3}}};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(reconcile(new_record(3, 2, bad[i].n, bad[i].c_frame)), OUTCOME_MALFORMED_RECORD);
	struct record *record = new_record(0, 0, NULL, NULL);
	record->python_end = PYTHON_END_COUNT;
	ck_assert_int_eq(reconcile(record), OUTCOME_MALFORMED_RECORD);
	record = new_record(1, 0, NULL, NULL);
	record->n_python = 2;
	ck_assert_int_eq(reconcile(record), OUTCOME_MALFORMED_RECORD);
	record = new_record(1, 0, NULL, NULL);
	record->n_python_runs = 2; /* as many bytes, and runs of more frames than there are */
	record->n_python = 0;
	ck_assert_int_eq(reconcile(record), OUTCOME_MALFORMED_RECORD);
}
END_TEST

CHECK_MAIN("python_frames", 30, runs_stand_before_their_c_frames, the_interpreter_itself_is_the_leaf,
	   runs_beyond_the_walk_are_kept, as_many_as_fit, records_that_make_no_sense)
