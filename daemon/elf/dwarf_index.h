/* Which units of a file an address may be in: by the ranges of the units' own entries, and by .debug_aranges for units that tell none. */
#pragma once
#include "elf/dwarf_ranges.h"

struct dwarf_index_entry {
	uint64_t low, high;
	struct dwarf_unit *unit;
};

struct dwarf_index {
	struct dwarf_index_entry *entries; /* ascending by low */
	size_t n, allocated;
};

int dwarf_index_build(struct dwarf_source *source, struct dwarf_index *ret); /* -ENOMEM, -EFBIG */
void dwarf_index_free(struct dwarf_index *index);

/* The units that claim address, at most max; how many. */
size_t dwarf_index_find(const struct dwarf_index *index, uint64_t address, struct dwarf_unit **ret, size_t max);
