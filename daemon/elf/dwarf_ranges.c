#include "elf/dwarf_ranges.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

int dwarf_range_list_add(struct dwarf_range_list *list, uint64_t low, uint64_t high)
{
	if (low >= high)
		return 0;
	if (list->n == list->allocated) {
		if (list->n >= list->max)
			return -EFBIG;
		size_t wanted = list->allocated ? list->allocated * 2 : 64;
		struct dwarf_range *grown = reallocarray(list->ranges, wanted, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		list->ranges = grown;
		list->allocated = wanted;
	}
	list->ranges[list->n++] = (struct dwarf_range){low, high};
	return 0;
}

void dwarf_range_list_free(struct dwarf_range_list *list)
{
	free(list->ranges);
	*list = (struct dwarf_range_list){};
}

static uint64_t base_of(const struct dwarf_unit *unit)
{
	const struct dwarf_unit *home = dwarf_unit_home(unit);
	return home->low_pc == DWARF_NOWHERE ? 0 : home->low_pc;
}

/* Pairs of addresses relative to a base; the largest address in front sets another base; a pair of zeros ends it (DWARF 4, 2.17.3).
 * A split unit's lists are in the skeleton's file, from a base on that the skeleton tells. */
static int read_pairs(struct dwarf_unit *unit, uint64_t offset, struct dwarf_range_list *list)
{
	const struct dwarf_unit *home = dwarf_unit_home(unit);
	const struct dwarf_section *section = dwarf_section(&home->source->sections, DWARF_RANGES);
	if (home != unit && __builtin_add_overflow(offset, home->split_ranges_base, &offset))
		return 0;
	struct cursor in = cursor_at(section->bytes, section->n, offset, section->n);
	uint64_t largest = unit->address_bytes == 8 ? UINT64_MAX : UINT32_MAX, base = base_of(unit);
	while (!work_spent(&unit->source->work, 2)) {
		uint64_t low = cursor_uint(&in, unit->address_bytes), high = cursor_uint(&in, unit->address_bytes);
		if (in.failed || (low == 0 && high == 0))
			return 0;
		if (low == largest) {
			base = high;
			continue;
		}
		int r = dwarf_range_list_add(list, base + low, base + high);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool read_index(const struct dwarf_unit *unit, struct cursor *in, uint64_t *ret)
{
	uint64_t index = cursor_uleb(in);
	return !in->failed && dwarf_indexed_address(unit, index, ret);
}

/* One entry of a list of DWARF 5. 1: *ret is a range; 0: it set the base; -1: the end. */
static int read_entry(const struct dwarf_unit *unit, struct cursor *in, uint64_t *base, struct dwarf_range *ret)
{
	bool known = true;
	*ret = (struct dwarf_range){};
	switch (cursor_u8(in)) {
	case DW_RLE_base_addressx:
		return read_index(unit, in, base) ? 0 : -1;
	case DW_RLE_base_address:
		*base = cursor_uint(in, unit->address_bytes);
		return in->failed ? -1 : 0;
	case DW_RLE_startx_endx:
		known = read_index(unit, in, &ret->low) && read_index(unit, in, &ret->high);
		break;
	case DW_RLE_startx_length:
		known = read_index(unit, in, &ret->low);
		ret->high = ret->low + cursor_uleb(in);
		break;
	case DW_RLE_offset_pair:
		ret->low = *base + cursor_uleb(in);
		ret->high = *base + cursor_uleb(in);
		break;
	case DW_RLE_start_end:
		ret->low = cursor_uint(in, unit->address_bytes);
		ret->high = cursor_uint(in, unit->address_bytes);
		break;
	case DW_RLE_start_length:
		ret->low = cursor_uint(in, unit->address_bytes);
		ret->high = ret->low + cursor_uleb(in);
		break;
	default:
		return -1;
	}
	return known && !in->failed ? 1 : -1;
}

static int read_list(struct dwarf_unit *unit, uint64_t offset, struct dwarf_range_list *list)
{
	const struct dwarf_section *section = dwarf_section(&unit->source->sections, DWARF_RNGLISTS);
	struct cursor in = cursor_at(section->bytes, section->n, offset, section->n);
	uint64_t base = base_of(unit);
	struct dwarf_range range;
	int kind = 0;
	while (!in.failed && !work_spent(&unit->source->work, 2) &&
	       (kind = read_entry(unit, &in, &base, &range)) >= 0) {
		int r = kind ? dwarf_range_list_add(list, range.low, range.high) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where list number index is, by the unit's table of offsets. */
static bool offset_of_index(const struct dwarf_unit *unit, uint64_t index, uint64_t *ret)
{
	const struct dwarf_section *section = dwarf_section(&unit->source->sections, DWARF_RNGLISTS);
	uint64_t base = unit->rnglists_base;
	if (base > section->n || index >= (section->n - base) / unit->offset_bytes)
		return false;
	struct cursor in = cursor_at(section->bytes, section->n, base + index * unit->offset_bytes, section->n);
	*ret = base + cursor_uint(&in, unit->offset_bytes);
	return !in.failed;
}

int dwarf_ranges_read(struct dwarf_unit *unit, const struct dwarf_value *value, struct dwarf_range_list *list)
{
	uint64_t offset = value->number;
	if (value->kind == VALUE_RANGES_INDEX && !offset_of_index(unit, value->number, &offset))
		return 0;
	if (value->kind != VALUE_RANGES_INDEX && value->kind != VALUE_SECTION_OFFSET &&
	    value->kind != VALUE_CONSTANT) /* DWARF 3 has them as data4 */
		return 0;
	return unit->version >= 5 ? read_list(unit, offset, list) : read_pairs(unit, offset, list);
}

int dwarf_ranges_of_unit(struct dwarf_unit *unit, struct dwarf_range_list *list)
{
	if (unit->ranges_index != DWARF_NOWHERE)
		return dwarf_ranges_read(
			unit, &(struct dwarf_value){.kind = VALUE_RANGES_INDEX, .number = unit->ranges_index}, list);
	if (unit->ranges_offset != DWARF_NOWHERE)
		return dwarf_ranges_read(
			unit, &(struct dwarf_value){.kind = VALUE_SECTION_OFFSET, .number = unit->ranges_offset}, list);
	if (unit->low_pc != DWARF_NOWHERE && unit->high_pc != DWARF_NOWHERE)
		return dwarf_range_list_add(list, unit->low_pc, unit->high_pc);
	return 0;
}
