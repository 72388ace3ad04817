/* The tables of unwind_maps.h: loaded once for each file, found by whoever maps it, and kept for a while when nobody does any more. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "collect/unwind_maps_parts.h"

enum { NONE = UINT32_MAX };

/* --- finding --- */

/* The lock is held. */
static struct loaded_table *find(struct unwind_maps *maps, uint64_t file_id)
{
	for (uint32_t i = 0; i < maps->above; i++)
		if (maps->tables[i] && !maps->tables[i]->leaving && maps->tables[i]->file_id == file_id)
			return maps->tables[i];
	return NULL;
}

/* The lock is held. One that was kept is needed again. */
static void add_reference(struct loaded_table *table)
{
	if (table->references++ == 0)
		table->maps->kept_pages -= table->pages;
}

struct loaded_table *unwind_maps_find(struct unwind_maps *maps, uint64_t file_id)
{
	pthread_mutex_lock(&maps->lock);
	struct loaded_table *table = find(maps, file_id);
	if (table)
		add_reference(table);
	pthread_mutex_unlock(&maps->lock);
	return table;
}

struct loaded_table *loaded_table_ref(struct loaded_table *table)
{
	if (!table)
		return NULL;
	pthread_mutex_lock(&table->maps->lock);
	add_reference(table);
	pthread_mutex_unlock(&table->maps->lock);
	return table;
}

void loaded_table_unref(struct loaded_table *table)
{
	if (!table)
		return;
	struct unwind_maps *maps = table->maps;
	pthread_mutex_lock(&maps->lock);
	if (--table->references == 0) {
		maps->kept_pages += table->pages;
		table->unused_since_ns = clock_monotonic_ns();
	}
	pthread_mutex_unlock(&maps->lock);
}

/* --- letting go --- */

static void give_place_back(struct loaded_table *table)
{
	struct unwind_maps *maps = table->maps;
	pthread_mutex_lock(&maps->lock);
	maps->kept_pages -= table->pages;
	maps->table_pages -= table->pages;
	maps->tables[table->index] = NULL;
	while (maps->above > 0 && !maps->tables[maps->above - 1])
		maps->above--;
	pthread_mutex_unlock(&maps->lock);
}

/* One without references, that nobody can find. */
static void free_table(struct loaded_table *table)
{
	give_place_back(table);
	close(table->fd);
	file_unref(table->file);
	free(table);
}

/* The lock is held. */
static struct loaded_table *longest_unused(const struct unwind_maps *maps)
{
	struct loaded_table *oldest = NULL;
	for (uint32_t i = 0; i < maps->above; i++) {
		struct loaded_table *table = maps->tables[i];
		if (!table || table->references || table->leaving)
			continue;
		if (!oldest || table->unused_since_ns < oldest->unused_since_ns)
			oldest = table;
	}
	return oldest;
}

bool unwind_maps_evict(struct unwind_maps *maps, uint64_t before_ns)
{
	pthread_mutex_lock(&maps->lock);
	struct loaded_table *table = longest_unused(maps);
	if (table && table->unused_since_ns >= before_ns)
		table = NULL;
	if (table) {
		table->leaving = true;
		maps->n_tables--;
	}
	pthread_mutex_unlock(&maps->lock);
	if (!table)
		return false;
	(void)bpf_map_delete_elem(maps->tables_fd, &table->index); /* waits until no program reads it */
	free_table(table);
	return true;
}

void unwind_maps_expire(struct unwind_maps *maps, uint64_t before_ns)
{
	while (unwind_maps_evict(maps, before_ns))
		;
}

/* --- loading --- */

static uint32_t free_index(const struct unwind_maps *maps)
{
	for (uint32_t i = 0; i < maps->above; i++)
		if (!maps->tables[i])
			return i;
	return maps->above < UNWIND_MAX_TABLES ? maps->above : (uint32_t)NONE;
}

