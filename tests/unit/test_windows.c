#include <check.h>
#include <stdlib.h>

#include "app/windows.h"
#include "store_samples.h"

enum { BUDGET = 1 << 20, MOST = 40 };

static struct windows windows;
static uint64_t added;

static void add(uint64_t shape)
{
	struct made_sample made;
	make_sample(&made, shape, 0, 0, 0);
	made.sample.cpu_ns = 1;
	windows_add(&windows, &made.sample);
	added++;
}

/* How many samples the window has. */
static uint64_t end(struct window *window)
{
	struct epoch **epochs;
	size_t n;
	uint64_t samples = 0;
	ck_assert_int_eq(windows_end(&windows, window, BUDGET, &epochs, &n), 0);
	for (size_t i = 0; i < n; i++) {
		struct epoch_totals totals;
		epoch_totals(epochs[i], &totals);
		ck_assert_uint_gt(totals.samples, 0);
		samples += totals.samples;
		epoch_unref(epochs[i]);
	}
	free(epochs);
	return samples;
}

START_TEST(what_came_between_open_and_end)
{
	windows = (struct windows){0};
	add(1); /* nobody's */
	struct window *first = windows_open(&windows, BUDGET);
	add(2);
	add(2);
	struct window *second = windows_open(&windows, BUDGET);
	add(3);
	ck_assert_uint_eq(end(first), 3);
	add(4);
	ck_assert_uint_eq(end(second), 2);
	ck_assert_ptr_null(windows.first);
	ck_assert_ptr_null(windows.last);
	ck_assert_uint_eq(windows_bytes(&windows), 0);
}
END_TEST

START_TEST(an_empty_window_has_no_epoch)
{
	windows = (struct windows){0};
	struct window *first = windows_open(&windows, BUDGET), *second = windows_open(&windows, BUDGET);
	ck_assert_uint_eq(end(second), 0);
	windows_close(&windows, first);
	ck_assert_ptr_null(windows.first);
}
END_TEST

START_TEST(what_a_window_was_given_does_not_change)
{
	windows = (struct windows){0};
	struct window *first = windows_open(&windows, BUDGET), *second = windows_open(&windows, BUDGET);
	struct epoch **epochs;
	size_t n;
	struct epoch_totals totals;
	add(1);
	ck_assert_int_eq(windows_end(&windows, first, BUDGET, &epochs, &n), 0);
	ck_assert_uint_eq(n, 1);
	add(1);
	epoch_totals(epochs[0], &totals);
	ck_assert_uint_eq(totals.samples, 1);
	ck_assert_uint_eq(end(second), 2);
	epoch_unref(epochs[0]); /* which was the last to have it */
	free(epochs);
}
END_TEST

START_TEST(many_windows_store_a_sample_once)
{
	struct window *open[MOST];
	uint64_t bytes_of_one;
	windows = (struct windows){0};
	open[0] = windows_open(&windows, BUDGET);
	for (uint64_t i = 0; i < SAMPLE_SHAPES; i++)
		add(i);
	bytes_of_one = windows_bytes(&windows);
	windows_close(&windows, open[0]);
	for (size_t i = 0; i < MOST; i++)
		open[i] = windows_open(&windows, BUDGET);
	for (uint64_t i = 0; i < SAMPLE_SHAPES; i++)
		add(i);
	ck_assert_uint_eq(windows_bytes(&windows), bytes_of_one);
	for (size_t i = 0; i < MOST; i++)
		ck_assert_uint_eq(end(open[i]), SAMPLE_SHAPES);
	ck_assert_ptr_null(windows.first);
}
END_TEST

START_TEST(whatever_opens_and_ends_when)
{
	struct window *open[MOST] = {NULL};
	uint64_t added_before[MOST], state = (uint64_t)_i + 1;
	windows = (struct windows){0};
	for (int step = 0; step < 1000; step++) {
		size_t i = random_next(&state) % MOST;
		if (random_next(&state) % 2) {
			add(random_next(&state) % SAMPLE_SHAPES);
		} else if (!open[i]) {
			open[i] = windows_open(&windows, BUDGET);
			added_before[i] = added;
		} else if (random_next(&state) % 4) {
			ck_assert_uint_eq(end(open[i]), added - added_before[i]);
			open[i] = NULL;
		} else {
			windows_close(&windows, open[i]);
			open[i] = NULL;
		}
	}
	for (size_t i = 0; i < MOST; i++)
		if (open[i])
			ck_assert_uint_eq(end(open[i]), added - added_before[i]);
	ck_assert_ptr_null(windows.first);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("windows");
	TCase *tcase = tcase_create("windows");
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, what_came_between_open_and_end);
	tcase_add_test(tcase, an_empty_window_has_no_epoch);
	tcase_add_test(tcase, what_a_window_was_given_does_not_change);
	tcase_add_test(tcase, many_windows_store_a_sample_once);
	tcase_add_loop_test(tcase, whatever_opens_and_ends_when, 0, 8);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
