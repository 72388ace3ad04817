#include "collect/unwind_maps.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bpf/cfi_table.h"

enum { NONE = UINT32_MAX };

struct loaded_table {
	struct unwind_maps *maps;
	uint64_t file_id;
	unsigned references;
	uint32_t index; /* in the array of tables */
	uint32_t pages;
	int fd;
};

struct unwind_maps {
	int lists_fd, tables_fd;
	pthread_mutex_t lock; /* of all below; never held while the kernel is waited for */
	uint64_t budget_pages, table_pages, list_pages, refused;
	uint32_t n_tables, n_lists;
	struct loaded_table *tables[UNWIND_MAX_TABLES]; /* by index; NULL: free */
	uint32_t above;                                 /* all indices from here on are free */
};

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
		.list_bytes = maps->list_pages * CFI_PAGE_BYTES,
		.tables = maps->n_tables,
		.lists = maps->n_lists,
		.refused = maps->refused,
	};
	pthread_mutex_unlock(&maps->lock);
}

/* --- the budget --- */

static int reserve(struct unwind_maps *maps, uint64_t *used_pages, uint32_t pages)
{
	pthread_mutex_lock(&maps->lock);
	bool room = maps->table_pages + maps->list_pages + pages <= maps->budget_pages;
	if (room)
		*used_pages += pages;
	else
		maps->refused++;
	pthread_mutex_unlock(&maps->lock);
	return room ? 0 : -ENOSPC;
}

static void give_back(struct unwind_maps *maps, uint64_t *used_pages, uint32_t pages)
{
	pthread_mutex_lock(&maps->lock);
	*used_pages -= pages;
	pthread_mutex_unlock(&maps->lock);
}

size_t unwind_maps_room(struct unwind_maps *maps)
{
	pthread_mutex_lock(&maps->lock);
	uint64_t pages = maps->budget_pages - maps->table_pages - maps->list_pages;
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

/* An inner map of that many pages, filled. Its fd, or -errno. */
static int make_map(const char *name, const uint8_t *bytes, size_t n, uint32_t pages)
{
	LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_INNER_MAP);
	_cleanup_close_ int fd =
		bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(uint32_t), CFI_PAGE_BYTES, pages, &options);
	if (fd < 0)
		return -errno;
	for (uint32_t page = 0; page < pages; page++) {
		uint8_t last[CFI_PAGE_BYTES] = {0};
		size_t at = (size_t)page * CFI_PAGE_BYTES;
		const uint8_t *from = bytes + at;
		if (n - at < CFI_PAGE_BYTES) {
			memcpy(last, from, n - at);
			from = last;
		}
		if (bpf_map_update_elem(fd, &page, from, BPF_ANY) < 0)
			return -errno;
	}
	return TAKE_FD(fd);
}

static int show(int outer_fd, uint32_t index, int fd)
{
	return bpf_map_update_elem(outer_fd, &index, &fd, BPF_ANY) < 0 ? -errno : 0;
}

static void hide(int outer_fd, uint32_t index)
{
	(void)bpf_map_delete_elem(outer_fd, &index); /* what is not there needs no hiding */
}

/* --- tables --- */

/* The lock is held. */
static struct loaded_table *find(struct unwind_maps *maps, uint64_t file_id)
{
	for (uint32_t i = 0; i < maps->above; i++)
		if (maps->tables[i] && maps->tables[i]->references && maps->tables[i]->file_id == file_id)
			return maps->tables[i];
	return NULL;
}

struct loaded_table *unwind_maps_find(struct unwind_maps *maps, uint64_t file_id)
{
	pthread_mutex_lock(&maps->lock);
	struct loaded_table *table = find(maps, file_id);
	if (table)
		table->references++;
	pthread_mutex_unlock(&maps->lock);
	return table;
}

static uint32_t free_index(const struct unwind_maps *maps)
{
	for (uint32_t i = 0; i < maps->above; i++)
		if (!maps->tables[i])
			return i;
	return maps->above < UNWIND_MAX_TABLES ? maps->above : (uint32_t)NONE;
}

/* Gives the table a place of its own in the array. -ENOSPC. */
static int take_index(struct unwind_maps *maps, struct loaded_table *table)
{
	pthread_mutex_lock(&maps->lock);
	table->index = free_index(maps);
	if (table->index != NONE) {
		maps->tables[table->index] = table;
		if (table->index == maps->above)
			maps->above++;
	}
	pthread_mutex_unlock(&maps->lock);
	return table->index == NONE ? -ENOSPC : 0;
}

static void give_index_back(struct loaded_table *table)
{
	struct unwind_maps *maps = table->maps;
	pthread_mutex_lock(&maps->lock);
	maps->tables[table->index] = NULL;
	while (maps->above > 0 && !maps->tables[maps->above - 1])
		maps->above--;
	pthread_mutex_unlock(&maps->lock);
}

