/* Equal texts (and other pieces of bytes) once, in somebody's arena. The hash is seeded: what comes in is chosen by targets' files.
 * Not thread-safe. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

struct string_entry {
	uint64_t hash;
	size_t bytes;
	void *data; /* NULL: free */
};

struct strings {
	struct arena *arena;
	struct string_entry *entries;
	size_t n, allocated, table_budget_bytes;
};

/* The arena is borrowed and outlives it. table_budget_bytes bounds the table beside it. */
void strings_init(struct strings *strings, struct arena *arena, size_t table_budget_bytes);
void strings_free(struct strings *strings);
size_t strings_table_bytes(const struct strings *strings);

/* The one copy in the arena; NULL: the arena's or the table's budget is spent, or out of memory. */
const char *strings_text(struct strings *strings, const char *text);
const void *strings_bytes(struct strings *strings, const void *data, size_t bytes);
