#include "model/python_lines.h"

#include <stdbool.h>

enum {
	INSTRUCTION_BYTES = 2,
	VARINT_BITS = 6,
	VARINT_MAX_SHIFT = 30,
	/* codes of entries: bits 3 to 6 of their first byte, whose bit 7 is set as in no other */
	FORM_ONE_LINE_FIRST = 10, /* to 12: so many lines more than the last, and columns */
	FORM_ONE_LINE_LAST = 12,
	FORM_NO_COLUMNS = 13,
	FORM_LONG = 14,
	FORM_NONE = 15,
};

/* A number in pieces of six bits, the lowest first; bit 6 says that another follows. */
static uint32_t read_varint(const uint8_t *table, size_t bytes, size_t at)
{
	uint32_t value = 0;
	for (unsigned shift = 0; at < bytes && shift <= VARINT_MAX_SHIFT; at++, shift += VARINT_BITS) {
		value |= (uint32_t)(table[at] & 0x3f) << shift;
		if (!(table[at] & 0x40))
			break;
	}
	return value;
}

/* The sign is in the lowest bit. */
static int64_t read_signed_varint(const uint8_t *table, size_t bytes, size_t at)
{
	uint32_t value = read_varint(table, bytes, at);
	return value & 1 ? -(int64_t)(value >> 1) : (int64_t)(value >> 1);
}

/* By how many lines the entry at `at` is on from the one before. */
static int64_t line_step(const uint8_t *table, size_t bytes, size_t at, unsigned form)
{
	if (form == FORM_NO_COLUMNS || form == FORM_LONG)
		return read_signed_varint(table, bytes, at + 1);
	return form >= FORM_ONE_LINE_FIRST && form <= FORM_ONE_LINE_LAST ? form - FORM_ONE_LINE_FIRST : 0;
}

int64_t python_lines_find(const uint8_t *table, size_t bytes, int32_t first_line, uint32_t instruction)
{
	int64_t line = first_line;
	uint64_t end = 0;
	for (size_t at = 0; at < bytes;) {
		unsigned form = table[at] >> 3 & 15;
		end += (uint64_t)((table[at] & 7) + 1) * INSTRUCTION_BYTES;
		line += line_step(table, bytes, at, form);
		if (instruction < end)
			return form == FORM_NONE || line < 0 || line > INT32_MAX ? 0 : line;
		do /* what else the entry says: columns */
			at++;
		while (at < bytes && !(table[at] & 0x80));
	}
	return 0;
}
