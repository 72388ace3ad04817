#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"
#include "store_samples.h"

enum { PLENTY = 32 << 20 };
#define KERNEL_ADDRESS UINT64_C(0xffffffff81000010)

/* Maps by version, 0 to 3; some may be missing. */
struct world {
	struct maps *versions[4];
	struct epoch *epoch;
	struct profile *profile;
	uint64_t cut;
	struct store_build_options options;
};

static struct maps *world_maps(void *context, uint32_t version)
{
	return version < 4 ? ((struct world *)context)->versions[version] : NULL;
}

static struct maps *make_maps(const struct mapping *mappings, size_t n, size_t main_index)
{
	struct maps *maps = NULL;
	ck_assert_int_eq(maps_new(mappings, n, main_index, &maps), 0);
	return maps;
}

/* A library below the program, so that the program is not the first by address; a hole behind each. */
static const struct mapping standard_mappings[] = {
	{.start = 0x1000, .end = 0x3000, .file_offset = 0x500, .kind = MAPPING_FILE, .name = "/lib/libone.so"},
	{.start = 0x4000, .end = 0x6000, .file_offset = 0x1000, .kind = MAPPING_FILE, .name = "/bin/program"},
	{.start = 0x7000, .end = 0x8000, .kind = MAPPING_ANONYMOUS, .name = "//anon"},
};

static void world_init(struct world *world)
{
	*world = (struct world){.epoch = epoch_new(PLENTY)};
	world->versions[1] = make_maps(standard_mappings, 3, 1);
	world->options = (struct store_build_options){
		.include_kernel = true, .maps = world_maps, .maps_context = world, .budget_bytes = PLENTY};
}

static void world_free(struct world *world)
{
	profile_free(world->profile);
	epoch_unref(world->epoch);
	for (size_t i = 0; i < 4; i++)
		maps_unref(world->versions[i]);
}

static void add(struct world *world, uint32_t version, const uint64_t *kernel, uint16_t n_kernel, const uint64_t *user,
		uint16_t n_user)
{
	struct sample sample = {.time_ns = 1,
				.cpu_ns = 100,
				.tid = 7,
				.maps_version = version,
				.comm = "worker",
				.n_kernel = n_kernel,
				.n_user = n_user,
				.kernel = kernel,
				.user = user};
	ck_assert_int_eq(epoch_add(world->epoch, &sample, NULL), 0);
}

static const struct profile *build(struct world *world)
{
	profile_free(world->profile);
	world->profile = NULL;
	ck_assert_int_eq(store_build_profile(&world->epoch, 1, &world->options, &world->profile, &world->cut), 0);
	return world->profile;
}

static const struct profile_location *location_of(const struct profile *profile, size_t sample, size_t depth)
{
	ck_assert_uint_lt(sample, profile->n_samples);
	ck_assert_uint_lt(depth, profile->samples[sample].n_locations);
	ck_assert_uint_lt(profile->samples[sample].locations[depth], profile->n_locations);
	return &profile->locations[profile->samples[sample].locations[depth]];
}

START_TEST(leaves_are_exact_and_callers_one_before)
{
	struct world world;
	world_init(&world);
	uint64_t kernel[] = {KERNEL_ADDRESS, KERNEL_ADDRESS + 0x100};
	uint64_t user[] = {0x1010, 0x4020, 0x4000 + 1};
	add(&world, 1, kernel, 2, user, 3);
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(profile->n_samples, 1);
	const uint64_t expected[] = {KERNEL_ADDRESS, KERNEL_ADDRESS + 0xff, 0x1010, 0x401f, 0x4000};
	const uint64_t offsets[] = {KERNEL_ADDRESS, KERNEL_ADDRESS + 0xff, 0x510, 0x101f, 0x1000};
	const char *const names[] = {"[kernel.kallsyms]", "[kernel.kallsyms]", "/lib/libone.so", "/bin/program",
				     "/bin/program"};
	ck_assert_uint_eq(profile->samples[0].n_locations, 5);
	for (size_t i = 0; i < 5; i++) {
		const struct profile_location *location = location_of(profile, 0, i);
		ck_assert_uint_eq(location->address, expected[i]);
		ck_assert_uint_eq(location->file_offset, offsets[i]);
		ck_assert_uint_eq(location->n_lines, 0);
		const struct profile_mapping *mapping = &profile->mappings[location->mapping];
		ck_assert_str_eq(mapping->name, names[i]);
		ck_assert_uint_ge(location->address, mapping->start);
		ck_assert_uint_lt(location->address, mapping->end);
		ck_assert_str_eq(mapping->build_id, "");
	}
	ck_assert_uint_eq(world.cut, 0);
	ck_assert_uint_eq(profile->samples[0].count, 1);
	ck_assert_uint_eq(profile->samples[0].cpu_ns, 100);
	ck_assert_uint_eq(profile->samples[0].tid, 7);
	ck_assert_str_eq(profile->samples[0].comm, "worker");
	world_free(&world);
}
END_TEST

