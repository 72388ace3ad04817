#include "model/maps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

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
	char *names = (char *)&maps->mappings[n];
	for (size_t i = 0; i < n; i++) {
		maps->mappings[i] = mappings[i];
		maps->mappings[i].name = names;
		names = stpcpy(names, mappings[i].name) + 1;
	}
	*ret = maps;
	return 0;
}

struct maps *maps_ref(struct maps *maps)
{
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
