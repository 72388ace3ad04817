#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "model/maps.h"

static struct mapping piece(uint64_t start, uint64_t end, enum mapping_kind kind, const char *name)
{
	return (struct mapping){.start = start, .end = end, .kind = kind, .name = name};
}

START_TEST(must_ascend_without_overlap)
{
	struct maps *maps = NULL;
	struct mapping overlapping[] = {piece(0, 10, MAPPING_FILE, "a"), piece(9, 12, MAPPING_FILE, "b")};
	struct mapping descending[] = {piece(20, 30, MAPPING_FILE, "a"), piece(0, 10, MAPPING_FILE, "b")};
	struct mapping empty[] = {piece(5, 5, MAPPING_FILE, "a")};
	struct mapping reversed[] = {piece(6, 5, MAPPING_FILE, "a")};
	struct mapping good[] = {piece(0, 10, MAPPING_FILE, "a"), piece(10, 12, MAPPING_FILE, "b")};
	ck_assert_int_eq(maps_new(overlapping, 2, 0, &maps), -EINVAL);
	ck_assert_int_eq(maps_new(descending, 2, 0, &maps), -EINVAL);
	ck_assert_int_eq(maps_new(empty, 1, 0, &maps), -EINVAL);
	ck_assert_int_eq(maps_new(reversed, 1, 0, &maps), -EINVAL);
	ck_assert_int_eq(maps_new(good, 2, 3, &maps), -EINVAL);
	ck_assert_ptr_null(maps);
	ck_assert_int_eq(maps_new(good, 2, 2, &maps), 0);
	maps_unref(maps);
	ck_assert_int_eq(maps_new(NULL, 0, 0, &maps), 0);
	ck_assert_ptr_null(maps_find(maps, 0));
	maps_unref(maps);
	maps_unref(NULL);
	ck_assert_ptr_null(maps_ref(NULL));
}
END_TEST

START_TEST(a_jitdump_is_known_by_its_name)
{
	static const char *const none[] = {"/tmp/jit-.dump", "/tmp/jit-1x.dump", "/tmp/jit-12.dump.old",
					   "/jit-1.dump/lib.so"};
	struct file_registry *registry = file_registry_new(8);
	struct maps *maps;
	struct mapping mappings[2] = {piece(0, 10, MAPPING_FILE, "/bin/true"),
				      piece(20, 30, MAPPING_FILE, "/x/jit-123.dump")};
	ck_assert_int_eq(maps_new(mappings, 2, 0, &maps), 0);
	ck_assert_ptr_null(maps->jit_dump); /* it could not be opened */
	maps_unref(maps);
	ck_assert_int_eq(file_registry_intern(registry, open("/proc/self/exe", O_RDONLY), &mappings[1].file), 0);
	ck_assert_int_eq(maps_new(mappings, 2, 0, &maps), 0);
	ck_assert_ptr_eq(maps->jit_dump, mappings[1].file);
	maps_unref(maps);
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		ck_assert_int_eq(file_registry_intern(registry, open("/proc/self/exe", O_RDONLY), &mappings[1].file),
				 0);
		mappings[1].name = none[i];
		ck_assert_int_eq(maps_new(mappings, 2, 0, &maps), 0);
		ck_assert_ptr_null(maps->jit_dump);
		maps_unref(maps);
	}
	file_registry_free(registry);
}
END_TEST

START_TEST(names_of_nameless_mappings)
{
	static const char *const nameless[] = {"", "//anon", "//anon:v8", "/memfd:doublemapper (deleted)", "[heap]"};
	static const char *const named[] = {"/bin/true", "/memfd", "//", "/anon"};
	for (size_t i = 0; i < sizeof(nameless) / sizeof(nameless[0]); i++)
		ck_assert(mapping_is_nameless(nameless[i]));
	for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++)
		ck_assert(!mapping_is_nameless(named[i]));
}
END_TEST

