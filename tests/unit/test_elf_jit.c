/* What JITs write, as they write it and as nobody should. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
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

static void put_load_at(uint64_t time_ns, uint64_t address, uint64_t bytes, const char *name)
{
	put_number(0, 4);
	put_number(16 + 40 + strlen(name) + 1 + bytes, 4);
	put_number(time_ns, 8);
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

static void put_load(uint64_t address, uint64_t bytes, const char *name)
{
	put_load_at(1, address, bytes, name);
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

static void put_move_at(uint64_t time_ns, uint64_t old, uint64_t new, uint64_t bytes)
{
	put_number(1, 4);
	put_number(16 + 48, 4);
	put_number(time_ns, 8);
	put_number(1, 4);
	put_number(1, 4);
	put_number(new, 8);
	put_number(old, 8);
	put_number(new, 8);
	put_number(bytes, 8);
	put_number(0, 8);
}

static void put_move(uint64_t old, uint64_t new, uint64_t bytes)
{
	put_move_at(2, old, new, bytes);
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
	put_lines_at(0x4000, 0x40, "\u0554"); /* freed memory that is a text */
	put_load(0x4000, 16, "LazyCompile:*f /src/a.js:3:1");
	put_lines_at(0x5000, 0x40, "a.js"); /* a path that is relative */
	put_load(0x5000, 16, "LazyCompile:*a.js a.js:3:1");
	put_lines_at(0x6000, 0x40, "a.j");
	put_load(0x6000, 16, "LazyCompile:*f a.js:3:1");
	put_lines_at(0x7000, 0x40, "node:internal/util"); /* inlined */
	put_load(0x7000, 16, "LazyCompile:*f a.js:3:1");
	ck_assert_int_eq(jit_open(maker_memfd(dump, dump_bytes), JIT_DUMP, &jit), 0);
	expect_line(0x1000, "small", "/src/a.js", 10);
	expect_line(0x100f, "small", "/src/a.js", 11);
	expect_line(0x2000, "large", "", 10);
	expect_line(0x2008, "large", "", 11);
	expect_line(0x3000, "other", "", 0);
	expect_line(0x3010, "other", "/src/a.js", 10);
	expect_line(0x4000, "LazyCompile:*f /src/a.js:3:1", "", 10);
	expect_line(0x5000, "LazyCompile:*a.js a.js:3:1", "a.js", 10);
	expect_line(0x6000, "LazyCompile:*f a.js:3:1", "", 10);
	expect_line(0x7000, "LazyCompile:*f a.js:3:1", "node:internal/util", 10);
}
END_TEST

static void open_dump(void)
{
	teardown();
	ck_assert_int_eq(jit_open(maker_memfd(dump, dump_bytes), JIT_DUMP, &jit), 0);
}

/* The place, which has that name until then. */
static uint64_t expect_at(uint64_t address, uint64_t time_ns, const char *name, uint64_t until_ns)
{
	struct image_frame frame;
	uint64_t found_until_ns = 0, place = jit_place_at(jit, address, time_ns, &found_until_ns);
	ck_assert_msg(found_until_ns == until_ns, "%#lx at %lu holds until %lu", address, time_ns, found_until_ns);
	ck_assert_uint_eq(place != 0, name != NULL);
	ck_assert_uint_eq(jit_find_place(jit, place, &frame), name != NULL);
	if (name)
		ck_assert_str_eq(frame.name, name);
	return place;
}

START_TEST(code_at_a_moment)
{
	begin_dump();
	put_load_at(100, 0x1000, 64, "first");
	put_load_at(200, 0x1000, 64, "second");
	put_load_at(300, 0x1000, 32, "third"); /* the end of the second one stays */
	put_load_at(400, 0x1000, 64, "first");
	put_load_at(400, 0x2000, 16, "twice at once");
	put_load_at(400, 0x2000, 16, "the later of the two");
	put_load_at(250, 0x1010, 16, "told late");
	open_dump();
	ck_assert(jit_has_places(jit));
	uint64_t place = expect_at(0x1004, 100, "first", 200);
	ck_assert_uint_eq(expect_at(0x1004, 199, "first", 200), place);
	ck_assert_uint_ne(expect_at(0x1005, 199, "first", 200), place);
	expect_at(0x1004, 50, "first", 200); /* nothing else is known to have been there */
	expect_at(0x1004, 0, "first", 200);
	expect_at(0x1004, 200, "second", 300);
	expect_at(0x1004, 350, "third", 400);
	expect_at(0x1030, 350, "second", 400);
	ck_assert_uint_ne(expect_at(0x1004, UINT64_MAX, "first", UINT64_MAX), place);
	expect_at(0x1010, 220, "second", 250);
	expect_at(0x1010, 299, "told late", 300);
	expect_at(0x2000, 1000, "the later of the two", UINT64_MAX);
	expect_at(0x1040, 100, NULL, UINT64_MAX);
	expect_at(0xfff, 100, NULL, UINT64_MAX);
	expect_at(UINT64_MAX, 100, NULL, UINT64_MAX);
	/* It has grown. */
	put_load_at(500, 0x1000, 64, "fifth");
	put_load_at(90, 0x800, 0x1000, "below");
	open_dump();
	ck_assert_uint_eq(expect_at(0x1004, 150, "first", 200), place);
	expect_at(0x1004, 450, "first", 500);
	expect_at(0x1004, 500, "fifth", UINT64_MAX);
	expect_at(0x1004, 95, "below", 100);
	expect(0x1004, "fifth"); /* without a moment: as of the end */
}
END_TEST