START_TEST(the_main_program_is_mapping_zero_even_unused)
{
	struct world world;
	world_init(&world);
	uint64_t user[] = {0x1010};
	add(&world, 1, NULL, 0, user, 1);
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(profile->n_mappings, 2);
	ck_assert_str_eq(profile->mappings[0].name, "/bin/program");
	ck_assert_uint_eq(profile->mappings[0].start, 0x4000);
	ck_assert_uint_eq(profile->mappings[0].file_offset, 0x1000);
	ck_assert_str_eq(profile->mappings[1].name, "/lib/libone.so"); /* and no others, not even the kernel */
	world_free(&world);
}
END_TEST

START_TEST(the_newest_known_version_says_which_is_main)
{
	struct world world;
	world_init(&world);
	struct mapping other = {.start = 0x4000, .end = 0x5000, .kind = MAPPING_FILE, .name = "/bin/other"};
	world.versions[2] = make_maps(&other, 1, 0);
	uint64_t user[] = {0x4010};
	add(&world, 3, NULL, 0, user, 1); /* no snapshot of this one */
	add(&world, 2, NULL, 0, user, 1);
	add(&world, 1, NULL, 0, user, 1);
	const struct profile *profile = build(&world);
	ck_assert_str_eq(profile->mappings[0].name, "/bin/other");
	ck_assert_uint_eq(profile->n_mappings, 2);
	ck_assert_uint_eq(profile->n_samples, 3); /* one address, three places */
	ck_assert_uint_eq(location_of(profile, 0, 0)->mapping, PROFILE_NO_MAPPING);
	/* Without a main program there is still a profile. */
	maps_unref(world.versions[2]);
	world.versions[2] = make_maps(&other, 1, 1);
	profile = build(&world);
	ck_assert_uint_eq(profile->n_mappings, 2);
	ck_assert_uint_eq(profile->n_samples, 3);
	world_free(&world);
}
END_TEST

START_TEST(callers_outside_executable_memory_are_cut)
{
	struct world world;
	world_init(&world);
	uint64_t kernel[] = {KERNEL_ADDRESS};
	uint64_t good[] = {0x1010, 0x4010}, hole[] = {0x1010, 0x3500, 0x4010}, leaf[] = {0x3500, 0x4010},
		 zero[] = {0x1010, 0};
	uint64_t edge[] = {0x1010, 0x4000}; /* - 1 lies before the mapping */
	add(&world, 1, NULL, 0, good, 2);
	add(&world, 1, NULL, 0, hole, 3);
	add(&world, 1, NULL, 0, hole, 3);
	add(&world, 1, kernel, 1, hole, 3);
	add(&world, 1, NULL, 0, leaf, 2);
	add(&world, 1, NULL, 0, zero, 2);
	add(&world, 1, NULL, 0, edge, 2);
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(world.cut, 5);
	/* hole, zero and edge are the same stack when they are cut: merged. */
	ck_assert_uint_eq(profile->n_samples, 4);
	ck_assert_uint_eq(profile->samples[0].n_locations, 2);
	ck_assert_uint_eq(profile->samples[1].n_locations, 1);
	ck_assert_uint_eq(profile->samples[1].count, 4);
	ck_assert_uint_eq(profile->samples[1].cpu_ns, 400);
	ck_assert_uint_eq(profile->samples[2].n_locations, 2); /* the kernel part and the leaf stay */
	ck_assert_uint_eq(profile->samples[3].n_locations, 2); /* a leaf may lie anywhere */
	ck_assert_uint_eq(location_of(profile, 3, 0)->mapping, PROFILE_NO_MAPPING);
	ck_assert_uint_eq(location_of(profile, 3, 0)->address, 0x3500);
	world_free(&world);
}
END_TEST

