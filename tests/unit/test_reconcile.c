#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "reconcile/reconcile.h"

enum { MAX_FRAMES = RECORD_MAX_KERNEL_FRAMES + RECORD_MAX_USER_FRAMES };

static struct thread_clock *thread_times;
static struct reconcile_room room;

static void setup(void)
{
	thread_times = thread_clock_new();
	ck_assert_ptr_nonnull(thread_times);
}

/* A good record in a block of its very size, so that AddressSanitizer sees a read beyond it. */
static struct record *new_record(uint16_t n_kernel, uint16_t n_user)
{
	size_t bytes = sizeof(struct record) + ((size_t)n_kernel + n_user) * sizeof(__u64);
	struct record *record = calloc(1, bytes);
	ck_assert_ptr_nonnull(record);
	record->bytes = (__u32)bytes;
	record->tid = 42;
	record->pid = 40;
	record->time_ns = 1000;
	record->thread_start_ns = 77;
	record->runtime_ns = 5000;
	record->n_kernel = n_kernel;
	record->n_user = n_user;
	record->user_end = STACK_END_ROOT;
	memcpy(record->comm, "worker", 7);
	for (int i = 0; i < n_kernel + n_user; i++)
		record->frames[i] = 0x1000u + (unsigned)i;
	return record;
}

START_TEST(a_good_record_becomes_a_sample)
{
	setup();
	struct record *record = new_record(2, 3);
	struct sample sample;
	ck_assert_int_eq(reconcile_record(record, record->bytes, NULL, thread_times, &room, &sample), OUTCOME_SAMPLE);
	ck_assert_uint_eq(sample.time_ns, 1000);
	ck_assert_uint_eq(sample.cpu_ns, 5000);
	ck_assert_uint_eq(sample.tid, 42);
	ck_assert_str_eq(sample.comm, "worker");
	ck_assert_int_eq((int)sample.user_end, STACK_END_ROOT);
	ck_assert_uint_eq(sample.n_kernel, 2);
	ck_assert_uint_eq(sample.n_user, 3);
	ck_assert_uint_eq(sample.kernel[0], 0x1000);
	ck_assert_uint_eq(sample.kernel[1], 0x1001);
	ck_assert_uint_eq(sample.user[0], 0x1002);
	ck_assert_uint_eq(sample.user[2], 0x1004);
	record->runtime_ns = 6500;
	ck_assert_int_eq(reconcile_record(record, record->bytes, NULL, thread_times, &room, &sample), OUTCOME_SAMPLE);
	ck_assert_uint_eq(sample.cpu_ns, 1500);
	free(record);
	thread_clock_free(thread_times);
}
END_TEST

START_TEST(bounds_are_allowed)
{
	setup();
	static const uint16_t shapes[][2] = {
		{0, 0}, {0, 1}, {RECORD_MAX_KERNEL_FRAMES, RECORD_MAX_USER_FRAMES}, {0, RECORD_MAX_USER_FRAMES}};
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct record *record = new_record(shapes[i][0], shapes[i][1]);
		struct sample sample;
		ck_assert_int_eq(reconcile_record(record, record->bytes, NULL, thread_times, &room, &sample),
				 OUTCOME_SAMPLE);
		ck_assert_uint_eq(sample.n_kernel + sample.n_user, shapes[i][0] + shapes[i][1]);
		free(record);
	}
	thread_clock_free(thread_times);
}
END_TEST

START_TEST(more_may_be_delivered_than_the_record_needs)
{
	setup();
	struct record *record = new_record(1, 4);
	struct sample sample;
	record->n_user = 3; /* the ring buffer rounds up */
	record->bytes -= sizeof(__u64);
	ck_assert_int_eq(reconcile_record(record, record->bytes + 8, NULL, thread_times, &room, &sample),
			 OUTCOME_SAMPLE);
	ck_assert_uint_eq(sample.n_user, 3);
	free(record);
	thread_clock_free(thread_times);
}
END_TEST

struct damage {
	const char *what;
	void (*apply)(struct record *record, size_t *bytes);
};

