#include "symbolize/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "proto/reader_limits.h"
#include "symbolize/strings.h"

struct slot {
	uint64_t file_id, file_offset;
	const struct profile_line *lines; /* NULL: slot free */
	uint32_t n;
};

/* Half of the budget: an eighth of it for each table, the rest for what they point at. */
struct generation {
	struct arena arena;
	struct strings blobs; /* texts, and arrays of lines whose texts are blobs already */
	struct slot *slots;
	size_t n, allocated, table_budget_bytes;
};

struct cache {
	struct generation *young, *old; /* old may be NULL */
	size_t generation_budget_bytes;
};

static const struct profile_line no_lines[1];
_Static_assert(sizeof(struct profile_line) == 3 * sizeof(char *) + 2 * sizeof(int64_t), "no padding");

static void generation_free(struct generation *generation)
{
	if (!generation)
		return;
	strings_free(&generation->blobs);
	arena_free(&generation->arena);
	free(generation->slots);
	free(generation);
}

static struct generation *generation_new(size_t budget_bytes)
{
	struct generation *generation = calloc(1, sizeof(*generation));
	if (!generation)
		return NULL;
	generation->table_budget_bytes = budget_bytes / 8;
	arena_init(&generation->arena, budget_bytes - 2 * generation->table_budget_bytes);
	strings_init(&generation->blobs, &generation->arena, generation->table_budget_bytes);
	return generation;
}

static size_t generation_bytes(const struct generation *generation)
{
	return generation ? generation->arena.held_bytes + strings_table_bytes(&generation->blobs) +
				    generation->allocated * sizeof(struct slot)
			  : 0;
}

struct cache *cache_new(size_t budget_bytes)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return NULL;
	cache->generation_budget_bytes = budget_bytes / 2;
	cache->young = generation_new(cache->generation_budget_bytes);
	if (!cache->young) {
		free(cache);
		return NULL;
	}
	return cache;
}

void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	generation_free(cache->young);
	generation_free(cache->old);
	free(cache);
}

size_t cache_bytes(const struct cache *cache)
{
	return generation_bytes(cache->young) + generation_bytes(cache->old);
}

/* The slot of the key or the free one where it belongs; allocated is a power of two and never full. */
static struct slot *probe(struct slot *slots, size_t allocated, uint64_t file_id, uint64_t file_offset)
{
	uint64_t key[] = {file_id, file_offset};
	size_t at = hash_bytes(key, sizeof(key), hash_seed()) & (allocated - 1);
	while (slots[at].lines && (slots[at].file_id != file_id || slots[at].file_offset != file_offset))
		at = (at + 1) & (allocated - 1);
	return &slots[at];
}

static struct slot *find(const struct generation *generation, uint64_t file_id, uint64_t file_offset)
{
	if (!generation || !generation->allocated)
		return NULL;
	struct slot *slot = probe(generation->slots, generation->allocated, file_id, file_offset);
	return slot->lines ? slot : NULL;
}

static int grow(struct generation *generation)
{
	size_t allocated = generation->allocated ? generation->allocated * 2 : 64;
	if (allocated * sizeof(struct slot) > generation->table_budget_bytes)
		return -ENOSPC;
	struct slot *slots = calloc(allocated, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < generation->allocated; i++) {
		const struct slot *slot = &generation->slots[i];
		if (slot->lines)
			*probe(slots, allocated, slot->file_id, slot->file_offset) = *slot;
	}
	free(generation->slots);
	generation->slots = slots;
	generation->allocated = allocated;
	return 0;
}

static int keep_text(struct generation *generation, const char *text, const char **ret)
{
	if (text && !(*ret = strings_text(&generation->blobs, text)))
		return -ENOSPC;
	return 0;
}

static int keep_lines(struct generation *generation, const struct profile_line *lines, uint32_t n,
		      const struct profile_line **ret)
{
	struct profile_line copy[READER_FRAMES_MAX]; /* no padding: equal lines are equal bytes */
	if (n > READER_FRAMES_MAX)
		return -ENOSPC;
	for (uint32_t i = 0; i < n; i++) {
		copy[i] = (struct profile_line){.line = lines[i].line, .start_line = lines[i].start_line};
		if (keep_text(generation, lines[i].name, &copy[i].name) < 0 ||
		    keep_text(generation, lines[i].system_name, &copy[i].system_name) < 0 ||
		    keep_text(generation, lines[i].filename, &copy[i].filename) < 0)
			return -ENOSPC;
	}
	*ret = strings_bytes(&generation->blobs, copy, n * sizeof(copy[0]));
	return *ret ? 0 : -ENOSPC;
}

static int add(struct generation *generation, uint64_t file_id, uint64_t file_offset, const struct profile_line *lines,
	       uint32_t n)
{
	if ((generation->n + 1) * 4 > generation->allocated * 3) {
		int r = grow(generation);
		if (r < 0)
			return r;
	}
	const struct profile_line *kept = no_lines;
	if (n) {
		int r = keep_lines(generation, lines, n, &kept);
		if (r < 0)
			return r;
	}
	struct slot *slot = probe(generation->slots, generation->allocated, file_id, file_offset);
	*slot = (struct slot){.file_id = file_id, .file_offset = file_offset, .lines = kept, .n = n};
	generation->n++;
	return 0;
}

/* The old generation goes, the young one becomes the old. 0 or -ENOMEM. */
static int rotate(struct cache *cache)
{
	struct generation *fresh = generation_new(cache->generation_budget_bytes);
	if (!fresh)
		return -ENOMEM;
	generation_free(cache->old);
	cache->old = cache->young;
	cache->young = fresh;
	return 0;
}

bool cache_find(struct cache *cache, uint64_t file_id, uint64_t file_offset, const struct profile_line **ret,
		uint32_t *ret_n)
{
	const struct slot *slot = find(cache->young, file_id, file_offset);
	if (!slot) {
		slot = find(cache->old, file_id, file_offset);
		/* Still in use: copy it forward, as far as there is room. Not by rotating, which would free what we return. */
		if (slot)
			(void)add(cache->young, file_id, file_offset, slot->lines, slot->n);
	}
	if (!slot)
		return false;
	*ret = slot->lines;
	*ret_n = slot->n;
	return true;
}

void cache_add(struct cache *cache, uint64_t file_id, uint64_t file_offset, const struct profile_line *lines,
	       uint32_t n)
{
	if (find(cache->young, file_id, file_offset))
		return;
	if (add(cache->young, file_id, file_offset, lines, n) < 0 && rotate(cache) == 0)
		(void)add(cache->young, file_id, file_offset, lines, n);
}
