#include "elf/go_table.h"

#include "elf/go_pclntab.h"
#include "elf/text.h"

#define NO_FILE UINT32_MAX

enum { STEPS_MAX = 1 << 20 /* of one function's table of lines */ };

/* Offset of the function's own record; 0: no function is at address. */
static uint64_t find_function(const struct go_pclntab *table, uint64_t address)
{
	uint64_t low = 0, high = table->n_functions; /* the first function above address */
	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		if (go_pclntab_start(table, middle) <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low == 0 || address >= go_pclntab_start(table, low) ? 0 : go_pclntab_record(table, low - 1);
}

/* The value at address of one of a function's tables; -1: it says none. */
static int64_t value_at(const struct go_pclntab *table, uint64_t offset, uint64_t start, uint64_t address)
{
	struct go_values values = go_pclntab_values(table, offset, start);
	for (unsigned step = 0; step < STEPS_MAX && go_values_next(&values); step++) {
		if (address < values.end)
			return values.value;
	}
	return -1;
}

/* The text at offset of the section; "" when there is none. Into out, which has READER_NAME_MAX_BYTES + 1. */
static void copy_text(const struct go_pclntab *table, uint64_t base, uint64_t offset, char *out)
{
	struct dwarf_text text = go_pclntab_text(table, base, offset, READER_NAME_MAX_BYTES);
	if (text.n)
		memcpy(out, text.at, text.n);
	out[text.n] = '\0';
	text_make_printable(out);
}

static void copy_file(const struct go_pclntab *table, const struct go_function *function, uint64_t address, char *out)
{
	int64_t number = value_at(table, function->file_values, function->start, address);
	out[0] = '\0';
	if (number < 0 || number >= UINT32_MAX || table->units > table->n)
		return;
	struct cursor in =
		cursor_at(table->bytes, table->n, table->units + (function->unit + (uint64_t)number) * 4, table->n);
	uint64_t offset = cursor_uint(&in, 4);
	if (offset != NO_FILE)
		copy_text(table, table->files, offset, out);
}

size_t go_table_find(struct dwarf_sections *sections, uint64_t text_address, uint64_t address, struct image_frame *ret)
{
	static char name[READER_NAME_MAX_BYTES + 1], file[READER_NAME_MAX_BYTES + 1]; /* there is one thread */
	const struct dwarf_section *section = dwarf_section(sections, DWARF_GO_TABLE);
	struct go_pclntab table;
	if (!section->bytes || !go_pclntab_open(section->bytes, section->n, text_address, &table))
		return 0;
	uint64_t offset = find_function(&table, address);
	if (offset == 0)
		return 0;
	struct go_function function;
	go_pclntab_function(&table, offset, &function);
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
