/* A bump allocator: many small pieces that live and die together. Not thread-safe; hand over whole arenas.
 * A budget bounds it, since what fills it may be chosen by a hostile target or file. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct arena_chunk;
struct arena {
	struct arena_chunk *chunks;
	size_t used_bytes;   /* over all chunks, what was asked for */
	size_t held_bytes;   /* over all chunks, what is held from malloc */
	size_t budget_bytes; /* held_bytes never exceeds it */
};

/* Ready to use without any allocation; release with arena_free. */
void arena_init(struct arena *arena, size_t budget_bytes);
void arena_free(struct arena *arena);

/* Memory aligned to 8 bytes, not cleared; NULL when malloc fails or the budget is spent. bytes may be 0. */
void *arena_alloc(struct arena *arena, size_t bytes);
/* A NUL-terminated copy of the first length bytes of text; NULL as arena_alloc. */
char *arena_strndup(struct arena *arena, const char *text, size_t length);