START_TEST(without_a_snapshot_nothing_is_cut)
{
	struct world world;
	world_init(&world);
	uint64_t user[] = {0x1010, 0x3500, 0};
	add(&world, 3, NULL, 0, user, 3);
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(world.cut, 0);
	ck_assert_uint_eq(profile->samples[0].n_locations, 3);
	ck_assert_uint_eq(profile->n_mappings, 0);
	for (size_t i = 0; i < 3; i++)
		ck_assert_uint_eq(location_of(profile, 0, i)->mapping, PROFILE_NO_MAPPING);
	ck_assert_uint_eq(location_of(profile, 0, 1)->address, 0x34ff);
	ck_assert_uint_eq(location_of(profile, 0, 2)->address, 0);
	world_free(&world);
}
END_TEST

START_TEST(samples_without_frames_keep_their_time)
{
	struct world world;
	world_init(&world);
	uint64_t kernel[] = {KERNEL_ADDRESS, KERNEL_ADDRESS + 8}, user[] = {0x4010};
	add(&world, 1, kernel, 2, NULL, 0);
	add(&world, 1, kernel, 1, NULL, 0);
	add(&world, 1, kernel, 1, user, 1);
	add(&world, 1, NULL, 0, NULL, 0);
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(profile->n_samples, 4);
	ck_assert_uint_eq(profile->samples[3].n_locations, 1);
	ck_assert_str_eq(location_of(profile, 3, 0)->lines[0].name, "[no stack]");

	world.options.include_kernel = false;
	profile = build(&world);
	ck_assert_uint_eq(profile->n_samples, 3);
	ck_assert_uint_eq(profile->samples[0].count, 2);
	const struct profile_location *location = location_of(profile, 0, 0);
	ck_assert_uint_eq(location->n_lines, 1);
	ck_assert_str_eq(location->lines[0].name, "[kernel]");
	ck_assert_str_eq(location->lines[0].system_name, "[kernel]");
	ck_assert_uint_eq(location->address, 0);
	ck_assert_uint_eq(location->mapping, PROFILE_NO_MAPPING);
	ck_assert_uint_eq(location_of(profile, 1, 0)->address, 0x4010); /* exact: it is the leaf's pc, not a caller */
	ck_assert_str_eq(location_of(profile, 2, 0)->lines[0].name, "[no stack]");
	for (size_t i = 0; i < profile->n_mappings; i++)
		ck_assert_int_ne(profile->mappings[i].kind, MAPPING_KERNEL);
	world_free(&world);
}
END_TEST

/* Rule 9 of docs/BARRIER-TABLE.md. */
START_TEST(what_could_not_be_walked_is_two_frames)
{
	struct world world;
	world_init(&world);
	uint64_t known[] = {0x7010, SAMPLE_FRAME_GC}, unknown[] = {0x3500, SAMPLE_FRAME_SYSTEM},
		 hidden[] = {SAMPLE_FRAME_EXTERNAL_CODE, SAMPLE_FRAME_SYSTEM};
	add(&world, 1, NULL, 0, known, 2);
	add(&world, 1, NULL, 0, unknown, 2);
	add(&world, 1, NULL, 0, hidden, 2);
	add(&world, 3, NULL, 0, unknown, 2); /* without a snapshot nothing can be said */
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(profile->n_samples, 3);
	ck_assert_uint_eq(world.cut, 0);
	ck_assert_uint_eq(location_of(profile, 0, 0)->address, 0x7010);
	ck_assert_str_eq(location_of(profile, 0, 1)->lines[0].name, "[GC]");
	ck_assert_uint_eq(profile->samples[1].count, 2); /* in no mapping, and in a trampoline */
	ck_assert_str_eq(location_of(profile, 1, 0)->lines[0].name, "[ExternalCode]");
	ck_assert_str_eq(location_of(profile, 1, 1)->lines[0].name, "[System]");
	ck_assert_uint_eq(location_of(profile, 2, 0)->address, 0x3500);
	for (size_t i = 0; i < 3; i++)
		ck_assert_uint_eq(profile->samples[i].n_locations, 2);
	world_free(&world);
}
END_TEST

