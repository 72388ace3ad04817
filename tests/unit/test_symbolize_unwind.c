/* Unwind tables through the stage: from the real sprofd-elf in its sandbox, and from a reader that hostile files have taken over. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "elf/cfi_build.h"
#include "elf_maker.h"
#include "model/cfi_check.h"
#include "symbolize/symbolize.h"

#define LIBC "/lib/x86_64-linux-gnu/libc.so.6"

static struct symbolize *symbolize;

static void start_with(const char *reader_path)
{
	struct error err;
	struct symbolize_options options = {.reader_path = reader_path,
					    .cache_bytes = 1 << 20,
					    .reader_timeout_ms = 10000,
					    .kallsyms_path = "/proc/kallsyms"};
	ck_assert_int_eq(symbolize_new(&options, &symbolize, &err), 0);
}

static struct scratch scratch;

static int ask(uint64_t file_id, int fd, size_t max_bytes, struct unwind_table *ret)
{
	return symbolize_unwind_table(symbolize, file_id, fd, max_bytes, clock_monotonic_ns() + 10 * NS_PER_S, &scratch,
				      ret);
}

static uint32_t restarts(void)
{
	struct symbolize_status status;
	symbolize_status(symbolize, &status);
	return status.reader_restarts;
}

static int open_path(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void expect_libc(uint64_t file_id)
{
	_cleanup_close_ int fd = open_path(LIBC);
	struct unwind_table table;
	struct cfi_table built;
	ck_assert_int_eq(cfi_build(fd, &built), 0);
	ck_assert_int_eq(ask(file_id, fd, CFI_MAX_TABLE_BYTES, &table), 0);
	ck_assert_uint_eq(table.n_bytes, built.n);
	ck_assert_int_eq(memcmp(table.bytes, built.bytes, built.n), 0);
	ck_assert_uint_eq(table.n_fdes, built.stats.n_fdes);
	cfi_table_free(&built);
}

START_TEST(as_it_is_built)
{
	start_with(READER_PATH);
	expect_libc(1);
	expect_libc(1); /* again: nothing is kept */
	ck_assert_uint_eq(restarts(), 0);
	symbolize_free(symbolize);
}
END_TEST

/* The vdso of this process: the code of clock_gettime, wherever it is, has a rule; the file is known to the stage alone. */
START_TEST(vdso)
{
	struct unwind_table table;
	start_with(READER_PATH);
	ck_assert_int_eq(ask(SYMBOLIZE_VDSO_FILE_ID, -1, CFI_MAX_TABLE_BYTES, &table), 0);
	const struct cfi_table_header *header = table.bytes;
	ck_assert_uint_lt(header->text_end, 1 << 20);
	unsigned n_covered = 0;
	for (uint64_t offset = header->text_start; offset < header->text_end; offset++)
		n_covered += cfi_table_rule_at(table.bytes, offset) > CFI_RULE_END;
	ck_assert_uint_gt(n_covered, 100);
	symbolize_free(symbolize);
}
END_TEST

START_TEST(files_without_table)
{
	static struct maker made;
	struct unwind_table table;
	start_with(READER_PATH);
	maker_make(&made, NULL, 0);
	_cleanup_close_ int bare = maker_memfd(made.bytes, made.n), text = maker_memfd("#!/bin/sh\n", 10);
	maker_header(&made)->e_machine = EM_AARCH64;
	_cleanup_close_ int foreign = maker_memfd(made.bytes, made.n);
	for (int round = 0; round < 2; round++) {
		ck_assert_int_eq(ask(1, bare, CFI_MAX_TABLE_BYTES, &table), -ENODATA);
		ck_assert_int_eq(ask(2, text, CFI_MAX_TABLE_BYTES, &table), -ENOEXEC);
		ck_assert_int_eq(ask(3, foreign, CFI_MAX_TABLE_BYTES, &table), -EOPNOTSUPP);
	}
	/* It is remembered: what the fd has now does not matter. */
	_cleanup_close_ int libc = open_path(LIBC);
	ck_assert_int_eq(ask(1, libc, CFI_MAX_TABLE_BYTES, &table), -ENODATA);
	ck_assert_int_eq(ask(4, -1, CFI_MAX_TABLE_BYTES, &table), -ENODATA);
	symbolize_free(symbolize);
}
END_TEST

START_TEST(within_the_budget)
{
	struct unwind_table table;
	struct cfi_table built;
	start_with(READER_PATH);
	_cleanup_close_ int fd = open_path(LIBC);
	ck_assert_int_eq(cfi_build(fd, &built), 0);
	ck_assert_int_eq(ask(1, fd, 0, &table), -EFBIG);
	ck_assert_int_eq(ask(1, fd, built.n - 1, &table), -EFBIG);
	ck_assert_int_eq(ask(1, fd, built.n - 1, &table), -EFBIG);
	ck_assert_int_eq(ask(1, fd, built.n, &table), 0);
	ck_assert_uint_eq(table.n_bytes, built.n);
	cfi_table_free(&built);
	symbolize_free(symbolize);
}
END_TEST

START_TEST(deadline)
{
	struct unwind_table table;
	start_with(READER_PATH);
	_cleanup_close_ int fd = open_path(LIBC);
	ck_assert_int_eq(symbolize_unwind_table(symbolize, 1, fd, CFI_MAX_TABLE_BYTES, 1, &scratch, &table), -EAGAIN);
	expect_libc(1);
	symbolize_free(symbolize);
}
END_TEST

static const struct {
	const char *word;
	bool kills; /* the process is ended for it: its packet is wrong, and not only its table */
} hostile[] = {
	{"table-noise", false},  {"table-header", false}, {"table-empty", false}, {"table-huge", false},
	{"table-nothing", true}, {"table-opened", true},  {"crash", true},        {"garbage", true},
	{"sequence", true},      {"kind", true},          {"flood", true},
};
enum { N_HOSTILE = sizeof(hostile) / sizeof(hostile[0]) };

START_TEST(hostile_file_costs_its_own_table)
{
	char text[64] = "";
	struct unwind_table table;
	snprintf(text, sizeof(text), "HOSTILE:%s", hostile[_i].word);
	_cleanup_close_ int fd = maker_memfd(text, sizeof(text));
	start_with(FAKE_READER_PATH);
	expect_libc(1);
	ck_assert_int_eq(ask(2, fd, CFI_MAX_TABLE_BYTES, &table), -EAGAIN);
	expect_libc(1);
	ck_assert_uint_eq(restarts(), hostile[_i].kills);
	ck_assert_int_eq(ask(2, fd, CFI_MAX_TABLE_BYTES, &table), -EAGAIN); /* left alone */
	ck_assert_uint_eq(restarts(), hostile[_i].kills);
	expect_libc(3);
	symbolize_free(symbolize);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("symbolize_unwind");
	TCase *tests = tcase_create("unwind tables");
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, as_it_is_built);
	tcase_add_test(tests, vdso);
	tcase_add_test(tests, files_without_table);
	tcase_add_test(tests, within_the_budget);
	tcase_add_test(tests, deadline);
	tcase_add_loop_test(tests, hostile_file_costs_its_own_table, 0, N_HOSTILE);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
