/* The checker itself: a good profile passes, and each rule, broken alone, is noticed. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "profile_check.h"

#define MESSAGE(name) Perftools__Profiles__##name

enum { EMPTY, SAMPLES, COUNT, CPU, NANOSECONDS, PID, TID, TEN, ELEVEN, FILE_NAME, FUNCTION, HEX, OTHER, N_STRINGS };

struct good {
	MESSAGE(Profile) profile;
	MESSAGE(ValueType) types[2], period_type;
	MESSAGE(ValueType) * type_pointers[2];
	MESSAGE(Sample) samples[2];
	MESSAGE(Sample) * sample_pointers[2];
	MESSAGE(Label) labels[2][2];
	MESSAGE(Label) * label_pointers[2][2];
	MESSAGE(Mapping) mappings[2];
	MESSAGE(Mapping) * mapping_pointers[2];
	MESSAGE(Location) locations[2];
	MESSAGE(Location) * location_pointers[2];
	MESSAGE(Line) line;
	MESSAGE(Line) * line_pointer;
	MESSAGE(Function) functions[2];
	MESSAGE(Function) * function_pointers[2];
	char *strings[N_STRINGS];
	uint64_t location_ids[2][2];
	int64_t values[2][2];
	int64_t comment;
};

static void fill_tables(struct good *good)
{
	static const char *const strings[N_STRINGS] = {"",         "samples", "count", "cpu", "nanoseconds",
						       "pid",      "tid",     "10",    "11",  "/file",
						       "function", "00ff",    "other"};
	for (size_t i = 0; i < N_STRINGS; i++)
		good->strings[i] = (char *)strings[i];
	for (size_t i = 0; i < 2; i++) {
		perftools__profiles__mapping__init(&good->mappings[i]);
		good->mappings[i].id = i + 1;
		good->mappings[i].memory_start = 0x1000 * (i + 1);
		good->mappings[i].memory_limit = 0x1000 * (i + 2);
		good->mappings[i].filename = FILE_NAME;
		good->mappings[i].build_id = HEX;
		good->mapping_pointers[i] = &good->mappings[i];
		perftools__profiles__function__init(&good->functions[i]);
		good->functions[i].id = i + 1;
		good->functions[i].name = i ? OTHER : FUNCTION;
		good->function_pointers[i] = &good->functions[i];
		perftools__profiles__location__init(&good->locations[i]);
		good->locations[i].id = i + 1;
		good->locations[i].mapping_id = i + 1;
		good->locations[i].address = 0x1000 * (i + 1) + 8;
		good->location_pointers[i] = &good->locations[i];
	}
	perftools__profiles__line__init(&good->line);
	good->line.function_id = 2;
	good->line_pointer = &good->line;
	good->locations[0].line = &good->line_pointer;
	good->locations[0].n_line = 1;
	good->mappings[0].has_functions = 1;
}

static void fill_samples(struct good *good)
{
	for (size_t i = 0; i < 2; i++) {
		perftools__profiles__sample__init(&good->samples[i]);
		good->location_ids[i][0] = 1;
		good->location_ids[i][1] = 2;
		good->samples[i].location_id = good->location_ids[i];
		good->samples[i].n_location_id = 2;
		good->values[i][0] = good->values[i][1] = 5;
		good->samples[i].value = good->values[i];
		good->samples[i].n_value = 2;
		for (size_t k = 0; k < 2; k++) {
			perftools__profiles__label__init(&good->labels[i][k]);
			good->labels[i][k].key = k ? TID : PID;
			good->labels[i][k].str = k && i ? ELEVEN : TEN;
			good->label_pointers[i][k] = &good->labels[i][k];
		}
		good->samples[i].label = good->label_pointers[i];
		good->samples[i].n_label = 2;
		good->sample_pointers[i] = &good->samples[i];
	}
}

static void make_good(struct good *good)
{
	memset(good, 0, sizeof(*good));
	fill_tables(good);
	fill_samples(good);
	perftools__profiles__value_type__init(&good->types[0]);
	perftools__profiles__value_type__init(&good->types[1]);
	good->types[0].type = SAMPLES;
	good->types[0].unit = COUNT;
	good->types[1].type = CPU;
	good->types[1].unit = NANOSECONDS;
	good->period_type = good->types[1];
	MESSAGE(Profile) *profile = &good->profile;
	perftools__profiles__profile__init(profile);
	for (size_t i = 0; i < 2; i++)
		good->type_pointers[i] = &good->types[i];
	profile->n_sample_type = profile->n_sample = profile->n_mapping = profile->n_location = profile->n_function = 2;
	profile->sample_type = good->type_pointers;
	profile->sample = good->sample_pointers;
	profile->mapping = good->mapping_pointers;
	profile->location = good->location_pointers;
	profile->function = good->function_pointers;
	profile->n_string_table = N_STRINGS;
	profile->string_table = good->strings;
	profile->period_type = &good->period_type;
	profile->default_sample_type = CPU;
	profile->n_comment = 1;
	profile->comment = &good->comment;
}

#define BREAKAGES(X)                                                                                           \
	X(good.strings[0] = "x", "string_table[0]")                                                            \
	X(good.strings[OTHER] = "\xff", "UTF-8")                                                               \
	X(good.strings[OTHER] = "\xed\xa0\x80", "UTF-8")                                                       \
	X(good.strings[OTHER] = "function", "twice")                                                           \
	X(good.profile.n_string_table = 0, "empty")                                                            \
	X(good.profile.n_sample_type = 1, "sample types")                                                      \
	X(good.strings[SAMPLES] = "sam-ples", "samples/count")                                                 \
	X(good.types[1].unit = COUNT, "cpu/nanoseconds")                                                       \
	X(good.profile.period_type = NULL, "period_type")                                                      \
	X(good.profile.default_sample_type = SAMPLES, "default_sample_type")                                   \
	X(good.profile.default_sample_type = 99, "default_sample_type")                                        \
	X(good.profile.period = -1, "negative")                                                                \
	X(good.profile.duration_nanos = -1, "negative")                                                        \
	X(good.profile.doc_url = OTHER, "doc_url")                                                             \
	X(good.profile.drop_frames = OTHER, "drop_frames")                                                     \
	X(good.comment = 99, "comment")                                                                        \
	X(good.mappings[0].id = 0, "mapping 0 has id")                                                         \
	X(good.mappings[1].id = 1, "mapping 1 has id")                                                         \
	X(good.mappings[1].filename = -1, "no such string")                                                    \
	X(good.mappings[1].filename = N_STRINGS, "no such string")                                             \
	X(good.mappings[1].memory_limit = 0x2000, "is empty")                                                  \
	X(good.mappings[1].build_id = OTHER, "no hex")                                                         \
	X(good.mappings[1].has_filenames = 1, "no functions")                                                  \
	X(good.mappings[1].has_functions = 1, "no function")                                                   \
	X(good.mappings[0].has_filenames = 1, "no file")                                                       \
	X(good.mappings[0].has_line_numbers = 1, "no line number")                                             \
	X(good.functions[1].id = 3, "function 1 has id")                                                       \
	X(good.functions[1].name = 0, "no name")                                                               \
	X(good.functions[1].name = FUNCTION, "function is there twice")                                        \
	X(good.functions[1].system_name = N_STRINGS, "no such string")                                         \
	X(good.functions[1].start_line = -1, "start_line")                                                     \
	X(good.locations[1].id = 1, "location 1 has id")                                                       \
	X(good.locations[1].mapping_id = 3, "no mapping")                                                      \
	X(good.locations[1].address = 0x3000, "outside its mapping")                                           \
	X(good.locations[1].is_folded = 1, "folded")                                                           \
	X(good.line.function_id = 0, "no function 0")                                                          \
	X(good.line.function_id = 3, "no function 3")                                                          \
	X(good.line.line = -1, "line is negative")                                                             \
	X((good.locations[1].mapping_id = 1, good.locations[1].address = 0x1008, good.locations[1].n_line = 1, \
	   good.locations[1].line = &good.line_pointer),                                                       \
	  "location is there twice")                                                                           \
	X(good.samples[1].n_value = 1, "values")                                                               \
	X(good.values[1][0] = 0, "values")                                                                     \
	X(good.values[1][1] = -1, "values")                                                                    \
	X(good.samples[1].n_location_id = 0, "no location")                                                    \
	X(good.location_ids[1][1] = 0, "no location 0")                                                        \
	X(good.location_ids[1][1] = 3, "no location 3")                                                        \
	X(good.labels[1][1].key = 0, "without key")                                                            \
	X(good.labels[1][1].str = 0, "not a string")                                                           \
	X(good.labels[1][1].num = 1, "not a string")                                                           \
	X(good.labels[1][1].key = PID, "two labels")                                                           \
	X(good.labels[1][1].key = OTHER, "lacks pid or tid")                                                   \
	X(good.strings[TID] = "pprof::tid", "reserved")                                                        \
	X(good.labels[1][1].str = TEN, "same stack and labels")

START_TEST(a_good_profile_passes)
{
	struct good good;
	char why[PROFILE_CHECK_WHY_BYTES] = "";
	make_good(&good);
	ck_assert_msg(profile_check(&good.profile, why) == 0, "%s", why);
	ck_assert_str_eq(profile_check_label(&good.profile, good.profile.sample[1], "tid"), "11");
	ck_assert_ptr_null(profile_check_label(&good.profile, good.profile.sample[1], "comm"));
}
END_TEST

START_TEST(each_broken_rule_is_noticed)
{
	struct good good;
	char why[PROFILE_CHECK_WHY_BYTES];
#define BREAK(change, expected)                                                           \
	make_good(&good);                                                                 \
	change;                                                                           \
	why[0] = '\0';                                                                    \
	ck_assert_msg(profile_check(&good.profile, why) < 0, "not noticed: %s", #change); \
	ck_assert_msg(strstr(why, expected) != NULL, "%s was noticed as: %s", #change, why);
	BREAKAGES(BREAK)
#undef BREAK
}
END_TEST

START_TEST(damaged_files_are_noticed)
{
	struct good good;
	char why[PROFILE_CHECK_WHY_BYTES];
	make_good(&good);
	uint8_t plain[2048], packed[4096];
	size_t n = perftools__profiles__profile__pack(&good.profile, plain);
	z_stream stream = {.next_in = plain, .avail_in = (uInt)n, .next_out = packed, .avail_out = sizeof(packed)};
	ck_assert_int_eq(deflateInit2(&stream, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	ck_assert_int_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
	size_t bytes = stream.total_out;
	deflateEnd(&stream);
	MESSAGE(Profile) *profile = profile_check_load(packed, bytes, why);
	ck_assert_ptr_nonnull(profile);
	ck_assert_int_eq(profile_check(profile, why), 0);
	perftools__profiles__profile__free_unpacked(profile, NULL);
	packed[bytes] = 0;
	ck_assert_ptr_null(profile_check_load(packed, bytes + 1, why)); /* something after the end */
	for (size_t i = 0; i < bytes; i++)
		ck_assert_ptr_null(profile_check_load(packed, i, why)); /* cut off */
	packed[bytes - 8] ^= 1;                                         /* the checksum */
	ck_assert_ptr_null(profile_check_load(packed, bytes, why));
	ck_assert_ptr_null(profile_check_load(plain, n, why)); /* not compressed */
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("profile_check");
	TCase *tests = tcase_create("rules");
	tcase_add_test(tests, a_good_profile_passes);
	tcase_add_test(tests, each_broken_rule_is_noticed);
	tcase_add_test(tests, damaged_files_are_noticed);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
