/* The main of a Check program: one suite of one case, from a list of tests; with a fixture around each of them, or without. */
#pragma once
#include <check.h>
#include <stddef.h>

static inline int check_main_with(SFun setup, SFun teardown, const char *name, const TTest *const *tests, size_t n,
				  double timeout_s)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	tcase_set_timeout(tcase, timeout_s);
	if (setup)
		tcase_add_checked_fixture(tcase, setup, teardown);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

static inline int check_main(const char *name, const TTest *const *tests, size_t n, double timeout_s)
{
	return check_main_with(NULL, NULL, name, tests, n, timeout_s);
}
#define CHECK_MAIN_WITH(setup, teardown, name, timeout_s, ...)                                                  \
	int main(void)                                                                                          \
	{                                                                                                       \
		const TTest *const list[] = {__VA_ARGS__};                                                      \
		return check_main_with(setup, teardown, name, list, sizeof(list) / sizeof(list[0]), timeout_s); \
	}
#define CHECK_MAIN(name, timeout_s, ...) CHECK_MAIN_WITH(NULL, NULL, name, timeout_s, __VA_ARGS__)
