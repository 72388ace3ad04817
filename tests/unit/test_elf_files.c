/* Real programs and libraries against nm, objdump, readelf and c++filt. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "elf/image.h"

enum { SYMBOLS_MAX = 200000, TEXT_BYTES = 8192 };

struct known {
	uint64_t start, bytes;
	char *name;
};

static struct known known[SYMBOLS_MAX];
static size_t n_known;
static uint64_t load_offset[16], load_address[16], load_bytes[16];
static size_t n_loads;
static struct image_name found;

static void close_pipe(FILE **pipe)
{
	if (*pipe)
		ck_assert_int_eq(pclose(*pipe), 0);
}
#define _cleanup_pclose_ _cleanup_(close_pipe)

__attribute__((format(printf, 1, 2))) static FILE *run(const char *format, ...)
{
	char command[TEXT_BYTES];
	va_list args;
	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	FILE *pipe = popen(command, "re");
	ck_assert_ptr_nonnull(pipe);
	return pipe;
}

static void read_loads(const char *path)
{
	_cleanup_pclose_ FILE *pipe = run("LC_ALL=C readelf -lW '%s' 2>/dev/null", path);
	char line[TEXT_BYTES];
	n_loads = 0;
	while (fgets(line, sizeof(line), pipe)) {
		uint64_t offset = 0, address = 0, bytes = 0;
		if (n_loads < 16 && strstr(line, " R E ") &&
		    sscanf(line, " LOAD 0x%" SCNx64 " 0x%" SCNx64 " 0x%*x 0x%" SCNx64, &offset, &address, &bytes) ==
			    3) {
			load_offset[n_loads] = offset;
			load_address[n_loads] = address;
			load_bytes[n_loads++] = bytes;
		}
	}
}

static bool to_offset(uint64_t address, uint64_t *ret)
{
	for (size_t i = 0; i < n_loads; i++) {
		if (address - load_address[i] < load_bytes[i]) {
			*ret = address - load_address[i] + load_offset[i];
			return true;
		}
	}
	return false;
}

static void strip_version(char *name)
{
	char *at = strchr(name, '@');
	if (at && at > name)
		*at = '\0';
}

static void read_known(const char *path, bool dynamic)
{
	_cleanup_pclose_ FILE *pipe = run("nm %s -S --defined-only '%s'", dynamic ? "-D" : "", path);
	char line[TEXT_BYTES], name[TEXT_BYTES];
	n_known = 0;
	while (fgets(line, sizeof(line), pipe)) {
		uint64_t start = 0, bytes = 0;
		char type = 0;
		if (n_known < SYMBOLS_MAX &&
		    sscanf(line, "%" SCNx64 " %" SCNx64 " %c %8000s", &start, &bytes, &type, name) == 4 &&
		    strchr("tTwWi", type) && bytes > 0) {
			strip_version(name);
			known[n_known++] = (struct known){start, bytes, strdup(name)};
		}
	}
}

static void forget_known(void)
{
	while (n_known > 0)
		free(known[--n_known].name);
}

/* By brute force: whether name is one of those of the last start among the symbols that contain address. */
static bool is_right(uint64_t address, const char *name)
{
	uint64_t start = 0;
	for (size_t i = 0; i < n_known; i++) {
		if (address - known[i].start < known[i].bytes && known[i].start > start)
			start = known[i].start;
	}
	for (size_t i = 0; i < n_known; i++) {
		if (known[i].start == start && address - start < known[i].bytes && strcmp(known[i].name, name) == 0)
			return true;
	}
	return false;
}

static struct image *open_path(const char *path)
{
	struct image *image = NULL;
	ck_assert_int_eq(image_open(open(path, O_RDONLY | O_CLOEXEC), &image), 0);
	return image;
}

