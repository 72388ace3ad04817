#include <check.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "sprofctl/printable.h"

#define S UINT64_C(1000000000)

static const char *show(const char *text)
{
	static char out[100];
	return printable(text, out, sizeof(out));
}

START_TEST(plain_text_stays)
{
	ck_assert_str_eq(show(""), "");
	ck_assert_str_eq(show("python3 (worker)"), "python3 (worker)");
}
END_TEST

START_TEST(nothing_drives_the_terminal)
{
	ck_assert_str_eq(show("a\033[2Jb\rc\nd\te\x7f"), "a?[2Jb?c?d?e?");
	ck_assert_str_eq(show("\xff\xc0\x80"), "???");
	ck_assert_str_eq(show("\xc2\x9b"
			      "31m"),
			 "??31m"); /* CSI as one character */
}
END_TEST

START_TEST(characters_of_the_locale_stay)
{
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		ck_abort_msg("there is no locale C.UTF-8");
	ck_assert_str_eq(show("b\xc3\xbc"
			      "cher\xc2\x9b\xc3"),
			 "b\xc3\xbc"
			 "cher???");
	ck_assert_int_eq(printable_width("b\xc3\xbc"
					 "cher"),
			 6);
	ck_assert_int_eq(printable_width("\xe6\xbc\xa2"), 2);
}
END_TEST

START_TEST(text_that_does_not_fit_is_cut)
{
	char out[4];
	memset(out, 'x', sizeof(out));
	ck_assert_str_eq(printable("abcdef", out, sizeof(out)), "abc");
	setlocale(LC_CTYPE, "C.UTF-8");
	ck_assert_str_eq(printable("ab\xc3\xbc", out, sizeof(out)), "ab"); /* not in the middle of a character */
}
END_TEST

START_TEST(amounts)
{
	char out[PRINTABLE_AMOUNT_BYTES];
	ck_assert_str_eq(printable_bytes(0, out), "0 bytes");
	ck_assert_str_eq(printable_bytes(1023, out), "1023 bytes");
	ck_assert_str_eq(printable_bytes(1024, out), "1.0 KiB");
	ck_assert_str_eq(printable_bytes(4 << 20, out), "4.0 MiB");
	ck_assert_str_eq(printable_bytes(UINT64_MAX, out), "16777216.0 TiB");
	ck_assert_str_eq(printable_duration(0, out), "0.00 s");
	ck_assert_str_eq(printable_duration(S / 2, out), "0.50 s");
	ck_assert_str_eq(printable_duration(185 * S, out), "3 min 5 s");
	ck_assert_str_eq(printable_duration(2 * 3600 * S + 180 * S, out), "2 h 3 min");
	ck_assert_str_eq(printable_duration(25 * 3600 * S, out), "1 d 1 h");
	ck_assert_uint_gt(strlen(printable_duration(UINT64_MAX, out)), 0);
}
END_TEST

START_TEST(times)
{
	char out[PRINTABLE_AMOUNT_BYTES];
	setenv("TZ", "UTC", 1);
	ck_assert_str_eq(printable_time(1795470333 * S + 5, out), "2026-11-23 21:45:33");
	ck_assert_str_eq(printable_time(0, out), "1970-01-01 00:00:00");
	ck_assert_uint_gt(strlen(printable_time(UINT64_MAX, out)), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sprofctl_printable");
	TCase *tcase = tcase_create("text");
	tcase_add_test(tcase, plain_text_stays);
	tcase_add_test(tcase, nothing_drives_the_terminal);
	tcase_add_test(tcase, characters_of_the_locale_stay);
	tcase_add_test(tcase, text_that_does_not_fit_is_cut);
	tcase_add_test(tcase, amounts);
	tcase_add_test(tcase, times);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
