#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "check_main.h"

START_TEST(gives_code_and_text)
{
	struct error err = {0};
	ck_assert_int_eq(error_set(&err, EPERM, "no %s for %d", "right", 7), -EPERM);
	ck_assert_int_eq(err.code, EPERM);
	ck_assert_str_eq(err.text, "no right for 7");
}
END_TEST

START_TEST(may_be_of_no_interest)
{
	ck_assert_int_eq(error_set(NULL, ENOENT, "%s", "nobody reads it"), -ENOENT);
}
END_TEST

START_TEST(text_is_one_line_and_bounded)
{
	struct error err;
	char name[2 * ERROR_TEXT_BYTES];
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	memset(&err, 0x5a, sizeof(err));
	error_set(&err, EIO, "%s", name);
	ck_assert_uint_eq(strlen(err.text), ERROR_TEXT_BYTES - 1);
	error_set(&err, EIO, "a\nb\tc\033[31md\177");
	ck_assert_str_eq(err.text, "a b c [31md ");
	error_set(&err, EIO, "caf\xc3\xa9"); /* UTF-8 stays */
	ck_assert_str_eq(err.text, "caf\xc3\xa9");
}
END_TEST

CHECK_MAIN("error", 10, gives_code_and_text, may_be_of_no_interest, text_is_one_line_and_bounded)
