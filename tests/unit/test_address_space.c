#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "app/address_space.h"
#include "base/clock.h"
#include "check_main.h"
#include "model/sample.h"

static struct address_space space;
static bool new_program;

static struct maps *maps_of(uint64_t start, uint64_t end, const char *name)
{
	struct mapping mapping = {.start = start, .end = end, .kind = MAPPING_FILE, .name = name};
	struct maps *maps;
	ck_assert_int_eq(maps_new(&mapping, 1, 0, &maps), 0);
	return maps;
}

static uint32_t note(uint64_t exec_id, uint32_t exec_pages)
{
	struct record record = {.exec_id = exec_id, .exec_pages = exec_pages, .map_count = exec_pages};
	return address_space_note(&space, &record, &new_program);
}

static const char *name_at(uint32_t version, uint64_t address)
{
	if (version >= space.n || !space.versions[version])
		return "";
	const struct mapping *mapping = maps_find(space.versions[version], address);
	return mapping ? mapping->name : "";
}

static void attach(const char *name)
{
	address_space_init(&space);
	ck_assert_int_eq(address_space_update(&space, 0, maps_of(100, 200, name), 0), 0);
}

START_TEST(a_library_that_comes_is_merged)
{
	attach("a");
	ck_assert_uint_eq(note(1, 10), 0);
	ck_assert(!new_program);
	ck_assert(address_space_due(&space, NS_PER_S)); /* what was read at the attach may be old by now */
	uint32_t version = address_space_begin(&space);
	ck_assert(!address_space_due(&space, NS_PER_S));
	ck_assert_int_eq(address_space_update(&space, version, maps_of(300, 400, "lib"), NS_PER_S), 0);
	ck_assert_uint_eq(space.n, 1);
	ck_assert_str_eq(name_at(0, 150), "a");
	ck_assert_str_eq(name_at(0, 350), "lib");
	note(1, 10);
	ck_assert(!address_space_due(&space, 9 * NS_PER_S)); /* nothing has changed */
	note(1, 12);
	ck_assert(address_space_due(&space, 9 * NS_PER_S));
	address_space_free(&space);
}
END_TEST

/* Attaches with a snapshot of 10 executable pages and 20 mappings, and notes a first record; whether another snapshot is wanted. */
static bool wants_after_first(uint64_t program, uint8_t end, uint32_t exec_pages, uint32_t map_count)
{
	struct maps *maps = maps_of(100, 200, "a");
	struct record record = {.exec_id = 1, .exec_pages = exec_pages, .map_count = map_count, .user_end = end};
	maps->program = program;
	maps->exec_pages = 10;
	maps->map_count = 20;
	address_space_init(&space);
	ck_assert_int_eq(address_space_update(&space, 0, maps, 0), 0);
	ck_assert_uint_eq(address_space_note(&space, &record, &new_program), 0);
	ck_assert(!new_program);
	bool wanted = address_space_due(&space, NS_PER_S);
	bool certain = address_space_at(&space, &record) != NULL;
	ck_assert(certain == !wanted);
	note(1, exec_pages + 1); /* whatever was so at first: a library */
	ck_assert(address_space_due(&space, NS_PER_S));
	address_space_free(&space);
	return wanted;
}

START_TEST(the_snapshot_of_the_attach_may_be_confirmed)
{
	ck_assert(!wants_after_first(7, STACK_END_OUTERMOST, 10, 20));
	ck_assert(wants_after_first(7, STACK_END_OUTERMOST, 11, 20));
	ck_assert(wants_after_first(7, STACK_END_OUTERMOST, 10, 21));
	ck_assert(wants_after_first(0, STACK_END_OUTERMOST, 10, 20));
	ck_assert(wants_after_first(7, STACK_END_TABLES_NOT_READY, 10, 20));
	ck_assert(wants_after_first(7, STACK_END_ROOT, 10, 20)); /* by frame pointers, perhaps of another program */
}
END_TEST

