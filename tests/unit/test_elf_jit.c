/* What JITs write, as they write it and as nobody should. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "elf/jit.h"
#include "elf_maker.h"

static struct jit *jit;

static void teardown(void)
{
	jit_free(jit);
	jit = NULL;
}

static void open_text(const char *text)
{
	ck_assert_int_eq(jit_open(maker_memfd(text, strlen(text)), JIT_PERF_MAP, &jit), 0);
}

static void expect(uint64_t address, const char *name)
{
	struct image_frame frame;
	size_t n = jit_find(jit, address, &frame);
	if (!name) {
		ck_assert_msg(n == 0, "%#lx is %s", address, n ? frame.name : "");
		return;
	}
	ck_assert_msg(n == 1, "%#lx has no name", address);
	ck_assert_str_eq(frame.name, name);
}

START_TEST(a_perf_map)
{
	open_text("7f0000001000 20 JS:~one file.js:1\n7f0000002000 10 _ZN3foo3barEv\n0x7f0000003000 0x8 three\n");
	ck_assert_uint_eq(jit_count(jit), 3);
	expect(0x7f0000000fff, NULL);
	expect(0x7f0000001000, "JS:~one file.js:1");
	expect(0x7f000000101f, "JS:~one file.js:1");
	expect(0x7f0000001020, NULL);
	expect(0x7f0000002001, "foo::bar()");
	expect(0x7f0000003007, "three");
	expect(UINT64_MAX, NULL);
}
END_TEST

/* What is told later holds; what is left of the earlier one keeps its name. */
START_TEST(code_that_is_replaced)
{
	open_text("1000 100 old\n1040 20 inner\n2000 100 a\n1f80 100 b\n3000 10 first\n3000 10 second\n");
	expect(0x1000, "old");
	expect(0x103f, "old");
	expect(0x1040, "inner");
	expect(0x105f, "inner");
	expect(0x1060, NULL); /* of the old one nobody knows that it is still there */
	expect(0x1fff, "b");
	expect(0x207f, "b");
	expect(0x2080, "a");
	expect(0x3000, "second");
}
END_TEST

START_TEST(a_perf_map_that_is_malformed)
{
	open_text("\n\n1000\n1000 20\nxyz 10 name\n1000 zz name\n1000 0 empty\nffffffffffffffff 10 over\n"
		  "11112222333344445 10 long\n2000 10 good\n2010 10 bad\x01\xff\x80name\n3000 10 without newline");
	expect(0x1000, NULL);
	expect(0x2000, "good");
	expect(0x2010, "bad???name");
	expect(0x3000, NULL); /* its writer is in the middle of it */
	ck_assert_uint_eq(jit_count(jit), 2);
}
END_TEST

/* Lines longer than the reader's chunk, and names longer than a name. */
START_TEST(long_lines)
{
	size_t n = 3 << 20;
	char *text = malloc(n + 64);
	memcpy(text, "1000 10 ", 8);
	memset(text + 8, 'x', n - 8);
	strcpy(text + n, "\n2000 10 after\n");
	ck_assert_int_eq(jit_open(maker_memfd(text, strlen(text)), JIT_PERF_MAP, &jit), 0);
	expect(0x2000, "after");
	jit_free(jit);
	memset(text + 8, 'y', 8192);
	strcpy(text + 8200, "\n2000 10 after\n");
	ck_assert_int_eq(jit_open(maker_memfd(text, strlen(text)), JIT_PERF_MAP, &jit), 0);
	expect(0x2000, "after");
	struct image_frame frame;
	ck_assert_uint_eq(jit_find(jit, 0x1000, &frame), 1);
	ck_assert_uint_eq(strlen(frame.name), READER_NAME_MAX_BYTES);
	free(text);
}
END_TEST

START_TEST(what_is_no_file)
{
	int pipes[2];
	ck_assert_int_eq(pipe(pipes), 0);
	close(pipes[1]);
	ck_assert_int_eq(jit_open(pipes[0], JIT_PERF_MAP, &jit), -ENOEXEC);
	ck_assert_int_eq(jit_open(maker_memfd("no dump", 7), JIT_DUMP, &jit), -ENOEXEC);
	ck_assert_int_eq(jit_open(maker_memfd("", 0), JIT_PERF_MAP, &jit), 0);
	ck_assert_uint_eq(jit_count(jit), 0);
}
END_TEST

/* A jitdump being written. */
static uint8_t dump[8192];
static size_t dump_bytes;

static void put(const void *bytes, size_t n)
{
	memcpy(dump + dump_bytes, bytes, n);
	dump_bytes += n;
}

static void put_number(uint64_t value, size_t n)
{
	put(&value, n);
}

static void begin_dump(void)
{
	dump_bytes = 0;
	put_number(0x4A695444, 4);
	put_number(1, 4);
	put_number(40, 4);
	put_number(62, 4); /* EM_X86_64 */
	put_number(0, 4);
	put_number(1, 4);
	put_number(0, 8);
	put_number(0, 8);
}

static void put_load(uint64_t address, uint64_t bytes, const char *name)
{
	put_number(0, 4);
	put_number(16 + 40 + strlen(name) + 1 + bytes, 4);
	put_number(1, 8);
	put_number(1, 4);
	put_number(1, 4);
	put_number(address, 8);
	put_number(address, 8);
	put_number(bytes, 8);
	put_number(0, 8);
	put(name, strlen(name) + 1);
	memset(dump + dump_bytes, 0x90, bytes);
	dump_bytes += bytes;
}