START_TEST(copies_names_and_takes_references)
{
	struct file_registry *registry = file_registry_new(2);
	struct file *file;
	ck_assert_int_eq(file_registry_intern(registry, open("/proc/self/exe", O_RDONLY), &file), 0);
	char name[] = "/bin/true";
	struct mapping one = piece(0x1000, 0x2000, MAPPING_FILE, name);
	one.file = file;
	struct maps *maps, *refused = NULL;
	one.end = 0;
	ck_assert_int_eq(maps_new(&one, 1, 0, &refused), -EINVAL);
	ck_assert_uint_eq(file_registry_count(registry), 1); /* the caller keeps what it had */
	one.end = 0x2000;
	ck_assert_int_eq(maps_new(&one, 1, 0, &maps), 0);
	name[0] = 'X';
	ck_assert_str_eq(maps->mappings[0].name, "/bin/true");
	maps_unref(maps_ref(maps));
	ck_assert_uint_eq(file_registry_count(registry), 1);
	maps_unref(maps);
	ck_assert_uint_eq(file_registry_count(registry), 0);
	file_registry_free(registry);
}
END_TEST

START_TEST(finds_as_a_plain_search_does)
{
	srand(7);
	for (int round = 0; round < 200; round++) {
		struct mapping list[20];
		size_t n = 0;
		uint64_t at = 0;
		while (n < 20 && rand() % 12) {
			at += (uint64_t)(rand() % 3);
			uint64_t end = at + 1 + (uint64_t)(rand() % 4);
			list[n++] = piece(at, end, MAPPING_FILE, "");
			at = end;
		}
		struct maps *maps;
		ck_assert_int_eq(maps_new(list, n, n, &maps), 0);
		for (uint64_t address = 0; address < at + 3; address++) {
			const struct mapping *expected = NULL;
			for (size_t i = 0; i < n; i++)
				if (address >= list[i].start && address < list[i].end)
					expected = &maps->mappings[i];
			if (maps_find(maps, address) != expected)
				ck_abort_msg("address %d of round %d", (int)address, round);
		}
		ck_assert_ptr_null(maps_find(maps, UINT64_MAX));
		maps_unref(maps);
	}
}
END_TEST

/* --- merging, against a model that knows what each page of a small address space is --- */

enum { PAGES = 24, MAX_PIECES = PAGES };

struct list {
	struct mapping mappings[MAX_PIECES];
	size_t n, main_index;
};

/* Mappings of few kinds, cut at few places, so that two of these lists often agree, and often do not. */
static void draw(struct list *list, const struct list *like)
{
	static const char *const names[] = {"a", "b"};
	list->n = 0;
	for (uint64_t at = 0; at < PAGES;) {
		uint64_t length = 1 + (uint64_t)(rand() % 4);
		if (at + length > PAGES)
			length = PAGES - at;
		if (rand() % 2) {
			enum mapping_kind kind = rand() % 3 ? MAPPING_ANONYMOUS : MAPPING_FILE;
			struct mapping mapping = piece(at, at + length, kind, names[rand() % 2]);
			mapping.file_offset = kind == MAPPING_FILE ? at : 0;
			list->mappings[list->n++] = mapping;
		}
		at += length;
	}
	if (like && rand() % 4) { /* mostly the same, with some missing: what a second look at a process gives */
		list->n = 0;
		for (size_t i = 0; i < like->n; i++)
			if (rand() % 4)
				list->mappings[list->n++] = like->mappings[i];
	}
	list->main_index = list->n ? (size_t)rand() % (list->n + 1) : 0;
}

static bool same(const struct mapping *a, const struct mapping *b)
{
	return a->start == b->start && a->end == b->end && a->kind == b->kind && a->file_offset == b->file_offset &&
	       !strcmp(a->name, b->name);
}

static bool contradict(const struct list *a, const struct list *b)
{
	for (size_t i = 0; i < a->n; i++)
		for (size_t k = 0; k < b->n; k++) {
			const struct mapping *x = &a->mappings[i], *y = &b->mappings[k];
			bool overlap = x->start < y->end && y->start < x->end;
			bool both_anonymous = x->kind == MAPPING_ANONYMOUS && y->kind == MAPPING_ANONYMOUS;
			if (overlap && !both_anonymous && !same(x, y))
				return true;
		}
	return false;
}

static const struct mapping *at_page(const struct list *list, uint64_t page)
{
	for (size_t i = 0; i < list->n; i++)
		if (page >= list->mappings[i].start && page < list->mappings[i].end)
			return &list->mappings[i];
	return NULL;
}

