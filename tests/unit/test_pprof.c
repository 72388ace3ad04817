#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "pprof/pprof.h"
#include "profile_check.h"

typedef Perftools__Profiles__Profile Decoded; /* generated names are long */

/* A profile whose arrays are the test's own. */
struct made {
	struct profile profile;
	struct profile_mapping mappings[2];
	struct profile_location locations[3];
	struct profile_line lines[3];
	struct profile_sample samples[2];
	const char *comments[2];
	uint32_t stack[3];
};

static void make(struct made *made)
{
	*made = (struct made){
		.mappings = {{.start = 0x400000,
			      .end = 0x500000,
			      .file_offset = 0x1000,
			      .kind = MAPPING_FILE,
			      .name = "/bin/program",
			      .build_id = "00ff12",
			      .has_functions = true},
			     {.start = UINT64_C(0xffff800000000000),
			      .end = UINT64_MAX,
			      .kind = MAPPING_KERNEL,
			      .name = "[kernel.kallsyms]",
			      .build_id = ""}},
		.lines = {{.name = "inner()",
			   .system_name = "_Z5innerv",
			   .filename = "a.cc",
			   .line = 12,
			   .start_line = 10},
			  {.name = "outer()", .system_name = "_Z5outerv", .filename = NULL},
			  {.name = "inner()",
			   .system_name = "_Z5innerv",
			   .filename = "a.cc",
			   .line = 15,
			   .start_line = 10}},
		.stack = {2, 0, 1},
		.comments = {"samples=3", "version=1"},
	};
	made->locations[0] =
		(struct profile_location){.address = 0x400123, .mapping = 0, .n_lines = 2, .lines = made->lines};
	made->locations[1] =
		(struct profile_location){.address = 0x400200, .mapping = 0, .n_lines = 1, .lines = &made->lines[2]};
	made->locations[2] = (struct profile_location){.address = UINT64_C(0xffffffff81000000), .mapping = 1};
	made->samples[0] = (struct profile_sample){.count = 2,
						   .cpu_ns = 20000000,
						   .tid = 11,
						   .comm = "worker",
						   .incomplete = STACK_END_NO_UNWIND_INFO,
						   .n_locations = 3,
						   .locations = made->stack};
	made->samples[1] = (struct profile_sample){
		.count = 1, .cpu_ns = 10000000, .tid = 12, .comm = "", .n_locations = 1, .locations = &made->stack[2]};
	made->profile = (struct profile){.n_mappings = 2,
					 .n_locations = 3,
					 .n_samples = 2,
					 .n_comments = 2,
					 .mappings = made->mappings,
					 .locations = made->locations,
					 .samples = made->samples,
					 .comments = made->comments,
					 .pid = 10,
					 .cgroup = "/system.slice/x.service",
					 .time_unix_ns = UINT64_C(1700000000000000000),
					 .duration_ns = 5000000000,
					 .period_ns = 10101010};
}

static Decoded *encode_and_load(const struct profile *profile)
{
	uint8_t *data = NULL;
	size_t bytes = 0;
	struct error error = {0};
	char why[PROFILE_CHECK_WHY_BYTES] = "";
	ck_assert_msg(pprof_encode(profile, &data, &bytes, &error) == 0, "%s", error.text);
	Decoded *decoded = profile_check_load(data, bytes, why);
	free(data);
	ck_assert_msg(decoded, "%s", why);
	return decoded;
}

static Decoded *encode_and_check(const struct profile *profile)
{
	char why[PROFILE_CHECK_WHY_BYTES] = "";
	Decoded *decoded = encode_and_load(profile);
	ck_assert_msg(profile_check(decoded, why) == 0, "%s", why);
	return decoded;
}

static void release(Decoded *decoded)
{
	perftools__profiles__profile__free_unpacked(decoded, NULL);
}

static const char *text(const Decoded *decoded, int64_t index)
{
	return decoded->string_table[index];
}

static void check_label(const Decoded *decoded, size_t sample, const char *key, const char *value)
{
	const char *found = profile_check_label(decoded, decoded->sample[sample], key);
	if (!value)
		ck_assert_ptr_null(found);
	else
		ck_assert_str_eq(found, value);
}

