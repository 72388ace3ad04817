/* Names of functions by their entries in .debug_info, with what an entry inherits from its abstract origin or its declaration. Each is
 * worked out once, and kept. */
#pragma once
#include "base/arena.h"
#include "elf/dwarf_unit.h"

struct dwarf_name {
	const char *name, *system_name; /* NULL both: it has none */
	uint32_t start_line;
	bool is_mangled;
};

struct dwarf_names {
	struct arena arena;
	struct dwarf_name_entry *entries; /* by hash */
	size_t n, allocated;
};

void dwarf_names_init(struct dwarf_names *names);
void dwarf_names_free(struct dwarf_names *names);
size_t dwarf_names_bytes(const struct dwarf_names *names);
/* Forgets everything when it has grown large. Not while names are in use. */
void dwarf_names_trim(struct dwarf_names *names);

/* Called for each unit whose abbreviations are about to be read, so that somebody can let go of them again. False: no more. */
typedef bool dwarf_names_visit(void *context, struct dwarf_unit *unit);

/* The name of the entry at offset in the unit's .debug_info. It lives until dwarf_names_trim. NULL: out of memory. */
const struct dwarf_name *dwarf_names_find(struct dwarf_names *names, struct dwarf_unit *unit, uint64_t offset,
					  dwarf_names_visit *visit, void *context);
