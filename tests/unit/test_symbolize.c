/* Whole profiles through the stage, with the real sprofd-elf and with a reader that hostile files have taken over. */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "elf_maker.h"
#include "symbolize/symbolize.h"

enum { LOCATIONS_MAX = 20000, MAPPINGS_MAX = 128 };

static struct file_registry *registry;
static struct symbolize *symbolize;
static struct profile *profile;

static void start_with(const char *reader_path, unsigned timeout_ms)
{
	struct error err;
	struct symbolize_options options = {.reader_path = reader_path,
					    .cache_bytes = 8 << 20,
					    .reader_timeout_ms = timeout_ms,
					    .kallsyms_path = "/proc/kallsyms"};
	ck_assert_int_eq(symbolize_new(&options, &symbolize, &err), 0);
}

static void new_profile(void)
{
	profile_free(profile);
	profile = profile_new(64 << 20);
	profile->mappings = arena_alloc(&profile->arena, MAPPINGS_MAX * sizeof(profile->mappings[0]));
	profile->locations = arena_alloc(&profile->arena, LOCATIONS_MAX * sizeof(profile->locations[0]));
}

static void setup(void)
{
	registry = file_registry_new(256);
	new_profile();
}

static void teardown(void)
{
	profile_free(profile);
	profile = NULL;
	symbolize_free(symbolize);
	symbolize = NULL;
	ck_assert_uint_eq(file_registry_count(registry), 0);
	file_registry_free(registry);
}

/* Takes the reference. */
static uint32_t add_mapping(enum mapping_kind kind, const char *name, struct file *file)
{
	struct profile_mapping *mapping = &profile->mappings[profile->n_mappings];
	*mapping = (struct profile_mapping){
		.start = 0x7f0000000000, .end = 0x7f0000100000, .kind = kind, .name = name, .file = file};
	return (uint32_t)profile->n_mappings++;
}

static struct profile_location *add_location(uint32_t mapping, uint64_t file_offset)
{
	struct profile_location *location = &profile->locations[profile->n_locations++];
	*location = (struct profile_location){
		.address = 0x7f0000000000 + file_offset, .file_offset = file_offset, .mapping = mapping};
	return location;
}

static struct file *intern(int fd)
{
	struct file *file = NULL;
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(file_registry_intern(registry, fd, &file), 0);
	return file;
}

static struct file *intern_path(const char *path)
{
	return intern(open(path, O_RDONLY | O_CLOEXEC));
}

/* A file of its own content, so that each has an identity and a life of its own. */
static struct file *intern_made(const char *function)
{
	static struct maker made;
	const struct maker_symbol symbols[] = {{0, 64, STB_GLOBAL, STT_FUNC, function}};
	maker_make(&made, symbols, 1);
	return intern(maker_memfd(made.bytes, made.n));
}

static struct file *intern_hostile(const char *word)
{
	char text[64] = "";
	snprintf(text, sizeof(text), "HOSTILE:%s", word);
	return intern(maker_memfd(text, sizeof(text)));
}

static void complete(unsigned budget_ms)
{
	symbolize_profile(symbolize, profile, SYMBOLIZE_ALL, clock_monotonic_ns() + budget_ms * NS_PER_MS);
}

static void expect(const struct profile_location *location, const char *name)
{
	if (!name) {
		ck_assert_uint_eq(location->n_lines, 0);
		return;
	}
	ck_assert_uint_eq(location->n_lines, 1);
	ck_assert_str_eq(location->lines[0].name, name);
	ck_assert_ptr_nonnull(location->lines[0].system_name);
}

/* A jitdump of turns functions, each called turnN, one after the other at 0x1000: from 100 on, each for 10; and one that stays, at 0x2000. */
static struct file *intern_jit_dump(unsigned turns)
{
	struct {
		uint32_t id, bytes;
		uint64_t time;
		uint32_t pid, tid;
		uint64_t vma, address, code_bytes, index;
		char name[16];
	} load = {.bytes = sizeof(load), .pid = 1, .tid = 1, .code_bytes = 16};
	const uint32_t header[10] = {0x4A695444, 1, sizeof(header), 62};
	int fd = maker_memfd(header, sizeof(header));
	lseek(fd, 0, SEEK_END);
	for (unsigned i = 0; i <= turns; i++) {
		load.time = i == 0 ? 100 : 90 + 10 * i;
		load.vma = load.address = i == 0 ? 0x2000 : 0x1000;
		snprintf(load.name, sizeof(load.name), i == 0 ? "stays" : "turn%u", i);
		ck_assert_int_eq(write(fd, &load, sizeof(load)), sizeof(load));
	}
	return intern(fd);
}

