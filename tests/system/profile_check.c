/* profile_check [--functions] [--stacks] FILE.pb.gz
 *
 * Exits 1, with the violated rule on stderr, unless FILE is a profile that every reader takes (tests/unit/profile_check.h);
 * 2 for wrong usage or a file that cannot be read. Prints, one fact a line, words separated by blanks:
 *     samples N            sum of the counts               cpu_ns N             sum of the CPU time
 *     distinct N           sample messages                 max_depth N          locations of the deepest
 *     locations N          functions N                     mappings N
 *     period_ns N          time_ns N                       duration_ns N
 *     thread TID COUNT CPU_NS COMM                         one for each (tid, comm)
 *     mapping ID START LIMIT OFFSET BUILD_ID|- FLAGS|- NAME   flags: f functions, n file names, l lines, i inlined frames
 *     comment TEXT
 * --functions adds, most CPU time first, named ones before others: function SELF_COUNT SELF_NS CUM_COUNT CUM_NS NAME
 * --stacks adds: stack COUNT CPU_NS TID LEAF;...;ROOT
 * What has no name is FILE+0xOFFSET in stacks, and FILE+? in functions; +0xADDRESS and +? where there is no mapping. */
#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profile_check.h"

typedef Perftools__Profiles__Profile Profile; /* generated names are long */
typedef Perftools__Profiles__Sample Sample;
typedef Perftools__Profiles__Location Location;

static uint8_t *read_file(const char *path, size_t *ret_bytes)
{
	FILE *file = fopen(path, "re");
	if (!file)
		err(2, "%s", path);
	size_t n = 0, capacity = 0, got = 1;
	uint8_t *data = NULL;
	while (got > 0) {
		capacity = 2 * capacity + 65536;
		data = realloc(data, capacity);
		if (!data)
			err(2, "%s", path);
		got = fread(data + n, 1, capacity - n, file);
		n += got;
	}
	if (ferror(file))
		err(2, "%s", path);
	fclose(file);
	*ret_bytes = n;
	return data;
}

static void print_totals(const Profile *profile)
{
	int64_t samples = 0, cpu_ns = 0;
	size_t max_depth = 0;
	for (size_t i = 0; i < profile->n_sample; i++) {
		const Sample *sample = profile->sample[i];
		samples += sample->value[0];
		cpu_ns += sample->value[1];
		if (sample->n_location_id > max_depth)
			max_depth = sample->n_location_id;
	}
	printf("samples %" PRId64 "\ncpu_ns %" PRId64 "\ndistinct %zu\nmax_depth %zu\n", samples, cpu_ns,
	       profile->n_sample, max_depth);
	printf("locations %zu\nfunctions %zu\nmappings %zu\n", profile->n_location, profile->n_function,
	       profile->n_mapping);
	printf("period_ns %" PRId64 "\ntime_ns %" PRId64 "\nduration_ns %" PRId64 "\n", profile->period,
	       profile->time_nanos, profile->duration_nanos);
}

struct sum { /* of what has one name */
	const char *name, *comm;
	int64_t self_count, self_ns, cum_count, cum_ns;
	size_t last_sample; /* index + 1 of the one counted last in cum: a recursive function counts once */
};

struct sums {
	struct sum *all;
	size_t n, capacity;
};

static struct sum *sum_of(struct sums *sums, const char *name, const char *comm)
{
	for (size_t i = 0; i < sums->n; i++)
		if (strcmp(sums->all[i].name, name) == 0 && strcmp(sums->all[i].comm, comm) == 0)
			return &sums->all[i];
	if (sums->n == sums->capacity) {
		sums->capacity = 2 * sums->capacity + 64;
		sums->all = reallocarray(sums->all, sums->capacity, sizeof(*sums->all));
		if (!sums->all)
			err(2, "sums");
	}
	sums->all[sums->n] = (struct sum){.name = name, .comm = comm};
	return &sums->all[sums->n++];
}

static void print_threads(const Profile *profile)
{
	struct sums threads = {0};
	for (size_t i = 0; i < profile->n_sample; i++) {
		const char *comm = profile_check_label(profile, profile->sample[i], "comm");
		struct sum *sum =
			sum_of(&threads, profile_check_label(profile, profile->sample[i], "tid"), comm ? comm : "");
		sum->self_count += profile->sample[i]->value[0];
		sum->self_ns += profile->sample[i]->value[1];
	}
	for (size_t i = 0; i < threads.n; i++)
		printf("thread %s %" PRId64 " %" PRId64 " %s\n", threads.all[i].name, threads.all[i].self_count,
		       threads.all[i].self_ns, threads.all[i].comm);
	free(threads.all);
}

