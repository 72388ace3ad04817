#include "elf/dwarf_scopes.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

enum {
	SCOPES_MAX = 4 << 20,
	RANGES_MAX = 8 << 20,
	DEPTH_MAX = 1024, /* of entries within entries */
	OVERLAPS_MAX = 16,
};
#define SCOPES_BUDGET_NS 500000000U
#define NO_SCOPE         UINT32_MAX

struct function_range {
	uint64_t low, high;
	uint32_t scope;
};

struct dwarf_scopes {
	struct dwarf_scope *scopes; /* in the order of their entries: what is within one follows it */
	size_t n, allocated;
	struct dwarf_range_list ranges;
	struct function_range *functions; /* ascending by low; of equal ones the inner comes later */
	size_t n_functions;
};

struct open_entry {
	uint32_t scope;   /* the innermost one around its children; NO_SCOPE: none */
	bool owns;        /* it ends where this entry's children do */
	bool in_function; /* its children are within one, at whatever depth */
};

struct walk {
	struct dwarf_unit *unit;
	struct dwarf_scopes *scopes;
	const uint8_t *info; /* the section */
	struct open_entry open[DEPTH_MAX];
	size_t depth;
};

/* What an entry that may be a scope says of itself. */
struct entry {
	struct dwarf_value low, high, ranges;
	uint64_t call_file, call_line, sibling;
};

static void take_value(struct entry *entry, unsigned name, const struct dwarf_value *value)
{
	switch (name) {
	case DW_AT_low_pc:
		entry->low = *value;
		break;
	case DW_AT_high_pc:
		entry->high = *value;
		break;
	case DW_AT_ranges:
		entry->ranges = *value;
		break;
	case DW_AT_call_file:
		entry->call_file = value->number;
		break;
	case DW_AT_call_line:
		entry->call_line = value->number;
		break;
	case DW_AT_sibling:
		entry->sibling = value->kind == VALUE_REFERENCE ? value->number : 0;
		break;
	default:
		break;
	}
}

static bool is_wanted(unsigned name)
{
	return name == DW_AT_low_pc || name == DW_AT_high_pc || name == DW_AT_ranges || name == DW_AT_call_file ||
	       name == DW_AT_call_line || name == DW_AT_sibling;
}

static void read_entry(const struct walk *walk, struct cursor *in, const struct abbrev *abbrev, struct entry *ret)
{
	*ret = (struct entry){};
	const struct abbrev_attribute *attributes = walk->unit->abbrevs.attributes + abbrev->first;
	for (uint32_t i = 0; i < abbrev->n && !in->failed; i++) {
		struct dwarf_value value;
		if (!is_wanted(attributes[i].name)) {
			dwarf_value_skip(walk->unit, in, &attributes[i]);
			continue;
		}
		dwarf_value_read(walk->unit, in, &attributes[i], &value);
		take_value(ret, attributes[i].name, &value);
	}
}

/* Adds the entry's ranges to those of the unit. What the linker threw away is left at 0, or at the top. */
static int take_ranges(const struct walk *walk, const struct entry *entry, struct dwarf_scope *scope)
{
	struct dwarf_range_list *list = &walk->scopes->ranges;
	size_t before = list->n;
	int r = 0;
	if (entry->ranges.kind != VALUE_NONE) {
		r = dwarf_ranges_read(walk->unit, &entry->ranges, list);
	} else if (dwarf_value_address(walk->unit, &entry->low, &scope->low) && scope->low != 0) {
		uint64_t high = entry->high.number;
		if (entry->high.kind == VALUE_CONSTANT)
			high += scope->low;
		else if (!dwarf_value_address(walk->unit, &entry->high, &high))
			return 0;
		r = dwarf_range_list_add(list, scope->low, high);
	}
	if (r < 0)
		return r;
	scope->first_range = (uint32_t)before;
	scope->n_ranges = (uint32_t)(list->n - before);
	if (scope->n_ranges == 1) {
		scope->low = list->ranges[before].low;
		scope->high = list->ranges[before].high;
		if (!scope->is_function)
			list->n = before;
	}
	return 0;
}