START_TEST(code_of_its_time)
{
	enum { TURNS = 700, MOMENTS = 4 * TURNS };
	static struct code_moment moments[MOMENTS];
	start_with(READER_PATH, 5000);
	struct symbolize_code code = {.symbolize = symbolize,
				      .dump = intern_jit_dump(TURNS),
				      .deadline_ns = clock_monotonic_ns() + 5 * NS_PER_S};
	size_t n = 0;
	for (uint64_t i = 0; i < 2 * TURNS; i++)
		moments[n++] = (struct code_moment){.address = 0x1004, .time_ns = 100 + 5 * i};
	for (uint64_t i = 0; i < TURNS; i++)
		moments[n++] = (struct code_moment){.address = 0x2004, .time_ns = 100 + 5 * i};
	for (uint64_t i = 0; i < TURNS; i++)
		moments[n++] = (struct code_moment){.address = 0x3000 + i, .time_ns = 100};
	symbolize_places(&code, moments, n);
	ck_assert_uint_eq(code.missing, 0);
	uint32_t mapping = add_mapping(MAPPING_ANONYMOUS, "//anon", NULL);
	struct profile_location *early = add_location(mapping, 0), *late = add_location(mapping, 0),
				*stays = add_location(mapping, 0), *none = add_location(mapping, 0);
	for (size_t i = 0; i < n; i++) {
		const struct code_moment *moment = &moments[i];
		if (moment->address == 0x1004 && i % 2)
			ck_assert_uint_eq(moment->place, moments[i - 1].place);
		else if (moment->address == 0x1004 && i > 0)
			ck_assert_uint_ne(moment->place, moments[i - 1].place);
		else if (moment->address == 0x2004)
			ck_assert_uint_eq(moment->place, moments[2 * TURNS].place);
		else if (moment->address >= 0x3000)
			ck_assert_uint_eq(moment->place, 0);
	}
	early->place = moments[0].place;
	late->place = moments[2 * TURNS - 1].place;
	stays->place = moments[2 * TURNS].place;
	profile->target = (struct profile_target){.root_fd = -1, .jit_dump = (struct file *)code.dump};
	complete(5000);
	expect(early, "turn1");
	expect(late, "turn700");
	expect(stays, "stays");
	expect(none, "[anon]");
	file_unref((struct file *)code.dump);
}
END_TEST

START_TEST(code_that_cannot_be_asked_for)
{
	struct code_moment moments[] = {{.address = 0x1004, .time_ns = 100, .place = 7},
					{.address = 0x1004, .time_ns = 150, .place = 7}};
	start_with(FAKE_READER_PATH, 5000);
	struct symbolize_code code = {.symbolize = symbolize,
				      .dump = intern_hostile("later-crash"),
				      .deadline_ns = clock_monotonic_ns() + 5 * NS_PER_S};
	symbolize_places(&code, moments, 2);
	ck_assert_uint_eq(code.missing, 2);
	ck_assert_uint_eq(moments[0].place, 0);
	ck_assert_uint_eq(moments[1].place, 0);
	file_unref((struct file *)code.dump);
	code = (struct symbolize_code){.symbolize = symbolize, .deadline_ns = code.deadline_ns};
	symbolize_places(&code, moments, 2); /* without a dump there is nothing to be missed */
	ck_assert_uint_eq(code.missing, 0);
	ck_assert_uint_eq(moments[0].place, 0);
}
END_TEST

