#include <check.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "symbolize/kallsyms.h"
#include "symbolize/kernel_names.h"

static struct kallsyms *read_text(const char *text)
{
	_cleanup_fclose_ FILE *in = fmemopen((char *)text, strlen(text), "r");
	struct kallsyms *kallsyms = NULL;
	ck_assert_int_eq(kallsyms_read(in, &kallsyms), 0);
	return kallsyms;
}

static void expect(const struct kallsyms *kallsyms, uint64_t address, const char *name, const char *module)
{
	struct kallsyms_symbol symbol;
	bool is_found = kallsyms_find(kallsyms, address, &symbol);
	ck_assert_msg(is_found == (name != NULL), "0x%" PRIx64 " is %s", address, is_found ? symbol.name : "unknown");
	if (!name)
		return;
	ck_assert_str_eq(symbol.name, name);
	ck_assert_str_eq(symbol.module, module);
}

START_TEST(kinds_and_modules)
{
	struct kallsyms *kallsyms = read_text("0000000000000000 A fixed_percpu_data\n"
					      "ffffffff81000000 T _text\n"
					      "ffffffff81000100 t local\n"
					      "ffffffff81000200 W weak\n"
					      "ffffffff81000300 w weak_local\n"
					      "ffffffff81000400 D data\n"
					      "ffffffff81000500 T _etext\n"
					      "ffffffffc0201000 t in_module\t[ext4]\n"
					      "ffffffffc0001000 t earlier\t[xfs]\n");
	expect(kallsyms, 0xffffffff80ffffff, NULL, NULL);
	expect(kallsyms, 0xffffffff810000ff, "_text", "");
	expect(kallsyms, 0xffffffff81000100, "local", "");
	expect(kallsyms, 0xffffffff810002ff, "weak", "");
	expect(kallsyms, 0xffffffff810004ff, "weak_local", "");
	expect(kallsyms, 0xffffffff81000500, NULL, NULL);
	expect(kallsyms, 0xffffffffc0001010, "earlier", "xfs");
	expect(kallsyms, 0xffffffffc0201010, "in_module", "ext4");
	expect(kallsyms, 0xffffffffc0301000, NULL, NULL); /* 1 MiB behind */
	expect(kallsyms, 0, NULL, NULL);
	ck_assert(!kallsyms_restricted(kallsyms));
	kallsyms_free(kallsyms);
}
END_TEST

START_TEST(several_at_one_address)
{
	struct kallsyms *kallsyms = read_text("ffffffff81000000 t z_local\nffffffff81000000 W weak\n"
					      "ffffffff81000000 T first_global\nffffffff81000000 T second_global\n"
					      "ffffffff81000010 T _etext\nffffffff81000010 t init_begin\n");
	expect(kallsyms, 0xffffffff81000000, "first_global", "");
	expect(kallsyms, 0xffffffff81000010, "init_begin", "");
	ck_assert_uint_eq(kallsyms_count(kallsyms), 2);
	kallsyms_free(kallsyms);
}
END_TEST

START_TEST(restricted)
{
	struct kallsyms *kallsyms =
		read_text("0000000000000000 T _text\n0000000000000000 t local\n0000000000000000 t in\t[ext4]\n");
	ck_assert(kallsyms_restricted(kallsyms));
	expect(kallsyms, 0xffffffff81000000, NULL, NULL);
	kallsyms_free(kallsyms);
}
END_TEST

START_TEST(malformed_lines)
{
	struct kallsyms *kallsyms = read_text("\n \nffffffff81000000\nffffffff81000000 T\nffffffff81000000 T \n"
					      "fffffffffffffffff81000000 T too_large\nxyz T no_number\n"
					      "ffffffff81000000 TT two\nffffffff81000000 T ctl\x01name\n"
					      "ffffffff81000000 T mod\text4\nffffffff81000000 T mod\t[]\n"
					      "ffffffff81000000 T mod\t[ext4\n -1 T minus\n"
					      "ffffffff81000040 T good");
	ck_assert_uint_eq(kallsyms_count(kallsyms), 1);
	expect(kallsyms, 0xffffffff81000040, "good", "");
	kallsyms_free(kallsyms);
}
END_TEST

