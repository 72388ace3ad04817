/* What is known of (file, offset): the functions there, or that there is none. Two generations share the byte budget: when the young one
 * is full the old one is forgotten whole, and what is still in use has been copied forward by then. Equal strings and equal frames are
 * kept once. Hashes are seeded: offsets and names are chosen by targets. Not thread-safe. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/profile.h"

struct cache;

struct cache *cache_new(size_t budget_bytes); /* NULL: out of memory */
void cache_free(struct cache *cache);

/* False: not known. True: *ret_n functions, 0 when it is known to have no name; valid until the next call on the cache. */
bool cache_find(struct cache *cache, uint64_t file_id, uint64_t file_offset, const struct profile_line **ret,
		uint32_t *ret_n);
/* Copies. What does not fit is not kept. An entry that is there already stays as it is. */
void cache_add(struct cache *cache, uint64_t file_id, uint64_t file_offset, const struct profile_line *lines,
	       uint32_t n);
size_t cache_bytes(const struct cache *cache);