START_TEST(names_build_ids_and_flags)
{
	start_with(READER_PATH, 5000);
	uint32_t good = add_mapping(MAPPING_FILE, "/good", intern_made("_ZN5outer5innerEi"));
	uint32_t partly = add_mapping(MAPPING_FILE, "/partly", intern_made("plain"));
	uint32_t unused = add_mapping(MAPPING_FILE, "/unused", intern_made("unused"));
	uint32_t script = add_mapping(MAPPING_FILE, "/script", intern(maker_memfd("#!/bin/sh\n", 10)));
	uint32_t gone = add_mapping(MAPPING_FILE, "/gone", NULL);
	uint32_t memfd = add_mapping(MAPPING_FILE, "/memfd:jit", intern(maker_memfd("code", 4)));
	uint32_t jit = add_mapping(MAPPING_ANONYMOUS, "//anon", NULL);
	uint32_t special = add_mapping(MAPPING_SPECIAL, "[uprobes]", NULL);
	struct profile_location *in_good = add_location(good, MAKER_TEXT + 3);
	struct profile_location *in_partly = add_location(partly, MAKER_TEXT);
	struct profile_location *behind = add_location(partly, MAKER_TEXT + 64);
	struct profile_location *in_script = add_location(script, 3), *in_gone = add_location(gone, 3);
	struct profile_location *in_memfd = add_location(memfd, 3), *in_jit = add_location(jit, 3);
	struct profile_location *in_special = add_location(special, 3);
	struct profile_location *nowhere = add_location(PROFILE_NO_MAPPING, 3);
	complete(5000);
	expect(in_good, "outer::inner(int)");
	ck_assert_str_eq(in_good->lines[0].system_name, "_ZN5outer5innerEi");
	expect(in_partly, "plain");
	expect(behind, NULL);
	expect(in_script, NULL);
	expect(in_gone, NULL);
	expect(in_memfd, "/memfd:jit");
	expect(in_jit, "[anon]");
	expect(in_special, "[uprobes]");
	expect(nowhere, NULL);
	ck_assert_str_eq(profile->mappings[good].build_id, "0102abcd");
	ck_assert_str_eq(profile->mappings[unused].build_id, "0102abcd");
	ck_assert_str_eq(profile->mappings[script].build_id, "");
	ck_assert_str_eq(file_build_id(profile->mappings[script].file), "");
	ck_assert(profile->mappings[good].has_functions);
	ck_assert(!profile->mappings[good].has_filenames && !profile->mappings[good].has_line_numbers &&
		  !profile->mappings[good].has_inline_frames);
	ck_assert(!profile->mappings[partly].has_functions);
	ck_assert(!profile->mappings[unused].has_functions);
	ck_assert(profile->mappings[jit].has_functions);
	ck_assert_uint_eq(profile->missing_names, 1); /* the one in /gone; the others were looked at */
}
END_TEST

/* As the reader tells a function that has no name: the same of two files, which the cache has once. */
START_TEST(functions_without_a_name)
{
	start_with(READER_PATH, 5000);
	uint32_t one = add_mapping(MAPPING_FILE, "/lib/one.so.1", intern_made("+0x4010"));
	uint32_t two = add_mapping(MAPPING_FILE, "/lib/two.so", intern_made("+0x4010"));
	struct profile_location *in_one = add_location(one, MAKER_TEXT), *too = add_location(one, MAKER_TEXT + 8);
	struct profile_location *in_two = add_location(two, MAKER_TEXT);
	complete(5000);
	expect(in_one, "one.so.1+0x4010");
	expect(too, "one.so.1+0x4010");
	expect(in_two, "two.so+0x4010");
	ck_assert_str_eq(in_two->lines[0].system_name, "two.so+0x4010");
	/* So that pprof may look for better ones. */
	ck_assert(!profile->mappings[one].has_functions && !profile->mappings[two].has_functions);
	ck_assert_uint_eq(profile->missing_names, 0);
}
END_TEST

/* What this process itself says of its addresses: dladdr, and the functions' own names. */
START_TEST(running_process_against_dladdr)
{
	start_with(READER_PATH, 5000);
	static const char *const functions[] = {"malloc", "qsort", "printf", "strtoull", "getenv", "pthread_create"};
	struct file *libc = intern_path("/lib/x86_64-linux-gnu/libc.so.6");
	uint32_t mapping = add_mapping(MAPPING_FILE, "/lib/x86_64-linux-gnu/libc.so.6", libc);
	void *handle = dlopen("libc.so.6", RTLD_NOW);
	ck_assert_ptr_nonnull(handle);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		struct link_map *map = NULL;
		ck_assert_int_eq(dlinfo(handle, RTLD_DI_LINKMAP, &map), 0);
		/* glibc's executable segment is mapped at its own file offset (p_vaddr == p_offset). */
		add_location(mapping, (uintptr_t)dlsym(handle, functions[i]) - map->l_addr + 1);
	}
	complete(5000);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		ck_assert_uint_eq(profile->locations[i].n_lines, 1);
		const char *name = profile->locations[i].lines[0].name;
		ck_assert_msg(strcmp(name, functions[i]) == 0 || dlsym(handle, name) == dlsym(handle, functions[i]),
			      "%s is %s", functions[i], name);
	}
	dlclose(handle);
}
END_TEST

