#include "collect/unwind_maps.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "collect/unwind_maps_parts.h"

enum { NAP_NS = 1000000, BATCH_PAGES = 256 };

_Static_assert((int)CFI_PAGE_BYTES == (int)UNWIND_LIST_PAGE_BYTES, "one unit of the budget");

struct unwind_maps *unwind_maps_new(int lists_fd, int tables_fd, size_t budget_bytes)
{
	struct unwind_maps *maps = calloc(1, sizeof(*maps));
	if (!maps)
		return NULL;
	maps->lists_fd = lists_fd;
	maps->tables_fd = tables_fd;
	maps->budget_pages = budget_bytes / CFI_PAGE_BYTES;
	pthread_mutex_init(&maps->lock, NULL);
	return maps;
}

void unwind_maps_free(struct unwind_maps *maps)
{
	if (!maps)
		return;
	for (uint32_t i = 0; i < maps->above; i++) {
		if (!maps->tables[i])
			continue;
		close(maps->tables[i]->fd);
		file_unref(maps->tables[i]->file);
		free(maps->tables[i]);
	}
	pthread_mutex_destroy(&maps->lock);
	free(maps);
}

void unwind_maps_figures(struct unwind_maps *maps, struct unwind_maps_figures *ret)
{
	pthread_mutex_lock(&maps->lock);
	*ret = (struct unwind_maps_figures){
		.budget_bytes = maps->budget_pages * CFI_PAGE_BYTES,
		.table_bytes = maps->table_pages * CFI_PAGE_BYTES,
		.kept_bytes = maps->kept_pages * CFI_PAGE_BYTES,
		.list_bytes = maps->list_pages * CFI_PAGE_BYTES,
		.tables = maps->n_tables,
		.lists = maps->n_lists,
		.refused = maps->refused,
	};
	pthread_mutex_unlock(&maps->lock);
}

/* --- the budget --- */

/* The lock is held. */
static bool take_room(struct unwind_maps *maps, uint64_t *used_pages, uint32_t pages)
{
	bool room = maps->table_pages + maps->list_pages + pages <= maps->budget_pages;
	if (room)
		*used_pages += pages;
	return room;
}

int unwind_maps_reserve(struct unwind_maps *maps, uint64_t *used_pages, uint32_t pages)
{
	for (;;) {
		pthread_mutex_lock(&maps->lock);
		bool room = take_room(maps, used_pages, pages);
		uint64_t needed = maps->table_pages - maps->kept_pages + maps->list_pages + pages;
		bool hope = needed <= maps->budget_pages; /* nothing is let go in vain */
		pthread_mutex_unlock(&maps->lock);
		if (room)
			return 0;
		if (!hope) {
			unwind_maps_count_refused(maps);
			return -ENOSPC;
		}
		if (!unwind_maps_evict(maps, UINT64_MAX)) /* another thread is at it */
			nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
	}
}

void unwind_maps_give_back(struct unwind_maps *maps, uint64_t *used_pages, uint32_t pages)
{
	pthread_mutex_lock(&maps->lock);
	*used_pages -= pages;
	pthread_mutex_unlock(&maps->lock);
}

size_t unwind_maps_room(struct unwind_maps *maps)
{
	pthread_mutex_lock(&maps->lock);
	uint64_t pages = maps->budget_pages + maps->kept_pages - maps->table_pages - maps->list_pages;
	pthread_mutex_unlock(&maps->lock);
	return pages * CFI_PAGE_BYTES;
}

void unwind_maps_count_refused(struct unwind_maps *maps)
{
	pthread_mutex_lock(&maps->lock);
	maps->refused++;
	pthread_mutex_unlock(&maps->lock);
}

/* --- inner maps --- */

/* Whole pages, many in one call where the kernel has it. -errno. */
static int fill_pages(int fd, const uint8_t *bytes, uint32_t n)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options, .elem_flags = BPF_ANY);
	for (uint32_t first = 0; first < n; first += BATCH_PAGES) {
		uint32_t pages[BATCH_PAGES], count = n - first < BATCH_PAGES ? n - first : BATCH_PAGES, done = count;
		const uint8_t *from = bytes + (size_t)first * CFI_PAGE_BYTES;
		for (uint32_t i = 0; i < count; i++)
			pages[i] = first + i;
		if (bpf_map_update_batch(fd, pages, from, &done, &options) == 0)
			continue;
		for (uint32_t i = 0; i < count; i++)
			if (bpf_map_update_elem(fd, &pages[i], from + (size_t)i * CFI_PAGE_BYTES, BPF_ANY) < 0)
				return -errno;
	}
	return 0;
}

int unwind_maps_make(const char *name, const uint8_t *bytes, size_t n, uint32_t pages)
{
	LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_INNER_MAP);
	_cleanup_close_ int fd =
		bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(uint32_t), CFI_PAGE_BYTES, pages, &options);
	if (fd < 0)
		return -errno;
	uint32_t whole = (uint32_t)(n / CFI_PAGE_BYTES);
	size_t rest = n % CFI_PAGE_BYTES;
	int r = fill_pages(fd, bytes, whole);
	if (r == 0 && rest) {
		uint8_t last[CFI_PAGE_BYTES] = {0};
		memcpy(last, bytes + n - rest, rest);
		if (bpf_map_update_elem(fd, &whole, last, BPF_ANY) < 0)
			r = -errno;
	}
	return r < 0 ? r : TAKE_FD(fd);
}

