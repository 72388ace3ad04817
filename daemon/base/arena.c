#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_MIN_BYTES = 4096, CHUNK_MAX_BYTES = 1 << 20, ALIGNMENT = 8 };

struct arena_chunk {
	struct arena_chunk *next;
	size_t capacity, used; /* bytes of data */
	_Alignas(ALIGNMENT) unsigned char data[];
};

void arena_init(struct arena *arena, size_t budget_bytes)
{
	*arena = (struct arena){.budget_bytes = budget_bytes};
}

void arena_free(struct arena *arena)
{
	while (arena->chunks) {
		struct arena_chunk *next = arena->chunks->next;
		free(arena->chunks);
		arena->chunks = next;
	}
	arena_init(arena, arena->budget_bytes);
}

/* Chunks double, so that a small arena is small and a large one makes few calls. */
static struct arena_chunk *add_chunk(struct arena *arena, size_t bytes)
{
	size_t capacity = arena->chunks ? arena->chunks->capacity * 2 : CHUNK_MIN_BYTES;
	if (capacity > CHUNK_MAX_BYTES)
		capacity = CHUNK_MAX_BYTES;
	size_t room = arena->budget_bytes - arena->held_bytes; /* held never exceeds the budget */
	if (room < sizeof(struct arena_chunk))
		return NULL;
	room -= sizeof(struct arena_chunk);
	if (capacity > room)
		capacity = room;
	if (capacity < bytes)
		capacity = bytes;
	if (capacity > room)
		return NULL;
	struct arena_chunk *chunk = malloc(sizeof(*chunk) + capacity);
	if (!chunk)
		return NULL;
	*chunk = (struct arena_chunk){.next = arena->chunks, .capacity = capacity};
	arena->chunks = chunk;
	arena->held_bytes += sizeof(*chunk) + capacity;
	return chunk;
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
	if (bytes > arena->budget_bytes || bytes > SIZE_MAX - ALIGNMENT)
		return NULL;
	bytes = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	struct arena_chunk *chunk = arena->chunks;
	if (!chunk || chunk->capacity - chunk->used < bytes) {
		chunk = add_chunk(arena, bytes);
		if (!chunk)
			return NULL;
	}
	void *memory = chunk->data + chunk->used;
	chunk->used += bytes;
	arena->used_bytes += bytes;
	return memory;
}

char *arena_strndup(struct arena *arena, const char *text, size_t length)
{
	char *copy = length == SIZE_MAX ? NULL : arena_alloc(arena, length + 1);
	if (!copy)
		return NULL;
	memcpy(copy, text, length);
	copy[length] = '\0';
	return copy;
}