/* Every n-th symbol, at its first, middle and last byte. */
static void compare_with_nm(const char *path, bool dynamic, size_t at_least)
{
	struct image *image = open_path(path);
	read_loads(path);
	read_known(path, dynamic);
	size_t checked = 0, step = n_known > 700 ? n_known / 700 : 1;
	for (size_t i = 0; i < n_known; i += step) {
		uint64_t addresses[] = {known[i].start, known[i].start + known[i].bytes / 2,
					known[i].start + known[i].bytes - 1};
		for (int k = 0; k < 3; k++) {
			uint64_t offset = 0;
			if (!to_offset(addresses[k], &offset))
				continue;
			ck_assert_msg(image_find(image, offset, &found), "%s: no name for %lx (%s)", path, addresses[k],
				      known[i].name);
			ck_assert_msg(is_right(addresses[k], found.system_name), "%s: %lx is %s, not %s", path,
				      addresses[k], known[i].name, found.system_name);
			checked++;
		}
	}
	printf("%s: %zu addresses of %zu symbols as nm has them\n", path, checked, n_known);
	ck_assert_uint_ge(checked, at_least);
	forget_known();
	image_free(image);
}

static void own_path(char *out, size_t bytes)
{
	ssize_t n = readlink("/proc/self/exe", out, bytes - 1);
	ck_assert_int_gt(n, 0);
	out[n] = '\0';
}

START_TEST(shared_libraries_by_dynsym)
{
	compare_with_nm("/lib/x86_64-linux-gnu/libc.so.6", true, 1000);
	compare_with_nm("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", true, 1000);
	compare_with_nm("/usr/lib/x86_64-linux-gnu/liblzma.so.5", true, 100);
}
END_TEST

START_TEST(stripped_program_by_dynsym)
{
	compare_with_nm("/usr/bin/python3", true, 1000);
}
END_TEST

START_TEST(program_by_symtab)
{
	char path[TEXT_BYTES];
	own_path(path, sizeof(path));
	compare_with_nm(path, false, 200);
}
END_TEST

static void compare_build_id(const char *path)
{
	struct image *image = open_path(path);
	_cleanup_pclose_ FILE *pipe = run("LC_ALL=C readelf -n '%s' 2>/dev/null", path);
	char line[TEXT_BYTES], expected[TEXT_BYTES] = "";
	while (fgets(line, sizeof(line), pipe))
		(void)sscanf(line, " Build ID: %8000s", expected);
	ck_assert_uint_gt(strlen(expected), 0);
	ck_assert_str_eq(image_build_id(image), expected);
	image_free(image);
}

START_TEST(build_ids)
{
	compare_build_id("/lib/x86_64-linux-gnu/libc.so.6");
	compare_build_id("/usr/lib/x86_64-linux-gnu/libstdc++.so.6");
	compare_build_id("/usr/bin/python3");
	compare_build_id("/usr/bin/xz");
}
END_TEST

/* objdump writes "0000000000001030 <puts@plt>:" above each entry it knows. What it calls *ABS*+0x...@plt (no symbol, an IFUNC's
 * resolver) we call by the resolver's name. */
static void compare_plt(const char *path, size_t at_least)
{
	struct image *image = open_path(path);
	read_loads(path);
	_cleanup_pclose_ FILE *pipe = run(
		"LC_ALL=C objdump -d --no-show-raw-insn -j .plt -j .plt.got -j .plt.sec '%s' 2>/dev/null; true", path);
	char line[TEXT_BYTES], name[TEXT_BYTES];
	size_t checked = 0;
	while (fgets(line, sizeof(line), pipe)) {
		uint64_t address = 0, offset = 0;
		if (sscanf(line, "%" SCNx64 " <%8000[^>]>:", &address, name) != 2 || !strstr(name, "@plt") ||
		    strchr(name, '-') || !to_offset(address, &offset))
			continue;
		bool is_found = image_find(image, offset + 4, &found);
		if (strncmp(name, "*ABS*", 5) == 0) {
			if (is_found)
				ck_assert_ptr_nonnull(strstr(found.name, "@plt"));
			continue;
		}
		ck_assert_msg(is_found, "%s: %s has no name", path, name);
		ck_assert_str_eq(found.system_name, name);
		checked++;
	}
	printf("%s: %zu PLT entries as objdump has them\n", path, checked);
	ck_assert_uint_ge(checked, at_least);
	image_free(image);
}

START_TEST(plt_entries)
{
	compare_plt("/usr/bin/xz", 30);
	compare_plt("/usr/bin/python3", 100);
	compare_plt("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", 100);
	compare_plt("/lib/x86_64-linux-gnu/libc.so.6", 1);
}
END_TEST

