/* The tables of a pprof profile that are filled while the rest is encoded: strings and functions, each kept once.
 * Found by seeded hash, since names come from the target. Not thread-safe. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "model/profile.h"

/* Open addressing: slots of indices into an array that the owner keeps, with the hash of each. */
struct index_table {
	uint32_t *slots; /* index + 1; 0: free */
	size_t capacity; /* 0, or a power of two */
};

struct string_table {
	struct index_table index;
	struct string_entry {
		const char *text; /* valid UTF-8 */
		uint64_t hash;
	} * entries; /* [0] is "" */
	size_t n, capacity;
	struct arena arena; /* of copies */
};

int string_table_init(struct string_table *table); /* -ENOMEM */
void string_table_free(struct string_table *table);
/* The index of text, added if need be; bad bytes (no UTF-8, or of a control character) become U+FFFD. text must outlive the
 * table. -ENOMEM. */
int string_table_add(struct string_table *table, const char *text, int64_t *ret);
/* The same for a text that need not live on. */
int string_table_add_copy(struct string_table *table, const char *text, int64_t *ret);

struct function {
	int64_t name, system_name, filename; /* strings */
	int64_t start_line;
};

struct function_table {
	struct index_table index;
	struct function_entry {
		struct function function;
		uint64_t hash;
	} * entries;
	size_t n, capacity;
};

void function_table_free(struct function_table *table);
/* *ret is the function's id, from 1: its index + 1. -ENOMEM. */
int function_table_add(struct function_table *table, const struct function *function, uint64_t *ret);
