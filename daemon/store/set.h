/* The memory of an epoch or a profile under construction, under one budget: items in an arena that never move, and sets that
 * find them by key. Private to store.
 *
 * A set is an open-addressing table of pointers with linear probing. The hashes are made with the daemon's seed (base/hash.h),
 * since targets choose the keys; the full key is always compared. Items stand in a list too, in the order they came, so that
 * what is built from them does not depend on the seed. Not thread-safe. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

struct heap {
	struct arena *arena; /* its budget is managed here */
	size_t budget_bytes; /* held_bytes of the arena and tables together never exceed it, growing included */
	size_t table_bytes;  /* what heap_table handed out */
};

void heap_init(struct heap *heap, struct arena *arena, size_t budget_bytes);
size_t heap_bytes(const struct heap *heap);
/* A cleared array that heap_table_free gives back, with the same size; NULL when the budget is spent or memory is out. */
void *heap_table(struct heap *heap, size_t bytes);
void heap_table_free(struct heap *heap, void *table, size_t bytes);

/* The first member of every item. */
struct set_entry {
	struct set_entry *next; /* the item that came after this one */
	uint32_t hash;
};

struct set {
	struct set_entry **slots;
	size_t capacity; /* 0, or a power of two */
	size_t n;
	struct set_entry *first, *last; /* in the order of set_insert */
};

typedef bool (*set_equal_fn)(const struct set_entry *entry, const void *key);

/* Makes sure that one more set_insert succeeds. -ENOMEM: the set is as before. */
int set_reserve(struct set *set, struct heap *heap);
/* After set_reserve, and when set_find found none. */
void set_insert(struct set *set, struct set_entry *entry, uint32_t hash);
/* Gives the slots back; the items live in the arena. */
void set_free(struct set *set, struct heap *heap);

/* Inline, so that equal, a constant at every call, is inlined too: this is on the path of every sample and frame. */
static inline __attribute__((always_inline)) void *set_find(const struct set *set, uint32_t hash, set_equal_fn equal,
							    const void *key)
{
	if (set->capacity == 0)
		return NULL;
	for (size_t i = hash & (set->capacity - 1);; i = (i + 1) & (set->capacity - 1)) {
		struct set_entry *entry = set->slots[i];
		if (!entry || (entry->hash == hash && equal(entry, key)))
			return entry;
	}
}