static int show(int outer_fd, uint32_t index, int fd)
{
	return bpf_map_update_elem(outer_fd, &index, &fd, BPF_ANY) < 0 ? -errno : 0;
}

static void hide(int outer_fd, uint32_t index)
{
	(void)bpf_map_delete_elem(outer_fd, &index); /* what is not there needs no hiding */
}

/* --- lists --- */

void unwind_list_release(struct unwind_maps *maps, struct unwind_list *list)
{
	if (list->n_pages) {
		close(list->fd);
		unwind_maps_give_back(maps, &maps->list_pages, list->n_pages);
		pthread_mutex_lock(&maps->lock);
		maps->n_lists--;
		pthread_mutex_unlock(&maps->lock);
	}
	for (size_t i = 0; i < list->n_tables; i++)
		loaded_table_unref(list->tables[i]);
	free(list->tables);
	*list = (struct unwind_list){.fd = -1};
}

static void fill_entry(struct unwind_list_entry *entry, const struct unwind_mapping *mapping)
{
	*entry = (struct unwind_list_entry){
		.start = mapping->start,
		.end = mapping->end,
		.bias = mapping->file_offset - mapping->start,
		.kind = mapping->kind,
		.table = mapping->table ? mapping->table->index : 0,
	};
}

static uint64_t next_serial(struct unwind_maps *maps)
{
	pthread_mutex_lock(&maps->lock);
	uint64_t serial = ++maps->serial;
	pthread_mutex_unlock(&maps->lock);
	return serial;
}

/* The pages of a list, which the caller frees. */
static uint8_t *make_pages(uint64_t program, uint64_t exec_pages, uint64_t serial,
			   const struct unwind_mapping *mappings, uint32_t n, uint32_t entry_pages)
{
	uint8_t *pages = calloc(1 + (size_t)entry_pages, UNWIND_LIST_PAGE_BYTES);
	if (!pages)
		return NULL;
	struct unwind_list_header *header = (void *)pages;
	struct unwind_list_entry *entries = (void *)(pages + UNWIND_LIST_PAGE_BYTES);
	header->program = program;
	header->exec_pages = exec_pages;
	header->serial = serial;
	header->n_entries = n;
	header->n_pages = entry_pages;
	for (uint32_t i = 0; i < n; i++) {
		fill_entry(&entries[i], &mappings[i]);
		if (i % UNWIND_PAGE_ENTRIES == 0)
			header->first[i / UNWIND_PAGE_ENTRIES] = mappings[i].start;
	}
	return pages;
}

static int take_tables(struct unwind_list *list, const struct unwind_mapping *mappings, uint32_t n)
{
	list->tables = calloc(n, sizeof(*list->tables));
	if (!list->tables)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct loaded_table *table = mappings[i].table;
		if (table && !(i && mappings[i - 1].table == table))
			list->tables[list->n_tables++] = loaded_table_ref(table);
	}
	return 0;
}

int unwind_maps_show(struct unwind_maps *maps, uint16_t slot, uint64_t program, uint64_t exec_pages,
		     const struct unwind_mapping *mappings, size_t n_mappings, struct unwind_list *list)
{
	if (n_mappings == 0 || program == 0)
		return -EINVAL;
	uint32_t n = n_mappings < UNWIND_LIST_MAX_ENTRIES ? (uint32_t)n_mappings : UNWIND_LIST_MAX_ENTRIES;
	uint32_t entry_pages = (n + UNWIND_PAGE_ENTRIES - 1) / UNWIND_PAGE_ENTRIES;
	_cleanup_free_ uint8_t *pages = make_pages(program, exec_pages, next_serial(maps), mappings, n, entry_pages);
	if (!pages)
		return -ENOMEM;
	int r = unwind_maps_reserve(maps, &maps->list_pages, 1 + entry_pages);
	if (r < 0)
		return r; /* _cleanup_ frees them. NOLINT(clang-analyzer-unix.Malloc) */
	int fd = unwind_maps_make("mapping_list", pages, (size_t)(1 + entry_pages) * UNWIND_LIST_PAGE_BYTES,
				  1 + entry_pages);
	if (fd < 0) {
		unwind_maps_give_back(maps, &maps->list_pages, 1 + entry_pages);
		return fd;
	}
	pthread_mutex_lock(&maps->lock);
	maps->n_lists++;
	pthread_mutex_unlock(&maps->lock);
	struct unwind_list next = {.fd = fd, .n_pages = 1 + entry_pages};
	r = take_tables(&next, mappings, n);
	if (r == 0)
		r = unwind_tables_show(maps, next.tables, next.n_tables);
	if (r == 0)
		r = show(maps->lists_fd, slot, fd); /* waits until no program reads the one before */
	if (r < 0) {
		unwind_list_release(maps, &next);
		return r;
	}
	unwind_list_release(maps, list);
	*list = next;
	return 0;
}

void unwind_maps_hide(struct unwind_maps *maps, uint16_t slot, const struct unwind_list *list)
{
	if (list->n_pages)
		hide(maps->lists_fd, slot);
}
