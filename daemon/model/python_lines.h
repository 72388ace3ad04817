/* The location table of a code object (co_linetable), as CPython 3.11 and later have it (Objects/locations.md there): which instructions are of
 * which line. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* The line of the instruction that is that many bytes from the first; 0: it has none, or the table ends before. first_line: co_firstlineno.
 * The table may be any bytes. */
int64_t python_lines_find(const uint8_t *table, size_t bytes, int32_t first_line, uint32_t instruction);
