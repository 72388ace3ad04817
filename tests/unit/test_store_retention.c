#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "store/epoch.h"
#include "store_samples.h"

enum { BUDGET = 1 << 20 };

static struct epoch_totals totals_of(const struct retention *retention)
{
	struct epoch_totals totals;
	retention_totals(retention, &totals);
	return totals;
}

static void release(struct epoch **epochs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		epoch_unref(epochs[i]);
	free(epochs);
}

static uint64_t samples_in(struct epoch **epochs, size_t n)
{
	uint64_t samples = 0;
	for (size_t i = 0; i < n; i++) {
		struct epoch_totals totals;
		epoch_totals(epochs[i], &totals);
		ck_assert_uint_gt(totals.samples, 0); /* an empty epoch has no place in a snapshot */
		samples += totals.samples;
	}
	return samples;
}

/* A sample with a stack of its own. */
static int add_distinct(struct retention *retention, uint64_t number, uint64_t *aged_out)
{
	uint64_t frames[40] = {number};
	struct sample sample = {.time_ns = number + 1,
				.cpu_ns = 3,
				.tid = 1,
				.maps_version = (uint32_t)(number / 1000),
				.comm = "a",
				.user_end = STACK_END_ROOT,
				.n_user = (uint16_t)(1 + number % 40),
				.user = frames};
	return retention_add(retention, &sample, NULL, aged_out);
}

START_TEST(nothing_is_lost_uncounted)
{
	struct retention *retention = retention_new(BUDGET);
	ck_assert_uint_lt(totals_of(retention).bytes, 1024);
	uint64_t aged_out = 0, state = (uint64_t)_i + 1;
	for (uint64_t added = 1; added <= 60000; added++) {
		ck_assert_int_eq(add_distinct(retention, added, &aged_out), 0);
		struct epoch_totals totals = totals_of(retention);
		ck_assert_uint_eq(totals.samples + aged_out, added);
		ck_assert_uint_le(totals.bytes, BUDGET);
		/* The oldest go first: what is left is the newest without a gap. */
		ck_assert_uint_eq(totals.last_ns, added + 1);
		ck_assert_uint_eq(totals.first_ns, aged_out + 2);
		ck_assert_uint_eq(totals.oldest_maps_version, (aged_out + 1) / 1000);
		if (_i > 0 && random_next(&state) % 500 == 0) {
			struct epoch **epochs;
			size_t n;
			ck_assert_int_eq(retention_snapshot(retention, &epochs, &n), 0);
			ck_assert_uint_eq(samples_in(epochs, n), totals.samples);
			release(epochs, n);
		}
	}
	ck_assert_uint_gt(aged_out, 0);
	ck_assert_uint_gt(totals_of(retention).bytes, BUDGET / 2);
	retention_free(retention);
}
END_TEST

START_TEST(snapshots_do_not_change)
{
	struct retention *retention = retention_new(BUDGET);
	uint64_t aged_out = 0;
	/* A small newest epoch (copied), and a large one (frozen). */
	const uint64_t sizes[] = {10, 800};
	uint64_t number = 0;
	for (size_t k = 0; k < 2; k++) {
		while (totals_of(retention).samples < sizes[k])
			ck_assert_int_eq(add_distinct(retention, number++, &aged_out), 0);
		struct epoch **epochs;
		size_t n;
		ck_assert_int_eq(retention_snapshot(retention, &epochs, &n), 0);
		ck_assert_uint_eq(samples_in(epochs, n), sizes[k]);
		/* Known stacks (their cells would count on), and new ones until all epochs have been dropped. */
		for (uint64_t i = 0; i < 10; i++)
			ck_assert_int_eq(add_distinct(retention, i, &aged_out), 0);
		ck_assert_uint_eq(samples_in(epochs, n), sizes[k]);
		uint64_t cells = 0;
		for (size_t i = 0; i < n; i++)
			for (struct set_entry *entry = epochs[i]->cells.first; entry; entry = entry->next)
				cells += ((struct cell *)entry)->count;
		ck_assert_uint_eq(cells, sizes[k]);
		if (k == 1)
			while (aged_out < sizes[k])
				ck_assert_int_eq(add_distinct(retention, number++, &aged_out), 0);
		ck_assert_uint_eq(samples_in(epochs, n), sizes[k]);
		release(epochs, n);
	}
	retention_free(retention);
}
END_TEST