START_TEST(every_field_arrives)
{
	struct made made;
	make(&made);
	Decoded *decoded = encode_and_check(&made.profile);
	ck_assert_int_eq(decoded->time_nanos, 1700000000000000000);
	ck_assert_int_eq(decoded->duration_nanos, 5000000000);
	ck_assert_int_eq(decoded->period, 10101010);
	ck_assert_uint_eq(decoded->n_comment, 2);
	ck_assert_str_eq(text(decoded, decoded->comment[0]), "samples=3");
	ck_assert_str_eq(text(decoded, decoded->comment[1]), "version=1");
	ck_assert_uint_eq(decoded->n_mapping, 2);
	ck_assert_uint_eq(decoded->mapping[0]->memory_start, 0x400000);
	ck_assert_uint_eq(decoded->mapping[0]->memory_limit, 0x500000);
	ck_assert_uint_eq(decoded->mapping[0]->file_offset, 0x1000);
	ck_assert_str_eq(text(decoded, decoded->mapping[0]->filename), "/bin/program");
	ck_assert_str_eq(text(decoded, decoded->mapping[0]->build_id), "00ff12");
	ck_assert(decoded->mapping[0]->has_functions);
	ck_assert(!decoded->mapping[0]->has_filenames && !decoded->mapping[1]->has_functions);
	ck_assert_uint_eq(decoded->n_function, 2); /* inner() is one function at two places */
	ck_assert_str_eq(text(decoded, decoded->function[0]->name), "inner()");
	ck_assert_str_eq(text(decoded, decoded->function[0]->system_name), "_Z5innerv");
	ck_assert_str_eq(text(decoded, decoded->function[0]->filename), "a.cc");
	ck_assert_int_eq(decoded->function[0]->start_line, 10);
	ck_assert_int_eq(decoded->function[1]->filename, 0);
	ck_assert_uint_eq(decoded->n_location, 3);
	ck_assert_uint_eq(decoded->location[0]->n_line, 2);
	ck_assert_uint_eq(decoded->location[0]->line[0]->function_id, 1);
	ck_assert_int_eq(decoded->location[0]->line[0]->line, 12);
	ck_assert_uint_eq(decoded->location[0]->line[1]->function_id, 2);
	ck_assert_uint_eq(decoded->location[1]->line[0]->function_id, 1);
	ck_assert_int_eq(decoded->location[1]->line[0]->line, 15);
	ck_assert_uint_eq(decoded->location[2]->address, UINT64_C(0xffffffff81000000));
	ck_assert_uint_eq(decoded->location[2]->mapping_id, 2);
	ck_assert_uint_eq(decoded->n_sample, 2);
	const uint64_t ids[] = {3, 1, 2};
	ck_assert_uint_eq(decoded->sample[0]->n_location_id, 3);
	for (size_t i = 0; i < 3; i++)
		ck_assert_uint_eq(decoded->sample[0]->location_id[i], ids[i]);
	ck_assert_int_eq(decoded->sample[0]->value[0], 2);
	ck_assert_int_eq(decoded->sample[0]->value[1], 20000000);
	check_label(decoded, 0, "pid", "10");
	check_label(decoded, 0, "tid", "11");
	check_label(decoded, 0, "comm", "worker");
	check_label(decoded, 0, "cgroup", "/system.slice/x.service");
	check_label(decoded, 1, "tid", "12");
	check_label(decoded, 1, "comm", NULL);
	check_label(decoded, 0, "stack_end", "no_unwind_info");
	check_label(decoded, 1, "stack_end", NULL);
	release(decoded);
}
END_TEST

START_TEST(an_empty_profile_is_valid)
{
	struct profile *profile = profile_new(1000);
	Decoded *decoded = encode_and_check(profile);
	ck_assert_uint_eq(decoded->n_sample, 0);
	ck_assert_int_eq(decoded->period, 0);
	release(decoded);
	profile_free(profile);
}
END_TEST

