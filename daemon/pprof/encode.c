#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "pprof/gzip.h"
#include "pprof/pprof.h"
#include "pprof/tables.h"
#include "profile.pb-c.h"

enum {
	GZIP_LEVEL =
		1, /* 6, zlib's default, takes twice the time of the whole encoding and saves 5 % (tests/bench/bench_pull) */
	FLUSH_BYTES = 64 * 1024,
	N_VALUES = 2,  /* samples/count, cpu/nanoseconds */
	MAX_LABELS = 5 /* pid, tid, comm, cgroup, stack_end */
};

/* Short names for the types that protoc-c generates from proto/profile.proto. */
#define MESSAGE(name) Perftools__Profiles__##name

/* A profile message is the concatenation of its parts: repeated fields of parts that follow one another are appended
 * (protobuf encoding, "last one wins" and merging). So each sample, location and so on is packed alone, in the order of the
 * field numbers, which gives the bytes of one big message without ever holding its tree. */
struct encoder {
	const struct profile *profile;
	struct gzip *gzip;
	struct string_table strings;
	struct function_table functions;
	uint8_t *packed;
	size_t n_packed, packed_capacity;
	uint64_t total_bytes;   /* packed so far, flushed ones included */
	uint64_t *location_ids; /* room for the longest stack */
	MESSAGE(Line) * lines;  /* room for the location with most, as line_pointers, which point to them */
	MESSAGE(Line) * *line_pointers;
};

static int64_t clamp(uint64_t value)
{
	return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

static int flush(struct encoder *encoder)
{
	int r = gzip_write(encoder->gzip, encoder->packed, encoder->n_packed);
	encoder->n_packed = 0;
	return r;
}

static int emit(struct encoder *encoder, const MESSAGE(Profile) * part)
{
	size_t bytes = perftools__profiles__profile__get_packed_size(part);
	encoder->total_bytes += bytes;
	if (encoder->total_bytes > INT_MAX)
		return -EOVERFLOW;
	if (bytes > encoder->packed_capacity - encoder->n_packed) {
		size_t capacity = encoder->n_packed + bytes + FLUSH_BYTES;
		uint8_t *packed = realloc(encoder->packed, capacity);
		if (!packed)
			return -ENOMEM;
		encoder->packed = packed;
		encoder->packed_capacity = capacity;
	}
	encoder->n_packed += perftools__profiles__profile__pack(part, encoder->packed + encoder->n_packed);
	return encoder->n_packed >= FLUSH_BYTES ? flush(encoder) : 0;
}

/* Fills type and unit. The texts are literals. */
static int fill_value_type(struct encoder *encoder, const char *type, const char *unit, MESSAGE(ValueType) * ret)
{
	perftools__profiles__value_type__init(ret);
	int r = string_table_add(&encoder->strings, type, &ret->type);
	return r < 0 ? r : string_table_add(&encoder->strings, unit, &ret->unit);
}

static int emit_sample_types(struct encoder *encoder)
{
	MESSAGE(ValueType) types[N_VALUES];
	MESSAGE(ValueType) * pointers[N_VALUES] = {&types[0], &types[1]};
	MESSAGE(Profile) part = PERFTOOLS__PROFILES__PROFILE__INIT;
	part.n_sample_type = N_VALUES;
	part.sample_type = pointers;
	int r = fill_value_type(encoder, "samples", "count", &types[0]);
	if (r == 0)
		r = fill_value_type(encoder, "cpu", "nanoseconds", &types[1]);
	return r < 0 ? r : emit(encoder, &part);
}

struct labels {
	MESSAGE(Label) messages[MAX_LABELS];
	MESSAGE(Label) * pointers[MAX_LABELS];
	size_t n;
};

/* Labels are strings, numbers too: Pyroscope throws numeric ones away, and people filter by these. An empty value would read
 * as the number 0, so it is left out. */
static int add_label(struct encoder *encoder, struct labels *labels, const char *key, const char *value)
{
	if (value[0] == '\0')
		return 0;
	MESSAGE(Label) *label = &labels->messages[labels->n];
	perftools__profiles__label__init(label);
	int r = string_table_add(&encoder->strings, key, &label->key);
	if (r == 0)
		r = string_table_add_copy(&encoder->strings, value, &label->str);
	if (r < 0)
		return r;
	labels->pointers[labels->n++] = label;
	return 0;
}

static int add_number_label(struct encoder *encoder, struct labels *labels, const char *key, uint32_t value)
{
	char text[16];
	snprintf(text, sizeof(text), "%" PRIu32, value);
	return add_label(encoder, labels, key, text);
}

/* What an incomplete stack is labelled with; "" where it is whole. */
static const char *const incomplete_names[STACK_END_COUNT] = {
#define STACK_END_LABEL(NAME, name, complete, text) [STACK_END_##NAME] = (complete) ? "" : #name,
	STACK_END_TABLE(STACK_END_LABEL)
#undef STACK_END_LABEL
};

static int fill_labels(struct encoder *encoder, const struct profile_sample *sample, struct labels *labels)
{
	labels->n = 0;
	int r = add_number_label(encoder, labels, "pid", encoder->profile->pid);
	if (r == 0)
		r = add_number_label(encoder, labels, "tid", sample->tid);
	if (r == 0)
		r = add_label(encoder, labels, "comm", sample->comm);
	if (r == 0)
		r = add_label(encoder, labels, "cgroup", encoder->profile->cgroup);
	if (r == 0)
		r = add_label(encoder, labels, "stack_end", incomplete_names[sample->incomplete]);
	return r;
}

static int emit_sample(struct encoder *encoder, const struct profile_sample *sample)
{
	struct labels labels;
	int r = fill_labels(encoder, sample, &labels);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sample->n_locations; i++)
		encoder->location_ids[i] = (uint64_t)sample->locations[i] + 1;
	int64_t values[N_VALUES] = {clamp(sample->count), clamp(sample->cpu_ns)};
	MESSAGE(Sample) message = PERFTOOLS__PROFILES__SAMPLE__INIT;
	message.n_location_id = sample->n_locations;
	message.location_id = encoder->location_ids;
	message.n_value = N_VALUES;
	message.value = values;
	message.n_label = labels.n;
	message.label = labels.pointers;
	MESSAGE(Sample) *pointer = &message;
	MESSAGE(Profile) part = PERFTOOLS__PROFILES__PROFILE__INIT;
	part.n_sample = 1;
	part.sample = &pointer;
	return emit(encoder, &part);
}