START_TEST(code_that_moves)
{
	begin_dump();
	put_lines(0x1000, "/src/a.js");
	put_load_at(100, 0x1000, 16, "moving");
	put_load_at(100, 0x5000, 16, "before");
	put_move_at(200, 0x1000, 0x5000, 16);
	put_load_at(250, 0x1000, 16, "after");
	put_move_at(300, 0x5000, UINT64_MAX - 4, 16);
	open_dump();
	expect_at(0x1000, 150, "moving", 250);
	expect_at(0x5000, 150, "before", 200);
	uint64_t moved = expect_at(0x500f, 200, "moving", UINT64_MAX);
	expect_at(0x1000, 250, "after", UINT64_MAX);
	struct image_frame frame;
	ck_assert_uint_eq(jit_find_place(jit, moved, &frame), 1);
	ck_assert_str_eq(frame.filename, "/src/a.js");
	ck_assert_uint_eq(frame.line, 11);
}
END_TEST

/* By the processor's clock, or one that is ahead of ours: what is told last holds. */
START_TEST(times_of_another_clock)
{
	begin_dump();
	put_load_at(100, 0x1000, 16, "first");
	put_load_at(UINT64_MAX / 2, 0x1000, 16, "second");
	open_dump();
	expect_at(0x1000, 100, "second", UINT64_MAX);
	begin_dump();
	dump[32] = 1;
	put_load_at(200, 0x1000, 16, "first");
	put_load_at(100, 0x1000, 16, "second");
	open_dump();
	expect_at(0x1000, 300, "second", UINT64_MAX);
}
END_TEST

START_TEST(places_that_there_are_not)
{
	struct image_frame frame;
	uint64_t until_ns = 0;
	begin_dump();
	put_load(0x1000, 16, "only");
	uint64_t huge = (UINT64_C(1) << 40) + 1;
	size_t at = dump_bytes;
	put_load(0x2000, 16, "huge");
	memcpy(dump + at + 40, &huge, sizeof(huge));
	open_dump();
	expect_at(0x2004, 5, NULL, UINT64_MAX);
	uint64_t place = expect_at(0x100f, 5, "only", UINT64_MAX);
	ck_assert_uint_eq(jit_find_place(jit, place + 1, &frame), 0);
	ck_assert_uint_eq(jit_find_place(jit, UINT64_MAX, &frame), 0);
	ck_assert_uint_eq(jit_find_place(jit, 0, &frame), 0);
	ck_assert_uint_eq(jit_find_place(jit, place + (UINT64_C(1) << 40), &frame), 0);
	teardown();
	open_text("1000 20 in_a_map\n");
	ck_assert(!jit_has_places(jit));
	ck_assert_uint_eq(jit_place_at(jit, 0x1000, 5, &until_ns), 0);
	ck_assert_uint_eq(jit_find_place(jit, place, &frame), 0);
	teardown();
	begin_dump();
	open_dump();
	ck_assert_uint_eq(jit_place_at(jit, 0x1000, 5, &until_ns), 0);
}
END_TEST

/* Many, against looking through all of them. */
START_TEST(many_moments)
{
	enum { N = 100 };
	struct {
		uint64_t start, bytes, time_ns;
		char name[16];
	} all[N];
	uint64_t state = 1;
	begin_dump();
	for (size_t i = 0; i < N; i++) {
		state = state * UINT64_C(6364136223846793005) + 1;
		all[i].start = 0x1000 + (state >> 40) % 64;
		all[i].bytes = 1 + (state >> 50) % 16;
		all[i].time_ns = 1 + (state >> 32) % 64;
		snprintf(all[i].name, sizeof(all[i].name), "f%zu", i);
		put_load_at(all[i].time_ns, all[i].start, all[i].bytes, all[i].name);
	}
	open_dump();
	for (uint64_t address = 0x0ff0; address < 0x1060; address++) {
		for (uint64_t time_ns = 0; time_ns < 70; time_ns++) {
			size_t held = N, first = N;
			uint64_t next_ns = UINT64_MAX;
			for (size_t i = 0; i < N; i++) {
				if (address - all[i].start >= all[i].bytes)
					continue;
				if (all[i].time_ns <= time_ns && (held == N || all[i].time_ns >= all[held].time_ns))
					held = i;
				if (first == N || all[i].time_ns < all[first].time_ns)
					first = i;
			}
			uint64_t from_ns = held == N && first < N ? all[first].time_ns : time_ns;
			for (size_t i = 0; i < N; i++) {
				if (address - all[i].start >= all[i].bytes)
					continue;
				if (held == N && all[i].time_ns == from_ns)
					first = i; /* of those of one moment the last */
				if (all[i].time_ns > from_ns && all[i].time_ns < next_ns)
					next_ns = all[i].time_ns;
			}
			held = held == N ? first : held;
			expect_at(address, time_ns, held == N ? NULL : all[held].name, next_ns);
		}
	}
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
	tcase_add_test(tests, code_at_a_moment);
	tcase_add_test(tests, code_that_moves);
	tcase_add_test(tests, times_of_another_clock);
	tcase_add_test(tests, places_that_there_are_not);
	tcase_add_test(tests, many_moments);
	tcase_add_test(tests, a_jitdump_that_is_damaged);
	tcase_set_timeout(tests, 60);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
