#include "elf/dwarf.h"

#include <errno.h>
#include <stdlib.h>

#include "elf/dwarf_index.h"
#include "elf/dwarf_lines.h"
#include "elf/dwarf_names.h"
#include "elf/dwarf_scopes.h"
#include "elf/dwarf_split.h"

enum {
	LOADED_MAX_BYTES = 192 << 20, /* of units' tables; more than that only for one unit */
	CANDIDATES_MAX = 4,
};
#define NAMES_BUDGET_NS 500000000U

struct dwarf {
	struct dwarf_source source, alt;
	struct dwarf_index index;
	struct dwarf_names names;
	struct dwarf_splits splits;
	/* Units with something loaded. */
	struct dwarf_unit **loaded;
	size_t n_loaded, loaded_allocated, loaded_bytes;
};

int dwarf_new(struct dwarf_sections *sections, struct dwarf **ret)
{
	struct dwarf *dwarf = calloc(1, sizeof(*dwarf));
	if (!dwarf) {
		dwarf_sections_release(sections);
		return -ENOMEM;
	}
	dwarf->source.sections = *sections;
	*sections = (struct dwarf_sections){.fd = -1};
	dwarf_names_init(&dwarf->names);
	int r = dwarf_sections_any(&dwarf->source.sections) ? dwarf_units_read(&dwarf->source) : -ENOENT;
	if (r == 0)
		r = dwarf_index_build(&dwarf->source, &dwarf->index);
	if (r < 0) {
		dwarf_free(dwarf);
		return r;
	}
	*ret = dwarf;
	return 0;
}

int dwarf_set_alt(struct dwarf *dwarf, struct dwarf_sections *sections)
{
	if (dwarf->source.alt || !dwarf_sections_any(sections)) {
		dwarf_sections_release(sections);
		return -ENOENT;
	}
	dwarf->alt.sections = *sections;
	*sections = (struct dwarf_sections){.fd = -1};
	int r = dwarf_units_read(&dwarf->alt);
	if (r < 0) {
		free(dwarf->alt.units);
		dwarf_sections_release(&dwarf->alt.sections);
		dwarf->alt = (struct dwarf_source){};
		return r;
	}
	dwarf->source.alt = &dwarf->alt;
	return 0;
}

static void unload(struct dwarf_unit *unit)
{
	dwarf_scopes_free(unit->scopes);
	dwarf_lines_free(unit->lines);
	unit->scopes = NULL;
	unit->lines = NULL;
	dwarf_unit_drop_abbrevs(unit);
}

static void unload_all(struct dwarf *dwarf)
{
	for (size_t i = 0; i < dwarf->n_loaded; i++)
		unload(dwarf->loaded[i]);
	dwarf->n_loaded = 0;
	dwarf->loaded_bytes = 0;
}

void dwarf_free(struct dwarf *dwarf)
{
	if (!dwarf)
		return;
	unload_all(dwarf);
	free(dwarf->loaded);
	dwarf_names_free(&dwarf->names);
	dwarf_splits_free(&dwarf->splits);
	dwarf_index_free(&dwarf->index);
	free(dwarf->source.units);
	free(dwarf->alt.units);
	dwarf_sections_release(&dwarf->source.sections);
	dwarf_sections_release(&dwarf->alt.sections);
	free(dwarf);
}

size_t dwarf_bytes(const struct dwarf *dwarf)
{
	return sizeof(*dwarf) + (dwarf->source.n_units + dwarf->alt.n_units) * sizeof(struct dwarf_unit) +
	       dwarf->index.allocated * sizeof(dwarf->index.entries[0]) + dwarf_names_bytes(&dwarf->names) +
	       dwarf_splits_bytes(&dwarf->splits) + dwarf->loaded_bytes + dwarf->source.sections.unpacked_bytes +
	       dwarf->alt.sections.unpacked_bytes;
}

/* That something of unit will be held; false: out of memory. */
static bool note_loaded(struct dwarf *dwarf, struct dwarf_unit *unit)
{
	if (unit->scopes || unit->lines || unit->abbrevs.entries)
		return true;
	if (dwarf->n_loaded == dwarf->loaded_allocated) {
		size_t wanted = dwarf->loaded_allocated ? dwarf->loaded_allocated * 2 : 64;
		struct dwarf_unit **grown = reallocarray(dwarf->loaded, wanted, sizeof(struct dwarf_unit *));
		if (!grown)
			return false;
		dwarf->loaded = grown;
		dwarf->loaded_allocated = wanted;
	}
	dwarf->loaded[dwarf->n_loaded++] = unit;
	return true;
}

static void load_abbrevs(struct dwarf *dwarf, struct dwarf_unit *unit)
{
	if (unit->abbrevs.entries || unit->bad_abbrevs || !note_loaded(dwarf, unit) || !dwarf_unit_load_abbrevs(unit))
		return;
	size_t n = unit->abbrevs.n;
	const struct abbrev *last = &unit->abbrevs.entries[n - 1];
	dwarf->loaded_bytes += n * sizeof(*last) + ((size_t)last->first + last->n) * sizeof(struct abbrev_attribute);
}

