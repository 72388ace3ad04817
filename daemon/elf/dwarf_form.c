#include "elf/dwarf_form.h"

#include <dwarf.h>

static void set(struct dwarf_value *value, enum dwarf_value_kind kind, uint64_t number)
{
	value->kind = kind;
	value->number = number;
}

/* A reference within the unit. */
static void set_local(const struct dwarf_unit *unit, struct dwarf_value *value, uint64_t offset)
{
	if (offset < unit->end - unit->offset)
		set(value, VALUE_REFERENCE, unit->offset + offset);
}

static unsigned address_bytes_of_reference(const struct dwarf_unit *unit)
{
	return unit->version <= 2 ? unit->address_bytes : unit->offset_bytes;
}

/* Those with an index into a table of addresses, texts or ranges. */
static bool read_indexed(struct cursor *in, unsigned form, struct dwarf_value *value)
{
	switch (form) {
	case DW_FORM_addrx:
	case DW_FORM_GNU_addr_index:
		set(value, VALUE_ADDRESS_INDEX, cursor_uleb(in));
		return true;
	case DW_FORM_addrx1:
	case DW_FORM_addrx2:
	case DW_FORM_addrx3:
	case DW_FORM_addrx4:
		set(value, VALUE_ADDRESS_INDEX, cursor_uint(in, form - DW_FORM_addrx1 + 1));
		return true;
	case DW_FORM_strx:
	case DW_FORM_GNU_str_index:
		set(value, VALUE_TEXT_INDEX, cursor_uleb(in));
		return true;
	case DW_FORM_strx1:
	case DW_FORM_strx2:
	case DW_FORM_strx3:
	case DW_FORM_strx4:
		set(value, VALUE_TEXT_INDEX, cursor_uint(in, form - DW_FORM_strx1 + 1));
		return true;
	case DW_FORM_rnglistx:
		set(value, VALUE_RANGES_INDEX, cursor_uleb(in));
		return true;
	case DW_FORM_loclistx:
		cursor_skip_leb(in);
		return true;
	default:
		return false;
	}
}

static bool read_text(const struct dwarf_unit *unit, struct cursor *in, unsigned form, struct dwarf_value *value)
{
	switch (form) {
	case DW_FORM_string:
		value->text = cursor_text(in);
		value->kind = VALUE_TEXT;
		return true;
	case DW_FORM_strp:
		set(value, VALUE_TEXT_OFFSET, cursor_uint(in, unit->offset_bytes));
		return true;
	case DW_FORM_line_strp:
		set(value, VALUE_LINE_TEXT_OFFSET, cursor_uint(in, unit->offset_bytes));
		return true;
	case DW_FORM_strp_sup:
	case DW_FORM_GNU_strp_alt:
		set(value, VALUE_ALT_TEXT_OFFSET, cursor_uint(in, unit->offset_bytes));
		return true;
	default:
		return false;
	}
}

static bool read_reference(const struct dwarf_unit *unit, struct cursor *in, unsigned form, struct dwarf_value *value)
{
	switch (form) {
	case DW_FORM_ref1:
		set_local(unit, value, cursor_u8(in));
		return true;
	case DW_FORM_ref2:
		set_local(unit, value, cursor_uint(in, 2));
		return true;
	case DW_FORM_ref4:
		set_local(unit, value, cursor_uint(in, 4));
		return true;
	case DW_FORM_ref8:
		set_local(unit, value, cursor_uint(in, 8));
		return true;
	case DW_FORM_ref_udata:
		set_local(unit, value, cursor_uleb(in));
		return true;
	case DW_FORM_ref_addr:
		set(value, VALUE_REFERENCE, cursor_uint(in, address_bytes_of_reference(unit)));
		return true;
	case DW_FORM_GNU_ref_alt:
		set(value, VALUE_ALT_REFERENCE, cursor_uint(in, unit->offset_bytes));
		return true;
	case DW_FORM_ref_sup4:
		set(value, VALUE_ALT_REFERENCE, cursor_uint(in, 4));
		return true;
	case DW_FORM_ref_sup8:
		set(value, VALUE_ALT_REFERENCE, cursor_uint(in, 8));
		return true;
	case DW_FORM_ref_sig8:
		cursor_skip(in, 8);
		return true;
	default:
		return false;
	}
}

static void read_plain(const struct dwarf_unit *unit, struct cursor *in, unsigned form, struct dwarf_value *value)
{
	switch (form) {
	case DW_FORM_addr:
		set(value, VALUE_ADDRESS, cursor_uint(in, unit->address_bytes));
		break;
	case DW_FORM_data1:
	case DW_FORM_flag:
		set(value, VALUE_CONSTANT, cursor_u8(in));
		break;
	case DW_FORM_data2:
		set(value, VALUE_CONSTANT, cursor_uint(in, 2));
		break;
	case DW_FORM_data4:
		set(value, VALUE_CONSTANT, cursor_uint(in, 4));
		break;
	case DW_FORM_data8:
		set(value, VALUE_CONSTANT, cursor_uint(in, 8));
		break;
	case DW_FORM_udata:
		set(value, VALUE_CONSTANT, cursor_uleb(in));
		break;
	case DW_FORM_sdata:
		set(value, VALUE_CONSTANT, (uint64_t)cursor_sleb(in));
		break;
	case DW_FORM_flag_present:
		set(value, VALUE_CONSTANT, 1);
		break;
	case DW_FORM_sec_offset:
		set(value, VALUE_SECTION_OFFSET, cursor_uint(in, unit->offset_bytes));
		break;
	case DW_FORM_data16:
		cursor_skip(in, 16);
		break;
	case DW_FORM_block1:
		cursor_skip(in, cursor_u8(in));
		break;
	case DW_FORM_block2:
		cursor_skip(in, cursor_uint(in, 2));
		break;
	case DW_FORM_block4:
		cursor_skip(in, cursor_uint(in, 4));
		break;
	case DW_FORM_block:
	case DW_FORM_exprloc:
		cursor_skip(in, cursor_uleb(in));
		break;
	default: /* DW_FORM_indirect too, which no compiler uses */
		cursor_fail(in);
	}
}

