#include "elf/dwarf_index.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

enum { ENTRIES_MAX = 16 << 20, RANGES_OF_UNIT_MAX = 4 << 20, OVERLAPS_MAX = 16, ARANGES_VERSION = 2 };
#define INDEX_BUDGET_NS 1000000000U

static int add(struct dwarf_index *index, uint64_t low, uint64_t high, struct dwarf_unit *unit)
{
	if (low == 0 || low >= high) /* what the linker threw away is left at 0 */
		return 0;
	if (index->n == index->allocated) {
		if (index->n >= ENTRIES_MAX)
			return -EFBIG;
		size_t wanted = index->allocated ? index->allocated * 2 : 256;
		struct dwarf_index_entry *grown = reallocarray(index->entries, wanted, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		index->entries = grown;
		index->allocated = wanted;
	}
	index->entries[index->n++] = (struct dwarf_index_entry){low, high, unit};
	return 0;
}

static int add_units(struct dwarf_source *source, struct dwarf_index *index, bool *silent, bool *ret_any_silent)
{
	struct dwarf_range_list list = {.max = RANGES_OF_UNIT_MAX};
	int r = 0;
	for (size_t i = 0; i < source->n_units && r == 0; i++) {
		list.n = 0;
		r = dwarf_ranges_of_unit(&source->units[i], &list);
		silent[i] = list.n == 0;
		*ret_any_silent |= silent[i];
		for (size_t k = 0; k < list.n && r == 0; k++)
			r = add(index, list.ranges[k].low, list.ranges[k].high, &source->units[i]);
	}
	dwarf_range_list_free(&list);
	return r;
}

/* One set of .debug_aranges (DWARF 5, 6.1.2): a unit and its ranges. in is within the section, whose begin is start. */
static int add_set(struct dwarf_source *source, struct cursor *in, const uint8_t *start, const bool *silent,
		   struct dwarf_index *index)
{
	uint8_t offset_bytes = 0;
	uint64_t set = (uint64_t)(in->at - start), length = cursor_initial_length(in, &offset_bytes);
	if (in->failed || length > cursor_left(in))
		return -EBADMSG;
	struct cursor body = {.at = in->at, .end = in->at + length};
	in->at = body.end;
	uint64_t version = cursor_uint(&body, 2), offset = cursor_uint(&body, offset_bytes);
	unsigned address_bytes = cursor_u8(&body), segment_bytes = cursor_u8(&body);
	struct dwarf_unit *unit = dwarf_unit_at(source, offset + 2 * (uint64_t)offset_bytes + 8);
	if (version != ARANGES_VERSION || (address_bytes != 8 && address_bytes != 4) || segment_bytes || !unit ||
	    unit->offset != offset || !silent[unit - source->units])
		return 0;
	uint64_t misaligned = ((uint64_t)(body.at - start) - set) % (2 * (uint64_t)address_bytes);
	cursor_skip(&body, misaligned ? 2 * (uint64_t)address_bytes - misaligned : 0);
	while (!work_spent(&source->work, 2)) {
		uint64_t low = cursor_uint(&body, address_bytes), bytes = cursor_uint(&body, address_bytes);
		if (body.failed || (low == 0 && bytes == 0))
			break;
		int r = add(index, low, low + bytes, unit);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_aranges(struct dwarf_source *source, const bool *silent, struct dwarf_index *index)
{
	const struct dwarf_section *section = dwarf_section(&source->sections, DWARF_ARANGES);
	struct cursor in = cursor_at(section->bytes, section->n, 0, section->n);
	int r = 0;
	while (r == 0 && !in.failed && in.at < in.end && !work_spent(&source->work, 8))
		r = add_set(source, &in, section->bytes, silent, index);
	return r == -EBADMSG ? 0 : r;
}

static int compare(const void *left, const void *right)
{
	const struct dwarf_index_entry *a = left, *b = right;
	if (a->low != b->low)
		return a->low < b->low ? -1 : 1;
	return (a->unit < b->unit) - (a->unit > b->unit); /* the first unit comes last, and is found first */
}

int dwarf_index_build(struct dwarf_source *source, struct dwarf_index *ret)
{
	struct dwarf_index index = {};
	bool any_silent = false;
	_cleanup_free_ bool *silent = calloc(source->n_units ? source->n_units : 1, sizeof(*silent));
	if (!silent)
		return -ENOMEM;
	work_begin(&source->work, INDEX_BUDGET_NS);
	int r = add_units(source, &index, silent, &any_silent);
	if (r == 0 && any_silent)
		r = add_aranges(source, silent, &index);
	if (r < 0) { // NOLINT(clang-analyzer-unix.Malloc): freed by its cleanup
		dwarf_index_free(&index);
		return r;
	}
	if (index.n)
		qsort(index.entries, index.n, sizeof(index.entries[0]), compare);
	*ret = index;
	return 0;
}

void dwarf_index_free(struct dwarf_index *index)
{
	free(index->entries);
	*index = (struct dwarf_index){};
}

size_t dwarf_index_find(const struct dwarf_index *index, uint64_t address, struct dwarf_unit **ret, size_t max)
{
	size_t low = 0, high = index->n, found = 0; /* the first entry above address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (index->entries[middle].low <= address)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t tried = 0; low > 0 && tried < OVERLAPS_MAX && found < max; low--, tried++) {
		if (address < index->entries[low - 1].high)
			ret[found++] = index->entries[low - 1].unit;
	}
	return found;
}
