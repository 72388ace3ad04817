/* The main of a Check program: one suite of one case, from a list of tests. */
#pragma once
#include <check.h>
#include <stddef.h>

static inline int check_main(const char *name, const TTest *const *tests, size_t n, double timeout_s)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	tcase_set_timeout(tcase, timeout_s);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
#define CHECK_MAIN(name, timeout_s, ...)                                                  \
	int main(void)                                                                    \
	{                                                                                 \
		const TTest *const list[] = {__VA_ARGS__};                                \
		return check_main(name, list, sizeof(list) / sizeof(list[0]), timeout_s); \
	}