static void cut_header(struct record *record, size_t *bytes)
{
	(void)record;
	*bytes = sizeof(*record) - 1;
}
static void nothing_delivered(struct record *record, size_t *bytes)
{
	(void)record;
	*bytes = 0;
}
static void cut_frame(struct record *record, size_t *bytes)
{
	(void)record;
	*bytes -= 1;
}
static void claims_more_bytes(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->bytes += 8;
}
static void claims_fewer_bytes(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->bytes -= 8;
}
static void claims_huge_bytes(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->bytes = UINT32_MAX;
}
static void claims_no_bytes(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->bytes = 0;
}
static void one_kernel_frame_too_many(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->n_kernel++;
}
static void one_user_frame_too_many(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->n_user++;
}
static void most_frames(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->n_kernel = record->n_user = UINT16_MAX;
	record->bytes = (__u32)(sizeof(*record) + 2 * (size_t)UINT16_MAX * sizeof(__u64));
}
static void unknown_stack_end(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->user_end = STACK_END_COUNT;
}
static void no_thread(struct record *record, size_t *bytes)
{
	(void)bytes;
	record->tid = 0;
}

START_TEST(every_malformed_field_is_refused)
{
	static const struct damage damages[] = {
		{"cut header", cut_header},
		{"nothing", nothing_delivered},
		{"cut frame", cut_frame},
		{"more bytes", claims_more_bytes},
		{"fewer bytes", claims_fewer_bytes},
		{"huge bytes", claims_huge_bytes},
		{"no bytes", claims_no_bytes},
		{"a kernel frame too many", one_kernel_frame_too_many},
		{"a user frame too many", one_user_frame_too_many},
		{"65535 frames", most_frames},
		{"unknown end", unknown_stack_end},
		{"no thread", no_thread},
	};
	setup();
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct record *record = new_record(3, 5);
		size_t bytes = record->bytes;
		struct sample sample, untouched;
		memset(&sample, 0x5a, sizeof(sample));
		untouched = sample;
		damages[i].apply(record, &bytes);
		if (reconcile_record(record, bytes, NULL, thread_times, &room, &sample) != OUTCOME_MALFORMED_RECORD ||
		    memcmp(&sample, &untouched, sizeof(sample)) != 0)
			ck_abort_msg("%s", damages[i].what);
		free(record);
	}
	ck_assert_uint_eq(thread_clock_count(thread_times), 0); /* nothing was learned from them */
	thread_clock_free(thread_times);
}
END_TEST

START_TEST(frames_over_the_limit_are_refused_even_when_they_fit)
{
	setup();
	struct record *kernel = new_record(RECORD_MAX_KERNEL_FRAMES + 1, 0);
	struct record *user = new_record(0, RECORD_MAX_USER_FRAMES + 1);
	struct sample sample;
	ck_assert_int_eq(reconcile_record(kernel, kernel->bytes, NULL, thread_times, &room, &sample),
			 OUTCOME_MALFORMED_RECORD);
	ck_assert_int_eq(reconcile_record(user, user->bytes, NULL, thread_times, &room, &sample),
			 OUTCOME_MALFORMED_RECORD);
	free(kernel);
	free(user);
	thread_clock_free(thread_times);
}
END_TEST

START_TEST(a_name_without_end_is_cut)
{
	setup();
	struct record *record = new_record(0, 0);
	struct sample sample;
	memset(record->comm, 'x', sizeof(record->comm));
	ck_assert_int_eq(reconcile_record(record, record->bytes, NULL, thread_times, &room, &sample), OUTCOME_SAMPLE);
	ck_assert_str_eq(sample.comm, "xxxxxxxxxxxxxxx");
	free(record);
	thread_clock_free(thread_times);
}
END_TEST

CHECK_MAIN("reconcile", 20, a_good_record_becomes_a_sample, bounds_are_allowed,
	   more_may_be_delivered_than_the_record_needs, every_malformed_field_is_refused,
	   frames_over_the_limit_are_refused_even_when_they_fit, a_name_without_end_is_cut)
