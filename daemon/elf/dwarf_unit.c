#include "elf/dwarf_unit.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

#include "elf/dwarf_form.h"

enum {
	UNITS_MAX = 1 << 20,
	ROOT_ATTRIBUTES_MAX = 64,
	/* Of the headers of DWARF 5's tables, behind which they begin when a split unit does not say; in 64-bit DWARF they have 8 bytes more. */
	STR_OFFSETS_HEADER_BYTES = 8,
	RNGLISTS_HEADER_BYTES = 12,
	HEADER_64_MORE_BYTES = 8,
};

#define UNITS_BUDGET_NS 1000000000U

/* Behind the initial length; false: of a kind that we do not read, or malformed. */
static bool read_header(struct cursor *in, struct dwarf_unit *unit)
{
	unit->version = (uint8_t)cursor_uint(in, 2);
	unit->type = DW_UT_compile;
	if (unit->version < 2 || unit->version > 5)
		return false;
	if (unit->version >= 5) {
		unit->type = cursor_u8(in);
		unit->address_bytes = cursor_u8(in);
		unit->abbrev_offset = cursor_uint(in, unit->offset_bytes);
	} else {
		unit->abbrev_offset = cursor_uint(in, unit->offset_bytes);
		unit->address_bytes = cursor_u8(in);
	}
	if (unit->type == DW_UT_skeleton || unit->type == DW_UT_split_compile)
		unit->dwo_id = cursor_uint(in, 8);
	bool known = unit->type == DW_UT_compile || unit->type == DW_UT_partial || unit->type == DW_UT_skeleton ||
		     unit->type == DW_UT_split_compile;
	return known && !in->failed && (unit->address_bytes == 8 || unit->address_bytes == 4);
}

static void take_root_number(struct dwarf_unit *unit, unsigned name, const struct dwarf_value *value)
{
	switch (name) {
	case DW_AT_language:
		unit->language = (uint16_t)value->number;
		break;
	case DW_AT_stmt_list:
		unit->line_offset = value->number;
		break;
	case DW_AT_ranges:
		if (value->kind == VALUE_RANGES_INDEX)
			unit->ranges_index = value->number;
		else
			unit->ranges_offset = value->number;
		break;
	case DW_AT_addr_base:
	case DW_AT_GNU_addr_base:
		unit->addr_base = value->number;
		break;
	case DW_AT_str_offsets_base:
		unit->str_offsets_base = value->number;
		break;
	case DW_AT_rnglists_base:
		unit->rnglists_base = value->number;
		break;
	case DW_AT_GNU_ranges_base:
		unit->split_ranges_base = value->number;
		break;
	case DW_AT_GNU_dwo_id:
		unit->dwo_id = value->number;
		break;
	default:
		break;
	}
}

/* Those that may need the bases above, wherever these stand. */
static void take_root_rest(struct dwarf_unit *unit, unsigned name, const struct dwarf_value *value)
{
	switch (name) {
	case DW_AT_low_pc:
		(void)dwarf_value_address(unit, value, &unit->low_pc);
		break;
	case DW_AT_high_pc:
		if (value->kind != VALUE_CONSTANT)
			(void)dwarf_value_address(unit, value, &unit->high_pc);
		else if (unit->low_pc != DWARF_NOWHERE && value->number <= UINT64_MAX - unit->low_pc)
			unit->high_pc = unit->low_pc + value->number;
		break;
	case DW_AT_name:
		unit->name = dwarf_value_text(unit, value);
		break;
	case DW_AT_comp_dir:
		unit->comp_dir = dwarf_value_text(unit, value);
		break;
	case DW_AT_dwo_name:
	case DW_AT_GNU_dwo_name:
		unit->dwo_name = dwarf_value_text(unit, value);
		break;
	default:
		break;
	}
}

/* The unit's own entry. What it does not say stays as it is. */
static void read_root(struct dwarf_unit *unit, struct cursor in)
{
	struct abbrev_attribute attributes[ROOT_ATTRIBUTES_MAX];
	struct dwarf_value values[ROOT_ATTRIBUTES_MAX];
	struct abbrev abbrev;
	const struct dwarf_section *table = dwarf_section(&unit->source->sections, DWARF_ABBREV);
	uint64_t code = cursor_uleb(&in);
	if (code == 0 || !abbrevs_read_one(cursor_at(table->bytes, table->n, unit->abbrev_offset, table->n), code,
					   &abbrev, attributes, ROOT_ATTRIBUTES_MAX, &unit->source->work))
		return;
	for (uint32_t i = 0; i < abbrev.n; i++) {
		dwarf_value_read(unit, &in, &attributes[i], &values[i]);
		if (in.failed)
			return;
		(void)work_spent(&unit->source->work, 1);
		take_root_number(unit, attributes[i].name, &values[i]);
	}
	for (uint32_t i = 0; i < abbrev.n; i++)
		take_root_rest(unit, attributes[i].name, &values[i]);
}