/* The running kernel's own, line by line. */
START_TEST(running_kernel)
{
	_cleanup_fclose_ FILE *in = fopen("/proc/kallsyms", "re");
	ck_assert_ptr_nonnull(in);
	uint64_t begin_ns = clock_monotonic_ns();
	struct kallsyms *kallsyms = NULL;
	ck_assert_int_eq(kallsyms_read(in, &kallsyms), 0);
	uint64_t end_ns = clock_monotonic_ns();
	if (kallsyms_restricted(kallsyms)) {
		printf("skipped: the kernel hides its addresses (needs CAP_SYSLOG)\n");
		kallsyms_free(kallsyms);
		return;
	}
	printf("%zu symbols in %zu bytes, read in %" PRIu64 " us\n", kallsyms_count(kallsyms), kallsyms_bytes(kallsyms),
	       (end_ns - begin_ns) / 1000);
	ck_assert_uint_gt(kallsyms_count(kallsyms), 10000);
	ck_assert_uint_lt(kallsyms_bytes(kallsyms), 52 * kallsyms_count(kallsyms));
	rewind(in);
	char line[1024], type = 0, name[600];
	uint64_t address = 0, checked = 0;
	while (fgets(line, sizeof(line), in)) {
		struct kallsyms_symbol symbol;
		if (sscanf(line, "%" SCNx64 " %c %599s", &address, &type, name) != 3 || type != 'T' ||
		    strcmp(name, "_etext") == 0 || strcmp(name, "_einittext") == 0)
			continue;
		ck_assert_msg(kallsyms_find(kallsyms, address, &symbol), "%s", line);
		ck_assert_uint_eq(symbol.start, address);
		checked++;
	}
	ck_assert_uint_gt(checked, 1000);
	kallsyms_free(kallsyms);
}
END_TEST

static const char *temporary(const char *text)
{
	static char path[64];
	strcpy(path, "/tmp/sprof-kallsyms-XXXXXX");
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	return path;
}

static void expect_kernel_name(const char *path, uint64_t address, const char *expected)
{
	char name[KERNEL_NAME_MAX_BYTES] = "";
	struct kernel_names *names = kernel_names_new(path);
	bool is_found = kernel_names_find(names, address, name);
	ck_assert_int_eq(is_found, expected != NULL);
	if (expected)
		ck_assert_str_eq(name, expected);
	kernel_names_free(names);
}

START_TEST(names_for_people)
{
	const char *path = temporary("ffffffff81000000 T proper\nffffffffc0000000 t helper\t[ext4]\n");
	expect_kernel_name(path, 0xffffffff81000010, "proper");
	expect_kernel_name(path, 0xffffffffc0000010, "helper [ext4]");
	expect_kernel_name(path, 0x10, NULL);
	unlink(path);
	expect_kernel_name(path, 0xffffffff81000010, "[kernel: kallsyms cannot be read]");
	path = temporary("0000000000000000 T proper\n");
	expect_kernel_name(path, 0xffffffff81000010, "[kernel: addresses are restricted; see kernel.kptr_restrict]");
	unlink(path);
}
END_TEST

/* It is not read again for each unknown address. */
START_TEST(reading_again_is_rare)
{
	const char *path = temporary("ffffffff81000000 T proper\n");
	char name[KERNEL_NAME_MAX_BYTES];
	struct kernel_names *names = kernel_names_new(path);
	ck_assert(kernel_names_find(names, 0xffffffff81000000, name));
	FILE *more = fopen(path, "ae");
	fputs("ffffffffc0000000 T late\t[late]\n", more);
	ck_assert_int_eq(fclose(more), 0);
	for (int i = 0; i < 1000; i++)
		ck_assert(!kernel_names_find(names, 0xffffffffc0000000, name));
	usleep(5100 * 1000);
	ck_assert(kernel_names_find(names, 0xffffffffc0000000, name));
	ck_assert_str_eq(name, "late [late]");
	kernel_names_free(names);
	unlink(path);
}
END_TEST

START_TEST(what_nobody_asks_for_is_let_go)
{
	const char *path = temporary("ffffffff81000000 T proper\n");
	char name[KERNEL_NAME_MAX_BYTES];
	struct kernel_names *names = kernel_names_new(path);
	ck_assert(!kernel_names_trim(names, UINT64_MAX)); /* nothing was read */
	ck_assert(kernel_names_find(names, 0xffffffff81000000, name));
	ck_assert_uint_gt(kernel_names_bytes(names), 0);
	ck_assert(kernel_names_trim(names, 1)); /* asked for since */
	ck_assert_uint_gt(kernel_names_bytes(names), 0);
	ck_assert(!kernel_names_trim(names, UINT64_MAX));
	ck_assert_uint_eq(kernel_names_bytes(names), 0);
	ck_assert(kernel_names_find(names, 0xffffffff81000000, name)); /* at once, not when a retry is due */
	ck_assert_str_eq(name, "proper");
	kernel_names_free(names);
	unlink(path);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kallsyms");
	TCase *tests = tcase_create("kallsyms");
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, kinds_and_modules);
	tcase_add_test(tests, several_at_one_address);
	tcase_add_test(tests, restricted);
	tcase_add_test(tests, malformed_lines);
	tcase_add_test(tests, running_kernel);
	tcase_add_test(tests, names_for_people);
	tcase_add_test(tests, reading_again_is_rare);
	tcase_add_test(tests, what_nobody_asks_for_is_let_go);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
