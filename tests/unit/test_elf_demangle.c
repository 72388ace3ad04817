#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "elf/demangle.h"

static char out[4097];

static void expect(const char *symbol, const char *readable)
{
	ck_assert_msg(demangle(symbol, out, sizeof(out)), "%s", symbol);
	ck_assert_str_eq(out, readable);
}

START_TEST(cxx)
{
	expect("_Z3foov", "foo()");
	expect("_ZNK5outer5innerIiE3getEPKc", "outer::inner<int>::get(char const*) const");
	expect("_ZN3FooC1Ev", "Foo::Foo()");
	expect("_ZN3FooD0Ev", "Foo::~Foo()");
	expect("_ZThn16_N3Foo3barEv", "non-virtual thunk to Foo::bar()");
	expect("_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()() const");
	expect("_Z4coldv.cold", "cold() [clone .cold]");
	expect("_ZN3FooplERKS_", "Foo::operator+(Foo const&)");
}
END_TEST

START_TEST(rust)
{
	expect("_ZN4core3fmt9Formatter9write_str17h0123456789abcdefE", "core::fmt::Formatter::write_str");
	expect("_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h930b740aa94f1d3aE",
	       "<Test + 'static as foo::Bar<Test>>::bar");
	expect("_RNvCs1234_7mycrate3foo", "mycrate::foo");
	expect("_RNvMs_Cs1234_7mycrateNtB4_3Foo3bar", "<mycrate::Foo>::bar");
	expect("_RNCNvCs1234_7mycrate4main0B3_", "mycrate::main::{closure#0}");
}
END_TEST

START_TEST(d)
{
	expect("_D3foo3barFZv", "foo.bar()");
	expect("_Dmain", "D main");
}
END_TEST

START_TEST(others_stay)
{
	static const char *const names[] = {
		"", "main", "_", "_Z", "_R", "_D", "_start", "__libc_start_main", "_Zzzz", "_DYNAMIC", "_Rust"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		ck_assert_msg(!demangle(names[i], out, sizeof(out)), "%s -> %s", names[i], out);
}
END_TEST

START_TEST(readable_form_that_does_not_fit)
{
	char small[8] = "before";
	ck_assert(!demangle("_ZN5outer5innerEi", small, sizeof(small)));
	ck_assert(!demangle("_D3foo3barFZv", small, sizeof(small)));
	ck_assert(!demangle("_Z3foov", small, 0));
	ck_assert(!demangle("_Z3foov", small, strlen("foo()")));
	ck_assert(demangle("_Z3foov", small, strlen("foo()") + 1));
	ck_assert_str_eq(small, "foo()");
}
END_TEST

/* Each pair doubles: 2^60 characters of output from a hundred of input. */
START_TEST(expansion_is_bounded)
{
	char symbol[2048] = "_Z1fI1aE";
	strcpy(symbol, "_Z1fISt4pairI1aS0_E");
	for (int i = 1; i < 34; i++) {
		char digit = (char)(i < 10 ? '0' + i : 'A' + i - 10);
		char next[32];
		snprintf(next, sizeof(next), "St4pairIS%c_S%c_E", digit, digit);
		strcat(symbol, next);
	}
	strcat(symbol, "EvT_");
	(void)demangle(symbol, out, sizeof(out)); /* whatever it says, it returns at once and stays within out */
	ck_assert_uint_lt(strnlen(out, sizeof(out)), sizeof(out));
}
END_TEST

START_TEST(depth_is_bounded)
{
	static char symbol[1 << 16];
	for (size_t length = 1000; length < sizeof(symbol) - 16; length *= 2) {
		memset(symbol, 'P', sizeof(symbol));
		memcpy(symbol, "_Z1f", 4);
		strcpy(symbol + length, "i");
		(void)demangle(symbol, out, sizeof(out));
		memcpy(symbol, "_RYY", 4);
		(void)demangle(symbol, out, sizeof(out));
		memset(symbol + 2, 'A', length - 2);
		memcpy(symbol, "_D1f", 4);
		(void)demangle(symbol, out, sizeof(out));
	}
	ck_assert(!demangle(symbol, out, sizeof(out)));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("elf_demangle");
	TCase *tests = tcase_create("demangle");
	tcase_add_test(tests, cxx);
	tcase_add_test(tests, rust);
	tcase_add_test(tests, d);
	tcase_add_test(tests, others_stay);
	tcase_add_test(tests, readable_form_that_does_not_fit);
	tcase_add_test(tests, expansion_is_bounded);
	tcase_add_test(tests, depth_is_bounded);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
