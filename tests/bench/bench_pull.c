/* How long a pull takes, and what a sample costs the store: 1,000,000 samples of 10,000 distinct stacks of about 40 frames,
 * names already known. Prints one line per figure. Usage: bench_pull [SAMPLES [STACKS [THREADS [REPEATS]]]] */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "pprof/pprof.h"
#include "store/store.h"

enum {
	FUNCTIONS = 5000, /* where frames come from */
	CALL_SITES = 4,   /* of each function: 20,000 distinct addresses in all */
	FUNCTION_BYTES = 64,
	MIN_DEPTH = 30,
	MAX_DEPTH = 50,
	LIBRARIES = 20,
};
#define TEXT_START   UINT64_C(0x7f1200000000)
#define TEXT_BYTES   ((uint64_t)FUNCTIONS * FUNCTION_BYTES)
#define BUDGET_BYTES ((size_t)64 << 20)

struct workload {
	size_t n_samples, n_stacks, n_threads;
	uint64_t (*stacks)[MAX_DEPTH];
	size_t *depths;
	struct maps *maps;
};

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
	return (x ^ (x >> 29)) * UINT64_C(0xbf58476d1ce4e5b9) >> 32;
}

/* Walks through a made-up call graph: each function calls CALL_SITES others, from a fixed place each. */
static void fill_stacks(struct workload *workload)
{
	uint64_t state = 1;
	for (size_t i = 0; i < workload->n_stacks; i++) {
		size_t depth = MIN_DEPTH + next_random(&state) % (MAX_DEPTH - MIN_DEPTH + 1);
		uint64_t function = 0;
		for (size_t k = depth; k-- > 0;) {
			uint64_t site = next_random(&state) % CALL_SITES;
			workload->stacks[i][k] = TEXT_START + function * FUNCTION_BYTES + site * 8 + 5;
			function = mix(function * CALL_SITES + site) % FUNCTIONS;
		}
		workload->depths[i] = depth;
	}
}

static void make_workload(struct workload *workload)
{
	workload->stacks = calloc(workload->n_stacks, sizeof(*workload->stacks));
	workload->depths = calloc(workload->n_stacks, sizeof(*workload->depths));
	if (!workload->stacks || !workload->depths)
		errx(1, "out of memory");
	fill_stacks(workload);
	struct mapping mappings[LIBRARIES];
	for (uint64_t i = 0; i < LIBRARIES; i++)
		mappings[i] = (struct mapping){.start = TEXT_START + TEXT_BYTES / LIBRARIES * i,
					       .end = TEXT_START + TEXT_BYTES / LIBRARIES * (i + 1),
					       .kind = MAPPING_FILE,
					       .name = i ? "/usr/lib/libexample.so.1" : "/usr/bin/example"};
	if (maps_new(mappings, LIBRARIES, 0, &workload->maps) < 0)
		errx(1, "maps_new failed");
}

static struct maps *give_maps(void *context, uint32_t version)
{
	(void)version;
	return ((struct workload *)context)->maps;
}

/* ns of CPU time for each sample when they are all of the same 40-frame stack. */
static double repeated_sample_ns(const struct workload *workload)
{
	struct epoch *epoch = epoch_new(BUDGET_BYTES);
	if (!epoch)
		errx(1, "out of memory");
	struct sample sample = {.time_ns = 1, .tid = 1, .comm = "example", .n_user = 40, .user = workload->stacks[0]};
	uint64_t start = clock_thread_cpu_ns();
	for (size_t i = 0; i < workload->n_samples; i++)
		if (epoch_add(epoch, &sample, NULL) < 0)
			errx(1, "epoch_add failed");
	uint64_t spent = clock_thread_cpu_ns() - start;
	epoch_unref(epoch);
	return (double)spent / (double)workload->n_samples;
}

static void add_samples(const struct workload *workload, struct retention *retention)
{
	uint64_t state = 2, aged_out = 0;
	for (size_t i = 0; workload->n_stacks > 0 && i < workload->n_samples; i++) {
		/* Each stack once, then at random. */
		size_t stack = i < workload->n_stacks ? i : next_random(&state) % workload->n_stacks;
		struct sample sample = {.time_ns = i + 1,
					.cpu_ns = 1000000,
					.tid = 1000 + (uint32_t)(stack % workload->n_threads),
					.comm = "example",
					.user_end = STACK_END_ROOT,
					.n_user = (uint16_t)workload->depths[stack],
					.user = workload->stacks[stack]};
		if (retention_add(retention, &sample, NULL, &aged_out) < 0)
			errx(1, "retention_add failed");
	}
	if (aged_out > 0)
		errx(1, "the budget is too small for this workload");
}

