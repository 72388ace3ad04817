/* The functions of one unit that have code, and the calls that were inlined into them, as a forest that is searched by address. */
#pragma once
#include "elf/dwarf_ranges.h"

struct dwarf_scope {
	uint64_t low, high; /* of one range; with several: high is 0, and they are ranges[first_range] and on */
	uint32_t first_range, n_ranges;
	uint32_t die;                  /* its entry, from the unit's begin */
	uint32_t end;                  /* index of the first scope that is not within this one */
	uint32_t call_file, call_line; /* of an inlined one: where it was called */
	bool is_function;
};

struct dwarf_scopes;

/* Needs the unit's abbreviations. -EBADMSG: malformed from the first entry on; -EFBIG: more than we would hold, or than half a second
 * of work reads; -ENOMEM. Of a unit with a fault further on, what came before. */
int dwarf_scopes_read(struct dwarf_unit *unit, struct dwarf_scopes **ret);
void dwarf_scopes_free(struct dwarf_scopes *scopes);          /* NULL is fine */
size_t dwarf_scopes_bytes(const struct dwarf_scopes *scopes); /* of memory */

/* The function that holds address, and what is inlined there, outermost first: at most max. 0: no function does. */
size_t dwarf_scopes_find(const struct dwarf_scopes *scopes, uint64_t address, const struct dwarf_scope **ret,
			 size_t max);