/* Two lines, the first one shift bytes behind the begin of the code. */
static void put_lines_at(uint64_t address, uint64_t shift, const char *file)
{
	size_t entry = 16 + strlen(file) + 1;
	put_number(2, 4);
	put_number(16 + 16 + 2 * entry, 4);
	put_number(1, 8);
	put_number(address, 8);
	put_number(2, 8);
	for (uint64_t i = 0; i < 2; i++) {
		put_number(address + shift + 8 * i, 8);
		put_number(10 + i, 4);
		put_number(0, 4);
		put(file, strlen(file) + 1);
	}
}

static void put_lines(uint64_t address, const char *file)
{
	put_lines_at(address, 0, file);
}

static void put_move(uint64_t old, uint64_t new, uint64_t bytes)
{
	put_number(1, 4);
	put_number(16 + 48, 4);
	put_number(2, 8);
	put_number(1, 4);
	put_number(1, 4);
	put_number(new, 8);
	put_number(old, 8);
	put_number(new, 8);
	put_number(bytes, 8);
	put_number(0, 8);
}

static void expect_line(uint64_t address, const char *name, const char *file, uint32_t line)
{
	struct image_frame frame;
	ck_assert_uint_eq(jit_find(jit, address, &frame), 1);
	ck_assert_str_eq(frame.name, name);
	ck_assert_str_eq(frame.filename, file);
	ck_assert_uint_eq(frame.line, line);
}

START_TEST(a_jitdump)
{
	begin_dump();
	put_lines(0x1000, "/src/a.js");
	put_load(0x1000, 16, "with_lines");
	put_load(0x2000, 16, "without");
	put_move(0x1000, 0x5000, 16);
	put_number(4, 4); /* an unknown record, and one that is only half there */
	put_number(24, 4);
	put_number(0, 8);
	put_number(0, 8);
	put_load(0x3000, 16, "last");
	size_t whole = dump_bytes;
	put_load(0x4000, 16, "half");
	ck_assert_int_eq(jit_open(maker_memfd(dump, whole + 20), JIT_DUMP, &jit), 0);
	expect_line(0x1000, "with_lines", "/src/a.js", 10);
	expect_line(0x1007, "with_lines", "/src/a.js", 10);
	expect_line(0x100f, "with_lines", "/src/a.js", 11);
	expect_line(0x2000, "without", "", 0);
	expect_line(0x3000, "last", "", 0);
	expect(0x4000, NULL);
	expect(0x5000, "with_lines");
}
END_TEST

/* Its lines are told for code behind an ELF header, and its paths may be memory that was freed. */
START_TEST(v8s_jitdump)
{
	begin_dump();
	put_lines_at(0x1000, 0x40, "/src/a.js");
	put_load(0x1000, 16, "small");
	put_lines_at(0x2000, 0x40, "x\x92r\x89i\xb7M\xf4s");
	put_load(0x2000, 256, "large");
	put_lines_at(0x3000, 0x10, "/src/a.js"); /* another's: its first line is further on */
	put_load(0x3000, 256, "other");
	ck_assert_int_eq(jit_open(maker_memfd(dump, dump_bytes), JIT_DUMP, &jit), 0);
	expect_line(0x1000, "small", "/src/a.js", 10);
	expect_line(0x100f, "small", "/src/a.js", 11);
	expect_line(0x2000, "large", "", 10);
	expect_line(0x2008, "large", "", 11);
	expect_line(0x3000, "other", "", 0);
	expect_line(0x3010, "other", "/src/a.js", 10);
}
END_TEST

/* Cut anywhere, and with any byte wrong, it is read without harm. */
START_TEST(a_jitdump_that_is_damaged)
{
	begin_dump();
	put_lines(0x1000, "/src/a.js");
	put_load(0x1000, 16, "with_lines");
	put_move(0x1000, 0x5000, 16);
	struct image_frame frame;
	for (size_t i = 0; i < dump_bytes; i++) {
		uint8_t kept = dump[i];
		for (int flip = 0; flip < 3; flip++) {
			dump[i] = flip == 0 ? (uint8_t)~kept : flip == 1 ? 0xff : 0;
			if (jit_open(maker_memfd(dump, dump_bytes), JIT_DUMP, &jit) == 0) {
				(void)jit_find(jit, 0x1000, &frame);
				teardown();
			}
		}
		dump[i] = kept;
		if (jit_open(maker_memfd(dump, i), JIT_DUMP, &jit) == 0)
			teardown();
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("elf_jit");
	TCase *tests = tcase_create("jit");
	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_add_test(tests, a_perf_map);
	tcase_add_test(tests, code_that_is_replaced);
	tcase_add_test(tests, a_perf_map_that_is_malformed);
	tcase_add_test(tests, long_lines);
	tcase_add_test(tests, what_is_no_file);
	tcase_add_test(tests, a_jitdump);
	tcase_add_test(tests, v8s_jitdump);
	tcase_add_test(tests, a_jitdump_that_is_damaged);
	tcase_set_timeout(tests, 60);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
