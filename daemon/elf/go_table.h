/* Go's own table of functions, .gopclntab, which its runtime needs and so even a stripped program has: names, files and lines, of Go 1.16
 * and later (Go's src/runtime/symtab.go, src/debug/gosym/pclntab.go). Inlined calls are not told apart: a line is of the innermost one. */
#pragma once
#include "elf/dwarf_sections.h"
#include "elf/image.h"

/* The function at address (as linked), by the section DWARF_GO_TABLE of sections. text_address: where .text is linked to, for programs whose table
 * is only completed when they are loaded. 0: none is known, else 1 and *ret, whose texts live until the next call. */
size_t go_table_find(struct dwarf_sections *sections, uint64_t text_address, uint64_t address, struct image_frame *ret);
