/* Tables and lists of mappings in BPF maps: shared, counted, replaced as a whole, within a budget. Needs root and BPF. */
#include <bpf/bpf.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "bpf/cfi_table.h"
#include "check_main.h"
#include "collect/unwind_maps.h"
#include "model/file.h"

enum { SLOTS = 8, PAGE = CFI_PAGE_BYTES };

static int lists_fd = -1, tables_fd = -1;
static struct unwind_maps *maps;

static int array_of_maps(uint32_t n)
{
	LIBBPF_OPTS(bpf_map_create_opts, inner_options, .map_flags = BPF_F_INNER_MAP);
	int inner = bpf_map_create(BPF_MAP_TYPE_ARRAY, "inner", sizeof(uint32_t), PAGE, 1, &inner_options);
	ck_assert_int_ge(inner, 0);
	LIBBPF_OPTS(bpf_map_create_opts, options, .inner_map_fd = (uint32_t)inner);
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "outer", sizeof(uint32_t), sizeof(uint32_t), n, &options);
	ck_assert_int_ge(fd, 0);
	close(inner);
	return fd;
}

static void set_up(size_t budget_pages)
{
	lists_fd = array_of_maps(SLOTS);
	tables_fd = array_of_maps(UNWIND_MAX_TABLES);
	maps = unwind_maps_new(lists_fd, tables_fd, budget_pages * PAGE);
	ck_assert_ptr_nonnull(maps);
}

static void tear_down(void)
{
	unwind_maps_free(maps);
	close(lists_fd);
	close(tables_fd);
}

static struct unwind_maps_figures figures(void)
{
	struct unwind_maps_figures found;
	unwind_maps_figures(maps, &found);
	return found;
}

/* A page of the map that an array shows at index; false: there is none. */
static bool shown(int outer_fd, uint32_t index, uint32_t page, void *to)
{
	uint32_t id;
	if (bpf_map_lookup_elem(outer_fd, &index, &id) < 0)
		return false;
	int fd = bpf_map_get_fd_by_id(id);
	ck_assert_int_ge(fd, 0);
	int r = bpf_map_lookup_elem(fd, &page, to);
	close(fd);
	return r == 0;
}

static unsigned n_shown(int outer_fd, uint32_t n)
{
	unsigned found = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t id;
		found += bpf_map_lookup_elem(outer_fd, &i, &id) == 0;
	}
	return found;
}

static struct loaded_table *load(uint64_t file_id, size_t bytes)
{
	uint8_t *table = malloc(bytes);
	struct loaded_table *loaded = NULL;
	for (size_t i = 0; i < bytes; i++)
		table[i] = (uint8_t)(i / PAGE + file_id);
	ck_assert_int_eq(unwind_maps_load(maps, file_id, NULL, table, bytes, &loaded), 0);
	free(table);
	return loaded;
}

/* Has a list of one mapping name the table, so that it is shown; takes the reference. */
static struct unwind_list show_one(uint16_t slot, struct loaded_table *table)
{
	struct unwind_list list = {0};
	const struct unwind_mapping mapping = {
		.start = 0x1000, .end = 0x2000, .kind = UNWIND_CODE_TABLE, .table = table};
	ck_assert_int_eq(unwind_maps_show(maps, slot, 1, 0, &mapping, 1, &list), 0);
	loaded_table_unref(table);
	return list;
}

static void hide_one(uint16_t slot, struct unwind_list *list)
{
	unwind_maps_hide(maps, slot, list);
	unwind_list_release(maps, list);
}

START_TEST(a_table_is_there_once)
{
	uint8_t page[PAGE];
	set_up(100);
	ck_assert_ptr_null(unwind_maps_find(maps, 7));
	struct loaded_table *a = load(7, 2 * PAGE + 5), *b = load(7, 2 * PAGE + 5);
	ck_assert_ptr_eq(a, b);
	ck_assert_ptr_eq(unwind_maps_find(maps, 7), a);
	ck_assert_uint_eq(figures().tables, 1);
	ck_assert_uint_eq(figures().table_bytes, 3 * PAGE);
	ck_assert_uint_eq(n_shown(tables_fd, 16), 0); /* no list names it yet */
	struct unwind_list list = show_one(0, a);
	ck_assert_uint_eq(n_shown(tables_fd, 16), 1);
	ck_assert(shown(tables_fd, 0, 2, page));
	for (size_t i = 0; i < PAGE; i++)
		ck_assert_uint_eq(page[i], i < 5 ? 9 : 0); /* nothing behind its end */
	ck_assert(!shown(tables_fd, 0, 3, page));
	loaded_table_unref(b);
	loaded_table_unref(b);
	ck_assert_uint_eq(figures().kept_bytes, 0);
	hide_one(0, &list); /* the last reference */
	ck_assert_uint_eq(figures().kept_bytes, 3 * PAGE);
	unwind_maps_expire(maps, UINT64_MAX);
	ck_assert_uint_eq(n_shown(tables_fd, 16), 0);
	ck_assert_ptr_null(unwind_maps_find(maps, 7));
	ck_assert_uint_eq(figures().table_bytes, 0);
	ck_assert_uint_eq(figures().kept_bytes, 0);
	ck_assert_uint_eq(figures().tables, 0);
	tear_down();
}
END_TEST