/* Others may find it from now on; when another of the same file is there already, that one. */
static struct loaded_table *publish(struct loaded_table *table)
{
	struct unwind_maps *maps = table->maps;
	pthread_mutex_lock(&maps->lock);
	struct loaded_table *found = find(maps, table->file_id);
	if (!found) {
		found = table;
		maps->n_tables++;
	}
	found->references++;
	pthread_mutex_unlock(&maps->lock);
	return found;
}

static void free_table(struct loaded_table *table)
{
	give_index_back(table);
	give_back(table->maps, &table->maps->table_pages, table->pages);
	close(table->fd);
	free(table);
}

int unwind_maps_load(struct unwind_maps *maps, uint64_t file_id, const void *bytes, size_t n, struct loaded_table **ret)
{
	uint32_t pages = (uint32_t)((n + CFI_PAGE_BYTES - 1) / CFI_PAGE_BYTES);
	int r = n && n <= CFI_MAX_TABLE_BYTES ? reserve(maps, &maps->table_pages, pages) : -EINVAL;
	if (r < 0)
		return r;
	struct loaded_table *table = malloc(sizeof(*table));
	int fd = table ? make_map("unwind_table", bytes, n, pages) : -ENOMEM;
	if (fd < 0) {
		free(table);
		give_back(maps, &maps->table_pages, pages);
		return fd;
	}
	*table = (struct loaded_table){.maps = maps, .file_id = file_id, .pages = pages, .fd = fd};
	r = take_index(maps, table);
	if (r < 0) {
		give_back(maps, &maps->table_pages, pages);
		close(fd);
		free(table);
		return r;
	}
	r = show(maps->tables_fd, table->index, fd);
	if (r < 0) {
		free_table(table);
		return r;
	}
	*ret = publish(table);
	if (*ret != table) {
		hide(maps->tables_fd, table->index);
		free_table(table);
	}
	return 0;
}

struct loaded_table *loaded_table_ref(struct loaded_table *table)
{
	if (!table)
		return NULL;
	pthread_mutex_lock(&table->maps->lock);
	table->references++;
	pthread_mutex_unlock(&table->maps->lock);
	return table;
}

void loaded_table_unref(struct loaded_table *table)
{
	if (!table)
		return;
	struct unwind_maps *maps = table->maps;
	pthread_mutex_lock(&maps->lock);
	bool last = --table->references == 0; /* not found any more, so that nobody revives it */
	if (last)
		maps->n_tables--;
	pthread_mutex_unlock(&maps->lock);
	if (!last)
		return;
	hide(maps->tables_fd, table->index); /* waits until no program reads it */
	free_table(table);
}

/* --- lists --- */

void unwind_list_release(struct unwind_maps *maps, struct unwind_list *list)
{
	if (list->n_pages) {
		close(list->fd);
		give_back(maps, &maps->list_pages, list->n_pages);
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

/* The pages of a list, which the caller frees. */
static uint8_t *make_pages(uint64_t program, const struct unwind_mapping *mappings, uint32_t n, uint32_t entry_pages)
{
	uint8_t *pages = calloc(1 + (size_t)entry_pages, UNWIND_LIST_PAGE_BYTES);
	if (!pages)
		return NULL;
	struct unwind_list_header *header = (void *)pages;
	struct unwind_list_entry *entries = (void *)(pages + UNWIND_LIST_PAGE_BYTES);
	header->program = program;
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

int unwind_maps_show(struct unwind_maps *maps, uint16_t slot, uint64_t program, const struct unwind_mapping *mappings,
		     size_t n_mappings, struct unwind_list *list)
{
	if (n_mappings == 0 || program == 0)
		return -EINVAL;
	uint32_t n = n_mappings < UNWIND_LIST_MAX_ENTRIES ? (uint32_t)n_mappings : UNWIND_LIST_MAX_ENTRIES;
	uint32_t entry_pages = (n + UNWIND_PAGE_ENTRIES - 1) / UNWIND_PAGE_ENTRIES;
	_cleanup_free_ uint8_t *pages = make_pages(program, mappings, n, entry_pages);
	if (!pages)
		return -ENOMEM;
	int r = reserve(maps, &maps->list_pages, 1 + entry_pages);
	if (r < 0)
		return r; /* _cleanup_ frees them. NOLINT(clang-analyzer-unix.Malloc) */
	int fd = make_map("mapping_list", pages, (size_t)(1 + entry_pages) * UNWIND_LIST_PAGE_BYTES, 1 + entry_pages);
	if (fd < 0) {
		give_back(maps, &maps->list_pages, 1 + entry_pages);
		return fd;
	}
	pthread_mutex_lock(&maps->lock);
	maps->n_lists++;
	pthread_mutex_unlock(&maps->lock);
	struct unwind_list next = {.fd = fd, .n_pages = 1 + entry_pages};
	r = take_tables(&next, mappings, n);
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
