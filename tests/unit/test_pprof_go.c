/* What go tool pprof itself makes of our profiles: -raw, -top, -traces, -svg and its filters on labels. */
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pprof/pprof.h"
#include "profile_check.h"
#include "store/store.h"

enum { SKIP = 77, OUTPUT_BYTES = 1 << 16 };

struct fixture {
	char directory[64];
	char output[OUTPUT_BYTES]; /* of the last command */
};

static struct maps *give_maps(void *context, uint32_t version)
{
	return version == 1 ? context : NULL;
}

static void add(struct epoch *epoch, uint32_t tid, const char *comm, size_t count, const uint64_t *user,
		uint16_t n_user)
{
	static const uint64_t kernel[] = {UINT64_C(0xffffffff81000010)};
	struct sample sample = {.time_ns = 1,
				.cpu_ns = 10000000,
				.tid = tid,
				.maps_version = 1,
				.n_kernel = tid == 12,
				.kernel = kernel,
				.n_user = n_user,
				.user = user};
	memcpy(sample.comm, comm, strlen(comm));
	for (size_t i = 0; i < count; i++)
		ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
}

/* Names for the addresses below 0x5000, as symbolize would give them; the library and the kernel stay without. */
static void name_program(struct profile *profile)
{
	static struct profile_line lines[] = {
		{.name = "spin(int, char const*)", .system_name = "_Z4spiniPKc", .filename = "/src/spin.cc", .line = 7},
		{.name = "main", .system_name = "main", .filename = "/src/main.cc", .line = 42, .start_line = 40},
	};
	for (size_t i = 0; i < profile->n_locations; i++) {
		struct profile_location *location = &profile->locations[i];
		if (location->mapping != 0)
			continue;
		location->lines = &lines[location->address >= 0x4100];
		location->n_lines = 1;
	}
	profile->mappings[0].has_functions = true;
	profile->mappings[0].has_filenames = profile->mappings[0].has_line_numbers = true;
	profile->mappings[0].build_id = "0123456789abcdef";
}

/* spin <- main 30 times in thread 11, something unnamed <- main 20 times in thread 12, and 5 samples without a stack. */
static struct profile *make_profile(void)
{
	const struct mapping mappings[] = {
		{.start = 0x4000,
		 .end = 0x5000,
		 .file_offset = 0x1000,
		 .kind = MAPPING_FILE,
		 .name = "/nowhere/program"},
		{.start = 0x7000, .end = 0x8000, .kind = MAPPING_FILE, .name = "/nowhere/libthing.so"},
	};
	struct maps *maps = NULL;
	ck_assert_int_eq(maps_new(mappings, 2, 0, &maps), 0);
	struct epoch *epoch = epoch_new(1 << 20);
	const uint64_t spin[] = {0x4010, 0x4120}, thing[] = {0x7010, 0x4120};
	add(epoch, 11, "spinner", 30, spin, 2);
	add(epoch, 12, "caf\xc3", 20, thing, 2);
	add(epoch, 13, "lost", 5, NULL, 0);
	struct store_build_options options = {
		.include_kernel = true, .maps = give_maps, .maps_context = maps, .budget_bytes = 1 << 20};
	struct profile *profile = NULL;
	uint64_t cut = 0;
	ck_assert_int_eq(store_build_profile(&epoch, 1, &options, &profile, &cut), 0);
	epoch_unref(epoch);
	maps_unref(maps);
	name_program(profile);
	profile->pid = 10;
	profile->period_ns = 10000000;
	profile->duration_ns = 1000000000;
	profile->time_unix_ns = UINT64_C(1700000000000000000);
	ck_assert_int_eq(profile_comment(profile, "samples=%d", 55), 0);
	return profile;
}

static void write_profile(struct fixture *fixture)
{
	struct profile *profile = make_profile();
	uint8_t *data = NULL;
	size_t bytes = 0;
	struct error error;
	ck_assert_msg(pprof_encode(profile, &data, &bytes, &error) == 0, "%s", error.text);
	char path[128];
	snprintf(path, sizeof(path), "%s/p.pb.gz", fixture->directory);
	FILE *file = fopen(path, "we");
	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
	ck_assert_int_eq(fclose(file), 0);
	free(data);
	profile_free(profile);
}

static void setup(struct fixture *fixture)
{
	*fixture = (struct fixture){.directory = "/tmp/test_pprof_go.XXXXXX"};
	ck_assert_ptr_nonnull(mkdtemp(fixture->directory));
	/* pprof keeps settings and copies of what it fetched. */
	setenv("HOME", fixture->directory, 1);
	setenv("PPROF_TMPDIR", fixture->directory, 1);
	write_profile(fixture);
}

/* Runs pprof with these options on the profile; its output, errors included, is in fixture->output. */
static void run(struct fixture *fixture, const char *options)
{
	char command[512];
	snprintf(command, sizeof(command), "cd %s && go tool pprof %s p.pb.gz 2>&1", fixture->directory, options);
	FILE *pipe = popen(command, "re");
	ck_assert_ptr_nonnull(pipe);
	size_t n = fread(fixture->output, 1, OUTPUT_BYTES - 1, pipe);
	fixture->output[n] = '\0';
	int status = pclose(pipe);
	ck_assert_msg(status == 0, "%s: status %d: %s", command, status, fixture->output);
}

static void teardown(struct fixture *fixture)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -r %s", fixture->directory);
	ck_assert_int_eq(system(command), 0);
}