START_TEST(what_nobody_needs_is_kept)
{
	set_up(100);
	struct loaded_table *table = load(7, 2 * PAGE);
	struct unwind_list list = show_one(0, table);
	hide_one(0, &list);
	ck_assert_uint_eq(figures().tables, 1);
	ck_assert_uint_eq(n_shown(tables_fd, 16), 1);
	ck_assert_ptr_eq(unwind_maps_find(maps, 7), table); /* needed again */
	ck_assert_uint_eq(figures().kept_bytes, 0);
	unwind_maps_expire(maps, UINT64_MAX);
	ck_assert_uint_eq(figures().tables, 1);
	uint64_t before_ns = clock_monotonic_ns();
	loaded_table_unref(table);
	unwind_maps_expire(maps, before_ns);
	ck_assert_uint_eq(figures().tables, 1); /* not for so long yet */
	unwind_maps_expire(maps, clock_monotonic_ns() + 1);
	ck_assert_uint_eq(figures().tables, 0);
	tear_down();
}
END_TEST

START_TEST(what_is_kept_makes_room)
{
	static const uint8_t bytes[11 * PAGE];
	struct loaded_table *more = NULL;
	set_up(10);
	struct loaded_table *oldest = load(1, 4 * PAGE), *newer = load(2, 4 * PAGE);
	loaded_table_unref(oldest);
	loaded_table_unref(newer);
	ck_assert_uint_eq(unwind_maps_room(maps), 10 * PAGE);
	ck_assert_int_eq(unwind_maps_load(maps, 9, NULL, bytes, sizeof(bytes), &more), -ENOSPC);
	ck_assert_uint_eq(figures().tables, 2); /* none was let go in vain */
	struct loaded_table *third = load(3, 5 * PAGE);
	ck_assert_ptr_null(unwind_maps_find(maps, 1));
	ck_assert_ptr_eq(unwind_maps_find(maps, 2), newer);
	ck_assert_uint_eq(figures().refused, 1);
	ck_assert_int_eq(unwind_maps_load(maps, 4, NULL, bytes, 2 * PAGE, &more), -ENOSPC); /* all are needed */
	loaded_table_unref(newer);
	loaded_table_unref(third);
	tear_down(); /* with what is kept */
}
END_TEST

/* It keeps its file open, whose number would else be another one's when it is mapped again. */
START_TEST(what_is_kept_has_its_file)
{
	static const uint8_t bytes[PAGE];
	struct file_registry *files = file_registry_new(4);
	struct file *file;
	struct loaded_table *table = NULL;
	set_up(10);
	ck_assert_int_eq(file_registry_intern(files, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), &file), 0);
	ck_assert_int_eq(unwind_maps_load(maps, file->id, file, bytes, sizeof(bytes), &table), 0);
	uint64_t id = file->id;
	file_unref(file);
	loaded_table_unref(table);
	ck_assert_int_eq(file_registry_intern(files, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), &file), 0);
	ck_assert_uint_eq(file->id, id);
	file_unref(file);
	unwind_maps_expire(maps, UINT64_MAX);
	ck_assert_uint_eq(file_registry_count(files), 0);
	tear_down();
	file_registry_free(files);
}
END_TEST

/* All that a list names are shown together, those that are already are left alone. */
START_TEST(many_tables_of_one_list)
{
	enum { MANY = 40 };
	struct unwind_mapping mappings[MANY];
	struct unwind_list list = {0};
	uint8_t page[PAGE];
	set_up(1000);
	for (uint32_t i = 0; i < MANY; i++)
		mappings[i] = (struct unwind_mapping){.start = 0x10000 * (i + 1),
						      .end = 0x10000 * (i + 1) + 0x8000,
						      .kind = UNWIND_CODE_TABLE,
						      .table = load(i + 1, PAGE)};
	for (size_t n = 1; n <= MANY; n += MANY - 1)
		ck_assert_int_eq(unwind_maps_show(maps, 0, 1, 0, mappings, n, &list), 0);
	ck_assert_uint_eq(n_shown(tables_fd, 100), MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		ck_assert(shown(tables_fd, i, 0, page));
		ck_assert_uint_eq(page[0], i + 1);
		loaded_table_unref(mappings[i].table);
	}
	hide_one(0, &list);
	tear_down();
}
END_TEST

