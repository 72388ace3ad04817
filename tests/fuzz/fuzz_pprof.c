/* Whatever a target does, the profile is valid: the input is read as a series of samples, mappings and names, which go through the
 * store and the encoder. The result must pass the checker and hold every sample. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pprof/pprof.h"
#include "profile_check.h"
#include "store/store.h"

enum { MAX_FRAMES = 32, MAX_MAPPINGS = 8, MAX_NAME = 24, BUDGET_BYTES = 4 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct input {
	const uint8_t *data;
	size_t bytes;
};

static uint8_t next_byte(struct input *input)
{
	if (input->bytes == 0)
		return 0;
	input->bytes--;
	return *input->data++;
}

/* A text of arbitrary bytes, NUL excepted; "" when the input is at its end. */
static void next_text(struct input *input, char *text, size_t capacity)
{
	size_t n = next_byte(input) % capacity;
	for (size_t i = 0; i < n; i++)
		text[i] = (char)next_byte(input);
	text[n] = '\0';
}

static struct maps *next_maps(struct input *input)
{
	struct mapping mappings[MAX_MAPPINGS];
	static char names[MAX_MAPPINGS][MAX_NAME];
	size_t n = next_byte(input) % (MAX_MAPPINGS + 1);
	uint64_t start = 0;
	for (size_t i = 0; i < n; i++) {
		next_text(input, names[i], MAX_NAME);
		start += next_byte(input);
		uint64_t end = start + 1 + next_byte(input);
		mappings[i] = (struct mapping){.start = start,
					       .end = end,
					       .file_offset = next_byte(input),
					       .kind = (enum mapping_kind)(next_byte(input) % MAPPING_KERNEL),
					       .name = names[i]};
		start = end;
	}
	struct maps *maps = NULL;
	if (maps_new(mappings, n, next_byte(input) % (n + 1), &maps) < 0)
		abort();
	return maps;
}

static struct maps *give_maps(void *context, uint32_t version)
{
	struct maps **maps = context;
	return version < 2 ? maps[version] : NULL;
}

static uint64_t add_sample(struct input *input, struct epoch *epoch)
{
	uint64_t kernel[MAX_FRAMES], user[MAX_FRAMES];
	struct sample sample = {.time_ns = next_byte(input),
				.cpu_ns = next_byte(input),
				.tid = next_byte(input) % 4,
				.maps_version = next_byte(input) % 3,
				.user_end = (enum stack_end)(next_byte(input) % (STACK_END_COUNT + 1)),
				.n_kernel = next_byte(input) % MAX_FRAMES,
				.n_user = next_byte(input) % MAX_FRAMES,
				.kernel = kernel,
				.user = user};
	for (size_t i = 0; i < SAMPLE_COMM_BYTES / 4; i++)
		sample.comm[i] = (char)next_byte(input);
	/* Around the edges of the kernel's half as well. */
	for (size_t i = 0; i < sample.n_kernel; i++)
		kernel[i] = UINT64_C(0xffff800000000002) * (next_byte(input) % 2) - next_byte(input) % 4;
	for (size_t i = 0; i < sample.n_user; i++)
		user[i] = (uint64_t)next_byte(input) * 8 - next_byte(input) % 4;
	return epoch_add(epoch, &sample, NULL) == 0;
}

/* As a symbolizer would, with names from the input, and has_* as it must set them. */
static void name_locations(struct input *input, struct profile *profile)
{
	for (size_t i = 0; i < profile->n_locations && input->bytes > 0; i++) {
		struct profile_location *location = &profile->locations[i];
		size_t n = next_byte(input) % 4;
		if (location->n_lines > 0 || n == 0)
			continue;
		location->lines = arena_alloc(&profile->arena, n * sizeof(*location->lines));
		if (!location->lines)
			return;
		for (size_t k = 0; k < n; k++) {
			char text[3][MAX_NAME];
			for (size_t m = 0; m < 3; m++)
				next_text(input, text[m], MAX_NAME);
			location->lines[k] = (struct profile_line){
				.name = arena_strndup(&profile->arena, text[0], strlen(text[0])),
				.system_name = arena_strndup(&profile->arena, text[1], strlen(text[1])),
				.filename =
					text[2][0] ? arena_strndup(&profile->arena, text[2], strlen(text[2])) : NULL,
				.line = (int8_t)next_byte(input),
				.start_line = (int8_t)next_byte(input)};
			if (!location->lines[k].name || !location->lines[k].system_name)
				return;
			location->n_lines++;
		}
	}
}

static void check(const struct profile *profile, uint64_t samples)
{
	uint8_t *data = NULL;
	size_t bytes = 0;
	char why[PROFILE_CHECK_WHY_BYTES];
	if (pprof_encode(profile, &data, &bytes, NULL) < 0)
		abort();
	Perftools__Profiles__Profile *decoded = profile_check_load(data, bytes, why);
	free(data);
	if (!decoded || profile_check(decoded, why) < 0) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
	uint64_t count = 0;
	for (size_t i = 0; i < decoded->n_sample; i++)
		count += (uint64_t)decoded->sample[i]->value[0];
	if (count != samples) {
		fprintf(stderr, "%zu samples of %zu\n", (size_t)count, (size_t)samples);
		abort();
	}
	perftools__profiles__profile__free_unpacked(decoded, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input input = {.data = data, .bytes = bytes};
	struct maps *maps[2] = {next_maps(&input), next_maps(&input)};
	struct store_build_options options = {.include_kernel = next_byte(&input) % 2,
					      .maps = give_maps,
					      .maps_context = maps,
					      .budget_bytes = BUDGET_BYTES};
	struct epoch *epochs[2] = {epoch_new(BUDGET_BYTES), epoch_new(BUDGET_BYTES)};
	if (!epochs[0] || !epochs[1])
		abort();
	uint64_t samples = 0, cut = 0;
	for (size_t n = next_byte(&input); n > 0 && input.bytes > 0; n--)
		samples += add_sample(&input, epochs[next_byte(&input) % 2]);
	struct profile *profile = NULL;
	if (store_build_profile(epochs, 2, &options, &profile, &cut) < 0)
		abort();
	if (cut > samples)
		abort();
	name_locations(&input, profile);
	char cgroup[MAX_NAME];
	next_text(&input, cgroup, sizeof(cgroup));
	profile->cgroup = cgroup;
	check(profile, samples);
	profile_free(profile);
	for (size_t i = 0; i < 2; i++) {
		epoch_unref(epochs[i]);
		maps_unref(maps[i]);
	}
	return 0;
}