START_TEST(a_contradiction_opens_a_version)
{
	attach("a");
	note(1, 10);
	ck_assert_int_eq(address_space_update(&space, address_space_begin(&space), maps_of(100, 200, "a"), 0), 0);
	uint32_t version = address_space_begin(&space);
	ck_assert_int_eq(address_space_update(&space, version, maps_of(150, 250, "b"), NS_PER_S), 0);
	ck_assert_uint_eq(note(1, 10), 1);
	ck_assert_str_eq(name_at(0, 160), "a");
	ck_assert_str_eq(name_at(1, 160), "b");
	address_space_free(&space);
}
END_TEST

START_TEST(an_exec_before_the_first_record_leaves_nothing_of_the_old_program)
{
	attach("old");
	ck_assert_uint_eq(note(1, 10), 0);
	ck_assert(address_space_due(&space, NS_PER_S));
	uint32_t version = address_space_begin(&space);
	ck_assert_int_eq(address_space_update(&space, version, maps_of(150, 250, "new"), NS_PER_S), 0);
	ck_assert_uint_eq(note(1, 10), 0);
	ck_assert_str_eq(name_at(0, 160), "new");
	ck_assert_str_eq(name_at(0, 110), "");
	address_space_free(&space);
}
END_TEST

START_TEST(a_snapshot_from_beyond_an_exec_names_nothing_of_the_old_program)
{
	attach("old");
	note(1, 10);
	ck_assert_int_eq(address_space_update(&space, address_space_begin(&space), maps_of(100, 200, "old"), 0), 0);
	note(2, 10);
	uint32_t version = address_space_begin(&space);
	note(3, 10);
	ck_assert_int_eq(address_space_update(&space, version, maps_of(100, 200, "third"), NS_PER_S), 0);
	ck_assert_str_eq(name_at(0, 150), "old");
	ck_assert_str_eq(name_at(1, 150), ""); /* the second's could not be read in time */
	ck_assert_str_eq(name_at(2, 150), "");
	ck_assert(address_space_due(&space, 9 * NS_PER_S));
	address_space_free(&space);
}
END_TEST

START_TEST(an_exec_opens_a_version_at_once)
{
	attach("old");
	ck_assert_uint_eq(note(1, 10), 0);
	ck_assert_uint_eq(note(2, 10), 1);
	ck_assert(new_program);
	ck_assert_str_eq(name_at(1, 150), ""); /* better no name than one of the old program */
	ck_assert(address_space_due(&space, 0));
	ck_assert_uint_eq(note(2, 10), 1);
	ck_assert(!new_program);
	ck_assert_int_eq(address_space_update(&space, address_space_begin(&space), maps_of(100, 200, "new"), 0), 0);
	ck_assert_str_eq(name_at(0, 150), "old");
	ck_assert_str_eq(name_at(1, 150), "new");
	address_space_free(&space);
}
END_TEST

START_TEST(an_exec_is_told_apart_even_when_nothing_was_ever_read)
{
	address_space_init(&space);
	ck_assert_int_eq(address_space_update(&space, 0, NULL, 0), 0); /* could not be read */
	uint32_t before = note(1, 10), after = note(2, 10);
	ck_assert(new_program);
	ck_assert_uint_ne(before, after);
	ck_assert_int_eq(address_space_update(&space, address_space_begin(&space), maps_of(100, 200, "new"), 0), 0);
	ck_assert_str_eq(name_at(before, 150), "");
	ck_assert_str_eq(name_at(after, 150), "new");
	address_space_free(&space);
}
END_TEST