START_TEST(the_budget_holds)
{
	static const uint8_t bytes[6 * PAGE];
	struct loaded_table *more = NULL;
	struct unwind_list list = {0};
	const struct unwind_mapping mapping = {.start = 0x1000, .end = 0x2000};
	set_up(10);
	struct loaded_table *first = load(1, 5 * PAGE);
	ck_assert_uint_eq(unwind_maps_room(maps), 5 * PAGE);
	ck_assert_int_eq(unwind_maps_load(maps, 2, NULL, bytes, sizeof(bytes), &more), -ENOSPC);
	ck_assert_ptr_null(more);
	ck_assert_uint_eq(figures().refused, 1);
	struct loaded_table *second = load(2, 4 * PAGE);
	ck_assert_int_eq(unwind_maps_show(maps, 0, 1, 0, &mapping, 1, &list), -ENOSPC); /* takes two */
	ck_assert_uint_eq(figures().refused, 2);
	loaded_table_unref(first);
	ck_assert_int_eq(unwind_maps_show(maps, 0, 1, 0, &mapping, 1, &list), 0);
	ck_assert_uint_eq(figures().list_bytes, 2 * PAGE);
	unwind_maps_hide(maps, 0, &list);
	unwind_list_release(maps, &list);
	loaded_table_unref(second);
	unwind_maps_expire(maps, UINT64_MAX);
	ck_assert_uint_eq(figures().table_bytes + figures().list_bytes, 0);
	ck_assert_int_eq(unwind_maps_load(maps, 3, NULL, bytes, 0, &more), -EINVAL);
	tear_down();
}
END_TEST

START_TEST(a_list_is_replaced_as_a_whole)
{
	enum { MAPPINGS = 300 };
	static struct unwind_mapping mappings[MAPPINGS];
	static struct unwind_list_header header;
	static struct unwind_list_entry entries[UNWIND_PAGE_ENTRIES];
	struct unwind_list list = {0};
	set_up(100);
	struct loaded_table *other = load(1, PAGE), *table = load(2, PAGE);
	for (size_t i = 0; i < MAPPINGS; i++)
		mappings[i] = (struct unwind_mapping){.start = 0x10000 * (i + 1),
						      .end = 0x10000 * (i + 1) + 0x8000,
						      .file_offset = 0x3000 + i,
						      .kind = UNWIND_CODE_TABLE,
						      .table = i == 200 ? other : table};
	ck_assert_int_eq(unwind_maps_show(maps, 3, 0xabc, 77, mappings, MAPPINGS, &list), 0);
	loaded_table_unref(other); /* the list's are left */
	loaded_table_unref(table);
	ck_assert_uint_eq(figures().tables, 2);
	ck_assert(shown(lists_fd, 3, 0, &header));
	ck_assert_uint_eq(header.program, 0xabc);
	ck_assert_uint_eq(header.exec_pages, 77);
	uint64_t serial = header.serial;
	ck_assert_uint_ne(serial, 0);
	ck_assert_uint_eq(header.n_entries, MAPPINGS);
	ck_assert_uint_eq(header.n_pages, 3);
	for (size_t i = 0; i < 3; i++)
		ck_assert_uint_eq(header.first[i], mappings[i * UNWIND_PAGE_ENTRIES].start);
	ck_assert(shown(lists_fd, 3, 2, entries));
	const struct unwind_list_entry *entry = &entries[200 - UNWIND_PAGE_ENTRIES];
	ck_assert_uint_eq(entry->start, mappings[200].start);
	ck_assert_uint_eq(entry->start + entry->bias, mappings[200].file_offset);
	ck_assert_uint_eq(entry->table, 0);
	ck_assert_uint_eq(entries[0].table, 1);
	ck_assert_int_eq(unwind_maps_show(maps, 3, 0xdef, 88, mappings, 100, &list), 0); /* without the other table */
	ck_assert(shown(lists_fd, 3, 0, &header));
	ck_assert_uint_eq(header.program, 0xdef);
	ck_assert_uint_eq(header.exec_pages, 88);
	ck_assert_uint_ne(header.serial, serial); /* what was found by the other does not hold */
	ck_assert_uint_ne(header.serial, 0);
	ck_assert_uint_eq(figures().kept_bytes, PAGE);
	ck_assert_uint_eq(figures().lists, 1);
	ck_assert_int_eq(unwind_maps_show(maps, 3, 0, 1, mappings, 100, &list), -EINVAL);
	ck_assert_int_eq(unwind_maps_show(maps, 3, 1, 1, mappings, 0, &list), -EINVAL);
	ck_assert(shown(lists_fd, 3, 0, &header)); /* as it was */
	ck_assert_uint_eq(header.program, 0xdef);
	unwind_maps_hide(maps, 3, &list);
	ck_assert_uint_eq(n_shown(lists_fd, SLOTS), 0);
	unwind_list_release(maps, &list);
	ck_assert_uint_eq(figures().kept_bytes, 2 * PAGE);
	ck_assert_uint_eq(figures().lists, 0);
	tear_down();
}
END_TEST

CHECK_MAIN("unwind_maps", 60, a_table_is_there_once, what_nobody_needs_is_kept, what_is_kept_makes_room,
	   what_is_kept_has_its_file, many_tables_of_one_list, the_budget_holds, a_list_is_replaced_as_a_whole)
