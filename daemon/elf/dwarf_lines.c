#include "elf/dwarf_lines.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

#include "elf/dwarf_lines_internal.h"
#include "elf/text.h"
#include "proto/reader_limits.h"

enum {
	ROWS_MAX = 8 << 20,
	SEQUENCES_MAX = 4 << 20,
	OVERLAPS_MAX = 8,
	PATHS_MAX_BYTES = 16 << 20,
};
#define LINES_BUDGET_NS 500000000U

struct machine {
	const struct line_header *header;
	struct dwarf_lines *lines;
	uint64_t address, file;
	int64_t line;
	size_t first; /* row of the sequence under way */
};

static void reset(struct machine *machine)
{
	machine->address = 0;
	machine->file = 1;
	machine->line = 1;
	machine->first = machine->lines->n_rows;
}

/* Of several rows at one address the last one holds. */
static int add_row(struct machine *machine)
{
	struct dwarf_lines *lines = machine->lines;
	struct line_row row = {
		.address = machine->address,
		.line = machine->line > 0 && machine->line <= INT32_MAX ? (uint32_t)machine->line : 0,
		.file = machine->file <= UINT32_MAX ? (uint32_t)machine->file : UINT32_MAX,
	};
	struct line_row *last = lines->n_rows > machine->first ? &lines->rows[lines->n_rows - 1] : NULL;
	if (last && last->address == row.address) {
		*last = row;
		return 0;
	}
	if (last && last->line == row.line && last->file == row.file && row.address > last->address)
		return 0;
	int r = line_grow((void **)&lines->rows, lines->n_rows, &lines->rows_allocated, ROWS_MAX, sizeof(row));
	if (r == 0)
		lines->rows[lines->n_rows++] = row;
	return r;
}

static int add_sequence(struct dwarf_lines *lines, size_t first, size_t n, uint64_t high)
{
	uint64_t low = lines->rows[first].address;
	/* What the linker threw away is left at 0, or at the top. */
	if (low == 0 || low >= high)
		return 0;
	int r = line_grow((void **)&lines->sequences, lines->n_sequences, &lines->sequences_allocated, SEQUENCES_MAX,
			  sizeof(lines->sequences[0]));
	if (r == 0)
		lines->sequences[lines->n_sequences++] =
			(struct line_sequence){.low = low, .high = high, .first = first, .n = n};
	return r;
}

/* The rows from machine->first on are one sequence, or several, where its addresses go back, which they should not. */
static int end_sequence(struct machine *machine)
{
	struct dwarf_lines *lines = machine->lines;
	size_t first = machine->first;
	int r = 0;
	for (size_t i = first; i < lines->n_rows && r == 0; i++) {
		bool last = i + 1 == lines->n_rows;
		uint64_t next = last ? machine->address : lines->rows[i + 1].address;
		if (!last && next >= lines->rows[i].address)
			continue;
		uint64_t high = next > lines->rows[i].address ? next : lines->rows[i].address + 1;
		r = add_sequence(lines, first, i + 1 - first, high);
		first = i + 1;
	}
	reset(machine);
	return r;
}

static int run_extended(struct machine *machine, struct cursor *in)
{
	uint64_t length = cursor_uleb(in);
	if (length == 0 || length > cursor_left(in))
		return -EBADMSG;
	struct cursor body = {.at = in->at, .end = in->at + length};
	in->at = body.end;
	switch (cursor_u8(&body)) {
	case DW_LNE_end_sequence:
		return end_sequence(machine);
	case DW_LNE_set_address:
		machine->address = cursor_uint(&body, length - 1 == 4 ? 4 : machine->header->address_bytes);
		return body.failed ? -EBADMSG : 0;
	case DW_LNE_define_file: {
		struct line_file file = {.name = cursor_text(&body)};
		file.directory = cursor_uleb(&body);
		return body.failed ? -EBADMSG : line_file_add(machine->lines, &file);
	}
	default:
		return 0;
	}
}

static int run_standard(struct machine *machine, struct cursor *in, uint8_t opcode)
{
	const struct line_header *header = machine->header;
	switch (opcode) {
	case DW_LNS_copy:
		return add_row(machine);
	case DW_LNS_advance_pc:
		machine->address += cursor_uleb(in) * header->min_instruction_bytes;
		return 0;
	case DW_LNS_advance_line:
		machine->line = (int64_t)((uint64_t)machine->line + (uint64_t)cursor_sleb(in));
		return 0;
	case DW_LNS_set_file:
		machine->file = cursor_uleb(in);
		return 0;
	case DW_LNS_const_add_pc:
		machine->address +=
			(uint64_t)((255 - header->opcode_base) / header->line_range) * header->min_instruction_bytes;
		return 0;
	case DW_LNS_fixed_advance_pc:
		machine->address += cursor_uint(in, 2);
		return 0;
	default:
		for (unsigned i = 0; i < header->operands[opcode]; i++)
			cursor_skip_leb(in);
		return 0;
	}
}

static int run_special(struct machine *machine, uint8_t opcode)
{
	const struct line_header *header = machine->header;
	unsigned adjusted = (unsigned)opcode - header->opcode_base;
	machine->address += (uint64_t)(adjusted / header->line_range) * header->min_instruction_bytes;
	machine->line = (int64_t)((uint64_t)machine->line +
				  (uint64_t)(int64_t)(header->line_base + (int)(adjusted % header->line_range)));
	return add_row(machine);
}

