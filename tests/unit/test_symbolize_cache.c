#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "symbolize/cache.h"

static struct cache *cache;

static void teardown(void)
{
	cache_free(cache);
}

static void add(uint64_t file_id, uint64_t offset, const char *name)
{
	struct profile_line line = {.name = name, .system_name = name, .filename = NULL, .line = 7};
	cache_add(cache, file_id, offset, &line, name ? 1 : 0);
}

/* NULL: not known; "": known to have no name. */
static const char *find(uint64_t file_id, uint64_t offset)
{
	const struct profile_line *lines = NULL;
	uint32_t n = 0;
	if (!cache_find(cache, file_id, offset, &lines, &n))
		return NULL;
	if (n == 0)
		return "";
	ck_assert_int_eq(lines[0].line, 7);
	ck_assert_ptr_null(lines[0].filename);
	return lines[0].name;
}

START_TEST(keeps_what_it_is_given)
{
	cache = cache_new(1 << 20);
	ck_assert_ptr_null(find(1, 0));
	char name[] = "copied";
	add(1, 0, name);
	name[0] = 'X';
	add(1, 8, NULL);
	add(2, 0, "other file");
	add(2, 0, "comes too late");
	ck_assert_str_eq(find(1, 0), "copied");
	ck_assert_str_eq(find(1, 8), "");
	ck_assert_str_eq(find(2, 0), "other file");
	ck_assert_ptr_null(find(2, 8));
	ck_assert_ptr_null(find(3, 0));
}
END_TEST

START_TEST(several_functions_at_one_place)
{
	cache = cache_new(1 << 20);
	const struct profile_line in[] = {{"inner", "_inner", "a.c", 10, 5}, {"outer", "_outer", "b.c", 20, 15}};
	cache_add(cache, 1, 2, in, 2);
	const struct profile_line *lines = NULL;
	uint32_t n = 0;
	ck_assert(cache_find(cache, 1, 2, &lines, &n));
	ck_assert_uint_eq(n, 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_str_eq(lines[i].name, in[i].name);
		ck_assert_str_eq(lines[i].system_name, in[i].system_name);
		ck_assert_str_eq(lines[i].filename, in[i].filename);
		ck_assert_int_eq(lines[i].line, in[i].line);
		ck_assert_int_eq(lines[i].start_line, in[i].start_line);
	}
}
END_TEST

START_TEST(equal_names_once)
{
	cache = cache_new(64 << 20);
	char name[2001] = "";
	memset(name, 'n', sizeof(name) - 1);
	for (uint64_t i = 0; i < 10000; i++)
		add(1, i, name);
	ck_assert_str_eq(find(1, 9999), name);
	ck_assert_uint_lt(cache_bytes(cache), 1 << 20);
}
END_TEST

START_TEST(stays_within_its_budget)
{
	enum { BUDGET = 1 << 20 };
	cache = cache_new(BUDGET);
	char name[64];
	size_t kept = 0;
	for (uint64_t i = 0; i < 200000; i++) {
		snprintf(name, sizeof(name), "function_%lu", i);
		add(1, i, name);
		ck_assert_uint_le(cache_bytes(cache), BUDGET);
		ck_assert_str_eq(find(1, i), name);
	}
	for (uint64_t i = 0; i < 200000; i++)
		kept += find(1, i) != NULL;
	ck_assert_uint_gt(kept, 1000);
	ck_assert_uint_lt(kept, 100000);
	ck_assert_ptr_null(find(1, 0));
}
END_TEST

START_TEST(what_is_in_use_stays)
{
	cache = cache_new(1 << 20);
	char name[64];
	add(9, 9, "in use");
	for (uint64_t i = 0; i < 200000; i++) {
		snprintf(name, sizeof(name), "function_%lu", i);
		add(1, i, name);
		if (i % 100 == 0)
			ck_assert_str_eq(find(9, 9), "in use");
	}
}
END_TEST

START_TEST(too_small_to_keep_anything)
{
	cache = cache_new(100);
	add(1, 1, "name");
	ck_assert_ptr_null(find(1, 1));
	ck_assert_uint_le(cache_bytes(cache), 100);
	cache_free(cache);
	cache = cache_new(64 << 10);
	char *name = calloc(1, 128 << 10);
	memset(name, 'n', (128 << 10) - 1);
	add(1, 1, "small");
	add(1, 2, name);
	ck_assert_ptr_null(find(1, 2));
	add(1, 3, "small");
	ck_assert_str_eq(find(1, 3), "small");
	free(name);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("symbolize_cache");
	TCase *tests = tcase_create("cache");
	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, keeps_what_it_is_given);
	tcase_add_test(tests, several_functions_at_one_place);
	tcase_add_test(tests, equal_names_once);
	tcase_add_test(tests, stays_within_its_budget);
	tcase_add_test(tests, what_is_in_use_stays);
	tcase_add_test(tests, too_small_to_keep_anything);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