START_TEST(samples_tell_why_their_stack_lacks_its_root)
{
	struct world world;
	world_init(&world);
	const uint64_t frames[] = {0x1010, 0x4020}, cut[] = {0x1010, 0x4020, 0x9000};
	const enum stack_end ends[] = {STACK_END_OUTERMOST, STACK_END_ROOT, STACK_END_UNREADABLE, STACK_END_TOO_DEEP};
	struct sample sample = {.time_ns = 1, .cpu_ns = 100, .tid = 7, .maps_version = 1, .user = frames, .n_user = 2};
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		sample.user_end = ends[i];
		ck_assert_int_eq(epoch_add(world.epoch, &sample, NULL), 0);
	}
	sample.user_end = STACK_END_OUTERMOST;
	sample.user = cut; /* the last of which is in no mapping */
	sample.n_user = 3;
	ck_assert_int_eq(epoch_add(world.epoch, &sample, NULL), 0);
	const struct profile *profile = build(&world);
	const enum stack_end expected[] = {STACK_END_NONE, STACK_END_UNREADABLE, STACK_END_TOO_DEEP,
					   STACK_END_BAD_RETURN_ADDRESS};
	ck_assert_uint_eq(profile->n_samples, 4);
	for (size_t i = 0; i < 4; i++) {
		ck_assert_int_eq(profile->samples[i].incomplete, expected[i]);
		ck_assert_uint_eq(profile->samples[i].count, i == 0 ? 2 : 1); /* the whole ones are one */
		ck_assert_uint_eq(profile->samples[i].n_locations, 2);
	}
	world_free(&world);
}
END_TEST

START_TEST(names_that_read_the_same_are_one)
{
	struct world world;
	world_init(&world);
	uint64_t user[] = {0x4010};
	const char *const names[] = {"caf\xc3", "caf\xff", "caf\x1b", "caf\xc3\xa9", "cafe"};
	for (size_t i = 0; i < 5; i++) {
		struct sample sample = {.maps_version = 1, .n_user = 1, .user = user};
		memcpy(sample.comm, names[i], strlen(names[i]));
		ck_assert_int_eq(epoch_add(world.epoch, &sample, NULL), 0);
	}
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(profile->n_samples, 3);
	ck_assert_uint_eq(profile->samples[0].count, 3);
	ck_assert_str_eq(profile->samples[0].comm, "caf\xEF\xBF\xBD");
	ck_assert_str_eq(profile->samples[1].comm, "caf\xc3\xa9");
	ck_assert_str_eq(profile->samples[2].comm, "cafe");
	world_free(&world);
}
END_TEST

START_TEST(a_mapping_of_two_versions_is_one)
{
	struct world world;
	world_init(&world);
	struct mapping more[] = {standard_mappings[0],
				 standard_mappings[1],
				 standard_mappings[2],
				 {.start = 0x9000, .end = 0xa000, .kind = MAPPING_FILE, .name = "/lib/libtwo.so"}};
	world.versions[2] = make_maps(more, 4, 1);
	more[0].name = "/lib/replaced.so";
	world.versions[3] = make_maps(more, 4, 1);
	uint64_t user[] = {0x1010, 0x4010};
	for (uint32_t version = 1; version <= 3; version++)
		add(&world, version, NULL, 0, user, 2);
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(profile->n_mappings, 3);
	ck_assert_uint_eq(profile->n_samples, 2);
	ck_assert_uint_eq(profile->samples[0].count, 2);
	ck_assert_uint_eq(profile->samples[1].count, 1);
	world_free(&world);
}
END_TEST

