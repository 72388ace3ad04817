/* The functions of one ELF file as an array of disjoint ranges, ascending, so that a look-up is one binary search whatever the
 * file says. Names stay in the file: a range only says where. */
#pragma once
#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whose string table a name is in. */
enum symbol_strings { STRINGS_SYMTAB, STRINGS_DYNSYM, STRINGS_COUNT };

struct symbol_name {
	uint32_t offset : 30; /* in its string table */
	uint32_t strings : 1; /* enum symbol_strings */
	uint32_t is_plt : 1;  /* "name@plt" */
};

struct symbol_range {
	uint64_t start; /* virtual address, as linked */
	uint32_t bytes;
	struct symbol_name name;
};

struct symbols {
	struct symbol_range *ranges;
	size_t n;
	bool has_symtab; /* some of them are .symtab's: nothing says more */
	struct {
		uint64_t file_offset, bytes;
	} strings[STRINGS_COUNT];
};

/* Reads .symtab, or .dynsym where that is missing, and what the entries of .plt, .plt.sec and .plt.got stand for (x86-64).
 * Which symbol wins an address, in this order: the one with a size that contains it and starts last; at one start, global before
 * weak before local, a function before a label, fewer leading underscores, the smaller one, the shorter name, the alphabet. A symbol
 * without size reaches to the next symbol or the end of its section, where no sized one covers it.
 *
 * A file without any symbol gives 0 and n == 0. -ENOMEM; -EFBIG: more symbols than we would hold. */
int symbols_read(Elf *elf, struct symbols *ret);
void symbols_free(struct symbols *symbols);

/* The range that holds address, or NULL. */
const struct symbol_range *symbols_find(const struct symbols *symbols, uint64_t address);