void dwarf_value_read(const struct dwarf_unit *unit, struct cursor *in, const struct abbrev_attribute *attribute,
		      struct dwarf_value *ret)
{
	unsigned form = attribute->form;
	*ret = (struct dwarf_value){};
	if (form == DW_FORM_implicit_const)
		set(ret, VALUE_CONSTANT, (uint64_t)attribute->implicit);
	else if (!read_reference(unit, in, form, ret) && !read_text(unit, in, form, ret) &&
		 !read_indexed(in, form, ret))
		read_plain(unit, in, form, ret);
}

/* The forms that are met most, without keeping what they say. */
void dwarf_value_skip(const struct dwarf_unit *unit, struct cursor *in, const struct abbrev_attribute *attribute)
{
	struct dwarf_value ignored;
	switch (attribute->form) {
	case DW_FORM_data1:
	case DW_FORM_ref1:
	case DW_FORM_flag:
	case DW_FORM_strx1:
	case DW_FORM_addrx1:
		cursor_skip(in, 1);
		break;
	case DW_FORM_data2:
	case DW_FORM_ref2:
	case DW_FORM_strx2:
		cursor_skip(in, 2);
		break;
	case DW_FORM_data4:
	case DW_FORM_ref4:
		cursor_skip(in, 4);
		break;
	case DW_FORM_data8:
	case DW_FORM_ref8:
		cursor_skip(in, 8);
		break;
	case DW_FORM_strp:
	case DW_FORM_line_strp:
	case DW_FORM_sec_offset:
		cursor_skip(in, unit->offset_bytes);
		break;
	case DW_FORM_flag_present:
	case DW_FORM_implicit_const:
		break;
	case DW_FORM_udata:
	case DW_FORM_sdata:
	case DW_FORM_ref_udata:
	case DW_FORM_addrx:
	case DW_FORM_strx:
	case DW_FORM_rnglistx:
	case DW_FORM_loclistx:
		cursor_skip_leb(in);
		break;
	case DW_FORM_exprloc:
		cursor_skip(in, cursor_uleb(in));
		break;
	default:
		dwarf_value_read(unit, in, attribute, &ignored);
	}
}

void dwarf_values_skip(const struct dwarf_unit *unit, struct cursor *in, const struct abbrev *abbrev,
		       const struct abbrev_attribute *attributes)
{
	if (abbrev->fixed_bytes >= 0) {
		cursor_skip(in, (uint64_t)abbrev->fixed_bytes);
		return;
	}
	for (uint32_t i = 0; i < abbrev->n && !in->failed; i++)
		dwarf_value_skip(unit, in, &attributes[abbrev->first + i]);
}

/* The number at index of a table of numbers of element_bytes that begins at base. */
static bool read_element(const struct dwarf_section *section, uint64_t base, uint64_t index, unsigned element_bytes,
			 uint64_t *ret)
{
	if (base == DWARF_NOWHERE || base > section->n || index >= (section->n - base) / element_bytes)
		return false;
	struct cursor in = cursor_at(section->bytes, section->n, base + index * element_bytes, section->n);
	*ret = cursor_uint(&in, element_bytes);
	return !in.failed;
}

bool dwarf_indexed_address(const struct dwarf_unit *unit, uint64_t index, uint64_t *ret)
{
	const struct dwarf_unit *home = dwarf_unit_home(unit);
	return read_element(dwarf_section(&home->source->sections, DWARF_ADDR), home->addr_base, index,
			    home->address_bytes, ret);
}

bool dwarf_value_address(const struct dwarf_unit *unit, const struct dwarf_value *value, uint64_t *ret)
{
	if (value->kind == VALUE_ADDRESS_INDEX)
		return dwarf_indexed_address(unit, value->number, ret);
	if (value->kind != VALUE_ADDRESS)
		return false;
	*ret = value->number;
	return true;
}

struct dwarf_text dwarf_value_text(const struct dwarf_unit *unit, const struct dwarf_value *value)
{
	struct dwarf_sections *sections = &unit->source->sections;
	uint64_t offset = 0;
	switch (value->kind) {
	case VALUE_TEXT:
		return value->text;
	case VALUE_TEXT_OFFSET:
		return dwarf_section_text(sections, DWARF_STR, value->number);
	case VALUE_LINE_TEXT_OFFSET:
		return dwarf_section_text(sections, DWARF_LINE_STR, value->number);
	case VALUE_ALT_TEXT_OFFSET:
		if (unit->source->alt)
			return dwarf_section_text(&unit->source->alt->sections, DWARF_STR, value->number);
		return (struct dwarf_text){};
	case VALUE_TEXT_INDEX:
		if (read_element(dwarf_section(sections, DWARF_STR_OFFSETS), unit->str_offsets_base, value->number,
				 unit->offset_bytes, &offset))
			return dwarf_section_text(sections, DWARF_STR, offset);
		return (struct dwarf_text){};
	default:
		return (struct dwarf_text){};
	}
}