static int emit_samples(struct encoder *encoder)
{
	const struct profile *profile = encoder->profile;
	size_t deepest = 1;
	for (size_t i = 0; i < profile->n_samples; i++)
		if (profile->samples[i].n_locations > deepest)
			deepest = profile->samples[i].n_locations;
	encoder->location_ids = calloc(deepest, sizeof(uint64_t));
	if (!encoder->location_ids)
		return -ENOMEM;
	for (size_t i = 0; i < profile->n_samples; i++) {
		/* Nothing could be said of a sample without any location, and readers drop it. store never makes one. */
		int r = profile->samples[i].n_locations ? emit_sample(encoder, &profile->samples[i]) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int emit_mapping(struct encoder *encoder, size_t i)
{
	const struct profile_mapping *mapping = &encoder->profile->mappings[i];
	MESSAGE(Mapping) message = PERFTOOLS__PROFILES__MAPPING__INIT;
	message.id = i + 1;
	message.memory_start = mapping->start;
	message.memory_limit = mapping->end;
	message.file_offset = mapping->file_offset;
	message.has_functions = mapping->has_functions;
	message.has_filenames = mapping->has_filenames;
	message.has_line_numbers = mapping->has_line_numbers;
	message.has_inline_frames = mapping->has_inline_frames;
	int r = string_table_add(&encoder->strings, mapping->name, &message.filename);
	if (r == 0)
		r = string_table_add(&encoder->strings, mapping->build_id, &message.build_id);
	if (r < 0)
		return r;
	MESSAGE(Mapping) *pointer = &message;
	MESSAGE(Profile) part = PERFTOOLS__PROFILES__PROFILE__INIT;
	part.n_mapping = 1;
	part.mapping = &pointer;
	return emit(encoder, &part);
}

/* A name that equals its system name pprof takes for one that is yet to be demangled; where it looks like C++ it cuts out parameters and template arguments:
 * all of CPython's "<module>". There it has no system name. */
static const char *system_name(const char *name, const struct profile_line *line)
{
	bool looks_like_cxx = strpbrk(name, "<[") || strstr(name, "::");
	return looks_like_cxx && strcmp(name, line->system_name) == 0 ? "" : line->system_name;
}

/* The function of a line. A name is never empty: pprof would show nothing at all. */
static int line_function(struct encoder *encoder, const struct profile_line *line, uint64_t *ret)
{
	const char *name = line->name[0] ? line->name : line->system_name[0] ? line->system_name : "[unknown]";
	struct function function = {.start_line = line->start_line > 0 ? line->start_line : 0};
	int r = string_table_add(&encoder->strings, name, &function.name);
	if (r == 0)
		r = string_table_add(&encoder->strings, system_name(name, line), &function.system_name);
	if (r == 0)
		r = string_table_add(&encoder->strings, line->filename ? line->filename : "", &function.filename);
	return r < 0 ? r : function_table_add(&encoder->functions, &function, ret);
}

static int fill_lines(struct encoder *encoder, const struct profile_location *location)
{
	for (size_t i = 0; i < location->n_lines; i++) {
		MESSAGE(Line) *line = &encoder->lines[i];
		perftools__profiles__line__init(line);
		line->line = location->lines[i].line > 0 ? location->lines[i].line : 0;
		int r = line_function(encoder, &location->lines[i], &line->function_id);
		if (r < 0)
			return r;
		encoder->line_pointers[i] = line;
	}
	return 0;
}

static int emit_location(struct encoder *encoder, size_t i)
{
	const struct profile_location *location = &encoder->profile->locations[i];
	int r = fill_lines(encoder, location);
	if (r < 0)
		return r;
	MESSAGE(Location) message = PERFTOOLS__PROFILES__LOCATION__INIT;
	message.id = i + 1;
	message.mapping_id = location->mapping == PROFILE_NO_MAPPING ? 0 : (uint64_t)location->mapping + 1;
	message.address = location->address;
	message.n_line = location->n_lines;
	message.line = encoder->line_pointers;
	MESSAGE(Location) *pointer = &message;
	MESSAGE(Profile) part = PERFTOOLS__PROFILES__PROFILE__INIT;
	part.n_location = 1;
	part.location = &pointer;
	return emit(encoder, &part);
}

static int emit_locations(struct encoder *encoder)
{
	const struct profile *profile = encoder->profile;
	size_t most_lines = 1;
	for (size_t i = 0; i < profile->n_locations; i++)
		if (profile->locations[i].n_lines > most_lines)
			most_lines = profile->locations[i].n_lines;
	encoder->lines = calloc(most_lines, sizeof(*encoder->lines));
	encoder->line_pointers = calloc(most_lines, sizeof(MESSAGE(Line) *));
	if (!encoder->lines || !encoder->line_pointers)
		return -ENOMEM;
	for (size_t i = 0; i < profile->n_locations; i++) {
		int r = emit_location(encoder, i);
		if (r < 0)
			return r;
	}
	return 0;
}

static int emit_functions(struct encoder *encoder)
{
	for (size_t i = 0; i < encoder->functions.n; i++) {
		const struct function *function = &encoder->functions.entries[i].function;
		MESSAGE(Function) message = PERFTOOLS__PROFILES__FUNCTION__INIT;
		message.id = i + 1;
		message.name = function->name;
		message.system_name = function->system_name;
		message.filename = function->filename;
		message.start_line = function->start_line;
		MESSAGE(Function) *pointer = &message;
		MESSAGE(Profile) part = PERFTOOLS__PROFILES__PROFILE__INIT;
		part.n_function = 1;
		part.function = &pointer;
		int r = emit(encoder, &part);
		if (r < 0)
			return r;
	}
	return 0;
}

static int emit_strings(struct encoder *encoder)
{
	for (size_t i = 0; i < encoder->strings.n; i++) {
		char *pointer = (char *)encoder->strings.entries[i].text; /* protobuf-c does not write through it */
		MESSAGE(Profile) part = PERFTOOLS__PROFILES__PROFILE__INIT;
		part.n_string_table = 1;
		part.string_table = &pointer;
		int r = emit(encoder, &part);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What stands once in a profile. Its strings are added before, its message emitted after the string table. */
struct closing {
	MESSAGE(Profile) message;
	MESSAGE(ValueType) period_type;
	int64_t *comments;
};

static int fill_closing(struct encoder *encoder, struct closing *closing)
{
	const struct profile *profile = encoder->profile;
	MESSAGE(Profile) *message = &closing->message;
	perftools__profiles__profile__init(message);
	message->time_nanos = clamp(profile->time_unix_ns);
	message->duration_nanos = clamp(profile->duration_ns);
	message->period = clamp(profile->period_ns);
	message->period_type = &closing->period_type;
	message->n_comment = profile->n_comments;
	message->comment = closing->comments;
	int r = fill_value_type(encoder, "cpu", "nanoseconds", &closing->period_type);
	if (r == 0)
		r = string_table_add(&encoder->strings, "cpu", &message->default_sample_type);
	for (size_t i = 0; i < profile->n_comments && r == 0; i++)
		r = string_table_add(&encoder->strings, profile->comments[i], &closing->comments[i]);
	return r;
}

static int emit_strings_and_closing(struct encoder *encoder)
{
	_cleanup_free_ int64_t *comments = calloc(encoder->profile->n_comments + 1, sizeof(int64_t));
	if (!comments)
		return -ENOMEM;
	struct closing closing = {.comments = comments};
	int r = fill_closing(encoder, &closing);
	if (r == 0)
		r = emit_strings(encoder);
	return r < 0 ? r : emit(encoder, &closing.message);
}

static int emit_all(struct encoder *encoder)
{
	int r = emit_sample_types(encoder);
	if (r == 0)
		r = emit_samples(encoder);
	for (size_t i = 0; i < encoder->profile->n_mappings && r == 0; i++)
		r = emit_mapping(encoder, i);
	if (r == 0)
		r = emit_locations(encoder);
	if (r == 0)
		r = emit_functions(encoder);
	if (r == 0)
		r = emit_strings_and_closing(encoder);
	return r < 0 ? r : flush(encoder);
}

static int encode(const struct profile *profile, struct gzip *gzip, uint8_t **ret, size_t *ret_bytes)
{
	struct encoder encoder = {.profile = profile, .gzip = gzip};
	int r = string_table_init(&encoder.strings);
	if (r == 0)
		r = emit_all(&encoder);
	if (r == 0)
		r = gzip_finish(gzip, ret, ret_bytes);
	string_table_free(&encoder.strings);
	function_table_free(&encoder.functions);
	free(encoder.location_ids);
	free(encoder.lines);
	free(encoder.line_pointers);
	free(encoder.packed);
	return r;
}

int pprof_encode(const struct profile *profile, uint8_t **ret, size_t *ret_bytes, struct error *err)
{
	struct gzip gzip;
	int r = gzip_init(&gzip, GZIP_LEVEL);
	if (r == 0) {
		r = encode(profile, &gzip, ret, ret_bytes);
		gzip_free(&gzip);
	}
	if (r == -EOVERFLOW)
		return error_set(
			err, EOVERFLOW,
			"the profile is larger than the 2 GiB that the pprof format can hold: pull a shorter time");
	if (r < 0)
		return error_set(err, -r, "out of memory while the profile was encoded: pull a shorter time");
	return 0;
}