static bool visit(void *context, struct dwarf_unit *unit)
{
	struct dwarf *dwarf = context;
	size_t before = dwarf->loaded_bytes;
	load_abbrevs(dwarf, unit);
	return !work_spent(&dwarf->source.work, 64 + (dwarf->loaded_bytes - before) / 8);
}

/* What cannot be read now will not be tried again while the file is open. */
static void load_scopes(struct dwarf *dwarf, struct dwarf_unit *unit)
{
	load_abbrevs(dwarf, unit);
	if (unit->scopes || unit->bad_scopes)
		return;
	unit->bad_scopes =
		!unit->abbrevs.entries || !note_loaded(dwarf, unit) || dwarf_scopes_read(unit, &unit->scopes) < 0;
	dwarf->loaded_bytes += unit->scopes ? dwarf_scopes_bytes(unit->scopes) : 0;
}

static void load_lines(struct dwarf *dwarf, struct dwarf_unit *unit)
{
	if (unit->lines || unit->bad_lines)
		return;
	unit->bad_lines = !note_loaded(dwarf, unit) || dwarf_lines_read(unit, &unit->lines) < 0;
	dwarf->loaded_bytes += unit->lines ? dwarf_lines_bytes(unit->lines) : 0;
}

static const char *path_of(struct dwarf_unit *unit, uint64_t file)
{
	return unit->lines ? dwarf_lines_path(unit->lines, unit, file) : "";
}

static void set_name(struct dwarf *dwarf, struct dwarf_unit *unit, const struct dwarf_scope *scope,
		     struct dwarf_frame *frame)
{
	const struct dwarf_name *name = dwarf_names_find(&dwarf->names, unit, unit->offset + scope->die, visit, dwarf);
	if (!name)
		return;
	frame->name = name->name;
	frame->system_name = name->system_name;
	frame->start_line = name->start_line;
	frame->is_mangled = name->is_mangled;
}

/* The frames at address in unit; 0: it is not there. Lines are the skeleton's where DWARF is split, and files in it go by their numbers. */
static size_t find_in(struct dwarf *dwarf, struct dwarf_unit *unit, uint64_t address, struct dwarf_frame *ret)
{
	const struct dwarf_scope *scopes[READER_FRAMES_MAX];
	struct dwarf_unit *body = unit->split ? unit->split : unit;
	load_scopes(dwarf, body);
	load_lines(dwarf, unit);
	work_begin(&dwarf->source.work, NAMES_BUDGET_NS);
	uint64_t file = 0;
	uint32_t line = 0;
	bool has_line = unit->lines && dwarf_lines_find(unit->lines, address, &file, &line);
	size_t n = body->scopes ? dwarf_scopes_find(body->scopes, address, scopes, READER_FRAMES_MAX) : 0;
	const char *filename = has_line ? path_of(unit, file) : "";
	if (n == 0 && filename[0]) {
		ret[0] = (struct dwarf_frame){.filename = filename, .line = line};
		return 1;
	}
	for (size_t i = 0; i < n; i++) {
		const struct dwarf_scope *scope = scopes[n - 1 - i];
		ret[i] = (struct dwarf_frame){.filename = filename, .line = line};
		set_name(dwarf, body, scope, &ret[i]);
		filename = path_of(unit, scope->call_file);
		line = scope->call_line;
	}
	return n;
}

size_t dwarf_find(struct dwarf *dwarf, uint64_t address, struct dwarf_frame ret[READER_FRAMES_MAX])
{
	struct dwarf_unit *units[CANDIDATES_MAX];
	if (dwarf->loaded_bytes > LOADED_MAX_BYTES)
		unload_all(dwarf);
	dwarf_names_trim(&dwarf->names);
	size_t n_units = dwarf_index_find(&dwarf->index, address, units, CANDIDATES_MAX), n = 0;
	for (size_t i = 0; i < n_units && (n == 0 || !ret[0].name); i++) {
		size_t found = find_in(dwarf, units[i], address, ret);
		n = found ? found : n;
	}
	return n;
}

size_t dwarf_want(struct dwarf *dwarf, uint64_t address, struct dwarf_wanted *ret, size_t max, bool *ret_package)
{
	struct dwarf_unit *units[CANDIDATES_MAX];
	size_t n_units = dwarf_index_find(&dwarf->index, address, units, CANDIDATES_MAX), n = 0;
	for (size_t i = 0; i < n_units && n < max; i++) {
		if (!dwarf_split_is_missing(units[i]))
			continue;
		if (!dwarf->splits.package_sought) {
			dwarf->splits.package_sought = *ret_package = true;
			return 0;
		}
		dwarf_split_find_packaged(&dwarf->splits, units[i]);
		if (!units[i]->split && dwarf_split_seek(&dwarf->splits, units[i], ret[n].path) == 0 && ret[n].path[0])
			n++;
	}
	return n;
}

int dwarf_add_split(struct dwarf *dwarf, struct dwarf_sections *sections)
{
	return dwarf_splits_add_file(&dwarf->splits, sections);
}

int dwarf_add_package(struct dwarf *dwarf, struct dwarf_sections *sections)
{
	return dwarf_splits_add_package(&dwarf->splits, sections);
}