static void has(const struct fixture *fixture, const char *text)
{
	ck_assert_msg(strstr(fixture->output, text) != NULL, "no \"%s\" in:\n%s", text, fixture->output);
}

static void has_not(const struct fixture *fixture, const char *text)
{
	ck_assert_msg(strstr(fixture->output, text) == NULL, "\"%s\" in:\n%s", text, fixture->output);
}

START_TEST(raw_shows_all_there_is)
{
	struct fixture fixture;
	setup(&fixture);
	run(&fixture, "-raw");
	has(&fixture, "PeriodType: cpu nanoseconds");
	has(&fixture, "Period: 10000000");
	has(&fixture, "Duration: 1s");
	has(&fixture, "samples/count cpu/nanoseconds[dflt]");
	has(&fixture, "30  300000000:");
	has(&fixture, "20  200000000:");
	has(&fixture, "5   50000000:");
	has(&fixture, "tid:[11]");
	has(&fixture, "pid:[10]");
	has(&fixture, "comm:[spinner]");
	has(&fixture, "comm:[caf\xEF\xBF\xBD]");
	has(&fixture, "spin(int, char const*) /src/spin.cc:7");
	has(&fixture, "0x4000/0x5000/0x1000 /nowhere/program 0123456789abcdef [FN][FL][LN]");
	has(&fixture, "/nowhere/libthing.so");
	has(&fixture, "[kernel.kallsyms]");
	teardown(&fixture);
}
END_TEST

START_TEST(top_adds_up)
{
	struct fixture fixture;
	setup(&fixture);
	run(&fixture, "-top");
	has(&fixture, "File: program");
	has(&fixture, "Type: cpu");
	has(&fixture, "Showing nodes accounting for 550ms, 100% of 550ms total");
	has(&fixture, "300ms 54.55% 54.55%      300ms 54.55%  spin");
	has(&fixture, "500ms 90.91%  main");
	has(&fixture, "50ms  9.09%");
	has(&fixture, "[no stack]");
	run(&fixture, "-top -sample_index=samples");
	has(&fixture, "of 55 total");
	run(&fixture, "-comments");
	has(&fixture, "samples=55");
	teardown(&fixture);
}
END_TEST

START_TEST(traces_are_leaf_first)
{
	struct fixture fixture;
	setup(&fixture);
	run(&fixture, "-traces");
	has(&fixture, "tid:  11");
	const char *leaf = strstr(fixture.output, "300ms   spin");
	ck_assert_msg(leaf != NULL, "%s", fixture.output);
	ck_assert_ptr_nonnull(strstr(leaf, "main"));
	teardown(&fixture);
}
END_TEST

START_TEST(labels_can_be_filtered_and_shown)
{
	struct fixture fixture;
	setup(&fixture);
	/* A value of nothing but digits is taken for a range of a numeric label; ours are strings, since Pyroscope keeps only those. */
	run(&fixture, "-top '-tagfocus=tid=^11$'");
	has(&fixture, "accounting for 300ms");
	has_not(&fixture, "[no stack]");
	run(&fixture, "-top -tagfocus=comm=spinner");
	has(&fixture, "accounting for 300ms");
	run(&fixture, "-top -tagignore=comm=spinner");
	has(&fixture, "accounting for 250ms");
	run(&fixture, "-top -tagroot=comm");
	has(&fixture, "spinner");
	run(&fixture, "-tags");
	has(&fixture, "comm: Total 550");
	teardown(&fixture);
}
END_TEST

START_TEST(profiles_merge_and_subtract)
{
	struct fixture fixture;
	setup(&fixture);
	run(&fixture, "-top p.pb.gz"); /* twice */
	has(&fixture, "of 1100ms total");
	run(&fixture, "-top -diff_base=p.pb.gz");
	has(&fixture, "Showing nodes accounting for 0");
	run(&fixture, "-proto -output=merged.pb.gz p.pb.gz");
	teardown(&fixture);
}
END_TEST

START_TEST(svg_is_drawn)
{
	struct fixture fixture;
	setup(&fixture);
	run(&fixture, "-svg -output=out.svg");
	char path[128];
	snprintf(path, sizeof(path), "%s/out.svg", fixture.directory);
	FILE *file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	size_t n = fread(fixture.output, 1, OUTPUT_BYTES - 1, file);
	fixture.output[n] = '\0';
	fclose(file);
	has(&fixture, "<svg");
	has(&fixture, "spin");
	teardown(&fixture);
}
END_TEST

int main(void)
{
	if (system("go tool pprof -h >/dev/null 2>&1; [ $? -ne 127 ]") != 0 ||
	    system("command -v go >/dev/null") != 0) {
		puts("skipped: go is not installed (Debian's golang-go)");
		return SKIP;
	}
	Suite *suite = suite_create("pprof/go");
	TCase *tests = tcase_create("go tool pprof");
	tcase_set_timeout(tests, 100);
	tcase_add_test(tests, raw_shows_all_there_is);
	tcase_add_test(tests, top_adds_up);
	tcase_add_test(tests, traces_are_leaf_first);
	tcase_add_test(tests, labels_can_be_filtered_and_shown);
	tcase_add_test(tests, profiles_merge_and_subtract);
	if (system("command -v dot >/dev/null") == 0)
		tcase_add_test(tests, svg_is_drawn);
	else
		puts("without -svg: dot is not installed (Debian's graphviz)");
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
