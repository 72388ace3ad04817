#include <check.h>
#include <stdio.h>
#include <string.h>

#include "check_main.h"
#include "model/python_codes.h"
#include "model/python_lines.h"

/* --- location tables --- */

#define FIRST(form, units) (uint8_t)(0x80 | (form) << 3 | ((units)-1))

START_TEST(lines_of_each_form)
{
	/* As the interpreter's Objects/locations.md has them; each entry begins with a byte that has bit 7. */
	static const uint8_t table[] = {
		FIRST(0, 1),  0x00,                /* short form: the same line */
		FIRST(11, 2), 0x01, 0x02,          /* one line on, with columns */
		FIRST(12, 1), 0x01, 0x02,          /* two lines on */
		FIRST(13, 3), 0x05,                /* no columns: -2 */
		FIRST(15, 1),                      /* none */
		FIRST(14, 8), 0x46, 0x02, 0, 1, 1, /* long: 6 | 2 << 6 = 134: +67 */
		FIRST(10, 1), 0x01, 0x02,
	};
	const struct {
		uint32_t instruction;
		int64_t line;
	} expected[] = {{0, 100}, {1, 100},  {2, 101},  {5, 101},  {6, 103},  {8, 101}, {13, 101},
			{14, 0},  {16, 168}, {31, 168}, {32, 168}, {33, 168}, {34, 0},  {UINT32_MAX, 0}};
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		ck_assert_int_eq(python_lines_find(table, sizeof(table), 100, expected[i].instruction),
				 expected[i].line);
}
END_TEST

START_TEST(tables_that_are_none)
{
	static const uint8_t cut[] = {FIRST(14, 1), 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f};
	static const uint8_t back[] = {FIRST(13, 1), 0x7f, 0x7f, 0x03};
	static const uint8_t no_start[] = {0x00, 0x01, 0x02};
	ck_assert_int_eq(python_lines_find(NULL, 0, 1, 0), 0);
	for (size_t n = 0; n <= sizeof(cut); n++)
		(void)python_lines_find(cut, n, INT32_MAX, 0);
	ck_assert_int_eq(python_lines_find(back, sizeof(back), 5, 0), 0); /* before the first line */
	(void)python_lines_find(no_start, sizeof(no_start), 1, 5);
}
END_TEST

/* --- code objects --- */

static struct python_code code = {
	.name = "f", .filename = "a.py", .first_line = 7, .lines = (const uint8_t[]){FIRST(11, 1), 0, 0}, .n_lines = 3};

START_TEST(numbers_and_names)
{
	struct python_codes *codes = python_codes_new(1 << 20);
	struct python_code_key key = {.address = 0x1000, .identity = 1}, other = {.address = 0x1000, .identity = 2};
	struct python_code_unread unread[4];
	struct python_line line;
	ck_assert_uint_eq(python_codes_number(codes, &key), 0);
	ck_assert_uint_eq(python_codes_number(codes, &other), 1);
	ck_assert_uint_eq(python_codes_number(codes, &key), 0);
	ck_assert_int_eq((int)python_codes_find(codes, 0, 0, &line), PYTHON_CODE_UNREAD);
	ck_assert_uint_eq(python_codes_begin(codes, unread, 1), 1);
	ck_assert_uint_eq(unread[0].number, 0);
	ck_assert_uint_eq(unread[0].key.address, 0x1000);
	ck_assert_uint_eq(python_codes_begin(codes, unread, 4), 1);
	ck_assert_uint_eq(unread[0].key.identity, 2);
	ck_assert_uint_eq(python_codes_begin(codes, unread, 4), 0);
	python_codes_tell(codes, 0, &code);
	python_codes_tell(codes, 1, NULL);
	python_codes_tell(codes, 77, &code);
	ck_assert_int_eq((int)python_codes_find(codes, 0, 0, &line), PYTHON_CODE_TOLD);
	ck_assert_str_eq(line.name, "f");
	ck_assert_str_eq(line.filename, "a.py");
	ck_assert_int_eq(line.line, 8);
	ck_assert_int_eq(line.start_line, 7);
	ck_assert_int_eq((int)python_codes_find(codes, 0, 500, &line), PYTHON_CODE_TOLD);
	ck_assert_int_eq(line.line, 7); /* where the table says nothing, where the function is */
	ck_assert_int_eq((int)python_codes_find(codes, 1, 0, &line), PYTHON_CODE_GONE);
	ck_assert_int_eq((int)python_codes_find(codes, SAMPLE_PYTHON_NO_CODE, 0, &line), PYTHON_CODE_GONE);
	python_codes_tell(codes, 1, &code); /* once told is told */
	ck_assert_int_eq((int)python_codes_find(codes, 1, 0, &line), PYTHON_CODE_GONE);
	python_codes_unref(codes);
}
END_TEST

START_TEST(a_budget)
{
	struct python_codes *codes = python_codes_new(256 << 10);
	struct python_line line;
	uint32_t n = 0, told = 0;
	static char long_name[8000];
	struct python_code large = code;
	memset(long_name, 'x', sizeof(long_name) - 1);
	large.name = long_name;
	for (uint32_t i = 0; i < 100000; i++) {
		struct python_code_key key = {.address = 0x1000 + i * 64, .identity = i};
		uint32_t number = python_codes_number(codes, &key);
		if (number == SAMPLE_PYTHON_NO_CODE)
			break;
		ck_assert_uint_eq(number, n++);
		python_codes_tell(codes, number, &large);
		told += python_codes_find(codes, number, 0, &line) == PYTHON_CODE_TOLD;
	}
	ck_assert_uint_gt(n, 500);
	ck_assert_uint_lt(n, 100000);
	ck_assert_uint_gt(told, 10);
	ck_assert_uint_lt(told * sizeof(long_name), 256 << 10);
	for (uint32_t i = 0; i < n; i++) { /* those that were met are found all the same */
		struct python_code_key key = {.address = 0x1000 + i * 64, .identity = i};
		ck_assert_uint_eq(python_codes_number(codes, &key), i);
	}
	struct python_codes *second = python_codes_ref(codes);
	python_codes_unref(codes);
	ck_assert_int_eq((int)python_codes_find(second, 0, 0, &line), PYTHON_CODE_TOLD);
	python_codes_unref(second);
	python_codes_unref(NULL);
}
END_TEST

START_TEST(frames_as_numbers)
{
	uint64_t frame = SAMPLE_FRAME_PYTHON(SAMPLE_PYTHON_NO_CODE, (1 << 21) - 2);
	ck_assert(SAMPLE_IS_PYTHON(frame));
	ck_assert_uint_eq(SAMPLE_PYTHON_NUMBER(frame), SAMPLE_PYTHON_NO_CODE);
	ck_assert_uint_eq(SAMPLE_PYTHON_INSTRUCTION(frame), (1 << 21) - 2);
	frame = SAMPLE_FRAME_PYTHON(3, 8);
	ck_assert_uint_eq(SAMPLE_PYTHON_NUMBER(frame), 3);
	ck_assert_uint_eq(SAMPLE_PYTHON_INSTRUCTION(frame), 8);
	ck_assert(!SAMPLE_IS_PYTHON(SAMPLE_FRAME_SYSTEM) && !SAMPLE_IS_PYTHON(0x7fffffffffff));
}
END_TEST

CHECK_MAIN("python_codes", 30, lines_of_each_form, tables_that_are_none, numbers_and_names, a_budget, frames_as_numbers)
