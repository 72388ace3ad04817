/* What the reading of a line table's header and of its program share. */
#pragma once
#include "elf/dwarf_lines.h"

enum { LINE_OPCODES_MAX = 256 };

struct line_row {
	uint64_t address;
	uint32_t line, file;
};

struct line_sequence {
	uint64_t low, high; /* rows[first].address; the first address behind it */
	size_t first, n;
};

struct line_file {
	struct dwarf_text name;
	uint64_t directory;
	char *path; /* NULL: not made yet */
};

struct dwarf_lines {
	struct line_row *rows;
	size_t n_rows, rows_allocated;
	struct line_sequence *sequences; /* ascending by low */
	size_t n_sequences, sequences_allocated;
	struct line_file *files;
	size_t n_files, files_allocated;
	struct dwarf_text *directories;
	size_t n_directories, directories_allocated;
	uint16_t version;
	size_t path_bytes;
};

struct line_header {
	uint8_t offset_bytes, address_bytes;
	uint8_t min_instruction_bytes, line_range, opcode_base;
	int8_t line_base;
	uint8_t operands[LINE_OPCODES_MAX]; /* of the standard opcodes */
};

/* Reads the header at in; moves to the program, and sets in->end to its end. The lists of files go to lines. -EBADMSG, -EFBIG, -ENOMEM. */
int line_header_read(struct dwarf_unit *unit, struct cursor *in, struct line_header *ret, struct dwarf_lines *lines);
/* Adds a file, as DW_LNE_define_file does too. */
int line_file_add(struct dwarf_lines *lines, const struct line_file *file);
int line_grow(void **array, size_t n, size_t *allocated, size_t max, size_t element_bytes);
