#include "store/set.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { SET_MIN_CAPACITY = 16 };

/* What tables take, the arena must not. */
static void share_budget(struct heap *heap)
{
	heap->arena->budget_bytes = heap->budget_bytes - heap->table_bytes;
}

void heap_init(struct heap *heap, struct arena *arena, size_t budget_bytes)
{
	*heap = (struct heap){.arena = arena, .budget_bytes = budget_bytes};
	share_budget(heap);
}

size_t heap_bytes(const struct heap *heap)
{
	return heap->arena->held_bytes + heap->table_bytes;
}

void *heap_table(struct heap *heap, size_t bytes)
{
	if (bytes > heap->budget_bytes - heap_bytes(heap))
		return NULL;
	void *table = calloc(1, bytes);
	if (!table)
		return NULL;
	heap->table_bytes += bytes;
	share_budget(heap);
	return table;
}

void heap_table_free(struct heap *heap, void *table, size_t bytes)
{
	if (!table)
		return;
	free(table);
	heap->table_bytes -= bytes;
	share_budget(heap);
}

static void place(struct set_entry **slots, size_t capacity, struct set_entry *entry)
{
	size_t i = entry->hash & (capacity - 1);
	while (slots[i])
		i = (i + 1) & (capacity - 1);
	slots[i] = entry;
}

int set_reserve(struct set *set, struct heap *heap)
{
	/* At most 5/8 full: probes stay short, and each costs a cache miss. */
	if (set->n < set->capacity / 8 * 5)
		return 0;
	size_t capacity = set->capacity ? set->capacity * 2 : SET_MIN_CAPACITY;
	/* The old slots are still held while the new ones are filled: both count. */
	struct set_entry **slots = heap_table(heap, capacity * sizeof(struct set_entry *));
	if (!slots)
		return -ENOMEM;
	for (struct set_entry *entry = set->first; entry; entry = entry->next)
		place(slots, capacity, entry);
	heap_table_free(heap, set->slots, set->capacity * sizeof(struct set_entry *));
	set->slots = slots;
	set->capacity = capacity;
	return 0;
}

void set_insert(struct set *set, struct set_entry *entry, uint32_t hash)
{
	assert(set->n < set->capacity);
	entry->hash = hash;
	entry->next = NULL;
	place(set->slots, set->capacity, entry);
	if (set->last)
		set->last->next = entry;
	else
		set->first = entry;
	set->last = entry;
	set->n++;
}

void set_free(struct set *set, struct heap *heap)
{
	heap_table_free(heap, set->slots, set->capacity * sizeof(struct set_entry *));
	*set = (struct set){0};
}