START_TEST(a_snapshot_that_an_exec_overtook_names_nothing_of_the_new_program)
{
	attach("old");
	uint32_t before = note(1, 10);
	uint32_t version = address_space_begin(&space);
	struct maps *read_before_the_exec = maps_of(150, 250, "changed"); /* contradicts what was known */
	uint32_t after = note(2, 10);
	ck_assert_int_eq(address_space_update(&space, version, read_before_the_exec, NS_PER_S), 0);
	uint32_t later = note(2, 10);
	ck_assert_str_eq(name_at(before, 110), "old");
	ck_assert_str_eq(name_at(after, 160), "");
	ck_assert_str_eq(name_at(later, 160), "");
	ck_assert(address_space_due(&space, 9 * NS_PER_S)); /* the new program's are still wanted */
	ck_assert_int_eq(
		address_space_update(&space, address_space_begin(&space), maps_of(100, 200, "new"), 9 * NS_PER_S), 0);
	ck_assert_str_eq(name_at(note(2, 10), 150), "new");
	ck_assert_str_eq(name_at(before, 110), "old");
	address_space_free(&space);
}
END_TEST

/* The moment at which it was due. */
static uint64_t update_when_due(uint64_t now_ns, const char *name)
{
	static uint32_t exec_pages = 1000;
	note(1, exec_pages++);
	while (!address_space_due(&space, now_ns))
		now_ns += NS_PER_MS;
	ck_assert_int_eq(address_space_update(&space, address_space_begin(&space),
					      maps_of(exec_pages * 100, exec_pages * 100 + 50, name), now_ns),
			 0);
	return now_ns;
}

START_TEST(intervals_are_short_after_a_rest)
{
	attach("a");
	for (uint64_t begin_ns = 2 * NS_PER_S; begin_ns < 10 * NS_PER_S; begin_ns += 3 * NS_PER_S) {
		uint64_t at[8] = {begin_ns};
		for (int i = 1; i < 8; i++)
			at[i] = update_when_due(at[i - 1], "library");
		ck_assert_uint_eq(at[1], begin_ns);
		ck_assert_uint_le(at[2] - begin_ns, 5 * NS_PER_MS);
		ck_assert_uint_le(at[4] - begin_ns,
				  40 * NS_PER_MS); /* the fourth library of a few that are opened together */
		ck_assert_uint_ge(at[7] - at[6],
				  45 * NS_PER_MS); /* one that goes on and on is not followed so closely */
	}
	address_space_free(&space);
}
END_TEST

START_TEST(intervals_grow_while_nothing_is_new)
{
	attach("a");
	uint64_t now_ns = NS_PER_S, last_gap_ns = 0;
	for (int i = 0; i < 12; i++) {
		note(1, 20 + (uint32_t)i);
		uint64_t asked_ns = now_ns;
		while (!address_space_due(&space, now_ns))
			now_ns += NS_PER_MS;
		last_gap_ns = now_ns - asked_ns;
		ck_assert_int_eq(
			address_space_update(&space, address_space_begin(&space), maps_of(100, 200, "a"), now_ns), 0);
	}
	ck_assert_uint_ge(last_gap_ns, NS_PER_S);
	ck_assert_uint_le(last_gap_ns, 3 * NS_PER_S);
	note(1, 99);
	while (!address_space_due(&space, now_ns))
		now_ns += NS_PER_MS;
	ck_assert_int_eq(address_space_update(&space, address_space_begin(&space), maps_of(300, 400, "b"), now_ns), 0);
	note(1, 98);
	ck_assert(address_space_due(&space, now_ns + 100 * NS_PER_MS)); /* something was: soon again */
	address_space_free(&space);
}
END_TEST

START_TEST(an_unknown_address_asks_when_mappings_have_changed)
{
	attach("a");
	note(1, 10);
	address_space_update(&space, address_space_begin(&space), maps_of(100, 200, "a"), 0);
	const uint64_t known[] = {150, 160}, unknown[] = {150, 500}, at_end[] = {150, 200};
	address_space_note_stack(&space, 0, 10, unknown, 2);
	ck_assert(!space.wanted); /* no change: asking again would find nothing */
	address_space_note_stack(&space, 0, 11, known, 2);
	ck_assert(!space.wanted);
	address_space_note_stack(&space, 0, 11, at_end, 2); /* the address after a call that ends the mapping */
	ck_assert(!space.wanted);
	address_space_note_stack(&space, 0, 11, unknown, 2);
	ck_assert(space.wanted);
	address_space_begin(&space);
	address_space_note_stack(&space, 0, 11, unknown, 2); /* once for each change */
	ck_assert(!space.wanted);
	address_space_note_stack(&space, 7, 12, unknown, 2); /* a version that was never read */
	ck_assert(!space.wanted);
	address_space_free(&space);
}
END_TEST

