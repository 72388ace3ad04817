#include "elf/go_table.h"

#include <gelf.h>

#include "elf/go_pclntab.h"
#include "elf/relocation.h"
#include "elf/text.h"

#define NO_FILE UINT32_MAX

enum { SECTION_MAX_BYTES = 512 << 20 };

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

/* The text at offset of the section; "" when there is none. Into out, which has READER_NAME_MAX_BYTES + 1. */
static void copy_text(const struct go_pclntab *table, uint64_t base, uint64_t offset, char *out)
{
	struct dwarf_text text = go_pclntab_text(table, base, offset, READER_NAME_MAX_BYTES);
	if (text.n)
		memcpy(out, text.at, text.n);
	out[text.n] = '\0';
	text_make_printable(out);
}

static void copy_file(struct go_pclntab *table, const struct go_function *function, uint64_t address, char *out)
{
	int64_t number = go_pclntab_value_at(table, function->file_values, function->start, address);
	out[0] = '\0';
	if (number < 0 || number >= UINT32_MAX || table->units > table->n)
		return;
	struct cursor in =
		cursor_at(table->bytes, table->n, table->units + (function->unit + (uint64_t)number) * 4, table->n);
	uint64_t offset = cursor_uint(&in, 4);
	if (offset != NO_FILE)
		copy_text(table, table->files, offset, out);
}

/* --- where it is --- */

/* Sections that lead to it; an sh_addr of 0: there is none. */
struct clues {
	GElf_Shdr table,
		others; /* others: where an external linker of a position-independent program puts it, among other data */
	uint64_t text_address;
	bool is_go;
};

static void take_clue(const char *name, const GElf_Shdr *header, struct clues *clues)
{
	if (header->sh_type != SHT_NOBITS &&
	    (strcmp(name, ".gopclntab") == 0 || strcmp(name, ".data.rel.ro.gopclntab") == 0))
		clues->table = *header;
	else if (strcmp(name, ".data.rel.ro") == 0 && header->sh_type == SHT_PROGBITS)
		clues->others = *header;
	else if (strcmp(name, ".text") == 0)
		clues->text_address = header->sh_addr;
	else if (strcmp(name, ".go.buildinfo") == 0)
		clues->is_go = true;
}

static struct clues find_clues(Elf *elf)
{
	struct clues clues = {};
	size_t strings = 0;
	Elf_Scn *section = NULL;
	if (elf_getshdrstrndx(elf, &strings) < 0)
		return clues;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		const char *name = gelf_getshdr(section, &header) ? elf_strptr(elf, strings, header.sh_name) : NULL;
		if (name)
			take_clue(name, &header, &clues);
	}
	return clues;
}

bool go_table_open(Elf *elf, int fd, uint64_t file_bytes, struct go_table *ret)
{
	struct clues clues = find_clues(elf);
	const GElf_Shdr *header = clues.table.sh_addr ? &clues.table : &clues.others;
	/* It is loaded, so it is not compressed. */
	if (!header->sh_addr || (header == &clues.others && !clues.is_go) || header->sh_offset > file_bytes ||
	    header->sh_size > file_bytes - header->sh_offset || header->sh_size > SECTION_MAX_BYTES ||
	    header->sh_flags & SHF_COMPRESSED)
		return false;
	struct go_table go = {.sections = {.fd = fd, .file_size = file_bytes}};
	go.sections.sections[DWARF_GO_TABLE] =
		(struct dwarf_section){.file_offset = header->sh_offset, .file_bytes = header->sh_size};
	const struct dwarf_section *section = dwarf_section(&go.sections, DWARF_GO_TABLE);
	struct go_pclntab table;
	go.at = section->bytes ? go_pclntab_find(section->bytes, section->n) : 0;
	if (!section->bytes || go.at == section->n ||
	    !go_pclntab_open(section->bytes + go.at, section->n - go.at, 0, &table)) {
		go_table_close(&go);
		return false;
	}
	/* The start of .text is the C library's in a program that was linked by another linker than Go's. */
	go.text = table.text || table.before_1_18 ? table.text
						  : relocation_of(elf, header->sh_addr + go.at + GO_PCLNTAB_TEXT_FIELD);
	go.text = go.text ? go.text : clues.text_address;
	table.text = go.text;
	go.has_inlines = go_inlines_open(elf, fd, &table, header->sh_addr + go.at, &go.inlines);
	*ret = go;
	return true;
}

void go_table_close(struct go_table *go)
{
	dwarf_sections_release(&go->sections);
}

/* --- what it says --- */

struct texts {
	char name[READER_NAME_MAX_BYTES + 1], file[READER_NAME_MAX_BYTES + 1];
};

static uint32_t number_or_0(int64_t number)
{
	return number > 0 && number <= INT32_MAX ? (uint32_t)number : 0;
}

/* False: it has no name. */
static bool make_frame(struct go_pclntab *table, const struct go_function *function, const struct go_call *call,
		       struct texts *texts, struct image_frame *ret)
{
	copy_text(table, table->names, call->name, texts->name);
	copy_file(table, function, call->at, texts->file);
	*ret = (struct image_frame){
		.name = texts->name,
		.system_name = texts->name,
		.filename = texts->file,
		.line = number_or_0(go_pclntab_value_at(table, function->line_values, function->start, call->at)),
		.start_line = number_or_0((int64_t)call->start_line),
	};
	return texts->name[0];
}

size_t go_table_find(struct go_table *go, uint64_t address, struct image_frame ret[READER_FRAMES_MAX])
{
	static struct texts texts[READER_FRAMES_MAX]; /* there is one thread */
	struct go_call calls[READER_FRAMES_MAX];
	const struct dwarf_section *section = dwarf_section(&go->sections, DWARF_GO_TABLE);
	struct go_pclntab table;
	if (!section->bytes || go->at > section->n ||
	    !go_pclntab_open(section->bytes + go->at, section->n - go->at, go->text, &table))
		return 0;
	uint64_t record = find_function(&table, address);
	if (record == 0)
		return 0;
	struct go_function function;
	go_pclntab_function(&table, record, &function);
	if (function.line_values && go_pclntab_value_at(&table, function.line_values, function.start, address) < 0)
		return 0; /* between functions */
	size_t n = 0, kept = 0;
	if (go->has_inlines)
		n = go_inlines_find(&go->inlines, &table, record, &function, address, calls, READER_FRAMES_MAX - 1);
	uint64_t at = n ? function.start + calls[n - 1].called_at : address;
	calls[n++] = (struct go_call){.name = function.name, .at = at, .start_line = function.start_line};
	bool has_outermost = false;
	for (size_t i = 0; i < n; i++) {
		has_outermost = make_frame(&table, &function, &calls[i], &texts[kept], &ret[kept]);
		kept += has_outermost;
	}
	return has_outermost ? kept : 0;
}
