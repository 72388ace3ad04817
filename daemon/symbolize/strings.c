#include "symbolize/strings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

void strings_init(struct strings *strings, struct arena *arena, size_t table_budget_bytes)
{
	*strings = (struct strings){.arena = arena, .table_budget_bytes = table_budget_bytes};
}

void strings_free(struct strings *strings)
{
	free(strings->entries);
	strings_init(strings, strings->arena, strings->table_budget_bytes);
}

size_t strings_table_bytes(const struct strings *strings)
{
	return strings->allocated * sizeof(struct string_entry);
}

static int grow(struct strings *strings)
{
	size_t allocated = strings->allocated ? strings->allocated * 2 : 64;
	if (allocated * sizeof(struct string_entry) > strings->table_budget_bytes)
		return -ENOSPC;
	struct string_entry *entries = calloc(allocated, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < strings->allocated; i++) {
		if (!strings->entries[i].data)
			continue;
		size_t at = strings->entries[i].hash & (allocated - 1);
		while (entries[at].data)
			at = (at + 1) & (allocated - 1);
		entries[at] = strings->entries[i];
	}
	free(strings->entries);
	strings->entries = entries;
	strings->allocated = allocated;
	return 0;
}

const void *strings_bytes(struct strings *strings, const void *data, size_t bytes)
{
	if ((strings->n + 1) * 4 > strings->allocated * 3 && grow(strings) < 0)
		return NULL;
	uint64_t hash = hash_bytes(data, bytes, hash_seed());
	size_t at = hash & (strings->allocated - 1);
	for (; strings->entries[at].data; at = (at + 1) & (strings->allocated - 1)) {
		const struct string_entry *entry = &strings->entries[at];
		if (entry->hash == hash && entry->bytes == bytes && memcmp(entry->data, data, bytes) == 0)
			return entry->data;
	}
	void *copy = arena_alloc(strings->arena, bytes);
	if (!copy)
		return NULL;
	memcpy(copy, data, bytes);
	strings->entries[at] = (struct string_entry){.hash = hash, .bytes = bytes, .data = copy};
	strings->n++;
	return copy;
}

const char *strings_text(struct strings *strings, const char *text)
{
	return strings_bytes(strings, text, strlen(text) + 1);
}