START_TEST(growth_is_bounded)
{
	attach("a");
	for (uint64_t exec = 1; exec <= 20000; exec++)
		note(exec, 10);
	ck_assert_uint_le(space.n, 4096);
	for (int i = 0; i < 20000; i++) {
		uint64_t at = 100 + (uint64_t)(i % 50);
		address_space_update(&space, address_space_begin(&space), maps_of(at, at + 100, "x"), 0);
	}
	ck_assert_uint_le(space.n, 4096);
	ck_assert_uint_ge(space.n, 4000);
	ck_assert_str_eq(name_at(space.n - 1, 149), "x"); /* the last one's names stay */
	address_space_free(&space);
}
END_TEST

static struct maps *many_maps(uint64_t start)
{
	enum { N = 20000 };
	struct mapping *mappings = calloc(N, sizeof(*mappings));
	for (size_t i = 0; i < N; i++)
		mappings[i] = (struct mapping){.start = start + i * 10,
					       .end = start + i * 10 + 9,
					       .kind = MAPPING_FILE,
					       .name = "a rather long name of a file"};
	struct maps *maps;
	ck_assert_int_eq(maps_new(mappings, N, 0, &maps), 0);
	free(mappings);
	return maps;
}

START_TEST(memory_is_bounded)
{
	attach("a");
	note(1, 10);
	address_space_update(&space, address_space_begin(&space), many_maps(1), 0);
	for (uint64_t i = 2; i < 200; i++) /* each contradicts the one before */
		ck_assert_int_eq(address_space_update(&space, address_space_begin(&space), many_maps(i % 2 ? 1 : 5), 0),
				 0);
	size_t held = 0;
	for (uint32_t i = 0; i < space.n; i++)
		held += space.versions[i] != NULL;
	ck_assert_uint_gt(space.n, 190);
	ck_assert_uint_ge(held, 4);
	ck_assert_uint_le(held, 20); /* of 1.5 MB and more each */
	ck_assert_str_ne(name_at(space.n - 1, 15), "");
	ck_assert_str_ne(name_at(space.n - 2, 15), "");
	ck_assert_str_eq(name_at(1, 15), "");
	address_space_free(&space);
}
END_TEST

START_TEST(a_snapshot_outlives_the_space)
{
	attach("a");
	note(1, 1);
	note(2, 1); /* a version without mappings */
	struct maps **versions;
	uint32_t n;
	ck_assert_int_eq(address_space_snapshot(&space, &versions, &n), 0);
	address_space_free(&space);
	ck_assert_uint_eq(n, 2);
	ck_assert_str_eq(maps_find(versions[0], 150)->name, "a");
	ck_assert_ptr_null(versions[1]);
	maps_unref(versions[0]);
	free(versions);
	address_space_init(&space);
	ck_assert_int_eq(address_space_snapshot(&space, &versions, &n), 0);
	ck_assert_uint_eq(n, 0);
	free(versions);
}
END_TEST

static bool timed(uint64_t leaf, uint64_t caller)
{
	uint64_t user[] = {leaf, caller + 1};
	return address_space_is_timed(&space, user, 2);
}

