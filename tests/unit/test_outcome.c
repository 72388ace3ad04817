#include <check.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "bpf/outcome.h"
#include "check_main.h"

struct name {
	const char *upper, *name, *text;
};

static const struct name outcomes[] = {
#define ROW(NAME, name, where, text) {#NAME, #name, text},
	OUTCOME_TABLE(ROW)
#undef ROW
};
static const struct name ends[] = {
#define ROW(NAME, name, complete, text) {#NAME, #name, text},
	STACK_END_TABLE(ROW)
#undef ROW
};
static const struct name python_ends[] = {
#define ROW(NAME, name, complete, text) {#NAME, #name, text},
	PYTHON_END_TABLE(ROW)
#undef ROW
};
enum { BPF, USER }; /* what `where` may be: anything else does not compile */
static const int wheres[] = {
#define ROW(NAME, name, where, text) where,
	OUTCOME_TABLE(ROW)
#undef ROW
};
static const int completes[] = {
#define ROW(NAME, name, complete, text) complete,
	STACK_END_TABLE(ROW)
#undef ROW
};

static void check_names(const struct name *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_gt(strlen(names[i].name), 0);
		ck_assert_uint_eq(strlen(names[i].name), strlen(names[i].upper));
		for (size_t k = 0; names[i].name[k]; k++) {
			char c = names[i].name[k]; /* fit for a metric's label */
			ck_assert(islower((unsigned char)c) || isdigit((unsigned char)c) || c == '_');
			ck_assert_int_eq(toupper((unsigned char)c), names[i].upper[k]);
		}
		ck_assert_msg(strlen(names[i].text) >= 10 && strchr(names[i].text, ' '), "%s says nothing",
			      names[i].name);
		ck_assert_msg(!strpbrk(names[i].text, "\n\"\\"), "%s: a text for one line", names[i].name);
		for (size_t k = 0; k < i; k++) {
			ck_assert_str_ne(names[i].name, names[k].name);
			ck_assert_str_ne(names[i].text, names[k].text);
		}
	}
}

START_TEST(names_are_unique_lower_case_and_explained)
{
	check_names(outcomes, sizeof(outcomes) / sizeof(outcomes[0]));
	check_names(ends, sizeof(ends) / sizeof(ends[0]));
	check_names(python_ends, sizeof(python_ends) / sizeof(python_ends[0]));
}
END_TEST

START_TEST(the_tables_make_the_enums)
{
	ck_assert_uint_eq(sizeof(outcomes) / sizeof(outcomes[0]), OUTCOME_COUNT);
	ck_assert_uint_eq(sizeof(ends) / sizeof(ends[0]), STACK_END_COUNT);
	ck_assert_str_eq(outcomes[OUTCOME_CAPTURED].name, "captured");
	ck_assert_str_eq(outcomes[OUTCOME_SAMPLE].name, "sample");
	ck_assert_str_eq(ends[STACK_END_TOO_DEEP].name, "too_deep");
	ck_assert_int_eq(wheres[OUTCOME_CAPTURED], BPF);
	ck_assert_int_eq(wheres[OUTCOME_SAMPLE], USER);
	for (size_t i = 0; i < STACK_END_COUNT; i++)
		ck_assert(completes[i] == 0 || completes[i] == 1);
	ck_assert_int_eq(completes[STACK_END_ROOT], 1);
	ck_assert_int_eq(completes[STACK_END_UNREADABLE], 0);
	ck_assert_uint_lt(STACK_END_COUNT, 256); /* a byte in the record */
}
END_TEST

/* The document has one row for each, in the words of the table. */
static void check_documented(const char *document, const struct name *names, size_t n)
{
	char row[512];
	for (size_t i = 0; i < n; i++) {
		snprintf(row, sizeof(row), "\n| `%s` | %s |\n", names[i].name, names[i].text);
		ck_assert_msg(strstr(document, row), "docs/OUTCOMES.md lacks the row%s", row);
	}
}

START_TEST(every_name_is_documented)
{
	static char document[1 << 16];
	FILE *file = fopen(SPROF_SOURCE_DIR "/docs/OUTCOMES.md", "re");
	ck_assert_msg(file != NULL, "docs/OUTCOMES.md is missing");
	size_t bytes = fread(document, 1, sizeof(document) - 1, file);
	fclose(file);
	ck_assert_uint_lt(bytes, sizeof(document) - 1);
	check_documented(document, outcomes, OUTCOME_COUNT);
	check_documented(document, ends, STACK_END_COUNT);
	check_documented(document, python_ends, PYTHON_END_COUNT);
}
END_TEST

CHECK_MAIN("outcome", 10, names_are_unique_lower_case_and_explained, the_tables_make_the_enums,
	   every_name_is_documented)
