#include "elf/go_table.h"

#include "elf/text.h"

#define MAGIC_1_16 0xfffffffaU
#define MAGIC_1_18 0xfffffff0U
#define MAGIC_1_20 0xfffffff1U
#define NO_FILE    UINT32_MAX

enum {
	WORD_BYTES = 8,
	HEADER_BYTES = 8,    /* magic, padding, quantum, word size */
	STEPS_MAX = 1 << 20, /* of one function's table of lines */
};

/* Where the pieces are within the section. */
struct table {
	const uint8_t *bytes;
	size_t n;
	bool before_1_18, has_start_line;
	uint8_t quantum;
	uint64_t text, n_functions, names, units, files, values, functions;
};

static uint64_t read_number(const struct table *table, uint64_t offset, unsigned bytes)
{
	struct cursor in = cursor_at(table->bytes, table->n, offset, table->n);
	return cursor_uint(&in, bytes);
}

static bool read_table(const struct dwarf_section *section, uint64_t text_address, struct table *ret)
{
	struct cursor in = cursor_at(section->bytes, section->n, 0, section->n);
	uint64_t magic = cursor_uint(&in, 4);
	*ret = (struct table){.bytes = section->bytes, .n = section->n};
	if (magic != MAGIC_1_16 && magic != MAGIC_1_18 && magic != MAGIC_1_20)
		return false;
	ret->before_1_18 = magic == MAGIC_1_16;
	ret->has_start_line = magic == MAGIC_1_20;
	cursor_skip(&in, 2);
	ret->quantum = cursor_u8(&in);
	if (cursor_u8(&in) != WORD_BYTES)
		return false;
	ret->n_functions = cursor_uint(&in, WORD_BYTES);
	cursor_skip(&in, WORD_BYTES); /* number of files */
	if (!ret->before_1_18) {
		ret->text = cursor_uint(&in, WORD_BYTES);
		ret->text = ret->text ? ret->text : text_address;
	}
	ret->names = cursor_uint(&in, WORD_BYTES);
	ret->units = cursor_uint(&in, WORD_BYTES);
	ret->files = cursor_uint(&in, WORD_BYTES);
	ret->values = cursor_uint(&in, WORD_BYTES);
	ret->functions = cursor_uint(&in, WORD_BYTES);
	return !in.failed && ret->functions < ret->n && ret->n_functions < (ret->n - ret->functions) / 8;
}

/* The address of function i; of i == n_functions the end of the last one. */
static uint64_t start_of(const struct table *table, uint64_t i)
{
	if (table->before_1_18)
		return read_number(table, table->functions + i * 2 * WORD_BYTES, WORD_BYTES);
	return table->text + read_number(table, table->functions + i * 8, 4);
}

/* Offset of the function's own record; 0: no function is at address. */
static uint64_t find_function(const struct table *table, uint64_t address)
{
	uint64_t low = 0, high = table->n_functions; /* the first function above address */
	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		if (start_of(table, middle) <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || address >= start_of(table, low))
		return 0;
	uint64_t entry = table->functions + (low - 1) * (table->before_1_18 ? 2 * WORD_BYTES : 8);
	uint64_t offset = table->before_1_18 ? read_number(table, entry + WORD_BYTES, WORD_BYTES)
					     : read_number(table, entry + 4, 4);
	return offset < table->n - table->functions ? table->functions + offset : 0;
}

/* The value at address of a table of (value delta, pc delta) pairs; -1: it says none. */
static int64_t value_at(const struct table *table, uint64_t offset, uint64_t start, uint64_t address)
{
	if (offset == 0 || offset > table->n || table->values > table->n - offset)
		return -1;
	struct cursor in = cursor_at(table->bytes, table->n, table->values + offset, table->n);
	uint64_t pc = start;
	int64_t value = -1;
	for (unsigned step = 0; step < STEPS_MAX && !in.failed; step++) {
		uint64_t delta = cursor_uleb(&in);
		if (delta == 0 && step > 0)
			return -1;
		value += (int64_t)(delta >> 1) ^ -(int64_t)(delta & 1);
		pc += cursor_uleb(&in) * table->quantum;
		if (address < pc)
			return in.failed ? -1 : value;
	}
	return -1;
}

/* The text at offset of the section; "" when there is none. Into out, which has READER_NAME_MAX_BYTES + 1. */
static void copy_text(const struct table *table, uint64_t base, uint64_t offset, char *out)
{
	out[0] = '\0';
	if (base > table->n || offset > table->n - base)
		return;
	struct cursor in = cursor_at(table->bytes, table->n, base + offset, table->n);
	size_t left = cursor_left(&in);
	if (left == 0)
		return;
	size_t n = strnlen((const char *)in.at, left < READER_NAME_MAX_BYTES ? left : READER_NAME_MAX_BYTES);
	memcpy(out, in.at, n);
	out[n] = '\0';
	text_make_printable(out);
}

/* Where what is told of one function is in the section. */
struct function {
	uint64_t start, name, file_values, line_values, unit, start_line;
};

/* entry, nameoff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset, startLine: 4 bytes each, but for the entry before 1.18. */
static void read_function(const struct table *table, uint64_t offset, struct function *ret)
{
	uint64_t at = offset + (table->before_1_18 ? WORD_BYTES : 4);
	*ret = (struct function){
		.start = table->before_1_18 ? read_number(table, offset, WORD_BYTES)
					    : table->text + read_number(table, offset, 4),
		.name = read_number(table, at, 4),
		.file_values = read_number(table, at + 16, 4),
		.line_values = read_number(table, at + 20, 4),
		.unit = read_number(table, at + 28, 4),
		.start_line = table->has_start_line ? read_number(table, at + 32, 4) : 0,
	};
}

static void copy_file(const struct table *table, const struct function *function, uint64_t address, char *out)
{
	int64_t number = value_at(table, function->file_values, function->start, address);
	out[0] = '\0';
	if (number < 0 || number >= UINT32_MAX || table->units > table->n)
		return;
	uint64_t offset = read_number(table, table->units + (function->unit + (uint64_t)number) * 4, 4);
	if (offset != NO_FILE)
		copy_text(table, table->files, offset, out);
}

size_t go_table_find(struct dwarf_sections *sections, uint64_t text_address, uint64_t address, struct image_frame *ret)
{
	static char name[READER_NAME_MAX_BYTES + 1], file[READER_NAME_MAX_BYTES + 1]; /* there is one thread */
	const struct dwarf_section *section = dwarf_section(sections, DWARF_GO_TABLE);
	struct table table;
	if (!section->bytes || !read_table(section, text_address, &table))
		return 0;
	uint64_t offset = find_function(&table, address);
	if (offset == 0)
		return 0;
	struct function function;
	read_function(&table, offset, &function);
	copy_text(&table, table.names, function.name, name);
	if (!name[0])
		return 0;
	copy_file(&table, &function, address, file);
	int64_t line = value_at(&table, function.line_values, function.start, address);
	*ret = (struct image_frame){
		.name = name,
		.system_name = name,
		.filename = file,
		.line = line > 0 && line <= INT32_MAX ? (uint32_t)line : 0,
		.start_line = function.start_line <= INT32_MAX ? (uint32_t)function.start_line : 0,
	};
	return 1;
}