/* Packed in parts, it must be the message that protobuf-c packs as a whole: no part twice, none out of order. */
START_TEST(parts_make_the_bytes_of_the_whole)
{
	struct made made;
	make(&made);
	uint8_t *data = NULL;
	size_t bytes = 0;
	ck_assert_int_eq(pprof_encode(&made.profile, &data, &bytes, NULL), 0);
	char why[PROFILE_CHECK_WHY_BYTES];
	Decoded *decoded = profile_check_load(data, bytes, why);
	ck_assert_ptr_nonnull(decoded);
	uint8_t whole[4096] = {0}, plain[4096] = {0};
	size_t n = perftools__profiles__profile__get_packed_size(decoded);
	ck_assert_uint_lt(n, sizeof(whole));
	perftools__profiles__profile__pack(decoded, whole);
	z_stream stream = {.next_in = data, .avail_in = (uInt)bytes, .next_out = plain, .avail_out = sizeof(plain)};
	ck_assert_int_eq(inflateInit2(&stream, 16 + MAX_WBITS), Z_OK);
	ck_assert_int_eq(inflate(&stream, Z_FINISH), Z_STREAM_END);
	ck_assert_uint_eq(stream.total_out, n);
	ck_assert_mem_eq(plain, whole, n);
	inflateEnd(&stream);
	release(decoded);
	free(data);
}
END_TEST

/* pprof would show "<module>" as nothing, and "vec<int>" as "vec". */
START_TEST(names_that_pprof_would_cut_have_no_system_name)
{
	static const char *const cut[] = {"<module>", "vec<int>", "[anon]", "a::b(int)"};
	for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
		struct made made;
		make(&made);
		made.lines[0].name = made.lines[0].system_name = cut[i];
		Decoded *decoded = encode_and_check(&made.profile);
		ck_assert_str_eq(text(decoded, decoded->function[0]->name), cut[i]);
		ck_assert_str_eq(text(decoded, decoded->function[0]->system_name), "");
		release(decoded);
		made.lines[0].system_name = "_Zsomething";
		decoded = encode_and_check(&made.profile);
		ck_assert_str_eq(text(decoded, decoded->function[0]->system_name), "_Zsomething");
		release(decoded);
	}
	static const char *const kept[] = {"_Znot_demangled", "main.(*T).method", "LazyCompile:~f"};
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		struct made made;
		make(&made);
		made.lines[0].name = made.lines[0].system_name = kept[i];
		Decoded *decoded = encode_and_check(&made.profile);
		ck_assert_str_eq(text(decoded, decoded->function[0]->system_name), kept[i]);
		release(decoded);
	}
}
END_TEST