static void add_at(struct world *world, uint64_t code_ns, const uint64_t *user, uint16_t n_user)
{
	struct sample sample = {.time_ns = 1,
				.code_ns = code_ns,
				.cpu_ns = 100,
				.tid = 7,
				.maps_version = 1,
				.comm = "worker",
				.n_user = n_user,
				.user = user};
	ck_assert_int_eq(epoch_add(world->epoch, &sample, NULL), 0);
}

/* What is asked, in the order that was promised; before 500 it is another code than from then on, unless it is at 0x7020. */
struct asked {
	size_t n_calls, n;
	struct code_moment moments[32];
};

static void places_of(void *context, struct code_moment *moments, size_t n)
{
	struct asked *asked = context;
	asked->n_calls++;
	asked->n = n;
	ck_assert_uint_le(n, 32);
	for (size_t i = 0; i < n; i++) {
		asked->moments[i] = moments[i];
		moments[i].place = moments[i].address == 0x7020 || moments[i].time_ns < 500 ? 1 : 2;
		if (i > 0)
			ck_assert(moments[i].address > moments[i - 1].address ||
				  (moments[i].address == moments[i - 1].address &&
				   moments[i].time_ns > moments[i - 1].time_ns));
	}
}

START_TEST(code_has_the_place_of_its_time)
{
	struct world world;
	struct asked asked = {};
	world_init(&world);
	world.options.places = places_of;
	world.options.places_context = &asked;
	uint64_t replaced[] = {0x7010, 0x1011, 0x7021}, plain[] = {0x1010}, stays[] = {0x7020};
	add_at(&world, 100, replaced, 3);
	add_at(&world, 200, replaced, 3);
	add_at(&world, 600, replaced, 3);
	add_at(&world, 0, replaced, 3); /* as of now */
	add_at(&world, 0, plain, 1);
	add_at(&world, 300, stays, 1);
	add_at(&world, 700, stays, 1);
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(asked.n_calls, 1);
	ck_assert_uint_eq(asked.n, 10); /* both at 100, 200, 600 and now; the one that stays at 300 and 700 */
	ck_assert_uint_eq(asked.moments[3].time_ns, UINT64_MAX);
	ck_assert_uint_eq(profile->n_samples, 4);
	ck_assert_uint_eq(profile->samples[0].count, 2);
	ck_assert_uint_eq(profile->samples[1].count, 2);
	ck_assert_uint_eq(profile->samples[3].count, 2);
	ck_assert_uint_eq(location_of(profile, 0, 0)->place, 1);
	ck_assert_uint_eq(location_of(profile, 1, 0)->place, 2);
	ck_assert_uint_eq(location_of(profile, 0, 0)->address, location_of(profile, 1, 0)->address);
	ck_assert_uint_eq(location_of(profile, 0, 1)->place, 0);
	ck_assert_ptr_eq(location_of(profile, 0, 1), location_of(profile, 1, 1));
	ck_assert_ptr_eq(location_of(profile, 0, 2), location_of(profile, 1, 2));
	ck_assert_ptr_eq(location_of(profile, 0, 2), location_of(profile, 3, 0));
	ck_assert_uint_eq(profile->n_locations, 4);
	/* Where nobody asks, time makes no difference. */
	world.options.places = NULL;
	profile = build(&world);
	ck_assert_uint_eq(asked.n_calls, 1);
	ck_assert_uint_eq(profile->n_samples, 3);
	ck_assert_uint_eq(profile->samples[0].count, 4);
	ck_assert_uint_eq(location_of(profile, 0, 0)->place, 0);
	world_free(&world);
}
END_TEST

enum { MOMENTS_OF_ONE_CODE = 700 };

static void places_of_many(void *context, struct code_moment *moments, size_t n)
{
	struct asked *asked = context;
	size_t n_wrong = 0;
	asked->n_calls++;
	asked->n += n;
	for (size_t i = 0; i < n; i++) {
		n_wrong +=
			i > 0 && moments[i].address <= moments[i - 1].address &&
			(moments[i].address < moments[i - 1].address || moments[i].time_ns <= moments[i - 1].time_ns);
		moments[i].place = 1 + moments[i].time_ns / MOMENTS_OF_ONE_CODE;
	}
	ck_assert_uint_eq(n_wrong, 0);
}

