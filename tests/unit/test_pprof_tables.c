#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pprof/tables.h"

static int64_t add(struct string_table *table, const char *text)
{
	int64_t index = -1;
	ck_assert_int_eq(string_table_add(table, text, &index), 0);
	ck_assert_int_ge(index, 0);
	ck_assert_uint_lt((uint64_t)index, table->n);
	return index;
}

START_TEST(strings_are_kept_once)
{
	struct string_table table;
	ck_assert_int_eq(string_table_init(&table), 0);
	ck_assert_int_eq(add(&table, ""), 0);
	ck_assert_int_eq(add(&table, "a"), 1);
	char copy[] = "a";
	ck_assert_int_eq(add(&table, copy), 1);
	char text[32];
	for (int i = 0; i < 5000; i++) {
		int64_t index;
		snprintf(text, sizeof(text), "string %d", i);
		ck_assert_int_eq(string_table_add_copy(&table, text, &index), 0);
		ck_assert_int_eq(index, i + 2);
	}
	for (int i = 0; i < 5000; i++) {
		snprintf(text, sizeof(text), "string %d", i);
		ck_assert_int_eq(add(&table, text), i + 2);
		ck_assert_str_eq(table.entries[i + 2].text, text);
	}
	ck_assert_uint_eq(table.n, 5002);
	string_table_free(&table);
}
END_TEST

static const struct {
	const char *bad, *good;
} repairs[] = {
#define R "\xEF\xBF\xBD"
	{"plain", "plain"},
	{"gr\xC3\xBC\xC3\x9F"
	 "e",
	 "gr\xC3\xBC\xC3\x9F"
	 "e"},
	{"\xE2\x82\xAC \xF0\x9F\x98\x80 \xF4\x8F\xBF\xBF", "\xE2\x82\xAC \xF0\x9F\x98\x80 \xF4\x8F\xBF\xBF"},
	{"\xFF", R},
	{"a\x80z", "a" R "z"},
	{"\xC3", R},       /* cut off */
	{"\xE2\x82", R R}, /* cut off */
	{"\xE2\x82"
	 "a",
	 R R "a"},
	{"\xC0\xAF", R R},             /* overlong */
	{"\xE0\x80\xAF", R R R},       /* overlong */
	{"\xED\xA0\x80", R R R},       /* surrogate */
	{"\xF4\x90\x80\x80", R R R R}, /* above U+10FFFF */
	{"\xF8\x88\x80\x80\x80", R R R R R},
	{"a\x1b[31mb\n", "a" R "[31mb" R}, /* no escape sequence reaches a terminal */
	{"\xC2\x9B", R R},                 /* CSI in one character */
	{"\x7f", R},
#undef R
};

START_TEST(bad_bytes_are_replaced)
{
	struct string_table table;
	ck_assert_int_eq(string_table_init(&table), 0);
	int64_t index = add(&table, repairs[_i].bad);
	ck_assert_str_eq(table.entries[index].text, repairs[_i].good);
	/* As often as it comes, and when it comes well-formed at once. */
	ck_assert_int_eq(add(&table, repairs[_i].bad), index);
	ck_assert_int_eq(add(&table, repairs[_i].good), index);
	ck_assert_uint_eq(table.n, 2);
	string_table_free(&table);
}
END_TEST

START_TEST(functions_are_kept_once)
{
	struct function_table table = {0};
	uint64_t id;
	for (int round = 0; round < 2; round++) {
		for (int64_t i = 0; i < 3000; i++) {
			/* Four that differ in one member each. */
			struct function function = {
				.name = 1 + i / 4, .system_name = 1, .filename = 1, .start_line = 1};
			function.system_name += i % 4 == 1;
			function.filename += i % 4 == 2;
			function.start_line += i % 4 == 3;
			ck_assert_int_eq(function_table_add(&table, &function, &id), 0);
			ck_assert_uint_eq(id, (uint64_t)i + 1);
		}
	}
	ck_assert_uint_eq(table.n, 3000);
	function_table_free(&table);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pprof/tables");
	TCase *tests = tcase_create("tables");
	tcase_add_test(tests, strings_are_kept_once);
	tcase_add_loop_test(tests, bad_bytes_are_replaced, 0, sizeof(repairs) / sizeof(repairs[0]));
	tcase_add_test(tests, functions_are_kept_once);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
