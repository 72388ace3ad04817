/* The symbols of a file while its index is being built: everything that may name code, in any order. */
#pragma once
#include <gelf.h>
#include <stdbool.h>

#include "elf/symbols.h"

enum { SYMBOLS_MAX = 8 << 20, TABLE_MAX_BYTES = 512 << 20 };

struct symbol {
	uint64_t start, end; /* end == start: no size */
	uint64_t section_end;
	struct symbol_name name;
	uint8_t rank; /* smaller wins */
	bool sized;
};

struct symbol_list {
	struct symbol *symbols;
	size_t n, allocated;
	/* The string tables, as libelf holds them while the file is being read; NULL: none. Each ends in NUL. */
	const char *text[STRINGS_COUNT];
	size_t text_bytes[STRINGS_COUNT];
	struct symbols *symbols_out; /* where the tables are in the file */
};

/* -ENOMEM, -EFBIG. */
int symbol_list_add(struct symbol_list *list, const struct symbol *symbol);
void symbol_list_free(struct symbol_list *list);
/* Ascending by start; at one start those with a size come first, and among them the one that wins comes last. */
void symbol_list_sort(struct symbol_list *list);
/* The name; valid while the file's tables are. */
const char *symbol_list_text(const struct symbol_list *list, struct symbol_name name);
/* The symbol that wins at exactly start, in a sorted list; NULL: none begins there. */
const struct symbol *symbol_list_at(const struct symbol_list *list, uint64_t start);
/* The whole raw content of a section and its header; false when it has none, is compressed, or is larger than TABLE_MAX_BYTES. */
bool section_content(Elf_Scn *section, GElf_Shdr *ret_header, Elf_Data **ret_data);

/* Adds what the entries of PLT sections stand for; list is sorted, and is not afterwards. -ENOMEM, -EFBIG. */
int plt_collect(Elf *elf, struct symbol_list *list, bool *ret_added);
