/* Symbols and where their names are: in a file, or in the unpacked .gnu_debugdata, which is in memory. */
#pragma once
#include <stdbool.h>

#include "elf/image.h"
#include "elf/symbols.h"

struct symbol_source {
	struct symbols symbols; /* n is 0: there are none */
	int fd;                 /* borrowed; not used with memory */
	char *memory;           /* NULL, or the whole file */
	size_t memory_bytes;
};

/* The symbol at address, with its name read from the source. False: none is known. */
bool symbol_source_find(const struct symbol_source *source, uint64_t address, struct image_name *ret);
void symbol_source_release(struct symbol_source *source);