static int add_scope(struct walk *walk, const struct dwarf_scope *scope)
{
	struct dwarf_scopes *scopes = walk->scopes;
	if (scopes->n == scopes->allocated) {
		if (scopes->n >= SCOPES_MAX)
			return -EFBIG;
		size_t wanted = scopes->allocated ? scopes->allocated * 2 : 256;
		struct dwarf_scope *grown = reallocarray(scopes->scopes, wanted, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		scopes->scopes = grown;
		scopes->allocated = wanted;
	}
	scopes->scopes[scopes->n++] = *scope;
	return 0;
}

static uint32_t current_scope(const struct walk *walk)
{
	return walk->depth ? walk->open[walk->depth - 1].scope : NO_SCOPE;
}

/* Of a function or an inlined call. *ret_scope: the scope for its children; *ret_owns: it was added. */
static int take_scope(struct walk *walk, const struct entry *entry, bool is_function, uint64_t die,
		      struct open_entry *ret)
{
	*ret = (struct open_entry){.scope = NO_SCOPE};
	if (!is_function && current_scope(walk) == NO_SCOPE)
		return 0;
	struct dwarf_scope scope = {
		.die = (uint32_t)(die - walk->unit->offset),
		.call_file = entry->call_file <= UINT32_MAX ? (uint32_t)entry->call_file : UINT32_MAX,
		.call_line = entry->call_line <= INT32_MAX ? (uint32_t)entry->call_line : 0,
		.is_function = is_function,
		.end = (uint32_t)walk->scopes->n + 1,
	};
	int r = take_ranges(walk, entry, &scope);
	if (r < 0 || scope.n_ranges == 0)
		return r;
	ret->scope = (uint32_t)walk->scopes->n;
	ret->owns = true;
	return add_scope(walk, &scope);
}

static void close_entry(struct walk *walk)
{
	const struct open_entry *open = &walk->open[--walk->depth];
	if (open->owns)
		walk->scopes->scopes[open->scope].end = (uint32_t)walk->scopes->n;
}

/* Nothing within these has code of its own; but a class that is local to a function may hold its methods' (gcc). */
static bool may_be_skipped(unsigned tag, bool in_function)
{
	switch (tag) {
	case DW_TAG_class_type:
	case DW_TAG_structure_type:
	case DW_TAG_union_type:
		return !in_function;
	case DW_TAG_interface_type:
	case DW_TAG_enumeration_type:
	case DW_TAG_array_type:
	case DW_TAG_subroutine_type:
	case DW_TAG_call_site:
	case DW_TAG_GNU_call_site:
	case DW_TAG_GNU_formal_parameter_pack:
	case DW_TAG_GNU_template_parameter_pack:
		return true;
	default:
		return false;
	}
}

/* Behind the children of the entry that ends at in, when sibling says where that is. */
static bool jump(const struct walk *walk, struct cursor *in, uint64_t sibling)
{
	if (sibling <= (uint64_t)(in->at - walk->info) || sibling >= walk->unit->end)
		return false;
	in->at = walk->info + sibling;
	return true;
}

/* One entry, and down to its children. */
static int walk_entry(struct walk *walk, struct cursor *in, const struct abbrev *abbrev, uint64_t die)
{
	struct entry entry;
	struct open_entry open = {.scope = current_scope(walk)};
	bool is_function = abbrev->tag == DW_TAG_subprogram;
	bool in_function = walk->depth && walk->open[walk->depth - 1].in_function;
	if (is_function || abbrev->tag == DW_TAG_inlined_subroutine) {
		read_entry(walk, in, abbrev, &entry);
		int r = in->failed ? -EBADMSG : take_scope(walk, &entry, is_function, die, &open);
		if (r < 0)
			return r;
	} else if (abbrev->has_sibling && abbrev->has_children && may_be_skipped(abbrev->tag, in_function)) {
		read_entry(walk, in, abbrev, &entry);
		if (jump(walk, in, entry.sibling))
			return 0;
	} else {
		dwarf_values_skip(walk->unit, in, abbrev, walk->unit->abbrevs.attributes);
	}
	if (!abbrev->has_children)
		return 0;
	if (walk->depth >= DEPTH_MAX)
		return -EBADMSG;
	open.in_function = is_function || in_function;
	walk->open[walk->depth++] = open;
	return 0;
}

static int walk_unit(struct walk *walk)
{
	struct dwarf_unit *unit = walk->unit;
	const struct dwarf_section *section = dwarf_section(&unit->source->sections, DWARF_INFO);
	struct cursor in = cursor_at(section->bytes, section->n, unit->dies, unit->end);
	walk->info = section->bytes;
	int r = 0;
	while (r == 0 && in.at < in.end) {
		uint64_t die = (uint64_t)(in.at - section->bytes), code = cursor_uleb(&in);
		if (code == 0) {
			if (walk->depth)
				close_entry(walk);
			if (walk->depth == 0)
				break;
			continue;
		}
		const struct abbrev *abbrev = abbrevs_find(&unit->abbrevs, code);
		if (!abbrev || in.failed)
			r = -EBADMSG;
		else if (work_spent(&unit->source->work, 1 + abbrev->n / 2))
			r = -EFBIG;
		else
			r = walk_entry(walk, &in, abbrev, die);
	}
	while (walk->depth)
		close_entry(walk);
	return r == -EBADMSG && walk->scopes->n ? 0 : r;
}

static int compare_functions(const void *left, const void *right)
{
	const struct function_range *a = left, *b = right;
	if (a->low != b->low)
		return a->low < b->low ? -1 : 1;
	return (a->scope > b->scope) - (a->scope < b->scope);
}

static int index_functions(struct dwarf_scopes *scopes)
{
	size_t n = 0;
	for (size_t i = 0; i < scopes->n; i++)
		n += scopes->scopes[i].is_function ? scopes->scopes[i].n_ranges : 0;
	if (n == 0)
		return 0;
	scopes->functions = reallocarray(NULL, n, sizeof(scopes->functions[0]));
	if (!scopes->functions)
		return -ENOMEM;
	for (size_t i = 0; i < scopes->n; i++) {
		const struct dwarf_scope *scope = &scopes->scopes[i];
		for (uint32_t k = 0; scope->is_function && k < scope->n_ranges; k++) {
			const struct dwarf_range *range = &scopes->ranges.ranges[scope->first_range + k];
			if (range->low != 0)
				scopes->functions[scopes->n_functions++] =
					(struct function_range){range->low, range->high, (uint32_t)i};
		}
	}
	if (scopes->n_functions)
		qsort(scopes->functions, scopes->n_functions, sizeof(scopes->functions[0]), compare_functions);
	return 0;
}

int dwarf_scopes_read(struct dwarf_unit *unit, struct dwarf_scopes **ret)
{
	struct dwarf_scopes *scopes = calloc(1, sizeof(*scopes));
	struct walk *walk = malloc(sizeof(*walk));
	int r = -ENOMEM;
	if (scopes && walk) {
		scopes->ranges.max = RANGES_MAX;
		walk->unit = unit;
		walk->scopes = scopes;
		walk->depth = 0;
		work_begin(&unit->source->work, SCOPES_BUDGET_NS);
		r = walk_unit(walk);
		if (r == 0)
			r = index_functions(scopes);
	}
	free(walk);
	if (r < 0) {
		dwarf_scopes_free(scopes);
		return r;
	}
	*ret = scopes;
	return 0;
}

void dwarf_scopes_free(struct dwarf_scopes *scopes)
{
	if (!scopes)
		return;
	dwarf_range_list_free(&scopes->ranges);
	free(scopes->scopes);
	free(scopes->functions);
	free(scopes);
}

size_t dwarf_scopes_bytes(const struct dwarf_scopes *scopes)
{
	return sizeof(*scopes) + scopes->allocated * sizeof(scopes->scopes[0]) +
	       scopes->ranges.allocated * sizeof(scopes->ranges.ranges[0]) +
	       scopes->n_functions * sizeof(scopes->functions[0]);
}

static bool covers(const struct dwarf_scopes *scopes, const struct dwarf_scope *scope, uint64_t address)
{
	if (scope->n_ranges == 1)
		return address >= scope->low && address < scope->high;
	for (uint32_t i = 0; i < scope->n_ranges; i++) {
		const struct dwarf_range *range = &scopes->ranges.ranges[scope->first_range + i];
		if (address >= range->low && address < range->high)
			return true;
	}
	return false;
}

static const struct function_range *find_function(const struct dwarf_scopes *scopes, uint64_t address)
{
	size_t low = 0, high = scopes->n_functions; /* the first function above address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (scopes->functions[middle].low <= address)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t tried = 0; low > 0 && tried < OVERLAPS_MAX; low--, tried++) {
		if (address < scopes->functions[low - 1].high)
			return &scopes->functions[low - 1];
	}
	return NULL;
}

size_t dwarf_scopes_find(const struct dwarf_scopes *scopes, uint64_t address, const struct dwarf_scope **ret,
			 size_t max)
{
	const struct function_range *function = find_function(scopes, address);
	if (!function || max == 0)
		return 0;
	size_t n = 0;
	ret[n++] = &scopes->scopes[function->scope];
	uint32_t at = function->scope + 1, end = ret[0]->end;
	while (at < end && n < max) {
		const struct dwarf_scope *scope = &scopes->scopes[at];
		if (!scope->is_function && covers(scopes, scope, address)) {
			ret[n++] = scope;
			end = scope->end;
			at++;
		} else {
			at = scope->end;
		}
	}
	return n;
}