START_TEST(hostile_texts_become_valid)
{
	struct made made;
	make(&made);
	made.lines[0].name = "pprof::evil\xff\x1b[2J";
	made.lines[1].name = "";
	made.lines[1].system_name = "";
	made.lines[2].name = "";
	made.lines[2].line = -5;
	made.lines[2].start_line = INT64_MIN;
	made.mappings[0].name = "/bin/\xc3\x28";
	made.samples[0].comm = "\xf0\x9f\x98"; /* cut off after 15 bytes, as the kernel does */
	made.profile.cgroup = "";
	made.comments[0] = "target \xfe";
	Decoded *decoded = encode_and_check(&made.profile);
	ck_assert_str_eq(text(decoded, decoded->function[0]->name), "pprof::evil\xEF\xBF\xBD\xEF\xBF\xBD[2J");
	ck_assert_str_eq(text(decoded, decoded->function[1]->name), "[unknown]");
	ck_assert_str_eq(text(decoded, decoded->function[2]->name), "_Z5innerv"); /* better than nothing */
	ck_assert_int_eq(decoded->location[1]->line[0]->line, 0);
	ck_assert_int_eq(decoded->function[2]->start_line, 0);
	ck_assert_str_eq(text(decoded, decoded->mapping[0]->filename), "/bin/\xEF\xBF\xBD(");
	check_label(decoded, 0, "comm", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
	check_label(decoded, 0, "cgroup", NULL);
	release(decoded);
}
END_TEST

START_TEST(numbers_that_do_not_fit_are_clamped)
{
	struct made made;
	make(&made);
	made.samples[0].count = made.samples[0].cpu_ns = UINT64_MAX;
	made.profile.time_unix_ns = made.profile.duration_ns = made.profile.period_ns = UINT64_MAX;
	made.profile.pid = UINT32_MAX;
	made.samples[0].tid = 0;
	Decoded *decoded = encode_and_check(&made.profile);
	ck_assert_int_eq(decoded->sample[0]->value[0], INT64_MAX);
	ck_assert_int_eq(decoded->sample[0]->value[1], INT64_MAX);
	ck_assert_int_eq(decoded->time_nanos, INT64_MAX);
	ck_assert_int_eq(decoded->duration_nanos, INT64_MAX);
	ck_assert_int_eq(decoded->period, INT64_MAX);
	check_label(decoded, 0, "pid", "4294967295");
	check_label(decoded, 0, "tid", "0");
	release(decoded);
}
END_TEST

START_TEST(samples_without_location_are_left_out)
{
	struct made made;
	make(&made);
	made.samples[0].n_locations = 0;
	Decoded *decoded = encode_and_check(&made.profile);
	ck_assert_uint_eq(decoded->n_sample, 1);
	check_label(decoded, 0, "tid", "12");
	release(decoded);
}
END_TEST

/* Larger than any buffer inside: deep stacks, many inlined functions, long names, many threads. */
START_TEST(large_profiles_arrive_whole)
{
	enum { DEPTH = 70000, SAMPLES = 20000, INLINED = 3000, NAME = 200000 };
	struct made made;
	make(&made);
	uint32_t *deep = calloc(DEPTH, sizeof(*deep));
	struct profile_sample *samples = calloc(SAMPLES, sizeof(*samples));
	struct profile_line *lines = calloc(INLINED, sizeof(*lines));
	char *name = malloc(NAME + 1);
	ck_assert(deep && samples && lines && name);
	memset(name, 'x', NAME);
	name[NAME] = '\0';
	for (size_t i = 0; i < DEPTH; i++)
		deep[i] = (uint32_t)(i % 3);
	for (size_t i = 0; i < SAMPLES; i++)
		samples[i] = (struct profile_sample){.count = i + 1,
						     .cpu_ns = i,
						     .tid = (uint32_t)i,
						     .comm = "w",
						     .n_locations = i == 0 ? DEPTH : 2,
						     .locations = deep};
	for (size_t i = 0; i < INLINED; i++)
		lines[i] = (struct profile_line){.name = name + i, .system_name = "s", .line = (int64_t)i + 1};
	made.profile.samples = samples;
	made.profile.n_samples = SAMPLES;
	made.locations[2].lines = lines;
	made.locations[2].n_lines = 20;
	made.locations[1].lines = &lines[20];
	Decoded *decoded = encode_and_check(&made.profile);
	ck_assert_uint_eq(decoded->n_sample, SAMPLES);
	ck_assert_uint_eq(decoded->sample[0]->n_location_id, DEPTH);
	ck_assert_uint_eq(decoded->sample[0]->location_id[DEPTH - 1], (DEPTH - 1) % 3 + 1);
	ck_assert_int_eq(decoded->sample[SAMPLES - 1]->value[0], SAMPLES);
	check_label(decoded, SAMPLES - 1, "tid", "19999");
	ck_assert_uint_eq(decoded->location[2]->n_line, 20);
	const Perftools__Profiles__Function *last = decoded->function[decoded->location[2]->line[19]->function_id - 1];
	ck_assert_uint_eq(strlen(text(decoded, last->name)), NAME - 19);
	release(decoded);
	free(deep);
	free(samples);
	free(lines);
	free(name);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pprof");
	TCase *tests = tcase_create("encode");
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, every_field_arrives);
	tcase_add_test(tests, an_empty_profile_is_valid);
	tcase_add_test(tests, parts_make_the_bytes_of_the_whole);
	tcase_add_test(tests, names_that_pprof_would_cut_have_no_system_name);
	tcase_add_test(tests, hostile_texts_become_valid);
	tcase_add_test(tests, numbers_that_do_not_fit_are_clamped);
	tcase_add_test(tests, samples_without_location_are_left_out);
	tcase_add_test(tests, large_profiles_arrive_whole);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
