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
	uint32_t name;  /* offset in text */
	uint32_t order; /* of those that overlap, the one with the largest holds */
	uint32_t first_line, n_lines;
};

struct jit_line {
	uint64_t address;
	uint32_t file; /* offset in text */
	uint32_t line;
};

struct jit {
	struct jit_symbol *symbols; /* once read: ascending by start, not overlapping */
	size_t n, allocated;
	struct jit_line *lines;
	size_t n_lines, lines_allocated;
	char *text; /* NUL-terminated, one behind the other; [0] is "" */
	size_t text_bytes, text_allocated;
};

int jit_grow(void **array, size_t needed, size_t *allocated, size_t max, size_t element_bytes);
/* -EFBIG, -ENOMEM. Of an empty or overflowing range, or an empty name, nothing is kept, and that is fine. */
int jit_add(struct jit *jit, uint64_t start, uint64_t bytes, const char *name, size_t name_length, uint32_t first_line,
	    uint32_t n_lines);
int jit_add_text(struct jit *jit, const char *text, size_t length, uint32_t *ret);

/* Read the whole file, of bytes. */
int jit_read_perf_map(struct jit *jit, int fd, uint64_t bytes);
int jit_read_dump(struct jit *jit, int fd, uint64_t bytes);