static void print_mappings(const Profile *profile)
{
	for (size_t i = 0; i < profile->n_mapping; i++) {
		const Perftools__Profiles__Mapping *mapping = profile->mapping[i];
		char flags[8];
		snprintf(flags, sizeof(flags), "%s%s%s%s", mapping->has_functions ? "f" : "",
			 mapping->has_filenames ? "n" : "", mapping->has_line_numbers ? "l" : "",
			 mapping->has_inline_frames ? "i" : "");
		const char *build_id = profile->string_table[mapping->build_id];
		printf("mapping %" PRIu64 " %#" PRIx64 " %#" PRIx64 " %#" PRIx64 " %s %s %s\n", mapping->id,
		       mapping->memory_start, mapping->memory_limit, mapping->file_offset, build_id[0] ? build_id : "-",
		       flags[0] ? flags : "-", profile->string_table[mapping->filename]);
	}
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static const char *function_name(const Profile *profile, const Location *location, size_t line)
{
	return profile->string_table[profile->function[location->line[line]->function_id - 1]->name];
}

struct function_sums {
	struct sum *named;   /* by the index of the name in the string table */
	struct sum *unnamed; /* by mapping id; 0: none */
};

static void add_to_sum(struct sum *sum, const Sample *sample, size_t index, bool self)
{
	if (self) {
		sum->self_count += sample->value[0];
		sum->self_ns += sample->value[1];
	}
	if (sum->last_sample == index + 1)
		return;
	sum->cum_count += sample->value[0];
	sum->cum_ns += sample->value[1];
	sum->last_sample = index + 1;
}

static void sum_sample(const Profile *profile, struct function_sums *sums, size_t index)
{
	const Sample *sample = profile->sample[index];
	for (size_t i = 0; i < sample->n_location_id; i++) {
		const Location *location = profile->location[sample->location_id[i] - 1];
		if (location->n_line == 0)
			add_to_sum(&sums->unnamed[location->mapping_id], sample, index, i == 0);
		for (size_t k = 0; k < location->n_line; k++) {
			int64_t name = profile->function[location->line[k]->function_id - 1]->name;
			add_to_sum(&sums->named[name], sample, index, i == 0 && k == 0);
		}
	}
}

static int by_time(const void *a_, const void *b_)
{
	const struct sum *a = a_, *b = b_;
	if (a->self_ns != b->self_ns)
		return a->self_ns < b->self_ns ? 1 : -1;
	return a->cum_ns == b->cum_ns ? strcmp(a->name, b->name) : a->cum_ns < b->cum_ns ? 1 : -1;
}

static void print_sums(struct sum *sums, size_t n, const char *suffix)
{
	qsort(sums, n, sizeof(*sums), by_time);
	for (size_t i = 0; i < n; i++)
		if (sums[i].cum_count > 0)
			printf("function %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %s%s\n", sums[i].self_count,
			       sums[i].self_ns, sums[i].cum_count, sums[i].cum_ns, sums[i].name, suffix);
}

static void print_functions(const Profile *profile)
{
	struct function_sums sums = {.named = calloc(profile->n_string_table, sizeof(struct sum)),
				     .unnamed = calloc(profile->n_mapping + 1, sizeof(struct sum))};
	if (!sums.named || !sums.unnamed)
		err(2, "sums");
	for (size_t i = 0; i < profile->n_string_table; i++)
		sums.named[i].name = profile->string_table[i];
	sums.unnamed[0].name = "";
	for (size_t i = 0; i < profile->n_mapping; i++)
		sums.unnamed[i + 1].name = base_name(profile->string_table[profile->mapping[i]->filename]);
	for (size_t i = 0; i < profile->n_sample; i++)
		sum_sample(profile, &sums, i);
	print_sums(sums.named, profile->n_string_table, "");
	print_sums(sums.unnamed, profile->n_mapping + 1, "+?");
	free(sums.named);
	free(sums.unnamed);
}

static void print_frame(const Profile *profile, const Location *location)
{
	for (size_t k = 0; k < location->n_line; k++)
		printf("%s%s", k ? ";" : "", function_name(profile, location, k));
	if (location->n_line > 0)
		return;
	if (location->mapping_id == 0) {
		printf("+%#" PRIx64, location->address);
		return;
	}
	const Perftools__Profiles__Mapping *mapping = profile->mapping[location->mapping_id - 1];
	printf("%s+%#" PRIx64, base_name(profile->string_table[mapping->filename]),
	       location->address - mapping->memory_start + mapping->file_offset);
}

static void print_stacks(const Profile *profile)
{
	for (size_t i = 0; i < profile->n_sample; i++) {
		const Sample *sample = profile->sample[i];
		printf("stack %" PRId64 " %" PRId64 " %s ", sample->value[0], sample->value[1],
		       profile_check_label(profile, sample, "tid"));
		for (size_t k = 0; k < sample->n_location_id; k++) {
			if (k > 0)
				putchar(';');
			print_frame(profile, profile->location[sample->location_id[k] - 1]);
		}
		putchar('\n');
	}
}

int main(int argc, char **argv)
{
	bool functions = false, stacks = false;
	int i = 1;
	for (; i < argc && argv[i][0] == '-'; i++) {
		functions |= strcmp(argv[i], "--functions") == 0;
		stacks |= strcmp(argv[i], "--stacks") == 0;
		if (strcmp(argv[i], "--functions") != 0 && strcmp(argv[i], "--stacks") != 0)
			errx(2, "unknown option %s", argv[i]);
	}
	if (i + 1 != argc)
		errx(2, "usage: profile_check [--functions] [--stacks] FILE.pb.gz");
	size_t bytes = 0;
	uint8_t *data = read_file(argv[i], &bytes);
	char why[PROFILE_CHECK_WHY_BYTES];
	Profile *profile = profile_check_load(data, bytes, why);
	if (!profile || profile_check(profile, why) < 0)
		errx(1, "%s: %s", argv[i], why);
	print_totals(profile);
	print_threads(profile);
	print_mappings(profile);
	for (size_t k = 0; k < profile->n_comment; k++)
		printf("comment %s\n", profile->string_table[profile->comment[k]]);
	if (functions)
		print_functions(profile);
	if (stacks)
		print_stacks(profile);
	perftools__profiles__profile__free_unpacked(profile, NULL);
	free(data);
	return 0;
}
