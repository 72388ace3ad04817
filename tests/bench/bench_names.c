/* The stage symbolize on many addresses of one file, by the real sprofd-elf: cold, and warm (all of it in the cache).
 *   bench_names READER FILE < OFFSETS      (hex, one a line) */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "symbolize/symbolize.h"

enum { LOCATIONS_MAX = 1 << 20, WARM_ROUNDS = 10 };

static struct profile_location locations[LOCATIONS_MAX];
static size_t n_locations;

static struct profile *new_profile(struct file *file, const char *path)
{
	struct profile *profile = profile_new((size_t)1 << 30);
	if (!profile)
		exit(1);
	profile->mappings = arena_alloc(&profile->arena, sizeof(profile->mappings[0]));
	profile->locations = arena_alloc(&profile->arena, n_locations * sizeof(locations[0]));
	if (!profile->mappings || !profile->locations)
		exit(1);
	profile->mappings[0] =
		(struct profile_mapping){.end = UINT64_MAX, .kind = MAPPING_FILE, .name = path, .file = file_ref(file)};
	profile->n_mappings = 1;
	memcpy(profile->locations, locations, n_locations * sizeof(locations[0]));
	profile->n_locations = n_locations;
	return profile;
}

/* Milliseconds; what is not named into *ret_missing. */
static double name_all(struct symbolize *symbolize, struct file *file, const char *path, uint64_t *ret_missing)
{
	struct profile *profile = new_profile(file, path);
	uint64_t begin_ns = clock_monotonic_ns();
	symbolize_profile(symbolize, profile, SYMBOLIZE_ALL, begin_ns + 600 * NS_PER_S);
	double ms = (double)(clock_monotonic_ns() - begin_ns) / 1e6;
	*ret_missing = profile->missing_names;
	profile_free(profile);
	return ms;
}

static double cpu_ms(void)
{
	struct timespec now = {0};
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Of children; what getrusage says of ourselves counts who started us, too. */
static long peak_of_reader_kib(void)
{
	struct rusage usage;
	getrusage(RUSAGE_CHILDREN, &usage);
	return usage.ru_maxrss;
}

/* VmHWM: the most that ever was; VmRSS: what is now. */
static long own_kib(const char *key)
{
	char line[128];
	long kib = 0;
	FILE *status = fopen("/proc/self/status", "re");
	while (status && fgets(line, sizeof(line), status))
		if (strncmp(line, key, strlen(key)) == 0)
			kib = strtol(line + strlen(key) + 1, NULL, 10);
	if (status)
		fclose(status);
	return kib;
}

int main(int argc, char **argv)
{
	struct error err;
	struct symbolize *symbolize = NULL;
	struct file *file = NULL;
	char line[64];
	struct file_registry *registry = file_registry_new(16);
	int fd = argc == 3 ? open(argv[2], O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0 || !registry || file_registry_intern(registry, fd, &file) < 0) {
		fputs("usage: bench_names READER FILE < OFFSETS\n", stderr);
		return 2;
	}
	while (n_locations < LOCATIONS_MAX && fgets(line, sizeof(line), stdin)) {
		uint64_t offset = strtoull(line, NULL, 16);
		locations[n_locations++] = (struct profile_location){.address = offset, .file_offset = offset};
	}
	struct symbolize_options options = {.reader_path = argv[1],
					    .cache_bytes = (size_t)32 << 20,
					    .reader_timeout_ms = 60000,
					    .kallsyms_path = "/dev/null"};
	if (symbolize_new(&options, &symbolize, &err) < 0) {
		fprintf(stderr, "bench_names: %s\n", err.text);
		return 1;
	}
	uint64_t missing = 0, missing_warm = 0;
	long before_kib = own_kib("VmRSS");
	double cold_ms = name_all(symbolize, file, argv[2], &missing), warm_ms = 1e9;
	double warm_cpu_ms = cpu_ms();
	for (int i = 0; i < WARM_ROUNDS; i++) {
		double ms = name_all(symbolize, file, argv[2], &missing_warm);
		warm_ms = ms < warm_ms ? ms : warm_ms;
	}
	warm_cpu_ms = (cpu_ms() - warm_cpu_ms) / WARM_ROUNDS;
	long peak_kib = own_kib("VmHWM");
	symbolize_free(symbolize);
	printf("cold_ms %.1f warm_ms %.2f warm_cpu_ms %.2f missing %lu before_mib %.1f own_mib %.1f reader_mib %.1f\n",
	       cold_ms, warm_ms, warm_cpu_ms, missing + missing_warm, (double)before_kib / 1024,
	       (double)peak_kib / 1024, (double)peak_of_reader_kib() / 1024);
	file_unref(file);
	file_registry_free(registry);
	return 0;
}