/* What symbolize would do: one line for each location. */
static void name_locations(struct profile *profile)
{
	for (size_t i = 0; i < profile->n_locations; i++) {
		struct profile_location *location = &profile->locations[i];
		char name[128];
		uint64_t function = (location->address - TEXT_START) / FUNCTION_BYTES;
		int n = snprintf(name, sizeof(name),
				 "example::module_%" PRIu64 "::function_%" PRIu64 "(int, char const*)", function / 50,
				 function);
		struct profile_line *line = arena_alloc(&profile->arena, sizeof(*line));
		char *copy = arena_strndup(&profile->arena, name, (size_t)n);
		if (!line || !copy)
			errx(1, "out of memory");
		*line = (struct profile_line){.name = copy, .system_name = copy};
		location->lines = line;
		location->n_lines = 1;
	}
}

static long peak_rss_kib(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss;
}

static void pull(struct workload *workload, struct retention *retention)
{
	uint64_t start = clock_monotonic_ns();
	struct epoch **epochs;
	size_t n_epochs;
	if (retention_snapshot(retention, &epochs, &n_epochs) < 0)
		errx(1, "retention_snapshot failed");
	struct store_build_options options = {
		.include_kernel = true, .maps = give_maps, .maps_context = workload, .budget_bytes = BUDGET_BYTES};
	struct profile *profile;
	uint64_t cut;
	if (store_build_profile(epochs, n_epochs, &options, &profile, &cut) < 0)
		errx(1, "store_build_profile failed");
	uint64_t built = clock_monotonic_ns();
	name_locations(profile);
	uint64_t named = clock_monotonic_ns();
	_cleanup_free_ uint8_t *data = NULL;
	size_t bytes;
	struct error error;
	if (pprof_encode(profile, &data, &bytes, &error) < 0)
		errx(1, "%s", error.text);
	uint64_t encoded = clock_monotonic_ns();
	printf("build %.1f ms, encode %.1f ms, total %.1f ms (epochs %zu, samples %zu, locations %zu, arena %zu KiB, "
	       "gzip %zu bytes)\n",
	       (double)(built - start) / 1e6, (double)(encoded - named) / 1e6,
	       (double)(built - start + encoded - named) / 1e6, n_epochs, profile->n_samples, profile->n_locations,
	       profile->arena.held_bytes / 1024, bytes);
	profile_free(profile);
	for (size_t i = 0; i < n_epochs; i++)
		epoch_unref(epochs[i]);
	free(epochs);
}

static size_t argument(int argc, char **argv, int i, size_t otherwise)
{
	return i < argc ? strtoull(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	struct workload workload = {.n_samples = argument(argc, argv, 1, 1000000),
				    .n_stacks = argument(argc, argv, 2, 10000),
				    .n_threads = argument(argc, argv, 3, 8)};
	size_t repeats = argument(argc, argv, 4, 5);
	if (workload.n_stacks == 0 || workload.n_threads == 0 || workload.n_samples < workload.n_stacks)
		errx(2, "usage: bench_pull [SAMPLES [STACKS [THREADS [REPEATS]]]], with SAMPLES >= STACKS");
	make_workload(&workload);
	struct retention *retention = retention_new(BUDGET_BYTES);
	if (!retention)
		errx(1, "out of memory");
	printf("epoch_add %.0f ns per sample, one stack of 40 frames again and again\n", repeated_sample_ns(&workload));
	uint64_t start = clock_thread_cpu_ns();
	add_samples(&workload, retention);
	uint64_t spent = clock_thread_cpu_ns() - start;
	struct epoch_totals totals;
	retention_totals(retention, &totals);
	printf("retention_add %.0f ns per sample, stacks at random (%" PRIu64 " samples, %" PRIu64 " stacks, %" PRIu64
	       " KiB)\n",
	       (double)spent / (double)workload.n_samples, totals.samples, totals.n_stacks, totals.bytes / 1024);
	long before_kib = peak_rss_kib();
	for (size_t i = 0; i < repeats; i++)
		pull(&workload, retention);
	printf("peak RSS %ld KiB, of it %ld KiB before the first pull (the workload and the store)\n", peak_rss_kib(),
	       before_kib);
	retention_free(retention);
	maps_unref(workload.maps);
	free(workload.stacks);
	free(workload.depths);
	return 0;
}