/* Deep stacks of a JIT's, whose moments alone would take more than the profile may have. */
START_TEST(many_moments_in_little_memory)
{
	enum { SAMPLES = 7 * MOMENTS_OF_ONE_CODE, FRAMES = 100, BUDGET = 8 << 20 };
	_Static_assert(SAMPLES * FRAMES * sizeof(struct code_moment) > BUDGET, "else it tells nothing");
	struct world world;
	struct asked asked = {};
	uint64_t user[FRAMES];
	world_init(&world);
	world.options.places = places_of_many;
	world.options.places_context = &asked;
	world.options.budget_bytes = BUDGET;
	for (uint64_t i = 0; i < FRAMES; i++)
		user[i] = 0x7011 + 16 * i;
	for (uint64_t i = 0; i < SAMPLES; i++)
		add_at(&world, i * 7919 % SAMPLES + 1, user, FRAMES); /* each moment once, in no order */
	const struct profile *profile = build(&world);
	ck_assert_uint_gt(asked.n_calls, 1);
	ck_assert_uint_eq(asked.n, SAMPLES * FRAMES);
	ck_assert_uint_eq(profile->n_samples, 8);
	for (size_t i = 0; i < profile->n_samples; i++) {
		uint64_t place = location_of(profile, i, 0)->place;
		ck_assert_uint_eq(profile->samples[i].count, place == 1   ? MOMENTS_OF_ONE_CODE - 1
							     : place == 8 ? 1
									  : MOMENTS_OF_ONE_CODE);
		for (size_t k = 0; k < FRAMES; k++)
			ck_assert_uint_eq(location_of(profile, i, k)->place, place);
	}
	world_free(&world);
}
END_TEST

START_TEST(profiles_hold_their_files)
{
	struct world world;
	world_init(&world);
	struct file_registry *registry = file_registry_new(10);
	struct file *file = NULL;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(file_registry_intern(registry, fd, &file), 0);
	struct mapping mapping = {
		.start = 0x4000, .end = 0x5000, .kind = MAPPING_FILE, .name = "/bin/program", .file = file};
	world.versions[2] = make_maps(&mapping, 1, 0); /* takes the reference */
	uint64_t user[] = {0x4010};
	add(&world, 2, NULL, 0, user, 1);
	const struct profile *profile = build(&world);
	ck_assert_ptr_eq(profile->mappings[0].file, file);
	/* One that fails, wherever it does, keeps no reference. */
	for (size_t budget = 0; budget < 10000; budget += 8) {
		struct profile *other = NULL;
		uint64_t cut = 77;
		world.options.budget_bytes = budget;
		int r = store_build_profile(&world.epoch, 1, &world.options, &other, &cut);
		ck_assert(r == 0 || r == -ENOMEM);
		ck_assert(r == 0 || (!other && cut == 77));
		profile_free(other);
	}
	maps_unref(world.versions[2]);
	world.versions[2] = NULL;
	ck_assert_uint_eq(file_registry_count(registry), 1);
	profile_free(world.profile);
	world.profile = NULL;
	ck_assert_uint_eq(file_registry_count(registry), 0);
	world_free(&world);
	file_registry_free(registry);
}
END_TEST

START_TEST(nothing_makes_an_empty_profile)
{
	struct world world;
	world_init(&world);
	const struct profile *profile = build(&world);
	ck_assert_uint_eq(profile->n_samples, 0);
	profile_free(world.profile);
	world.profile = NULL;
	struct profile *none = NULL;
	ck_assert_int_eq(store_build_profile(NULL, 0, &world.options, &none, &world.cut), 0);
	ck_assert_uint_eq(none->n_samples, 0);
	profile_free(none);
	world_free(&world);
}
END_TEST

/* The naive model: a text for each sample, "tid comm place place ...", and the sum of what has the same text. */
struct text_sum {
	char *text;
	uint64_t count, cpu_ns;
};