START_TEST(vdso)
{
	start_with(READER_PATH, 5000);
	uintptr_t start = getauxval(AT_SYSINFO_EHDR);
	if (!start) {
		printf("skipped: this process has no vdso\n");
		return;
	}
	void *handle = dlopen("linux-vdso.so.1", RTLD_NOW | RTLD_NOLOAD);
	ck_assert_ptr_nonnull(handle);
	uint32_t mapping = add_mapping(MAPPING_VDSO, "[vdso]", NULL);
	_cleanup_fclose_ FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	while (fgets(line, sizeof(line), maps)) {
		if (strstr(line, "[vdso]"))
			ck_assert_int_eq(sscanf(line, "%" SCNx64 "-%" SCNx64, &profile->mappings[mapping].start,
						&profile->mappings[mapping].end),
					 2);
	}
	ck_assert_uint_eq(profile->mappings[mapping].start, start);
	struct profile_location *known =
		add_location(mapping, (uintptr_t)dlsym(handle, "__vdso_clock_gettime") - start + 1);
	struct profile_location *unknown = add_location(mapping, 0x10);
	uint32_t other = add_mapping(MAPPING_VDSO, "[vdso]", NULL); /* of a 32-bit process */
	profile->mappings[other].start = 0xf7f00000;
	profile->mappings[other].end = 0xf7f02000;
	struct profile_location *in_other = add_location(other, known->file_offset);
	complete(5000);
	ck_assert_uint_eq(known->n_lines, 1);
	ck_assert_ptr_nonnull(strstr(known->lines[0].name, "clock_gettime"));
	expect(unknown, "[vdso]");
	expect(in_other, "[vdso]");
	ck_assert(profile->mappings[mapping].has_functions);
	ck_assert_uint_ge(strlen(profile->mappings[mapping].build_id), 16);
	ck_assert_uint_eq(profile->missing_names, 0);
	dlclose(handle);
}
END_TEST

START_TEST(kernel)
{
	start_with(READER_PATH, 5000);
	uint32_t mapping = add_mapping(MAPPING_KERNEL, "[kernel.kallsyms]", NULL);
	_cleanup_fclose_ FILE *in = fopen("/proc/kallsyms", "re");
	char line[512], name[400] = "";
	uint64_t address = 0;
	while (in && fgets(line, sizeof(line), in)) {
		if (strstr(line, " T vfs_read\n"))
			ck_assert_int_eq(sscanf(line, "%" SCNx64 " %*c %399s", &address, name), 2);
	}
	if (!address) {
		printf("skipped: the kernel hides its addresses (needs CAP_SYSLOG)\n");
		return;
	}
	struct profile_location *location = add_location(mapping, address + 5);
	complete(5000);
	expect(location, "vfs_read");
	ck_assert(profile->mappings[mapping].has_functions);
	ck_assert_uint_eq(profile->missing_names, 0);
}
END_TEST

/* Fills offsets with n places in the file that have names, found by looking all over it. */
static void find_named(const char *path, uint64_t *offsets, size_t n)
{
	new_profile();
	struct file *file = intern_path(path);
	uint64_t step = file->identity.size_bytes / 2 / 10000;
	uint32_t mapping = add_mapping(MAPPING_FILE, path, file);
	for (uint64_t i = 0; i < 10000; i++)
		add_location(mapping, file->identity.size_bytes / 4 + i * step);
	complete(60000);
	size_t filled = 0;
	for (uint64_t nudge = 0; filled < n; nudge++) {
		size_t before = filled;
		for (size_t i = 0; i < profile->n_locations && filled < n; i++) {
			if (profile->locations[i].n_lines)
				offsets[filled++] = profile->locations[i].file_offset + nudge;
		}
		ck_assert_uint_gt(filled, before);
	}
}

