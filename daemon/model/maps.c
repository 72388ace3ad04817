#include "model/maps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool ascend(const struct mapping *mappings, size_t n)
{
	uint64_t previous_end = 0;
	for (size_t i = 0; i < n; i++) {
		if (mappings[i].start < previous_end || mappings[i].end <= mappings[i].start)
			return false;
		previous_end = mappings[i].end;
	}
	return true;
}

/* "jit-PID.dump", which a JIT maps executable so that profilers see it. */
static bool is_jit_dump(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	if (strncmp(name, "jit-", 4) != 0)
		return false;
	name += 4;
	size_t digits = strspn(name, "0123456789");
	return digits > 0 && strcmp(name + digits, ".dump") == 0;
}

bool mapping_is_nameless(const char *name)
{
	return !name[0] || name[0] == '[' || strncmp(name, "//anon", 6) == 0 || strncmp(name, "/memfd:", 7) == 0;
}

int maps_new(const struct mapping *mappings, size_t n, size_t main_index, struct maps **ret)
{
	if (main_index > n || !ascend(mappings, n))
		return -EINVAL;
	size_t names_bytes = 0;
	for (size_t i = 0; i < n; i++)
		names_bytes += strlen(mappings[i].name) + 1;
	/* One allocation: the names stand behind the mappings. */
	struct maps *maps = malloc(sizeof(*maps) + n * sizeof(maps->mappings[0]) + names_bytes);
	if (!maps)
		return -ENOMEM;
	maps->references = 1;
	maps->n = n;
	maps->main_index = main_index;
	maps->jit_dump = NULL;
	maps->program = 0;
	maps->map_count = maps->exec_pages = 0;
	char *names = (char *)&maps->mappings[n];
	for (size_t i = 0; i < n; i++) {
		maps->mappings[i] = mappings[i];
		maps->mappings[i].name = names;
		if (mappings[i].file && !maps->jit_dump && is_jit_dump(mappings[i].name))
			maps->jit_dump = mappings[i].file;
		names = stpcpy(names, mappings[i].name) + 1;
	}
	*ret = maps;
	return 0;
}

struct maps *maps_ref(struct maps *maps)
{
	if (maps)
		maps->references++;
	return maps;
}

void maps_unref(struct maps *maps)
{
	if (!maps || --maps->references > 0)
		return;
	for (size_t i = 0; i < maps->n; i++)
		file_unref(maps->mappings[i].file);
	free(maps);
}

const struct mapping *maps_find(const struct maps *maps, uint64_t address)
{
	size_t low = 0, high = maps->n; /* the answer, if any, is the last mapping that starts at or below address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (maps->mappings[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || address >= maps->mappings[low - 1].end)
		return NULL;
	return &maps->mappings[low - 1];
}

static bool same_mapping(const struct mapping *a, const struct mapping *b)
{
	return a->start == b->start && a->end == b->end && a->file_offset == b->file_offset && a->kind == b->kind &&
	       a->file == b->file && !strcmp(a->name, b->name);
}

/* Adds mapping behind the list. Generated code comes and goes in pieces of one region, so anonymous mappings that overlap become
 * one. -EEXIST when the address belongs to another mapping. */
static int append(struct mapping *list, size_t *n, const struct mapping *mapping)
{
	struct mapping *last = *n ? &list[*n - 1] : NULL;
	if (!last || last->end <= mapping->start) {
		list[(*n)++] = *mapping;
		return 0;
	}
	if (same_mapping(last, mapping))
		return 0;
	if (last->kind != MAPPING_ANONYMOUS || mapping->kind != MAPPING_ANONYMOUS)
		return -EEXIST;
	if (mapping->end > last->end)
		last->end = mapping->end;
	return 0;
}

/* Merges two ascending lists into list, which has room for both. */
static int merge_lists(const struct maps *older, const struct maps *newer, struct mapping *list, size_t *ret_n,
		       size_t *ret_main)
{
	size_t n = 0, o = 0, w = 0;
	size_t main_at = SIZE_MAX;
	while (o < older->n || w < newer->n) {
		bool take_new = o == older->n || (w < newer->n && newer->mappings[w].start <= older->mappings[o].start);
		int r = append(list, &n, take_new ? &newer->mappings[w] : &older->mappings[o]);
		if (r < 0)
			return r;
		if (take_new && w == newer->main_index)
			main_at = n - 1;
		w += take_new;
		o += !take_new;
	}
	*ret_n = n;
	*ret_main = main_at == SIZE_MAX ? n : main_at;
	return 0;
}

/* It has been read when newer was. */
static void take_moment(struct maps *maps, const struct maps *newer)
{
	maps->program = newer->program;
	maps->map_count = newer->map_count;
	maps->exec_pages = newer->exec_pages;
}

int maps_merge(struct maps *older, struct maps *newer, struct maps **ret)
{
	struct mapping *list = reallocarray(NULL, older->n + newer->n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	size_t n, main_index;
	int r = merge_lists(older, newer, list, &n, &main_index);
	if (r == 0)
		r = maps_new(list, n, main_index, ret);
	for (size_t i = 0; r == 0 && i < n; i++)
		if (list[i].file)
			file_ref(list[i].file);
	if (r == 0)
		take_moment(*ret, newer);
	free(list);
	return r;
}
