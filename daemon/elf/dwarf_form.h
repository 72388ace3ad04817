/* Values of attributes (DWARF 5, 7.5.6). What needs another section to be understood is resolved only when it is asked for. */
#pragma once
#include "elf/dwarf_unit.h"

enum dwarf_value_kind {
	VALUE_NONE, /* absent, or of a kind that nobody here needs */
	VALUE_CONSTANT,
	VALUE_ADDRESS,
	VALUE_ADDRESS_INDEX,
	VALUE_SECTION_OFFSET,
	VALUE_RANGES_INDEX,
	VALUE_REFERENCE,     /* of an entry: its offset in .debug_info */
	VALUE_ALT_REFERENCE, /* the same in the supplementary file */
	VALUE_TEXT,          /* in place: text */
	VALUE_TEXT_OFFSET,   /* in .debug_str */
	VALUE_LINE_TEXT_OFFSET,
	VALUE_ALT_TEXT_OFFSET,
	VALUE_TEXT_INDEX,
};

struct dwarf_value {
	enum dwarf_value_kind kind;
	uint64_t number;
	struct dwarf_text text;
};

/* Reads the value at in, and moves behind it. An unknown form fails the cursor: nobody knows how long it is. */
void dwarf_value_read(const struct dwarf_unit *unit, struct cursor *in, const struct abbrev_attribute *attribute,
		      struct dwarf_value *ret);
/* Moves behind the value. */
void dwarf_value_skip(const struct dwarf_unit *unit, struct cursor *in, const struct abbrev_attribute *attribute);
/* Moves behind all values of an entry. */
void dwarf_values_skip(const struct dwarf_unit *unit, struct cursor *in, const struct abbrev *abbrev,
		       const struct abbrev_attribute *attributes);

/* False: it is none. */
bool dwarf_value_address(const struct dwarf_unit *unit, const struct dwarf_value *value, uint64_t *ret);
struct dwarf_text dwarf_value_text(const struct dwarf_unit *unit, const struct dwarf_value *value); /* n is 0: none */
/* The entry of index in .debug_addr. */
bool dwarf_indexed_address(const struct dwarf_unit *unit, uint64_t index, uint64_t *ret);