/* Of code that a JIT may have made, where a jitdump may tell when. */
START_TEST(names_that_depend_on_the_time)
{
	struct file_registry *registry = file_registry_new(2);
	struct mapping mappings[] = {{.start = 100, .end = 200, .kind = MAPPING_FILE, .name = "a"},
				     {.start = 300, .end = 400, .kind = MAPPING_ANONYMOUS, .name = "//anon"},
				     {.start = 500, .end = 600, .kind = MAPPING_FILE, .name = "/jit-1.dump"}};
	struct maps *maps;
	address_space_init(&space);
	ck_assert_int_eq(maps_new(mappings, 3, 0, &maps), 0); /* the dump could not be opened */
	ck_assert_int_eq(address_space_update(&space, 0, maps, 0), 0);
	ck_assert(!timed(310, 150));
	note(1, 10); /* mappings have changed: there may be one now */
	ck_assert(timed(310, 150));
	ck_assert(timed(150, 350));
	ck_assert(timed(150, 250));
	ck_assert(!timed(150, 199));
	ck_assert(!timed(150, SAMPLE_FRAME_PYTHON(1, 2)));
	uint32_t version = address_space_begin(&space);
	ck_assert(timed(310, 150));
	ck_assert_int_eq(address_space_update(&space, version, NULL, 0), 0);
	ck_assert(!timed(310, 150));
	ck_assert_int_eq(file_registry_intern(registry, open("/proc/self/exe", O_RDONLY), &mappings[2].file), 0);
	ck_assert_int_eq(maps_new(mappings, 3, 0, &maps), 0);
	address_space_free(&space);
	ck_assert_int_eq(address_space_update(&space, 0, maps, 0), 0);
	ck_assert(timed(310, 150));
	ck_assert(timed(250, 150));
	ck_assert(!timed(150, 199));
	address_space_free(&space);
	ck_assert(!timed(310, 150)); /* nothing is known */
	file_registry_free(registry);
}
END_TEST

/* A program with very many mappings, when memory is out: what is known of it stays, and it is read again. */
START_TEST(a_snapshot_that_there_is_no_memory_for)
{
#ifndef __SANITIZE_ADDRESS__ /* which ends a program without memory */
	enum { MANY = 20000 };
	struct mapping *mappings = calloc(MANY, sizeof(*mappings));
	struct maps *older, *newer;
	struct rlimit old, none;
	ck_assert_ptr_nonnull(mappings);
	for (uint64_t i = 0; i < MANY; i++)
		mappings[i] =
			(struct mapping){.start = 100 * i, .end = 100 * i + 50, .kind = MAPPING_FILE, .name = "a"};
	ck_assert_int_eq(maps_new(mappings, MANY, 0, &older), 0);
	ck_assert_int_eq(maps_new(mappings, MANY, 0, &newer), 0);
	address_space_init(&space);
	ck_assert_int_eq(address_space_update(&space, 0, older, 0), 0);
	note(1, 10);
	uint32_t version = address_space_begin(&space);
	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &none), 0);
	int r = address_space_update(&space, version, newer, NS_PER_S);
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &old), 0);
	ck_assert_int_eq(r, -ENOMEM);
	ck_assert(address_space_due(&space, 9 * NS_PER_S));
	(void)address_space_begin(&space);
	const struct record record = {.exec_id = 1, .exec_pages = 10, .map_count = 10};
	ck_assert_ptr_null(address_space_at(&space, &record)); /* it may be of another program still */
	ck_assert_uint_eq(space.n, 1);
	ck_assert_str_eq(name_at(0, 100 * (MANY - 1)), "a");
	free(mappings);
	address_space_free(&space);
#endif
}
END_TEST

CHECK_MAIN("address_space", 60, names_that_depend_on_the_time, a_library_that_comes_is_merged,
	   the_snapshot_of_the_attach_may_be_confirmed, a_contradiction_opens_a_version,
	   an_exec_before_the_first_record_leaves_nothing_of_the_old_program,
	   a_snapshot_from_beyond_an_exec_names_nothing_of_the_old_program, an_exec_opens_a_version_at_once,
	   an_exec_is_told_apart_even_when_nothing_was_ever_read,
	   a_snapshot_that_an_exec_overtook_names_nothing_of_the_new_program, intervals_are_short_after_a_rest,
	   intervals_grow_while_nothing_is_new, an_unknown_address_asks_when_mappings_have_changed, growth_is_bounded,
	   memory_is_bounded, a_snapshot_outlives_the_space, a_snapshot_that_there_is_no_memory_for)
