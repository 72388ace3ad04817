#include "elf/dwarf_names.h"

#include <dwarf.h>
#include <stdlib.h>

#include "base/hash.h"
#include "elf/demangle.h"
#include "elf/dwarf_form.h"
#include "elf/text.h"
#include "proto/reader_limits.h"

enum {
	HOPS_MAX = 16, /* from an entry to its origin, to its declaration: 2 or 3 */
	NAMES_MAX_BYTES = 64 << 20,
	NAMES_TRIM_BYTES = 48 << 20,
	ENTRIES_MAX = 1 << 20,
};

struct dwarf_name_entry {
	const struct dwarf_source *source; /* NULL: free */
	uint64_t offset;
	const struct dwarf_name *name;
};

void dwarf_names_init(struct dwarf_names *names)
{
	*names = (struct dwarf_names){};
	arena_init(&names->arena, NAMES_MAX_BYTES);
}

void dwarf_names_free(struct dwarf_names *names)
{
	arena_free(&names->arena);
	free(names->entries);
	dwarf_names_init(names);
}

size_t dwarf_names_bytes(const struct dwarf_names *names)
{
	return names->arena.held_bytes + names->allocated * sizeof(names->entries[0]);
}

void dwarf_names_trim(struct dwarf_names *names)
{
	if (names->arena.held_bytes > NAMES_TRIM_BYTES || names->n > ENTRIES_MAX / 2)
		dwarf_names_free(names);
}

static struct dwarf_name_entry *probe(struct dwarf_name_entry *entries, size_t allocated,
				      const struct dwarf_source *source, uint64_t offset)
{
	uint64_t key[] = {(uint64_t)(uintptr_t)source, offset};
	size_t at = hash_bytes(key, sizeof(key), hash_seed()) & (allocated - 1);
	while (entries[at].source && (entries[at].source != source || entries[at].offset != offset))
		at = (at + 1) & (allocated - 1);
	return &entries[at];
}

static bool make_room(struct dwarf_names *names)
{
	if ((names->n + 1) * 4 <= names->allocated * 3)
		return true;
	size_t allocated = names->allocated ? names->allocated * 2 : 1024;
	struct dwarf_name_entry *entries = allocated <= ENTRIES_MAX ? calloc(allocated, sizeof(*entries)) : NULL;
	if (!entries)
		return false;
	for (size_t i = 0; i < names->allocated; i++)
		if (names->entries[i].source)
			*probe(entries, allocated, names->entries[i].source, names->entries[i].offset) =
				names->entries[i];
	free(names->entries);
	names->entries = entries;
	names->allocated = allocated;
	return true;
}

/* What is gathered along the way from an entry to its origins. */
struct gathered {
	struct dwarf_text name, linkage;
	uint64_t line;
	struct dwarf_value next;
};

static void take_attribute(const struct dwarf_unit *unit, unsigned name, const struct dwarf_value *value,
			   struct gathered *gathered)
{
	switch (name) {
	case DW_AT_name:
		if (gathered->name.n == 0)
			gathered->name = dwarf_value_text(unit, value);
		break;
	case DW_AT_linkage_name:
	case DW_AT_MIPS_linkage_name:
		if (gathered->linkage.n == 0)
			gathered->linkage = dwarf_value_text(unit, value);
		break;
	case DW_AT_decl_line:
		if (gathered->line == 0)
			gathered->line = value->number;
		break;
	case DW_AT_abstract_origin:
	case DW_AT_specification:
		gathered->next = *value;
		break;
	default:
		break;
	}
}

static void gather(struct dwarf_unit *unit, uint64_t offset, struct gathered *gathered)
{
	const struct dwarf_section *section = dwarf_section(&unit->source->sections, DWARF_INFO);
	struct cursor in = cursor_at(section->bytes, section->n, offset, unit->end);
	const struct abbrev *abbrev = abbrevs_find(&unit->abbrevs, cursor_uleb(&in));
	gathered->next = (struct dwarf_value){};
	for (uint32_t i = 0; abbrev && i < abbrev->n && !in.failed; i++) {
		const struct abbrev_attribute *attribute = &unit->abbrevs.attributes[abbrev->first + i];
		struct dwarf_value value;
		dwarf_value_read(unit, &in, attribute, &value);
		if (!in.failed)
			take_attribute(unit, attribute->name, &value, gathered);
	}
}

static void gather_all(struct dwarf_unit *unit, uint64_t offset, dwarf_names_visit *visit, void *context,
		       struct gathered *gathered)
{
	for (int hop = 0; hop < HOPS_MAX && unit; hop++) {
		if (!visit(context, unit) || !dwarf_unit_load_abbrevs(unit))
			return;
		gather(unit, offset, gathered);
		offset = gathered->next.number;
		if (gathered->next.kind == VALUE_REFERENCE)
			unit = offset >= unit->dies && offset < unit->end ? unit : dwarf_unit_at(unit->source, offset);
		else if (gathered->next.kind == VALUE_ALT_REFERENCE && unit->source->alt)
			unit = dwarf_unit_at(unit->source->alt, offset);
		else
			return;
	}
}

static void copy_text(struct dwarf_text text, char *out)
{
	size_t n = text.n < READER_NAME_MAX_BYTES ? text.n : READER_NAME_MAX_BYTES;
	memcpy(out, text.at, n);
	out[n] = '\0';
	text_make_printable(out);
}

/* In C, and where the compiler says nothing else, the linkage name is the name. */
static bool set_names(struct dwarf_names *names, const struct gathered *gathered, struct dwarf_name *ret)
{
	char system[READER_NAME_MAX_BYTES + 1], readable[READER_NAME_MAX_BYTES + 1];
	bool linkage = gathered->linkage.n > 0;
	if (!linkage && gathered->name.n == 0)
		return true;
	copy_text(linkage ? gathered->linkage : gathered->name, system);
	if (!system[0])
		return true; /* the file changed under us */
	ret->system_name = arena_strndup(&names->arena, system, strlen(system));
	ret->name = ret->system_name;
	if (demangle(system, readable, sizeof(readable))) {
		text_make_printable(readable);
		ret->is_mangled = true;
		ret->name = arena_strndup(&names->arena, readable, strlen(readable));
	}
	return ret->system_name && ret->name;
}

const struct dwarf_name *dwarf_names_find(struct dwarf_names *names, struct dwarf_unit *unit, uint64_t offset,
					  dwarf_names_visit *visit, void *context)
{
	if (!make_room(names))
		return NULL;
	struct dwarf_name_entry *entry = probe(names->entries, names->allocated, unit->source, offset);
	if (entry->source)
		return entry->name;
	struct gathered gathered = {};
	gather_all(unit, offset, visit, context, &gathered);
	struct dwarf_name *name = arena_alloc(&names->arena, sizeof(*name));
	if (!name)
		return NULL;
	*name = (struct dwarf_name){.start_line = gathered.line <= INT32_MAX ? (uint32_t)gathered.line : 0};
	if (!set_names(names, &gathered, name))
		return NULL;
	*entry = (struct dwarf_name_entry){.source = unit->source, .offset = offset, .name = name};
	names->n++;
	return name;
}