START_TEST(frequent_snapshots_make_no_tiny_epochs)
{
	struct retention *retention = retention_new(BUDGET);
	uint64_t aged_out = 0;
	size_t most = 0;
	for (uint64_t i = 0; i < 4000; i++) {
		ck_assert_int_eq(add_distinct(retention, i, &aged_out), 0);
		struct epoch **epochs;
		size_t n;
		ck_assert_int_eq(retention_snapshot(retention, &epochs, &n), 0);
		ck_assert_uint_eq(samples_in(epochs, n), i + 1 - aged_out);
		if (n > most)
			most = n;
		release(epochs, n);
	}
	ck_assert_uint_ge(most, 4);
	ck_assert_uint_le(most, 20);
	ck_assert_uint_gt(totals_of(retention).bytes, BUDGET / 2);
	retention_free(retention);
}
END_TEST

START_TEST(snapshot_of_nothing_is_empty)
{
	struct retention *retention = retention_new(BUDGET);
	struct epoch **epochs = NULL;
	size_t n = 1;
	ck_assert_int_eq(retention_snapshot(retention, &epochs, &n), 0);
	ck_assert_uint_eq(n, 0);
	ck_assert_ptr_nonnull(epochs);
	free(epochs);
	retention_free(retention);
	retention_free(NULL);
}
END_TEST

START_TEST(too_large_a_stack_costs_nobody_else)
{
	struct retention *retention = retention_new(0); /* the least budget there is */
	uint64_t aged_out = 0;
	for (uint64_t i = 0; i < 100; i++)
		ck_assert_int_eq(add_distinct(retention, i, &aged_out), 0);
	struct epoch_totals before = totals_of(retention);
	static uint64_t frames[UINT16_MAX];
	struct sample sample = {.n_user = UINT16_MAX, .user = frames, .user_end = STACK_END_TOO_DEEP};
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(retention_add(retention, &sample, NULL, &aged_out), -ENOMEM);
	struct epoch_totals after = totals_of(retention);
	ck_assert_mem_eq(&after, &before, sizeof(after));
	ck_assert_uint_eq(aged_out, 0);
	/* The deepest that the sampler makes does fit, again and again. */
	sample.n_user = 1024 + 127;
	for (uint64_t i = 0; i < 1000; i++) {
		frames[0] = i;
		ck_assert_int_eq(retention_add(retention, &sample, NULL, &aged_out), 0);
		ck_assert_uint_le(totals_of(retention).bytes, 128 * 1024);
	}
	ck_assert_uint_eq(totals_of(retention).samples + aged_out, 1100);
	sample.user_end = STACK_END_COUNT;
	ck_assert_int_eq(retention_add(retention, &sample, NULL, &aged_out), -EINVAL);
	retention_free(retention);
}
END_TEST

struct reader {
	struct epoch **epochs;
	size_t n;
	uint64_t expected;
	bool same;
};

static void *read_epochs(void *context)
{
	struct reader *reader = context;
	reader->same = true;
	for (int i = 0; i < 50; i++) {
		uint64_t cells = 0;
		for (size_t k = 0; k < reader->n; k++)
			for (struct set_entry *entry = reader->epochs[k]->cells.first; entry; entry = entry->next)
				cells += ((struct cell *)entry)->count;
		reader->same = reader->same && cells == reader->expected;
	}
	release(reader->epochs, reader->n);
	return NULL;
}

START_TEST(readers_keep_what_is_dropped_meanwhile)
{
	struct retention *retention = retention_new(BUDGET);
	uint64_t aged_out = 0, number = 0;
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 3000; i++)
			ck_assert_int_eq(add_distinct(retention, number++, &aged_out), 0);
		struct reader reader = {.expected = totals_of(retention).samples};
		ck_assert_int_eq(retention_snapshot(retention, &reader.epochs, &reader.n), 0);
		pthread_t thread;
		ck_assert_int_eq(pthread_create(&thread, NULL, read_epochs, &reader), 0);
		for (int i = 0; i < 20000; i++)
			ck_assert_int_eq(add_distinct(retention, number++, &aged_out), 0);
		pthread_join(thread, NULL);
		ck_assert(reader.same);
	}
	retention_free(retention);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store/retention");
	TCase *tests = tcase_create("retention");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, nothing_is_lost_uncounted, 0, 3);
	tcase_add_test(tests, snapshots_do_not_change);
	tcase_add_test(tests, frequent_snapshots_make_no_tiny_epochs);
	tcase_add_test(tests, snapshot_of_nothing_is_empty);
	tcase_add_test(tests, too_large_a_stack_costs_nobody_else);
	tcase_add_test(tests, readers_keep_what_is_dropped_meanwhile);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