static int add_unit(struct dwarf_source *source, size_t *allocated, const struct dwarf_unit *unit)
{
	if (source->n_units == *allocated) {
		if (source->n_units >= UNITS_MAX)
			return -EFBIG;
		size_t wanted = *allocated ? *allocated * 2 : 64;
		struct dwarf_unit *grown = reallocarray(source->units, wanted, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		source->units = grown;
		*allocated = wanted;
	}
	source->units[source->n_units++] = *unit;
	return 0;
}

/* Where the tables of a split unit begin: behind their headers, which GNU's DWARF 4 does not have. */
static void set_split_bases(struct dwarf_unit *unit, const struct dwarf_bases *bases)
{
	uint64_t more = unit->offset_bytes == 8 ? HEADER_64_MORE_BYTES : 0;
	bool headers = unit->version >= 5;
	unit->str_offsets_base = bases->str_offsets + (headers ? STR_OFFSETS_HEADER_BYTES + more : 0);
	unit->rnglists_base = bases->rnglists + (headers ? RNGLISTS_HEADER_BYTES + more : 0);
	unit->abbrev_offset += bases->abbrev;
}

/* The unit at *offset, which is moved behind it. False: there is none, nor anything behind it. */
static bool read_unit(struct dwarf_source *source, uint64_t *offset, const struct dwarf_bases *bases,
		      struct dwarf_unit *ret, bool *ret_known)
{
	const struct dwarf_section *info = dwarf_section(&source->sections, DWARF_INFO);
	struct cursor in = cursor_at(info->bytes, info->n, *offset, info->n);
	*ret = (struct dwarf_unit){
		.source = source,
		.offset = *offset,
		.line_offset = DWARF_NOWHERE,
		.ranges_offset = DWARF_NOWHERE,
		.ranges_index = DWARF_NOWHERE,
		.low_pc = DWARF_NOWHERE,
		.high_pc = DWARF_NOWHERE,
		.addr_base = DWARF_NOWHERE,
	};
	uint64_t length = cursor_initial_length(&in, &ret->offset_bytes);
	if (in.failed || length > cursor_left(&in))
		return false;
	in.end = in.at + length;
	ret->end = (uint64_t)(in.end - info->bytes);
	*offset = ret->end;
	*ret_known = read_header(&in, ret);
	ret->dies = (uint64_t)(in.at - info->bytes);
	set_split_bases(ret, bases);
	if (*ret_known)
		read_root(ret, in);
	return true;
}

bool dwarf_unit_read_packaged(struct dwarf_source *package, const struct dwarf_bases *bases, struct dwarf_unit *ret)
{
	uint64_t offset = bases->info;
	bool known = false;
	return read_unit(package, &offset, bases, ret, &known) && known;
}

int dwarf_units_read(struct dwarf_source *source)
{
	uint64_t offset = 0;
	size_t allocated = 0;
	const struct dwarf_bases none = {};
	struct dwarf_unit unit;
	bool known = false;
	uint64_t end = dwarf_section(&source->sections, DWARF_INFO)->n;
	work_begin(&source->work, UNITS_BUDGET_NS);
	while (offset < end && !work_spent(&source->work, 8) && read_unit(source, &offset, &none, &unit, &known)) {
		int r = known ? add_unit(source, &allocated, &unit) : 0;
		if (r < 0)
			return r;
	}
	return source->n_units ? 0 : -EBADMSG;
}

struct dwarf_unit *dwarf_unit_at(const struct dwarf_source *source, uint64_t offset)
{
	size_t low = 0, high = source->n_units; /* the first unit above offset */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (source->units[middle].offset <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	struct dwarf_unit *unit = low ? &source->units[low - 1] : NULL;
	return unit && offset >= unit->dies && offset < unit->end ? unit : NULL;
}

bool dwarf_unit_load_abbrevs(struct dwarf_unit *unit)
{
	if (unit->abbrevs.entries || unit->bad_abbrevs)
		return !unit->bad_abbrevs;
	const struct dwarf_section *table = dwarf_section(&unit->source->sections, DWARF_ABBREV);
	struct cursor in = cursor_at(table->bytes, table->n, unit->abbrev_offset, table->n);
	bool sizes_known = unit->version > 2;
	unit->bad_abbrevs = abbrevs_read(in, sizes_known ? unit->offset_bytes : 0,
					 sizes_known ? unit->address_bytes : 0, &unit->abbrevs) < 0 ||
			    !unit->abbrevs.entries;
	return !unit->bad_abbrevs;
}

void dwarf_unit_drop_abbrevs(struct dwarf_unit *unit)
{
	abbrevs_free(&unit->abbrevs);
	unit->bad_abbrevs = false;
}