/* 10,000 addresses of a large library, cold and warm. */
START_TEST(speed)
{
	enum { N = 10000 };
	static uint64_t offsets[N];
	const char *path = "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1";
	start_with(READER_PATH, 60000);
	if (access(path, R_OK) < 0)
		path = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6";
	find_named(path, offsets, N);
	new_profile(); /* lets go of the file: it comes back as another */
	uint64_t took_ns[2];
	struct file *file = intern_path(path);
	for (int round = 0; round < 2; round++) {
		new_profile();
		uint32_t mapping = add_mapping(MAPPING_FILE, path, file_ref(file));
		for (uint64_t i = 0; i < N; i++)
			add_location(mapping, offsets[i]);
		uint64_t begin_ns = clock_monotonic_ns();
		complete(60000);
		took_ns[round] = clock_monotonic_ns() - begin_ns;
		ck_assert_uint_eq(profile->missing_names, 0);
		size_t named = 0;
		for (size_t i = 0; i < profile->n_locations; i++)
			named += profile->locations[i].n_lines;
		printf("%s: 10000 addresses, %zu named, %" PRIu64 " us %s\n", path, named, took_ns[round] / 1000,
		       round ? "warm" : "cold");
		ck_assert_uint_gt(named, N / 2);
	}
	file_unref(file);
	ck_assert_uint_lt(took_ns[1], 500 * NS_PER_MS); /* with sanitizers, on a busy machine */
	struct symbolize_status status;
	symbolize_status(symbolize, &status);
	ck_assert(status.reader_running);
	ck_assert_uint_eq(status.reader_restarts, 0);
	ck_assert_uint_gt(status.cached_bytes, 0);
}
END_TEST

static const char *const hostile_words[] = {"crash",          "exit",
					    "garbage",        "flood",
					    "sequence",       "error",
					    "build-id",       "kind",
					    "later-crash",    "later-garbage",
					    "later-sequence", "later-error",
					    "later-kind",     "later-more",
					    "later-none",     "later-utf8",
					    "later-control",  "later-empty",
					    "later-long",     "later-forgets",
					    "later-wants",    "later-wants-nothing"};
enum { N_HOSTILE = sizeof(hostile_words) / sizeof(hostile_words[0]) };

/* One hostile file, and one that is fine after it: the first has no names, the second has all. */
START_TEST(one_bad_file_costs_only_itself)
{
	start_with(FAKE_READER_PATH, 5000);
	struct profile_location *bad =
		add_location(add_mapping(MAPPING_FILE, "/bad", intern_hostile(hostile_words[_i])), 8);
	struct profile_location *good =
		add_location(add_mapping(MAPPING_FILE, "/good", intern_made("good")), MAKER_TEXT);
	complete(5000);
	expect(bad, NULL);
	expect(good, "good");
	ck_assert_uint_eq(profile->missing_names, 1);
	ck_assert(!profile->mappings[0].has_functions);
	ck_assert(profile->mappings[1].has_functions);
	struct symbolize_status status;
	symbolize_status(symbolize, &status);
	ck_assert(status.reader_running);
	ck_assert_uint_le(status.reader_restarts, 1);
}
END_TEST

/* A hanging file costs the timeout once, then it is left alone. */
START_TEST(hanging_file)
{
	start_with(FAKE_READER_PATH, 300);
	struct file *bad = intern_hostile(_i ? "later-hang" : "hang");
	for (int round = 0; round < 3; round++) {
		new_profile();
		struct profile_location *in_bad = add_location(add_mapping(MAPPING_FILE, "/bad", file_ref(bad)), 8);
		struct profile_location *good =
			add_location(add_mapping(MAPPING_FILE, "/good", intern_made("good")), MAKER_TEXT);
		uint64_t begin_ns = clock_monotonic_ns();
		complete(5000);
		uint64_t took_ms = (clock_monotonic_ns() - begin_ns) / NS_PER_MS;
		expect(in_bad, NULL);
		expect(good, "good");
		if (round == 0)
			ck_assert_uint_ge(took_ms, 300);
		else
			ck_assert_uint_lt(took_ms, 250);
	}
	file_unref(bad);
}
END_TEST

