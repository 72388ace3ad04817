/* Go's own table of functions, .gopclntab, which its runtime needs and so even a stripped program has: names, files and lines, of Go 1.16
 * and later (Go's src/runtime/symtab.go, src/debug/gosym/pclntab.go). */
#pragma once
#include "elf/dwarf_sections.h"
#include "elf/go_inlines.h"
#include "elf/image.h"

struct go_table {
	struct dwarf_sections sections; /* of which DWARF_GO_TABLE alone is used */
	size_t at;                      /* in that section */
	uint64_t text;                  /* where the code is linked to */
	bool has_inlines;
	struct go_inlines inlines;
};

/* Finds the table of a program in Go, of file_bytes in fd, which stays the caller's. False: there is none, and there is nothing to close. */
bool go_table_open(Elf *elf, int fd, uint64_t file_bytes, struct go_table *ret);
void go_table_close(struct go_table *go);

/* The function at address (as linked), and the calls that were inlined there: innermost first. How many; 0: none is known. The texts live until the next
 * call. */
size_t go_table_find(struct go_table *go, uint64_t address, struct image_frame ret[READER_FRAMES_MAX]);
