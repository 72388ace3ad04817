/* Lists of address ranges: .debug_ranges (DWARF 2 to 4) and .debug_rnglists (DWARF 5). */
#pragma once
#include "elf/dwarf_form.h"

struct dwarf_range {
	uint64_t low, high; /* high is the first address behind it */
};

struct dwarf_range_list {
	struct dwarf_range *ranges;
	size_t n, allocated, max;
};

/* Adds the range; one that is empty or upside down is left out. -ENOMEM; -EFBIG: list->max are there. */
int dwarf_range_list_add(struct dwarf_range_list *list, uint64_t low, uint64_t high);
void dwarf_range_list_free(struct dwarf_range_list *list);

/* Adds the ranges that an entry's DW_AT_ranges stands for; of a malformed list those before the fault. -ENOMEM, -EFBIG. */
int dwarf_ranges_read(struct dwarf_unit *unit, const struct dwarf_value *value, struct dwarf_range_list *list);
/* Those of the whole unit, by its own entry. */
int dwarf_ranges_of_unit(struct dwarf_unit *unit, struct dwarf_range_list *list);
