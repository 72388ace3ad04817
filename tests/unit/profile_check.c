#include "profile_check.h"

#include <iconv.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define MESSAGE(name) Perftools__Profiles__##name

struct check {
	const MESSAGE(Profile) * profile;
	char *why;
};

__attribute__((format(printf, 2, 3))) static int violated(const struct check *check, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(check->why, PROFILE_CHECK_WHY_BYTES, format, args);
	va_end(args);
	return -1;
}

/* Returns from the function unless the rule holds. */
#define RULE(check, holds, ...)                              \
	do {                                                 \
		if (!(holds))                                \
			return violated(check, __VA_ARGS__); \
	} while (0)

static uint8_t *uncompress_all(z_stream *stream, size_t *ret_bytes)
{
	size_t n = 0, capacity = 1 << 16;
	uint8_t *out = malloc(capacity);
	int z = Z_OK;
	while (out && z == Z_OK) {
		if (n == capacity) {
			capacity *= 2;
			uint8_t *larger = realloc(out, capacity);
			if (!larger)
				free(out);
			out = larger;
			if (!out)
				return NULL;
		}
		stream->next_out = out + n;
		stream->avail_out = capacity - n < UINT_MAX ? (uInt)(capacity - n) : UINT_MAX;
		z = inflate(stream, Z_NO_FLUSH);
		n = (size_t)(stream->next_out - out);
	}
	if (z != Z_STREAM_END || stream->avail_in != 0) {
		free(out);
		return NULL;
	}
	*ret_bytes = n;
	return out;
}

MESSAGE(Profile) * profile_check_load(const uint8_t *data, size_t bytes, char why[PROFILE_CHECK_WHY_BYTES])
{
	enum { GZIP_ONLY = 16 };
	struct check check = {.why = why};
	z_stream stream = {.next_in = (uint8_t *)data, .avail_in = (uInt)bytes};
	if (bytes > UINT_MAX || inflateInit2(&stream, GZIP_ONLY + MAX_WBITS) != Z_OK) {
		violated(&check, "cannot uncompress %zu bytes", bytes);
		return NULL;
	}
	size_t n = 0;
	uint8_t *plain = uncompress_all(&stream, &n);
	inflateEnd(&stream);
	if (!plain) {
		violated(&check, "not one whole gzip member");
		return NULL;
	}
	MESSAGE(Profile) *profile = perftools__profiles__profile__unpack(NULL, n, plain);
	free(plain);
	if (!profile)
		violated(&check, "not a protobuf message of this type");
	return profile;
}

static const char *text(const struct check *check, int64_t index)
{
	return check->profile->string_table[index];
}

static bool is_string(const struct check *check, int64_t index)
{
	return index >= 0 && (uint64_t)index < check->profile->n_string_table;
}