/* The caller's deadline comes first: it gets its profile in time, and the hanging file is found out by who comes next. */
START_TEST(deadline_before_timeout)
{
	start_with(FAKE_READER_PATH, 600);
	struct file *bad = intern_hostile("hang");
	for (int round = 0; round < 3; round++) {
		new_profile();
		add_location(add_mapping(MAPPING_FILE, "/bad", file_ref(bad)), 8);
		struct profile_location *good =
			add_location(add_mapping(MAPPING_FILE, "/good", intern_made("good")), MAKER_TEXT);
		uint64_t begin_ns = clock_monotonic_ns();
		complete(round == 0 ? 100 : 5000);
		uint64_t took_ms = (clock_monotonic_ns() - begin_ns) / NS_PER_MS;
		expect(good, round == 0 ? NULL : "good");
		ck_assert_uint_eq(profile->missing_names, round == 0 ? 2 : 1);
		if (round == 0)
			ck_assert_uint_lt(took_ms, 400);
		if (round == 2)
			ck_assert_uint_lt(took_ms, 300);
	}
	file_unref(bad);
}
END_TEST

START_TEST(many_bad_files_at_once)
{
	start_with(FAKE_READER_PATH, 5000);
	for (int i = 0; i < 30; i++)
		add_location(add_mapping(MAPPING_FILE, "/bad", intern_hostile(hostile_words[i % N_HOSTILE])), 8);
	uint64_t begin_ns = clock_monotonic_ns();
	complete(5000);
	ck_assert_uint_lt(clock_monotonic_ns() - begin_ns, 5 * NS_PER_S);
	ck_assert_uint_eq(profile->missing_names, 30);
	new_profile();
	struct profile_location *good =
		add_location(add_mapping(MAPPING_FILE, "/good", intern_made("good")), MAKER_TEXT);
	/* The reader itself may be held back for a while by now. */
	for (int i = 0; i < 100 && !good->n_lines; i++) {
		usleep(100 * 1000);
		complete(5000);
	}
	expect(good, "good");
}
END_TEST

/* The pid of the one child of this process. */
static pid_t child_pid(void)
{
	char path[64];
	int pid = 0;
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", gettid());
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fscanf(file, "%d", &pid), 1);
	return pid;
}

START_TEST(reader_killed_from_outside)
{
	start_with(READER_PATH, 5000);
	for (uint32_t round = 0; round < 5; round++) {
		new_profile();
		struct profile_location *location =
			add_location(add_mapping(MAPPING_FILE, "/good", intern_made("good")), MAKER_TEXT);
		complete(5000);
		expect(location, "good");
		struct symbolize_status status;
		symbolize_status(symbolize, &status);
		ck_assert_uint_eq(status.reader_restarts, round);
		pid_t pid = child_pid();
		ck_assert_int_eq(kill(pid, SIGKILL), 0);
		siginfo_t info;
		ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	}
}
END_TEST

START_TEST(no_reader_at_all)
{
	start_with("/nonexistent/sprofd-elf", 5000);
	struct profile_location *location =
		add_location(add_mapping(MAPPING_FILE, "/good", intern_made("good")), MAKER_TEXT);
	struct profile_location *jit = add_location(add_mapping(MAPPING_ANONYMOUS, "//anon", NULL), 0);
	complete(5000);
	expect(location, NULL);
	expect(jit, "[anon]");
	ck_assert_uint_eq(profile->missing_names, 1);
	ck_assert_str_eq(profile->mappings[0].build_id, "");
	struct symbolize_status status;
	symbolize_status(symbolize, &status);
	ck_assert(!status.reader_running);
}
END_TEST

START_TEST(reader_is_reaped)
{
	start_with(READER_PATH, 5000);
	add_location(add_mapping(MAPPING_FILE, "/good", intern_made("good")), MAKER_TEXT);
	complete(5000);
	pid_t pid = child_pid();
	symbolize_free(symbolize);
	symbolize = NULL;
	ck_assert_int_eq(kill(pid, 0), -1);
	ck_assert_int_eq(errno, ESRCH);
}
END_TEST

/* More files than the reader keeps open. */
START_TEST(many_files)
{
	enum { N = 100 };
	char names[N][16];
	struct file *files[N];
	start_with(READER_PATH, 5000);
	for (int i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "function_%d", i);
		files[i] = intern_made(names[i]);
	}
	for (uint64_t round = 0; round < 3; round++) {
		new_profile();
		for (int i = 0; i < N; i++)
			add_location(add_mapping(MAPPING_FILE, names[i], file_ref(files[i])), MAKER_TEXT + round);
		complete(20000);
		for (int i = 0; i < N; i++)
			expect(&profile->locations[i], names[i]);
	}
	for (int i = 0; i < N; i++)
		file_unref(files[i]);
}
END_TEST

