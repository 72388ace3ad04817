/* The line table of one unit (DWARF 2 to 5, .debug_line), run into rows: which file and line the code at an address comes from. */
#pragma once
#include "elf/dwarf_unit.h"

struct dwarf_lines;

/* -ENOENT: the unit has none; -EBADMSG: malformed, or of no known version; -EFBIG: larger than we would hold, or than half a second
 * of work reads; -ENOMEM. */
int dwarf_lines_read(struct dwarf_unit *unit, struct dwarf_lines **ret);
void dwarf_lines_free(struct dwarf_lines *lines);          /* NULL is fine */
size_t dwarf_lines_bytes(const struct dwarf_lines *lines); /* of memory */

/* False: the table says nothing about address. *ret_line may be 0: the code belongs to no line. */
bool dwarf_lines_find(const struct dwarf_lines *lines, uint64_t address, uint64_t *ret_file, uint32_t *ret_line);

/* The path of a file by its number in this table, absolute where the unit says enough, printable, at most READER_NAME_MAX_BYTES.
 * "" when there is no such file. It lives as long as lines. */
const char *dwarf_lines_path(struct dwarf_lines *lines, const struct dwarf_unit *unit, uint64_t file);
