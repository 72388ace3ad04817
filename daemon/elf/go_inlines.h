/* Calls that Go's compiler inlined, by what its runtime needs of them for its own tracebacks: there in stripped programs too (Go 1.18 and later; Go's
 * src/runtime/symtab.go and symtabinl.go, cmd/internal/obj/pcln.go). The bytes are anybody's: whatever is not there reads as nothing. */
#pragma once
#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/go_pclntab.h"

struct go_inlines {
	int fd;               /* borrowed */
	uint64_t file_offset; /* of what a function's trees are counted from */
	uint64_t bytes;       /* from there on */
};

/* Finds them in a program whose table is at table_address, both as linked, through the runtime's description of the program (its moduledata). False: they
 * cannot be found. */
bool go_inlines_open(Elf *elf, int fd, const struct go_pclntab *table, uint64_t table_address, struct go_inlines *ret);

struct go_call {
	uint64_t name;      /* offset into the table's names */
	uint64_t at;        /* the address that has its file and line */
	uint64_t called_at; /* where the function that holds it calls it, in bytes from that function's start */
	uint64_t start_line;
};

/* The inlined calls that address is in, of the function whose record is at `record`: innermost first, at most max. */
size_t go_inlines_find(const struct go_inlines *inlines, struct go_pclntab *table, uint64_t record,
		       const struct go_function *function, uint64_t address, struct go_call *ret, size_t max);