static const struct mapping *naive_mapping(uint64_t address)
{
	for (size_t i = 0; i < 3; i++)
		if (address >= standard_mappings[i].start && address < standard_mappings[i].end)
			return &standard_mappings[i];
	return NULL;
}

static void print_sample(FILE *out, const struct sample *sample, bool include_kernel, uint64_t *cut)
{
	size_t n = 0;
	fprintf(out, "%u %.16s", sample->tid, sample->comm);
	for (size_t i = 0; include_kernel && i < sample->n_kernel; i++, n++)
		fprintf(out, " kernel+%lx", sample->kernel[i] - (i > 0));
	for (size_t i = 0; i < sample->n_user; i++, n++) {
		uint64_t address = sample->user[i] - (i > 0);
		const struct mapping *mapping = naive_mapping(address);
		/* Version 2 has no snapshot. */
		if (i > 0 && !mapping && sample->maps_version != 2) {
			++*cut;
			fputs(" cut", out);
			break;
		}
		fprintf(out, " %s+%lx", mapping && sample->maps_version != 2 ? mapping->name : "", address);
	}
	if (n == 0)
		fputs(sample->n_kernel ? " [kernel]" : " [no stack]", out);
}

static void print_profile_sample(FILE *out, const struct profile *profile, const struct profile_sample *sample)
{
	fprintf(out, "%u %s", sample->tid, sample->comm);
	for (size_t i = 0; i < sample->n_locations; i++) {
		const struct profile_location *location = &profile->locations[sample->locations[i]];
		if (location->n_lines > 0)
			fprintf(out, " %s", location->lines[0].name);
		else if (location->mapping == PROFILE_NO_MAPPING)
			fprintf(out, " +%lx", location->address);
		else if (profile->mappings[location->mapping].kind == MAPPING_KERNEL)
			fprintf(out, " kernel+%lx", location->address);
		else
			fprintf(out, " %s+%lx", profile->mappings[location->mapping].name, location->address);
	}
	if (sample->incomplete == STACK_END_BAD_RETURN_ADDRESS)
		fputs(" cut", out);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(((const struct text_sum *)a)->text, ((const struct text_sum *)b)->text);
}

static size_t merge(struct text_sum *sums, size_t n)
{
	qsort(sums, n, sizeof(*sums), by_text);
	size_t merged = 0;
	for (size_t i = 0; i < n; i++) {
		if (merged > 0 && strcmp(sums[merged - 1].text, sums[i].text) == 0) {
			sums[merged - 1].count += sums[i].count;
			sums[merged - 1].cpu_ns += sums[i].cpu_ns;
			free(sums[i].text);
		} else {
			sums[merged++] = sums[i];
		}
	}
	return merged;
}

static void compare_and_free(const struct profile *profile, struct text_sum *model, size_t n_model)
{
	struct text_sum *sums = calloc(profile->n_samples, sizeof(*sums));
	ck_assert_ptr_nonnull(sums);
	for (size_t i = 0; i < profile->n_samples; i++) {
		size_t bytes;
		FILE *out = open_memstream(&sums[i].text, &bytes);
		print_profile_sample(out, profile, &profile->samples[i]);
		fclose(out);
		sums[i].count = profile->samples[i].count;
		sums[i].cpu_ns = profile->samples[i].cpu_ns;
	}
	ck_assert_uint_eq(merge(sums, profile->n_samples),
			  profile->n_samples); /* the profile merged all that is equal */
	ck_assert_uint_eq(profile->n_samples, n_model);
	for (size_t i = 0; i < n_model; i++) {
		ck_assert_str_eq(sums[i].text, model[i].text);
		ck_assert_uint_eq(sums[i].count, model[i].count);
		ck_assert_uint_eq(sums[i].cpu_ns, model[i].cpu_ns);
		free(sums[i].text);
		free(model[i].text);
	}
	free(sums);
}