/* Others may find it from now on; when another of the same file is there already, that one counts. NULL: no place is free. */
static struct loaded_table *publish(struct loaded_table *table)
{
	struct unwind_maps *maps = table->maps;
	pthread_mutex_lock(&maps->lock);
	struct loaded_table *found = find(maps, table->file_id);
	if (found) {
		add_reference(found);
	} else if ((table->index = free_index(maps)) != NONE) {
		found = maps->tables[table->index] = table;
		if (table->index == maps->above)
			maps->above++;
		maps->n_tables++;
	}
	pthread_mutex_unlock(&maps->lock);
	return found;
}

/* A table with one reference, in no array yet. NULL with *ret_r: -ENOMEM; -errno of bpf(2). Its pages are reserved already. */
static struct loaded_table *make_table(struct unwind_maps *maps, uint64_t file_id, struct file *file, const void *bytes,
				       size_t n, uint32_t pages, int *ret_r)
{
	struct loaded_table *table = malloc(sizeof(*table));
	int fd = table ? unwind_maps_make("unwind_table", bytes, n, pages) : -ENOMEM;
	if (fd < 0) {
		free(table);
		*ret_r = fd;
		return NULL;
	}
	*table = (struct loaded_table){.maps = maps,
				       .file_id = file_id,
				       .file = file ? file_ref(file) : NULL,
				       .references = 1,
				       .index = NONE,
				       .pages = pages,
				       .fd = fd};
	return table;
}

/* One that was made, and is not to be. */
static void drop_made(struct loaded_table *table)
{
	unwind_maps_give_back(table->maps, &table->maps->table_pages, table->pages);
	close(table->fd);
	file_unref(table->file);
	free(table);
}

int unwind_maps_load(struct unwind_maps *maps, uint64_t file_id, struct file *file, const void *bytes, size_t n,
		     struct loaded_table **ret)
{
	uint32_t pages = (uint32_t)((n + CFI_PAGE_BYTES - 1) / CFI_PAGE_BYTES);
	int r = n && n <= CFI_MAX_TABLE_BYTES ? unwind_maps_reserve(maps, &maps->table_pages, pages) : -EINVAL;
	if (r < 0)
		return r;
	struct loaded_table *table = make_table(maps, file_id, file, bytes, n, pages, &r);
	if (!table) {
		unwind_maps_give_back(maps, &maps->table_pages, pages);
		return r;
	}
	struct loaded_table *found = publish(table);
	while (!found && unwind_maps_evict(maps, UINT64_MAX))
		found = publish(table);
	if (found != table)
		drop_made(table);
	if (!found)
		return -ENOSPC;
	*ret = found;
	return 0;
}

/* --- showing --- */

static int show_all(int outer_fd, uint32_t *indices, int *fds, uint32_t n)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options, .elem_flags = BPF_ANY);
	uint32_t done = n;
	if (n > 1 && bpf_map_update_batch(outer_fd, indices, fds, &done, &options) == 0)
		return 0;
	for (uint32_t i = 0; i < n; i++) /* also where the kernel has no such call */
		if (bpf_map_update_elem(outer_fd, &indices[i], &fds[i], BPF_ANY) < 0)
			return -errno;
	return 0;
}

int unwind_tables_show(struct unwind_maps *maps, struct loaded_table *const *tables, size_t n)
{
	_cleanup_free_ uint32_t *indices = calloc(n + 1, sizeof(*indices) + sizeof(int));
	uint32_t n_new = 0;
	if (!indices)
		return -ENOMEM;
	int *fds = (int *)(indices + n + 1); /* the other half */
	pthread_mutex_lock(&maps->lock);
	for (size_t i = 0; i < n; i++) {
		if (tables[i]->shown)
			continue;
		indices[n_new] = tables[i]->index;
		fds[n_new++] = tables[i]->fd;
	}
	pthread_mutex_unlock(&maps->lock);
	int r = show_all(maps->tables_fd, indices, fds, n_new);
	pthread_mutex_lock(&maps->lock);
	for (size_t i = 0; r == 0 && i < n; i++) /* the caller's references hold them */
		tables[i]->shown = true;
	pthread_mutex_unlock(&maps->lock);
	return r;
}
