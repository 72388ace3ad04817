#include "elf/dwarf_split.h"

#include <errno.h>
#include <stdlib.h>

#include "elf/dwarf_scopes.h"
#include "elf/text.h"

enum {
	FILES_MAX = 8192, /* of one program */
	SOUGHT_MAX = 1 << 16,
	PACKAGED_MAX = 1 << 20,
	UNPACKED_MAX_BYTES = 512 << 20, /* of compressed sections, before another file is taken */
};
#define READ_BUDGET_NS 500000000U

static void free_source(struct dwarf_source *source)
{
	free(source->units);
	dwarf_sections_release(&source->sections);
}

void dwarf_splits_free(struct dwarf_splits *splits)
{
	for (size_t i = 0; i < splits->n_packaged; i++)
		free(splits->packaged[i]);
	for (size_t i = 0; i < splits->n_files; i++) {
		free_source(splits->files[i]);
		free(splits->files[i]);
	}
	free_source(&splits->package);
	free(splits->packaged);
	free(splits->files);
	free(splits->sought);
	*splits = (struct dwarf_splits){};
}

static size_t unpacked_bytes(const struct dwarf_splits *splits)
{
	size_t bytes = splits->package.sections.unpacked_bytes;
	for (size_t i = 0; i < splits->n_files; i++)
		bytes += splits->files[i]->sections.unpacked_bytes;
	return bytes;
}

size_t dwarf_splits_bytes(const struct dwarf_splits *splits)
{
	size_t pointers = splits->packaged_allocated + splits->files_allocated + splits->sought_allocated;
	size_t bytes =
		unpacked_bytes(splits) + pointers * sizeof(void *) + splits->n_packaged * sizeof(struct dwarf_unit);
	for (size_t i = 0; i < splits->n_files; i++)
		bytes += sizeof(struct dwarf_source) + splits->files[i]->n_units * sizeof(struct dwarf_unit);
	return bytes;
}

static int append(void ***array, size_t *n, size_t *allocated, size_t max, void *element)
{
	if (*n == *allocated) {
		if (*n >= max)
			return -EFBIG;
		size_t wanted = *allocated ? *allocated * 2 : 64;
		void **grown = reallocarray(*array, wanted, sizeof(void *));
		if (!grown)
			return -ENOMEM;
		*array = grown;
		*allocated = wanted;
	}
	(*array)[(*n)++] = element;
	return 0;
}

bool dwarf_split_is_missing(const struct dwarf_unit *unit)
{
	return unit->dwo_id != 0 && unit->dwo_name.n > 0 && !unit->split && !unit->split_sought;
}

static void join(struct dwarf_unit *skeleton, struct dwarf_unit *split)
{
	skeleton->split = split;
	split->skeleton = skeleton;
}

void dwarf_split_find_packaged(struct dwarf_splits *splits, struct dwarf_unit *skeleton)
{
	struct dwarf_bases bases;
	if (!dwarf_package_find(&splits->package, skeleton->dwo_id, &bases))
		return;
	struct dwarf_unit *split = calloc(1, sizeof(*split));
	if (!split)
		return;
	work_begin(&splits->package.work, READ_BUDGET_NS);
	bool found = dwarf_unit_read_packaged(&splits->package, &bases, split) && split->dwo_id == skeleton->dwo_id;
	if (!found || append((void ***)&splits->packaged, &splits->n_packaged, &splits->packaged_allocated,
			     PACKAGED_MAX, split) < 0)
		free(split);
	else
		join(skeleton, split);
}

static void make_path(const struct dwarf_unit *unit, char *out)
{
	struct dwarf_text directory = unit->dwo_name.at[0] == '/' ? (struct dwarf_text){} : unit->comp_dir;
	out[0] = '\0';
	if (directory.n + 1 + unit->dwo_name.n > READER_LINK_MAX_BYTES)
		return;
	char *end = out;
	if (directory.n) {
		memcpy(end, directory.at, directory.n);
		end += directory.n;
		*end++ = '/';
	}
	memcpy(end, unit->dwo_name.at, unit->dwo_name.n);
	end[unit->dwo_name.n] = '\0';
	if (!text_is_printable(out))
		out[0] = '\0';
}

int dwarf_split_seek(struct dwarf_splits *splits, struct dwarf_unit *skeleton, char ret_path[READER_LINK_MAX_BYTES + 1])
{
	skeleton->split_sought = true;
	make_path(skeleton, ret_path);
	if (!ret_path[0])
		return 0;
	return append((void ***)&splits->sought, &splits->n_sought, &splits->sought_allocated, SOUGHT_MAX, skeleton);
}

/* Joins the unit to the skeleton that was sought with its id. */
static bool join_sought(struct dwarf_splits *splits, struct dwarf_unit *split)
{
	for (size_t i = 0; split->dwo_id != 0 && i < splits->n_sought; i++) {
		if (splits->sought[i]->dwo_id != split->dwo_id)
			continue;
		join(splits->sought[i], split);
		splits->sought[i] = splits->sought[--splits->n_sought];
		return true;
	}
	return false;
}

static bool holds_sought(const struct dwarf_splits *splits, struct dwarf_source *source)
{
	for (size_t i = 0; i < source->n_units; i++)
		for (size_t k = 0; source->units[i].dwo_id != 0 && k < splits->n_sought; k++) {
			if (splits->sought[k]->dwo_id == source->units[i].dwo_id)
				return true;
			if (work_spent(&source->work, 1))
				return false;
		}
	return false;
}

static int add_source(struct dwarf_splits *splits, struct dwarf_source *source)
{
	int r = dwarf_sections_any(&source->sections) ? dwarf_units_read(source) : -ENOENT;
	if (r == 0 && !holds_sought(splits, source))
		r = -ENOENT;
	if (r == 0)
		r = append((void ***)&splits->files, &splits->n_files, &splits->files_allocated, FILES_MAX, source);
	for (size_t i = 0; r == 0 && i < source->n_units && !work_spent(&source->work, splits->n_sought); i++)
		(void)join_sought(splits, &source->units[i]);
	return r;
}

int dwarf_splits_add_file(struct dwarf_splits *splits, struct dwarf_sections *sections)
{
	struct dwarf_source *source = unpacked_bytes(splits) <= UNPACKED_MAX_BYTES ? calloc(1, sizeof(*source)) : NULL;
	if (!source) {
		dwarf_sections_release(sections);
		return -ENOMEM;
	}
	source->sections = *sections;
	*sections = (struct dwarf_sections){.fd = -1};
	int r = add_source(splits, source);
	if (r < 0) {
		free_source(source);
		free(source);
	}
	return r;
}

int dwarf_splits_add_package(struct dwarf_splits *splits, struct dwarf_sections *sections)
{
	if (dwarf_sections_any(&splits->package.sections) || !dwarf_sections_any(sections) ||
	    sections->sections[DWARF_CU_INDEX].file_bytes == 0) {
		dwarf_sections_release(sections);
		return -ENOENT;
	}
	splits->package.sections = *sections;
	*sections = (struct dwarf_sections){.fd = -1};
	return 0;
}