START_TEST(random_epochs_agree_with_a_naive_model)
{
	enum { N_SAMPLES = 4000, N_EPOCHS = 4 };
	static struct text_sum model[N_SAMPLES];
	struct world world;
	world_init(&world);
	world.versions[0] = make_maps(standard_mappings, 3, 1); /* the same as version 1; 2 has none */
	world.options.include_kernel = _i % 2 == 0;
	struct epoch *epochs[N_EPOCHS];
	for (size_t i = 0; i < N_EPOCHS; i++)
		epochs[i] = epoch_new(PLENTY);
	uint64_t state = (uint64_t)_i + 1, cut = 0;
	for (size_t i = 0; i < N_SAMPLES; i++) {
		struct made_sample made;
		uint64_t shape = random_next(&state) % SAMPLE_SHAPES, tid = random_next(&state) % SAMPLE_TIDS;
		uint64_t comm = random_next(&state) % SAMPLE_COMMS, version = random_next(&state) % SAMPLE_VERSIONS;
		make_sample(&made, shape, tid, comm, version);
		made.sample.cpu_ns = random_next(&state) % 1000;
		ck_assert_int_eq(epoch_add(epochs[random_next(&state) % N_EPOCHS], &made.sample, NULL), 0);
		size_t bytes;
		FILE *out = open_memstream(&model[i].text, &bytes);
		print_sample(out, &made.sample, world.options.include_kernel, &cut);
		fclose(out);
		model[i].count = 1;
		model[i].cpu_ns = made.sample.cpu_ns;
	}
	size_t n_model = merge(model, N_SAMPLES);
	ck_assert_int_eq(store_build_profile(epochs, N_EPOCHS, &world.options, &world.profile, &world.cut), 0);
	ck_assert_uint_eq(world.cut, cut);
	ck_assert_uint_gt(cut, 0);
	compare_and_free(world.profile, model, n_model);
	for (size_t i = 0; i < N_EPOCHS; i++)
		epoch_unref(epochs[i]);
	world_free(&world);
}
END_TEST

START_TEST(budget_bounds_the_profile)
{
	struct world world;
	world_init(&world);
	uint64_t state = 3;
	for (size_t i = 0; i < 2000; i++) {
		struct made_sample made;
		make_sample(&made, random_next(&state) % SAMPLE_SHAPES, i % SAMPLE_TIDS, i % SAMPLE_COMMS, 1);
		ck_assert_int_eq(epoch_add(world.epoch, &made.sample, NULL), 0);
	}
	bool failed = false, succeeded = false;
	for (size_t budget = 1000; budget < 2000000; budget += budget / 7) {
		world.options.budget_bytes = budget;
		struct profile *profile = NULL;
		int r = store_build_profile(&world.epoch, 1, &world.options, &profile, &world.cut);
		ck_assert(r == 0 || r == -ENOMEM);
		ck_assert(r < 0 || profile->arena.held_bytes <= budget);
		ck_assert(!succeeded || r == 0); /* more budget never hurts */
		failed = failed || r < 0;
		succeeded = succeeded || r == 0;
		profile_free(profile);
	}
	ck_assert(failed && succeeded);
	world_free(&world);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store/build");
	TCase *tests = tcase_create("build");
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, leaves_are_exact_and_callers_one_before);
	tcase_add_test(tests, the_main_program_is_mapping_zero_even_unused);
	tcase_add_test(tests, the_newest_known_version_says_which_is_main);
	tcase_add_test(tests, callers_outside_executable_memory_are_cut);
	tcase_add_test(tests, without_a_snapshot_nothing_is_cut);
	tcase_add_test(tests, samples_without_frames_keep_their_time);
	tcase_add_test(tests, what_could_not_be_walked_is_two_frames);
	tcase_add_test(tests, samples_tell_why_their_stack_lacks_its_root);
	tcase_add_test(tests, names_that_read_the_same_are_one);
	tcase_add_test(tests, a_mapping_of_two_versions_is_one);
	tcase_add_test(tests, code_has_the_place_of_its_time);
	tcase_add_test(tests, many_moments_in_little_memory);
	tcase_add_test(tests, profiles_hold_their_files);
	tcase_add_test(tests, nothing_makes_an_empty_profile);
	tcase_add_loop_test(tests, random_epochs_agree_with_a_naive_model, 0, 6);
	tcase_add_test(tests, budget_bounds_the_profile);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
