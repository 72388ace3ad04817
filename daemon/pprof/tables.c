#include "pprof/tables.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

enum { MIN_CAPACITY = 64 };

/* Doubles an array of capacity entries; -ENOMEM. */
static int grow(void **entries, size_t *capacity, size_t entry_bytes)
{
	size_t larger = *capacity ? *capacity * 2 : MIN_CAPACITY;
	if (larger > UINT32_MAX)
		return -ENOMEM;
	void *moved = realloc(*entries, larger * entry_bytes);
	if (!moved)
		return -ENOMEM;
	*entries = moved;
	*capacity = larger;
	return 0;
}

static void place(struct index_table *index, uint64_t hash, size_t i)
{
	size_t slot = hash & (index->capacity - 1);
	while (index->slots[slot])
		slot = (slot + 1) & (index->capacity - 1);
	index->slots[slot] = (uint32_t)(i + 1);
}

/* A cleared table of twice the size, to be filled again; -ENOMEM. */
static int double_index(struct index_table *index)
{
	size_t capacity = index->capacity ? index->capacity * 2 : (size_t)2 * MIN_CAPACITY;
	uint32_t *slots = calloc(capacity, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(index->slots);
	*index = (struct index_table){.slots = slots, .capacity = capacity};
	return 0;
}

int string_table_init(struct string_table *table)
{
	*table = (struct string_table){0};
	arena_init(&table->arena, SIZE_MAX);
	int64_t zero;
	return string_table_add(table, "", &zero);
}

void string_table_free(struct string_table *table)
{
	free(table->index.slots);
	free(table->entries);
	arena_free(&table->arena);
}

static int reserve_string(struct string_table *table)
{
	if (table->n == table->capacity &&
	    grow((void **)&table->entries, &table->capacity, sizeof(*table->entries)) < 0)
		return -ENOMEM;
	if (table->n < table->index.capacity / 2)
		return 0;
	if (double_index(&table->index) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < table->n; i++)
		place(&table->index, table->entries[i].hash, i);
	return 0;
}

static bool find_string(const struct string_table *table, const char *text, uint64_t hash, int64_t *ret)
{
	const struct index_table *index = &table->index;
	if (index->capacity == 0)
		return false;
	for (size_t slot = hash & (index->capacity - 1); index->slots[slot];
	     slot = (slot + 1) & (index->capacity - 1)) {
		size_t i = index->slots[slot] - 1;
		if (table->entries[i].hash == hash && strcmp(table->entries[i].text, text) == 0) {
			*ret = (int64_t)i;
			return true;
		}
	}
	return false;
}

static bool all_good(const char *text, size_t length)
{
	for (size_t i = 0, n; i < length; i += n) {
		/* Almost all of every name is plain ASCII. */
		n = text[i] >= ' ' && text[i] <= '~' ? 1 : utf8_printable(text + i, length - i);
		if (n == 0)
			return false;
	}
	return true;
}

static const char *repaired(struct string_table *table, const char *text, size_t length)
{
	char *copy = arena_alloc(&table->arena, UTF8_REPAIRED_BYTES(length));
	if (copy)
		utf8_repair(text, length, copy);
	return copy;
}

static int add(struct string_table *table, const char *text, bool copy, int64_t *ret)
{
	size_t length = strlen(text);
	uint64_t hash = hash_bytes(text, length, hash_seed());
	if (find_string(table, text, hash, ret))
		return 0;
	if (!all_good(text, length)) {
		/* What it becomes may stand in the table already. A bad text never does, so this does not recur. */
		const char *valid = repaired(table, text, length);
		return valid ? add(table, valid, false, ret) : -ENOMEM;
	}
	if (reserve_string(table) < 0)
		return -ENOMEM;
	if (copy) {
		text = arena_strndup(&table->arena, text, length);
		if (!text)
			return -ENOMEM;
	}
	table->entries[table->n] = (struct string_entry){.text = text, .hash = hash};
	place(&table->index, hash, table->n);
	*ret = (int64_t)table->n++;
	return 0;
}

int string_table_add(struct string_table *table, const char *text, int64_t *ret)
{
	return add(table, text, false, ret);
}

int string_table_add_copy(struct string_table *table, const char *text, int64_t *ret)
{
	return add(table, text, true, ret);
}

void function_table_free(struct function_table *table)
{
	free(table->index.slots);
	free(table->entries);
}

static int reserve_function(struct function_table *table)
{
	if (table->n == table->capacity &&
	    grow((void **)&table->entries, &table->capacity, sizeof(*table->entries)) < 0)
		return -ENOMEM;
	if (table->n < table->index.capacity / 2)
		return 0;
	if (double_index(&table->index) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < table->n; i++)
		place(&table->index, table->entries[i].hash, i);
	return 0;
}

int function_table_add(struct function_table *table, const struct function *function, uint64_t *ret)
{
	uint64_t hash = hash_bytes(function, sizeof(*function), hash_seed());
	if (reserve_function(table) < 0)
		return -ENOMEM;
	const struct index_table *index = &table->index;
	for (size_t slot = hash & (index->capacity - 1); index->slots[slot];
	     slot = (slot + 1) & (index->capacity - 1)) {
		size_t i = index->slots[slot] - 1;
		if (memcmp(&table->entries[i].function, function, sizeof(*function)) == 0) {
			*ret = i + 1;
			return 0;
		}
	}
	table->entries[table->n] = (struct function_entry){.function = *function, .hash = hash};
	place(&table->index, hash, table->n);
	*ret = ++table->n;
	return 0;
}