static bool is_utf8(const char *string)
{
	iconv_t converter = iconv_open("UTF-32LE", "UTF-8");
	if (converter == (iconv_t)-1) // NOLINT(performance-no-int-to-ptr): iconv's word for failure
		return false;
	char *in = (char *)string;
	size_t in_left = strlen(string), r = 0;
	while (in_left > 0) {
		char buffer[4096], *out = buffer;
		size_t out_left = sizeof(buffer), before = in_left;
		r = iconv(converter, &in, &in_left, &out, &out_left);
		if (r == (size_t)-1 && in_left == before)
			break;
	}
	iconv_close(converter);
	return in_left == 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int check_strings(const struct check *check)
{
	const MESSAGE(Profile) *profile = check->profile;
	RULE(check, profile->n_string_table > 0, "the string table is empty");
	RULE(check, profile->string_table[0][0] == '\0', "string_table[0] is \"%.60s\"", profile->string_table[0]);
	for (size_t i = 0; i < profile->n_string_table; i++)
		RULE(check, is_utf8(profile->string_table[i]), "string %zu is not valid UTF-8", i);
	char **sorted = malloc(profile->n_string_table * sizeof(char *));
	RULE(check, sorted, "out of memory");
	memcpy(sorted, profile->string_table, profile->n_string_table * sizeof(char *));
	qsort(sorted, profile->n_string_table, sizeof(char *), by_text);
	const char *twice = NULL;
	for (size_t i = 1; i < profile->n_string_table; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			twice = sorted[i];
	free(sorted);
	RULE(check, !twice, "the string \"%.60s\" is in the table twice", twice);
	return 0;
}

static bool is_value_type(const struct check *check, const MESSAGE(ValueType) * type, const char *name,
			  const char *unit)
{
	return type && is_string(check, type->type) && is_string(check, type->unit) &&
	       strcmp(text(check, type->type), name) == 0 && strcmp(text(check, type->unit), unit) == 0 &&
	       !strchr(text(check, type->type), '-');
}

static int check_header(const struct check *check)
{
	const MESSAGE(Profile) *profile = check->profile;
	RULE(check, profile->base.n_unknown_fields == 0, "the profile has unknown fields");
	RULE(check, profile->n_sample_type == 2, "%zu sample types", profile->n_sample_type);
	RULE(check, is_value_type(check, profile->sample_type[0], "samples", "count"), "type 0 is not samples/count");
	RULE(check, is_value_type(check, profile->sample_type[1], "cpu", "nanoseconds"),
	     "type 1 is not cpu/nanoseconds");
	RULE(check, is_value_type(check, profile->period_type, "cpu", "nanoseconds"),
	     "period_type is not cpu/nanoseconds");
	RULE(check,
	     is_string(check, profile->default_sample_type) &&
		     strcmp(text(check, profile->default_sample_type), "cpu") == 0,
	     "default_sample_type is not cpu");
	RULE(check, profile->period >= 0 && profile->time_nanos >= 0 && profile->duration_nanos >= 0,
	     "period, time or duration is negative");
	RULE(check, profile->drop_frames == 0 && profile->keep_frames == 0, "drop_frames or keep_frames is set");
	RULE(check,
	     is_string(check, profile->doc_url) &&
		     (profile->doc_url == 0 || strstr(text(check, profile->doc_url), "://")),
	     "doc_url is not absolute");
	for (size_t i = 0; i < profile->n_comment; i++)
		RULE(check, is_string(check, profile->comment[i]), "comment %zu is no string", i);
	return 0;
}

static int check_mapping(const struct check *check, size_t i)
{
	const MESSAGE(Mapping) *mapping = check->profile->mapping[i];
	RULE(check, mapping->base.n_unknown_fields == 0, "mapping %zu has unknown fields", i);
	RULE(check, mapping->id == i + 1, "mapping %zu has id %" PRIu64, i, mapping->id);
	RULE(check, mapping->memory_start < mapping->memory_limit, "mapping %zu is empty", i);
	RULE(check, is_string(check, mapping->filename) && is_string(check, mapping->build_id),
	     "mapping %zu: no such string", i);
	const char *build_id = text(check, mapping->build_id);
	RULE(check, build_id[strspn(build_id, "0123456789abcdef")] == '\0' && strlen(build_id) % 2 == 0,
	     "mapping %zu: the build-id is no hex number: %.60s", i, build_id);
	RULE(check,
	     mapping->has_functions ||
		     (!mapping->has_filenames && !mapping->has_line_numbers && !mapping->has_inline_frames),
	     "mapping %zu has files, lines or inlined frames but no functions", i);
	return 0;
}

static int by_function(const void *a_, const void *b_)
{
	const MESSAGE(Function) *a = *(MESSAGE(Function) *const *)a_, *b = *(MESSAGE(Function) *const *)b_;
	int64_t left[] = {a->name, a->system_name, a->filename, a->start_line};
	int64_t right[] = {b->name, b->system_name, b->filename, b->start_line};
	return memcmp(left, right, sizeof(left));
}

static int check_function(const struct check *check, size_t i)
{
	const MESSAGE(Function) *function = check->profile->function[i];
	RULE(check, function->base.n_unknown_fields == 0, "function %zu has unknown fields", i);
	RULE(check, function->id == i + 1, "function %zu has id %" PRIu64, i, function->id);
	RULE(check,
	     is_string(check, function->name) && is_string(check, function->system_name) &&
		     is_string(check, function->filename),
	     "function %zu: no such string", i);
	RULE(check, function->name != 0, "function %zu has no name", i);
	RULE(check, function->start_line >= 0, "function %zu: start_line is negative", i);
	return 0;
}

/* Sorts a copy of n pointers and counts neighbours that are equal; -1: out of memory. */
static long count_doubles(void *const *pointers, size_t n, int (*compare)(const void *, const void *))
{
	if (n == 0)
		return 0;
	void **sorted = malloc(n * sizeof(void *));
	if (!sorted)
		return -1;
	memcpy(sorted, pointers, n * sizeof(void *));
	qsort(sorted, n, sizeof(void *), compare);
	long doubles = 0;
	for (size_t i = 1; i < n; i++)
		doubles += compare(&sorted[i - 1], &sorted[i]) == 0;
	free(sorted);
	return doubles;
}

static int check_line(const struct check *check, size_t i, const MESSAGE(Line) * line, const MESSAGE(Mapping) * mapping)
{
	RULE(check, line->function_id >= 1 && line->function_id <= check->profile->n_function,
	     "location %zu: no function %" PRIu64, i, line->function_id);
	RULE(check, line->line >= 0, "location %zu: line is negative", i);
	if (!mapping)
		return 0;
	const MESSAGE(Function) *function = check->profile->function[line->function_id - 1];
	RULE(check, !mapping->has_filenames || function->filename != 0,
	     "location %zu has no file though its mapping says has_filenames", i);
	RULE(check, !mapping->has_line_numbers || line->line > 0,
	     "location %zu has no line number though its mapping says has_line_numbers", i);
	return 0;
}

static int check_location(const struct check *check, size_t i)
{
	const MESSAGE(Location) *location = check->profile->location[i];
	RULE(check, location->base.n_unknown_fields == 0, "location %zu has unknown fields", i);
	RULE(check, location->id == i + 1, "location %zu has id %" PRIu64, i, location->id);
	RULE(check, location->mapping_id <= check->profile->n_mapping, "location %zu: no mapping %" PRIu64, i,
	     location->mapping_id);
	RULE(check, !location->is_folded, "location %zu is folded", i);
	const MESSAGE(Mapping) *mapping =
		location->mapping_id ? check->profile->mapping[location->mapping_id - 1] : NULL;
	RULE(check,
	     !mapping || (location->address >= mapping->memory_start && location->address < mapping->memory_limit),
	     "location %zu: address %#" PRIx64 " lies outside its mapping", i, location->address);
	RULE(check, !mapping || !mapping->has_functions || location->n_line > 0,
	     "location %zu has no function though its mapping says has_functions", i);
	for (size_t k = 0; k < location->n_line; k++)
		if (check_line(check, i, location->line[k], mapping) < 0)
			return -1;
	return 0;
}

static int by_place(const void *a_, const void *b_)
{
	const MESSAGE(Location) *a = *(MESSAGE(Location) *const *)a_, *b = *(MESSAGE(Location) *const *)b_;
	/* Placeholders have neither mapping nor address; their function tells them apart. */
	uint64_t left[] = {a->mapping_id, a->address, a->n_line ? a->line[0]->function_id : 0};
	uint64_t right[] = {b->mapping_id, b->address, b->n_line ? b->line[0]->function_id : 0};
	return memcmp(left, right, sizeof(left));
}

static int check_labels(const struct check *check, size_t i)
{
	const MESSAGE(Sample) *sample = check->profile->sample[i];
	for (size_t k = 0; k < sample->n_label; k++) {
		const MESSAGE(Label) *label = sample->label[k];
		RULE(check, is_string(check, label->key) && label->key != 0, "sample %zu: a label without key", i);
		RULE(check, is_string(check, label->str) && label->str != 0 && label->num == 0 && label->num_unit == 0,
		     "sample %zu: the label %s is not a string", i, text(check, label->key));
		RULE(check, strncmp(text(check, label->key), "pprof::", strlen("pprof::")) != 0,
		     "sample %zu: the label %s is reserved", i, text(check, label->key));
		for (size_t m = 0; m < k; m++)
			RULE(check, sample->label[m]->key != label->key, "sample %zu has two labels %s", i,
			     text(check, label->key));
	}
	RULE(check,
	     profile_check_label(check->profile, sample, "pid") && profile_check_label(check->profile, sample, "tid"),
	     "sample %zu lacks pid or tid", i);
	return 0;
}

static int check_sample(const struct check *check, size_t i)
{
	const MESSAGE(Sample) *sample = check->profile->sample[i];
	RULE(check, sample->base.n_unknown_fields == 0, "sample %zu has unknown fields", i);
	RULE(check, sample->n_value == check->profile->n_sample_type, "sample %zu has %zu values", i, sample->n_value);
	RULE(check, sample->value[0] >= 1 && sample->value[1] >= 0, "sample %zu: values %" PRId64 " and %" PRId64, i,
	     sample->value[0], sample->value[1]);
	RULE(check, sample->n_location_id >= 1, "sample %zu has no location", i);
	for (size_t k = 0; k < sample->n_location_id; k++)
		RULE(check, sample->location_id[k] >= 1 && sample->location_id[k] <= check->profile->n_location,
		     "sample %zu: no location %" PRIu64, i, sample->location_id[k]);
	return check_labels(check, i);
}

static int compare_numbers(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int by_stack_and_labels(const void *a_, const void *b_)
{
	const MESSAGE(Sample) *a = *(MESSAGE(Sample) *const *)a_, *b = *(MESSAGE(Sample) *const *)b_;
	int order = compare_numbers(a->n_location_id, b->n_location_id);
	if (order == 0)
		order = memcmp(a->location_id, b->location_id, a->n_location_id * sizeof(a->location_id[0]));
	if (order == 0)
		order = compare_numbers(a->n_label, b->n_label);
	for (size_t i = 0; order == 0 && i < a->n_label; i++) {
		order = compare_numbers((uint64_t)a->label[i]->key, (uint64_t)b->label[i]->key);
		if (order == 0)
			order = compare_numbers((uint64_t)a->label[i]->str, (uint64_t)b->label[i]->str);
	}
	return order;
}

static int check_doubles(const struct check *check)
{
	const MESSAGE(Profile) *profile = check->profile;
	RULE(check, count_doubles((void **)profile->function, profile->n_function, by_function) == 0,
	     "a function is there twice");
	RULE(check, count_doubles((void **)profile->location, profile->n_location, by_place) == 0,
	     "a location is there twice");
	RULE(check, count_doubles((void **)profile->sample, profile->n_sample, by_stack_and_labels) == 0,
	     "two samples have the same stack and labels");
	return 0;
}

int profile_check(const MESSAGE(Profile) * profile, char why[PROFILE_CHECK_WHY_BYTES])
{
	struct check check = {.profile = profile, .why = why};
	int r = check_strings(&check);
	if (r == 0)
		r = check_header(&check);
	for (size_t i = 0; i < profile->n_mapping && r == 0; i++)
		r = check_mapping(&check, i);
	for (size_t i = 0; i < profile->n_function && r == 0; i++)
		r = check_function(&check, i);
	for (size_t i = 0; i < profile->n_location && r == 0; i++)
		r = check_location(&check, i);
	for (size_t i = 0; i < profile->n_sample && r == 0; i++)
		r = check_sample(&check, i);
	return r < 0 ? r : check_doubles(&check);
}

const char *profile_check_label(const MESSAGE(Profile) * profile, const MESSAGE(Sample) * sample, const char *key)
{
	for (size_t i = 0; i < sample->n_label; i++)
		if (strcmp(profile->string_table[sample->label[i]->key], key) == 0)
			return profile->string_table[sample->label[i]->str];
	return NULL;
}
