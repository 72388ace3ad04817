#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

#include "elf/dwarf_form.h"
#include "elf/dwarf_lines_internal.h"

enum { FILES_MAX = 1 << 20, FORMATS_MAX = 32 };

int line_grow(void **array, size_t n, size_t *allocated, size_t max, size_t element_bytes)
{
	if (n < *allocated)
		return 0;
	if (n >= max)
		return -EFBIG;
	size_t wanted = *allocated ? *allocated * 2 : 64;
	void *grown = reallocarray(*array, wanted, element_bytes);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*allocated = wanted;
	return 0;
}

int line_file_add(struct dwarf_lines *lines, const struct line_file *file)
{
	int r = line_grow((void **)&lines->files, lines->n_files, &lines->files_allocated, FILES_MAX, sizeof(*file));
	if (r == 0)
		lines->files[lines->n_files++] = *file;
	return r;
}

static int add_directory(struct dwarf_lines *lines, struct dwarf_text name)
{
	int r = line_grow((void **)&lines->directories, lines->n_directories, &lines->directories_allocated, FILES_MAX,
			  sizeof(name));
	if (r == 0)
		lines->directories[lines->n_directories++] = name;
	return r;
}

/* Version 2 to 4: lists of texts, each ended by an empty one. Both count from 1; directory 0 is the unit's. */
static int read_old_lists(struct cursor *in, struct dwarf_lines *lines)
{
	int r = add_directory(lines, (struct dwarf_text){});
	struct dwarf_text text;
	while (r == 0 && (text = cursor_text(in)).n > 0)
		r = add_directory(lines, text);
	if (r == 0)
		r = line_file_add(lines, &(struct line_file){});
	while (r == 0 && (text = cursor_text(in)).n > 0) {
		struct line_file file = {.name = text, .directory = cursor_uleb(in)};
		cursor_skip_leb(in); /* time */
		cursor_skip_leb(in); /* length */
		r = line_file_add(lines, &file);
	}
	return r;
}

/* Version 5: what an entry holds is told by a list of content types and forms. Counts from 0. */
static int read_new_list(struct dwarf_unit *unit, struct cursor *in, bool directories, struct dwarf_lines *lines)
{
	struct abbrev_attribute formats[FORMATS_MAX];
	unsigned n_formats = cursor_u8(in);
	if (n_formats > FORMATS_MAX)
		return -EBADMSG;
	for (unsigned i = 0; i < n_formats; i++) {
		uint64_t content = cursor_uleb(in), form = cursor_uleb(in);
		formats[i] = (struct abbrev_attribute){.name = (uint16_t)(content <= UINT16_MAX ? content : UINT16_MAX),
						       .form = (uint16_t)(form <= UINT16_MAX ? form : UINT16_MAX)};
	}
	uint64_t n = cursor_uleb(in);
	for (uint64_t i = 0; i < n && !in->failed; i++) {
		struct line_file file = {};
		for (unsigned k = 0; k < n_formats; k++) {
			struct dwarf_value value;
			dwarf_value_read(unit, in, &formats[k], &value);
			if (formats[k].name == DW_LNCT_path)
				file.name = dwarf_value_text(unit, &value);
			else if (formats[k].name == DW_LNCT_directory_index)
				file.directory = value.number;
		}
		if (work_spent(&unit->source->work, 1 + file.name.n / 16))
			return -EFBIG;
		int r = directories ? add_directory(lines, file.name) : line_file_add(lines, &file);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_lists(struct dwarf_unit *unit, struct cursor *in, struct dwarf_lines *lines)
{
	if (lines->version < 5)
		return read_old_lists(in, lines);
	int r = read_new_list(unit, in, true, lines);
	return r < 0 ? r : read_new_list(unit, in, false, lines);
}

static bool read_numbers(struct cursor *in, unsigned version, struct line_header *ret)
{
	ret->min_instruction_bytes = cursor_u8(in);
	if (version >= 4)
		(void)cursor_u8(in); /* operations in an instruction: 1 on all machines but Itanium */
	(void)cursor_u8(in);         /* whether lines begin statements by default */
	ret->line_base = (int8_t)cursor_u8(in);
	ret->line_range = cursor_u8(in);
	ret->opcode_base = cursor_u8(in);
	for (unsigned i = 1; i < ret->opcode_base; i++)
		ret->operands[i] = cursor_u8(in);
	return !in->failed && ret->line_range > 0 && ret->opcode_base > 0;
}

int line_header_read(struct dwarf_unit *unit, struct cursor *in, struct line_header *ret, struct dwarf_lines *lines)
{
	*ret = (struct line_header){.address_bytes = unit->address_bytes};
	uint64_t length = cursor_initial_length(in, &ret->offset_bytes);
	if (in->failed || length > cursor_left(in))
		return -EBADMSG;
	in->end = in->at + length;
	lines->version = (uint16_t)cursor_uint(in, 2);
	if (lines->version < 2 || lines->version > 5)
		return -EBADMSG;
	if (lines->version >= 5) {
		ret->address_bytes = cursor_u8(in);
		(void)cursor_u8(in); /* segment selectors */
	}
	uint64_t header_bytes = cursor_uint(in, ret->offset_bytes);
	if (in->failed || header_bytes > cursor_left(in) || (ret->address_bytes != 8 && ret->address_bytes != 4))
		return -EBADMSG;
	struct cursor header = {.at = in->at, .end = in->at + header_bytes};
	in->at = header.end;
	if (!read_numbers(&header, lines->version, ret))
		return -EBADMSG;
	/* The offsets in it are as wide as its own, which could differ from the unit's. */
	struct dwarf_unit of_table = *unit;
	of_table.offset_bytes = ret->offset_bytes;
	return read_lists(&of_table, &header, lines);
}
