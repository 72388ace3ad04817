/* What the readers of the two formats share. */
#pragma once
#include "elf/jit.h"

enum {
	JIT_SYMBOLS_MAX = 4 << 20,
	JIT_LINES_MAX = 16 << 20,
	JIT_TEXT_MAX_BYTES = 256 << 20,
	JIT_FILE_MAX_BYTES = 1 << 30, /* of what is further on, nothing is known */
};

struct jit_symbol {
	uint64_t start, end;
	uint64_t from_ns; /* when it came to be there; 0: from the beginning */
	uint64_t told_at; /* where it was when its lines were told */
	uint32_t name;    /* offset in text */
	uint32_t order;   /* of those that overlap (at one moment), the one with the largest holds */
	uint32_t first_line, n_lines;
};

struct jit_line {
	uint64_t address;
	uint32_t file; /* offset in text */
	uint32_t line;
};

struct jit {
	/* Once read: of a perf map ascending by start, not overlapping; of a jitdump as they are in the file. */
	struct jit_symbol *symbols;
	size_t n, allocated;
	struct jit_line *lines;
	size_t n_lines, lines_allocated;
	char *text; /* NUL-terminated, one behind the other; [0] is "" */
	size_t text_bytes, text_allocated;
	/* Of a jitdump, else NULL: the symbols ascending by start, and the highest end of each and all before it. */
	uint32_t *by_start;
	uint64_t *reach;
};

int jit_grow(void **array, size_t needed, size_t *allocated, size_t max, size_t element_bytes);
int jit_add_text(struct jit *jit, const char *text, size_t length, uint32_t *ret);
/* Adds a copy of symbol, its order set. -EFBIG, -ENOMEM. */
int jit_add(struct jit *jit, const struct jit_symbol *symbol);
/* The same with a name. Of an empty or overflowing range, or an empty name, nothing is kept, and that is fine. */
int jit_add_named(struct jit *jit, struct jit_symbol symbol, const char *name, size_t name_length);
/* What is known of the code of symbol at an offset from its start. Always 1. */
size_t jit_describe(const struct jit *jit, const struct jit_symbol *symbol, uint64_t offset, struct image_frame *ret);
/* Once the symbols of a jitdump are all there: makes by_start and reach. -ENOMEM. */
int jit_index_times(struct jit *jit);

/* Read the whole file, of bytes. */
int jit_read_perf_map(struct jit *jit, int fd, uint64_t bytes);
int jit_read_dump(struct jit *jit, int fd, uint64_t bytes);