static int run(struct machine *machine, struct cursor *in, struct work *work)
{
	reset(machine);
	int r = 0;
	while (r == 0 && in->at < in->end) {
		if (work_spent(work, 2))
			return -EFBIG;
		uint8_t opcode = cursor_u8(in);
		if (opcode >= machine->header->opcode_base)
			r = run_special(machine, opcode);
		else if (opcode == 0)
			r = run_extended(machine, in);
		else
			r = run_standard(machine, in, opcode);
	}
	machine->lines->n_rows = machine->first; /* a sequence without an end is none */
	return r == 0 && in->failed ? -EBADMSG : r;
}

static int compare_sequences(const void *left, const void *right)
{
	const struct line_sequence *a = left, *b = right;
	if (a->low != b->low)
		return a->low < b->low ? -1 : 1;
	return (a->first > b->first) - (a->first < b->first);
}

static int read_table(struct dwarf_unit *unit, struct dwarf_lines *lines)
{
	struct line_header header;
	const struct dwarf_section *section = dwarf_section(&unit->source->sections, DWARF_LINE);
	struct cursor in = cursor_at(section->bytes, section->n, unit->line_offset, section->n);
	int r = in.failed ? -ENOENT : line_header_read(unit, &in, &header, lines);
	if (r < 0)
		return r;
	struct machine machine = {.header = &header, .lines = lines};
	r = run(&machine, &in, &unit->source->work);
	/* What came before a fault is good. */
	if (r < 0 && r != -EBADMSG)
		return r;
	if (lines->n_sequences)
		qsort(lines->sequences, lines->n_sequences, sizeof(lines->sequences[0]), compare_sequences);
	return 0;
}

int dwarf_lines_read(struct dwarf_unit *unit, struct dwarf_lines **ret)
{
	struct dwarf_lines *lines = calloc(1, sizeof(*lines));
	if (!lines)
		return -ENOMEM;
	work_begin(&unit->source->work, LINES_BUDGET_NS);
	int r = unit->line_offset == DWARF_NOWHERE ? -ENOENT : read_table(unit, lines);
	if (r < 0) {
		dwarf_lines_free(lines);
		return r;
	}
	*ret = lines;
	return 0;
}

void dwarf_lines_free(struct dwarf_lines *lines)
{
	if (!lines)
		return;
	for (size_t i = 0; i < lines->n_files; i++)
		free(lines->files[i].path);
	free(lines->rows);
	free(lines->sequences);
	free(lines->files);
	free(lines->directories);
	free(lines);
}

size_t dwarf_lines_bytes(const struct dwarf_lines *lines)
{
	return sizeof(*lines) + lines->rows_allocated * sizeof(lines->rows[0]) +
	       lines->sequences_allocated * sizeof(lines->sequences[0]) +
	       lines->files_allocated * sizeof(lines->files[0]) +
	       lines->directories_allocated * sizeof(lines->directories[0]) + lines->path_bytes;
}

static void find_row(const struct dwarf_lines *lines, const struct line_sequence *sequence, uint64_t address,
		     uint64_t *ret_file, uint32_t *ret_line)
{
	size_t low = sequence->first, high = sequence->first + sequence->n; /* the first row above address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (lines->rows[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_file = lines->rows[low - 1].file;
	*ret_line = lines->rows[low - 1].line;
}

bool dwarf_lines_find(const struct dwarf_lines *lines, uint64_t address, uint64_t *ret_file, uint32_t *ret_line)
{
	size_t low = 0, high = lines->n_sequences; /* the first sequence above address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (lines->sequences[middle].low <= address)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t tried = 0; low > 0 && tried < OVERLAPS_MAX; low--, tried++) {
		if (address >= lines->sequences[low - 1].high)
			continue;
		find_row(lines, &lines->sequences[low - 1], address, ret_file, ret_line);
		return true;
	}
	return false;
}

static bool is_absolute(struct dwarf_text text)
{
	return text.n > 0 && text.at[0] == '/';
}

/* Appends text, and a slash between. */
static void append(char *path, size_t *used, struct dwarf_text text)
{
	if (text.n == 0)
		return;
	if (*used > 0 && path[*used - 1] != '/' && *used < READER_NAME_MAX_BYTES)
		path[(*used)++] = '/';
	size_t room = READER_NAME_MAX_BYTES - *used, n = text.n < room ? text.n : room;
	memcpy(path + *used, text.at, n);
	*used += n;
}

static void make_path(const struct dwarf_lines *lines, const struct dwarf_unit *unit, const struct line_file *file,
		      char *out)
{
	size_t used = 0;
	struct dwarf_text directory = {};
	if (file->directory < lines->n_directories)
		directory = lines->directories[file->directory];
	if (!is_absolute(file->name)) {
		if (!is_absolute(directory))
			append(out, &used, unit->comp_dir);
		append(out, &used, directory);
	}
	append(out, &used, file->name);
	out[used] = '\0';
	text_make_printable(out);
}

const char *dwarf_lines_path(struct dwarf_lines *lines, const struct dwarf_unit *unit, uint64_t number)
{
	char path[READER_NAME_MAX_BYTES + 1];
	if (number >= lines->n_files || lines->files[number].name.n == 0)
		return "";
	struct line_file *file = &lines->files[number];
	if (!file->path && lines->path_bytes < PATHS_MAX_BYTES) {
		make_path(lines, unit, file, path);
		file->path = strdup(path);
		lines->path_bytes += strlen(path) + 1;
	}
	return file->path ? file->path : "";
}
