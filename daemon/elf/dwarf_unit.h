/* The units of .debug_info (compile, partial, skeleton and split units; those of types are skipped) and what their own entries say:
 * where their lines and tables are. Reading all headers of a file is quick: only the entries at their heads are touched. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/dwarf_abbrev.h"
#include "elf/dwarf_cursor.h"
#include "elf/dwarf_sections.h"
#include "elf/work.h"

#define DWARF_NOWHERE UINT64_MAX

struct dwarf_scopes;
struct dwarf_lines;
struct dwarf_unit;

/* The DWARF of one file: of the program or its separate debug file, of dwz's supplementary file, or of split DWARF. */
struct dwarf_source {
	struct dwarf_sections sections;
	struct dwarf_unit *units; /* ascending by offset */
	size_t n_units;
	struct dwarf_source *alt; /* where DW_FORM_GNU_ref_alt and the like lead; NULL: unknown */
	struct work work;         /* of the piece of work at hand */
};

struct dwarf_unit {
	struct dwarf_source *source;
	uint64_t offset, end; /* in .debug_info */
	uint64_t dies;        /* its first entry */
	uint64_t abbrev_offset;
	uint8_t version, offset_bytes, address_bytes, type;
	/* Of its own entry; DWARF_NOWHERE: it does not say. */
	uint16_t language;
	uint64_t line_offset, ranges_offset, ranges_index, low_pc, high_pc;
	uint64_t addr_base, str_offsets_base, rnglists_base;
	uint64_t split_ranges_base; /* of GNU split DWARF 4: where in .debug_ranges the lists of the split unit begin */
	uint64_t dwo_id;            /* of a skeleton unit and of its split unit; 0: neither */
	struct dwarf_text name, comp_dir, dwo_name;
	/* Read when first needed (dwarf.c), and let go of again. */
	bool bad_abbrevs, bad_scopes, bad_lines;
	struct abbrevs abbrevs;
	struct dwarf_scopes *scopes;
	struct dwarf_lines *lines;
	/* Split DWARF (dwarf_split.h): of a skeleton unit, the unit that tells the rest, NULL: not there; of that one, the skeleton. */
	struct dwarf_unit *split, *skeleton;
	bool split_sought; /* whoever can open files was told its name */
};

/* Where what belongs to one unit of a package begins in the package's sections. */
struct dwarf_bases {
	uint64_t info, abbrev, str_offsets, rnglists;
};

/* The unit whose addresses, and in DWARF 4 ranges, are meant by those of unit: its skeleton, or itself. */
static inline const struct dwarf_unit *dwarf_unit_home(const struct dwarf_unit *unit)
{
	return unit->skeleton ? unit->skeleton : unit;
}

/* Fills source->units, as far as a second of work goes. -EBADMSG: there is none, or they are malformed from the first on; -ENOMEM, -EFBIG. */
int dwarf_units_read(struct dwarf_source *source);
/* Reads one unit of a package, at bases->info. False: there is none of a known kind. */
bool dwarf_unit_read_packaged(struct dwarf_source *package, const struct dwarf_bases *bases, struct dwarf_unit *ret);
/* The unit that holds the entry at offset; NULL: none. */
struct dwarf_unit *dwarf_unit_at(const struct dwarf_source *source, uint64_t offset);
/* Reads unit->abbrevs if need be. False: it cannot be. */
bool dwarf_unit_load_abbrevs(struct dwarf_unit *unit);
void dwarf_unit_drop_abbrevs(struct dwarf_unit *unit);