static void *complete_one(void *data)
{
	struct profile *mine = data;
	symbolize_profile(symbolize, mine, SYMBOLIZE_ALL, clock_monotonic_ns() + 20 * NS_PER_S);
	return NULL;
}

START_TEST(many_threads)
{
	enum { THREADS = 4 };
	pthread_t threads[THREADS];
	struct profile *profiles[THREADS];
	start_with(READER_PATH, 20000);
	for (int t = 0; t < THREADS; t++) {
		if (t > 0) {
			profile = NULL; /* profiles has it */
			new_profile();
		}
		uint32_t mapping = add_mapping(MAPPING_FILE, "libc", intern_path("/lib/x86_64-linux-gnu/libc.so.6"));
		for (uint64_t i = 0; i < 1000; i++)
			add_location(mapping, 0x30000 + i * 512);
		profiles[t] = profile;
	}
	for (int t = 0; t < THREADS; t++)
		ck_assert_int_eq(pthread_create(&threads[t], NULL, complete_one, profiles[t]), 0);
	for (int t = 0; t < THREADS; t++)
		ck_assert_int_eq(pthread_join(threads[t], NULL), 0);
	for (int t = 1; t < THREADS; t++) {
		for (size_t i = 0; i < 1000; i++) {
			const struct profile_location *a = &profiles[0]->locations[i], *b = &profiles[t]->locations[i];
			ck_assert_uint_eq(a->n_lines, b->n_lines);
			if (a->n_lines)
				ck_assert_str_eq(a->lines[0].name, b->lines[0].name);
		}
	}
	for (int t = 0; t < THREADS; t++)
		profile_free(profiles[t]);
	profile = NULL;
}
END_TEST

START_TEST(nobody_waits_for_it_at_the_end)
{
	pthread_t thread;
	start_with(FAKE_READER_PATH, 20000);
	struct file *bad = intern_hostile("hang");
	struct profile_location *in_bad = add_location(add_mapping(MAPPING_FILE, "/bad", file_ref(bad)), 8);
	uint64_t begin_ns = clock_monotonic_ns();
	ck_assert_int_eq(pthread_create(&thread, NULL, complete_one, profile), 0);
	usleep(200000);
	symbolize_end(symbolize);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	expect(in_bad, NULL);
	new_profile();
	struct profile_location *good =
		add_location(add_mapping(MAPPING_FILE, "/good", intern_made("good")), MAKER_TEXT);
	complete(20000);
	expect(good, NULL); /* nor is another started */
	ck_assert_uint_lt(clock_monotonic_ns() - begin_ns, 10 * NS_PER_S);
	file_unref(bad);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("symbolize");
	TCase *real = tcase_create("sprofd-elf");
	tcase_add_checked_fixture(real, setup, teardown);
	tcase_set_timeout(real, 100);
	tcase_add_test(real, names_build_ids_and_flags);
	tcase_add_test(real, functions_without_a_name);
	tcase_add_test(real, code_of_its_time);
	tcase_add_test(real, code_that_cannot_be_asked_for);
	tcase_add_test(real, running_process_against_dladdr);
	tcase_add_test(real, vdso);
	tcase_add_test(real, kernel);
	tcase_add_test(real, speed);
	tcase_add_test(real, reader_killed_from_outside);
	tcase_add_test(real, no_reader_at_all);
	tcase_add_test(real, reader_is_reaped);
	tcase_add_test(real, many_files);
	tcase_add_test(real, many_threads);
	suite_add_tcase(suite, real);
	TCase *hostile = tcase_create("hostile");
	tcase_add_checked_fixture(hostile, setup, teardown);
	tcase_set_timeout(hostile, 60);
	tcase_add_loop_test(hostile, one_bad_file_costs_only_itself, 0, N_HOSTILE);
	tcase_add_loop_test(hostile, hanging_file, 0, 2);
	tcase_add_test(hostile, deadline_before_timeout);
	tcase_add_test(hostile, nobody_waits_for_it_at_the_end);
	tcase_add_test(hostile, many_bad_files_at_once);
	suite_add_tcase(suite, hostile);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