/* libc calls its own memcpy and the like through entries that only an IRELATIVE relocation describes. */
START_TEST(plt_entries_of_ifuncs)
{
	struct image *image = open_path("/lib/x86_64-linux-gnu/libc.so.6");
	read_loads("/lib/x86_64-linux-gnu/libc.so.6");
	_cleanup_pclose_ FILE *pipe =
		run("LC_ALL=C objdump -d -j .plt '%s' | grep '<\\*ABS\\*'", "/lib/x86_64-linux-gnu/libc.so.6");
	char line[TEXT_BYTES];
	size_t named = 0, memory_functions = 0;
	while (fgets(line, sizeof(line), pipe)) {
		uint64_t offset = 0;
		if (!to_offset(strtoull(line, NULL, 16), &offset) || !image_find(image, offset, &found))
			continue;
		named++;
		memory_functions += strncmp(found.name, "mem", 3) == 0 || strncmp(found.name, "str", 3) == 0;
	}
	printf("libc: %zu IFUNC entries named\n", named);
	ck_assert_uint_ge(named, 5);
	ck_assert_uint_ge(memory_functions, 5);
	image_free(image);
}
END_TEST

START_TEST(demangled_as_cxxfilt_does)
{
	const char *path = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6";
	struct image *image = open_path(path);
	read_loads(path);
	_cleanup_pclose_ FILE *pipe =
		run("f=$(mktemp) && nm -D -S --defined-only '%s' |"
		    " awk '$3 ~ /[TW]/ && NR %% 5 == 0 {sub(/@.*/, \"\", $4); print $1, $4}' > $f &&"
		    " awk '{print $2}' $f | c++filt -i | paste -d ' ' $f - && rm $f",
		    path);
	char line[TEXT_BYTES], raw[TEXT_BYTES];
	size_t checked = 0;
	while (fgets(line, sizeof(line), pipe)) {
		uint64_t address = 0, offset = 0;
		int at = 0;
		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%" SCNx64 " %8000s %n", &address, raw, &at) != 2 || !to_offset(address, &offset))
			continue;
		ck_assert(image_find(image, offset, &found));
		if (strcmp(found.system_name, raw) != 0)
			continue; /* an alias of the one that wins */
		ck_assert_str_eq(found.name, line + at);
		checked++;
	}
	printf("%zu C++ names as c++filt has them\n", checked);
	ck_assert_uint_ge(checked, 400);
	image_free(image);
}
END_TEST

/* A table as large as they come: the index is small, and 10,000 look-ups take milliseconds. */
START_TEST(large_library)
{
	const char *path = "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1";
	if (access(path, R_OK) < 0) {
		printf("skipped: no %s\n", path);
		return;
	}
	uint64_t begin_ns = clock_monotonic_ns();
	struct image *image = open_path(path);
	uint64_t opened_ns = clock_monotonic_ns();
	read_loads(path);
	size_t named = 0;
	uint64_t find_ns = clock_monotonic_ns();
	for (uint64_t i = 0; i < 10000; i++)
		named += image_find(image, load_offset[0] + load_bytes[0] / 10000 * i, &found);
	uint64_t end_ns = clock_monotonic_ns();
	printf("%s: opened in %" PRIu64 " us, %zu bytes; 10000 look-ups %" PRIu64 " us, %zu named\n", path,
	       (opened_ns - begin_ns) / 1000, image_bytes(image), (end_ns - find_ns) / 1000, named);
	ck_assert_uint_gt(named, 1000);
	ck_assert_uint_lt(image_bytes(image), 16 << 20);
	ck_assert_uint_lt(end_ns - find_ns, 2 * NS_PER_S); /* a bound that a loaded machine and ASan keep too */
	image_free(image);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("elf_files");
	TCase *tests = tcase_create("real files");
	tcase_set_timeout(tests, 100);
	tcase_add_test(tests, shared_libraries_by_dynsym);
	tcase_add_test(tests, stripped_program_by_dynsym);
	tcase_add_test(tests, program_by_symtab);
	tcase_add_test(tests, build_ids);
	tcase_add_test(tests, plt_entries);
	tcase_add_test(tests, plt_entries_of_ifuncs);
	tcase_add_test(tests, demangled_as_cxxfilt_does);
	tcase_add_test(tests, large_library);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
