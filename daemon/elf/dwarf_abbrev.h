/* Abbreviation tables (DWARF 5, 7.5.3): what the entries (DIEs) of a unit look like. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/dwarf_cursor.h"
#include "elf/work.h"

enum { ABBREVS_MAX = 64 << 10, ABBREV_ATTRIBUTES_MAX = 1 << 20 };

struct abbrev_attribute {
	uint16_t name, form;
	int64_t implicit; /* of DW_FORM_implicit_const */
};

struct abbrev {
	uint64_t code;
	uint16_t tag;
	bool has_children;
	bool has_sibling;    /* DW_AT_sibling is among the attributes */
	int32_t fixed_bytes; /* of all attributes together; -1: depends on the entry */
	uint32_t first, n;   /* in attributes */
};

struct abbrevs {
	struct abbrev *entries;
	size_t n;
	struct abbrev_attribute *attributes;
	bool dense; /* entries[code - 1] */
};

/* Reads the table from in on, for units whose offsets and addresses have that many bytes (of version 2: 0, no size is known then).
 * -EBADMSG: malformed; -EFBIG: more than any compiler makes; -ENOMEM. */
int abbrevs_read(struct cursor in, unsigned offset_bytes, unsigned address_bytes, struct abbrevs *ret);
void abbrevs_free(struct abbrevs *abbrevs);
/* NULL: there is none of this code. */
const struct abbrev *abbrevs_search(const struct abbrevs *abbrevs, uint64_t code);

static inline const struct abbrev *abbrevs_find(const struct abbrevs *abbrevs, uint64_t code)
{
	if (code - 1 < abbrevs->n && abbrevs->entries[code - 1].code == code)
		return &abbrevs->entries[code - 1];
	return abbrevs->dense ? NULL : abbrevs_search(abbrevs, code);
}

/* The first abbreviation of code alone: a unit's own entry is nearly always the first of its table. attributes has room for max.
 * False: it is not there, malformed or has more attributes, or work is spent. */
bool abbrevs_read_one(struct cursor in, uint64_t code, struct abbrev *ret, struct abbrev_attribute *attributes,
		      size_t max, struct work *work);