static void compare_pages(const struct maps *merged, const struct list *older, const struct list *newer)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		const struct mapping *expected = at_page(newer, page), *got = maps_find(merged, page);
		if (!expected)
			expected = at_page(older, page);
		if (!expected && !got)
			continue;
		if (!expected || !got || got->kind != expected->kind ||
		    (expected->kind == MAPPING_FILE && !same(got, expected)))
			ck_abort_msg("page %d", (int)page);
	}
}

START_TEST(merges_as_the_model_does)
{
	srand(20);
	unsigned merged_often = 0, refused_often = 0;
	for (int round = 0; round < 6000; round++) {
		struct list older, newer;
		draw(&older, NULL);
		draw(&newer, &older);
		struct maps *a, *b, *merged = NULL;
		ck_assert_int_eq(maps_new(older.mappings, older.n, older.main_index, &a), 0);
		ck_assert_int_eq(maps_new(newer.mappings, newer.n, newer.main_index, &b), 0);
		int r = maps_merge(a, b, &merged);
		ck_assert_int_eq(r, contradict(&older, &newer) ? -EEXIST : 0);
		if (r == 0) {
			merged_often++;
			compare_pages(merged, &older, &newer);
			if (newer.main_index < newer.n)
				ck_assert_ptr_eq(&merged->mappings[merged->main_index],
						 maps_find(merged, newer.mappings[newer.main_index].start));
			else
				ck_assert_uint_eq(merged->main_index, merged->n);
			maps_unref(merged);
		} else {
			refused_often++;
			ck_assert_ptr_null(merged);
		}
		maps_unref(a);
		maps_unref(b);
	}
	ck_assert_uint_gt(merged_often, 500);
	ck_assert_uint_gt(refused_often, 500);
}
END_TEST

START_TEST(a_merge_has_references_of_its_own)
{
	struct file_registry *registry = file_registry_new(4);
	struct file *file;
	ck_assert_int_eq(file_registry_intern(registry, open("/proc/self/exe", O_RDONLY), &file), 0);
	struct mapping a = piece(0, 10, MAPPING_FILE, "a"), b = piece(20, 30, MAPPING_FILE, "b");
	a.file = file;
	b.file = file_ref(file);
	struct maps *older, *newer, *merged, *clash;
	ck_assert_int_eq(maps_new(&a, 1, 0, &older), 0);
	ck_assert_int_eq(maps_new(&b, 1, 0, &newer), 0);
	ck_assert_int_eq(maps_merge(older, newer, &merged), 0);
	maps_unref(older);
	maps_unref(newer);
	ck_assert_uint_eq(file_registry_count(registry), 1);
	ck_assert_str_eq(maps_find(merged, 5)->name, "a");
	ck_assert_str_eq(maps_find(merged, 25)->name, "b");
	struct mapping c = piece(5, 25, MAPPING_FILE, "c");
	ck_assert_int_eq(maps_new(&c, 1, 0, &clash), 0);
	struct maps *none = NULL;
	ck_assert_int_eq(maps_merge(merged, clash, &none), -EEXIST);
	ck_assert_ptr_null(none);
	maps_unref(clash);
	maps_unref(merged);
	ck_assert_uint_eq(file_registry_count(registry), 0);
	file_registry_free(registry);
}
END_TEST

START_TEST(one_path_of_two_files_is_a_contradiction)
{
	struct file_registry *registry = file_registry_new(4);
	struct mapping a = piece(0, 10, MAPPING_FILE, "lib"), b = a;
	ck_assert_int_eq(file_registry_intern(registry, open("/proc/self/exe", O_RDONLY), &a.file), 0);
	ck_assert_int_eq(file_registry_intern(registry, open("/etc/passwd", O_RDONLY), &b.file), 0);
	struct maps *older, *newer, *merged = NULL;
	ck_assert_int_eq(maps_new(&a, 1, 0, &older), 0);
	ck_assert_int_eq(maps_new(&b, 1, 0, &newer), 0);
	ck_assert_int_eq(maps_merge(older, newer, &merged), -EEXIST);
	maps_unref(older);
	maps_unref(newer);
	file_registry_free(registry);
}
END_TEST

CHECK_MAIN("maps", 60, must_ascend_without_overlap, a_jitdump_is_known_by_its_name, names_of_nameless_mappings,
	   copies_names_and_takes_references, finds_as_a_plain_search_does, merges_as_the_model_does,
	   a_merge_has_references_of_its_own, one_path_of_two_files_is_a_contradiction)
