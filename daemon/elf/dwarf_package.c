#include "elf/dwarf_split.h"

enum {
	GNU_VERSION = 2,
	COLUMNS_MAX = 16,
	PROBES_MAX = 1024, /* at most two thirds of the slots are taken, so that a few do */
	HEADER_BYTES = 16,
	SIGNATURE_BYTES = 8,
	NUMBER_BYTES = 4,
};

/* DWARF 5, table 7.1; GNU's version 2 has another number where the two differ: 4 and 5 are .debug_line and .debug_loc. */
enum section_id { SECTION_INFO = 1, SECTION_ABBREV = 3, SECTION_STR_OFFSETS = 6, SECTION_RNGLISTS = 8 };

/* DWARF 5, 7.3.5.3: slots of ids and rows, by hash; then a table of offsets with a column for each section, headed by their numbers. */
struct package_index {
	unsigned version;
	uint64_t n_columns, n_rows, n_slots;
	const struct dwarf_section *section;
};

static uint64_t number_at(const struct package_index *index, uint64_t offset, unsigned bytes)
{
	const struct dwarf_section *section = index->section;
	struct cursor in = cursor_at(section->bytes, section->n, offset, section->n);
	return cursor_uint(&in, bytes);
}

static bool read_header(struct dwarf_source *package, struct package_index *ret)
{
	ret->section = dwarf_section(&package->sections, DWARF_CU_INDEX);
	ret->version =
		(unsigned)number_at(ret, 0, NUMBER_BYTES) & UINT16_MAX; /* of DWARF 5: 2 bytes, and 2 of padding */
	ret->n_columns = number_at(ret, 4, NUMBER_BYTES);
	ret->n_rows = number_at(ret, 8, NUMBER_BYTES);
	ret->n_slots = number_at(ret, 12, NUMBER_BYTES);
	uint64_t bytes = HEADER_BYTES + ret->n_slots * (SIGNATURE_BYTES + NUMBER_BYTES) +
			 (1 + ret->n_rows) * ret->n_columns * NUMBER_BYTES;
	return (ret->version == GNU_VERSION || ret->version == 5) && ret->n_columns > 0 &&
	       ret->n_columns <= COLUMNS_MAX && ret->n_slots > 0 && (ret->n_slots & (ret->n_slots - 1)) == 0 &&
	       ret->n_rows <= ret->n_slots && bytes <= ret->section->n;
}

/* The row of that id, counted from 1; 0: there is none. */
static uint64_t find_row(const struct package_index *index, uint64_t dwo_id)
{
	uint64_t mask = index->n_slots - 1, slot = dwo_id & mask, step = (dwo_id >> 32 & mask) | 1;
	uint64_t rows = HEADER_BYTES + index->n_slots * SIGNATURE_BYTES;
	for (unsigned i = 0; i < PROBES_MAX; i++, slot = (slot + step) & mask) {
		uint64_t row = number_at(index, rows + slot * NUMBER_BYTES, NUMBER_BYTES);
		if (row == 0)
			return 0;
		if (number_at(index, HEADER_BYTES + slot * SIGNATURE_BYTES, SIGNATURE_BYTES) == dwo_id)
			return row <= index->n_rows ? row : 0;
	}
	return 0;
}

static void take_column(const struct package_index *index, uint64_t id, uint64_t offset, struct dwarf_bases *ret)
{
	if (id == SECTION_INFO)
		ret->info = offset;
	else if (id == SECTION_ABBREV)
		ret->abbrev = offset;
	else if (id == SECTION_STR_OFFSETS)
		ret->str_offsets = offset;
	else if (id == SECTION_RNGLISTS && index->version != GNU_VERSION)
		ret->rnglists = offset;
}

bool dwarf_package_find(struct dwarf_source *package, uint64_t dwo_id, struct dwarf_bases *ret)
{
	struct package_index index;
	uint64_t row = read_header(package, &index) ? find_row(&index, dwo_id) : 0;
	if (row == 0)
		return false;
	*ret = (struct dwarf_bases){};
	uint64_t ids = HEADER_BYTES + index.n_slots * (SIGNATURE_BYTES + NUMBER_BYTES);
	for (uint64_t i = 0; i < index.n_columns; i++) {
		uint64_t cell = ids + (row * index.n_columns + i) * NUMBER_BYTES;
		take_column(&index, number_at(&index, ids + i * NUMBER_BYTES, NUMBER_BYTES),
			    number_at(&index, cell, NUMBER_BYTES), ret);
	}
	return true;
}
