/* Tables and lists of mappings in BPF maps: shared, counted, replaced as a whole, within a budget. Needs root and BPF. */
#include <bpf/bpf.h>
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/cfi_table.h"
#include "check_main.h"
#include "collect/unwind_maps.h"

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
	ck_assert_int_eq(unwind_maps_load(maps, file_id, table, bytes, &loaded), 0);
	free(table);
	return loaded;
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
	ck_assert_uint_eq(n_shown(tables_fd, 16), 1);
	ck_assert(shown(tables_fd, 0, 2, page));
	for (size_t i = 0; i < PAGE; i++)
		ck_assert_uint_eq(page[i], i < 5 ? 9 : 0); /* nothing behind its end */
	ck_assert(!shown(tables_fd, 0, 3, page));
	loaded_table_unref(a);
	loaded_table_unref(b);
	ck_assert_uint_eq(n_shown(tables_fd, 16), 1);
	loaded_table_unref(a); /* the last */
	ck_assert_uint_eq(n_shown(tables_fd, 16), 0);
	ck_assert_ptr_null(unwind_maps_find(maps, 7));
	ck_assert_uint_eq(figures().table_bytes, 0);
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
	ck_assert_int_eq(unwind_maps_load(maps, 2, bytes, sizeof(bytes), &more), -ENOSPC);
	ck_assert_ptr_null(more);
	ck_assert_uint_eq(figures().refused, 1);
	struct loaded_table *second = load(2, 4 * PAGE);
	ck_assert_int_eq(unwind_maps_show(maps, 0, 1, &mapping, 1, &list), -ENOSPC); /* takes two */
	ck_assert_uint_eq(figures().refused, 2);
	loaded_table_unref(first);
	ck_assert_int_eq(unwind_maps_show(maps, 0, 1, &mapping, 1, &list), 0);
	ck_assert_uint_eq(figures().list_bytes, 2 * PAGE);
	unwind_maps_hide(maps, 0, &list);
	unwind_list_release(maps, &list);
	loaded_table_unref(second);
	ck_assert_uint_eq(figures().table_bytes + figures().list_bytes, 0);
	ck_assert_int_eq(unwind_maps_load(maps, 3, bytes, 0, &more), -EINVAL);
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
	ck_assert_int_eq(unwind_maps_show(maps, 3, 0xabc, mappings, MAPPINGS, &list), 0);
	loaded_table_unref(other); /* the list's are left */
	loaded_table_unref(table);
	ck_assert_uint_eq(figures().tables, 2);
	ck_assert(shown(lists_fd, 3, 0, &header));
	ck_assert_uint_eq(header.program, 0xabc);
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
	ck_assert_int_eq(unwind_maps_show(maps, 3, 0xdef, mappings, 100, &list), 0); /* without the other table */
	ck_assert(shown(lists_fd, 3, 0, &header));
	ck_assert_uint_eq(header.program, 0xdef);
	ck_assert_uint_eq(figures().tables, 1);
	ck_assert_uint_eq(figures().lists, 1);
	ck_assert_int_eq(unwind_maps_show(maps, 3, 0, mappings, 100, &list), -EINVAL);
	ck_assert_int_eq(unwind_maps_show(maps, 3, 1, mappings, 0, &list), -EINVAL);
	ck_assert(shown(lists_fd, 3, 0, &header)); /* as it was */
	ck_assert_uint_eq(header.program, 0xdef);
	unwind_maps_hide(maps, 3, &list);
	ck_assert_uint_eq(n_shown(lists_fd, SLOTS), 0);
	unwind_list_release(maps, &list);
	ck_assert_uint_eq(figures().tables, 0);
	ck_assert_uint_eq(figures().lists, 0);
	tear_down();
}
END_TEST

CHECK_MAIN("unwind_maps", 60, a_table_is_there_once, the_budget_holds, a_list_is_replaced_as_a_whole)
