#include "elf/symbols.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "elf/symbol_list.h"

/* Smaller wins. */
static uint8_t rank_of(const GElf_Sym *symbol)
{
	unsigned binding = GELF_ST_BIND(symbol->st_info);
	unsigned rank = binding == STB_GLOBAL || binding == STB_GNU_UNIQUE ? 0 : binding == STB_WEAK ? 1 : 2;
	return (uint8_t)(rank * 2 + (GELF_ST_TYPE(symbol->st_info) == STT_NOTYPE));
}

static bool may_name_code(const GElf_Sym *symbol)
{
	unsigned type = GELF_ST_TYPE(symbol->st_info);
	return symbol->st_shndx != SHN_UNDEF && symbol->st_shndx < SHN_LORESERVE &&
	       (type == STT_FUNC || type == STT_GNU_IFUNC || type == STT_NOTYPE);
}

/* Labels of the assembler's and the linker's own: ".L" for the compiler, "$x" marks data in code on other machines. */
static bool is_label(const char *name)
{
	return name[0] == '.' || name[0] == '$';
}

/* The section that symbol is in, when it holds code. They are few and each is asked for many times: libelf keeps them. */
static bool section_of(Elf *elf, const GElf_Sym *symbol, GElf_Shdr *ret)
{
	Elf_Scn *section = elf_getscn(elf, symbol->st_shndx);
	return section && gelf_getshdr(section, ret) && ret->sh_flags & SHF_EXECINSTR &&
	       symbol->st_value >= ret->sh_addr && symbol->st_value - ret->sh_addr < ret->sh_size &&
	       ret->sh_size <= UINT64_MAX - ret->sh_addr;
}

static int add_symbol(Elf *elf, struct symbol_list *list, enum symbol_strings strings, const GElf_Sym *in)
{
	GElf_Shdr section;
	if (!may_name_code(in) || in->st_name >= list->text_bytes[strings] || in->st_name >= 1U << 30 ||
	    !section_of(elf, in, &section))
		return 0;
	struct symbol symbol = {
		.start = in->st_value,
		.end = in->st_value,
		.section_end = section.sh_addr + section.sh_size,
		.name = {.offset = (uint32_t)in->st_name & ((1U << 30) - 1), .strings = (uint32_t)strings},
		.rank = rank_of(in),
		.sized = in->st_size > 0,
	};
	const char *text = symbol_list_text(list, symbol.name);
	if (!text[0] || (GELF_ST_TYPE(in->st_info) == STT_NOTYPE && is_label(text)))
		return 0;
	uint64_t room = symbol.section_end - symbol.start;
	symbol.end += in->st_size < room ? in->st_size : room;
	return symbol_list_add(list, &symbol);
}

/* Loads the string table that the symbol table's header points at. */
static bool load_strings(Elf *elf, const GElf_Shdr *table, enum symbol_strings strings, struct symbol_list *list)
{
	GElf_Shdr header;
	Elf_Data *data = NULL;
	if (!section_content(elf_getscn(elf, table->sh_link), &header, &data) || header.sh_type != SHT_STRTAB)
		return false;
	const char *text = data->d_buf;
	if (text[data->d_size - 1] != '\0')
		return false;
	list->text[strings] = text;
	list->text_bytes[strings] = data->d_size;
	list->symbols_out->strings[strings].file_offset = header.sh_offset;
	list->symbols_out->strings[strings].bytes = data->d_size;
	return true;
}

static Elf_Scn *find_table(Elf *elf, unsigned type)
{
	Elf_Scn *section = NULL;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		if (gelf_getshdr(section, &header) && header.sh_type == type)
			return section;
	}
	return NULL;
}

static int read_table(Elf *elf, unsigned type, enum symbol_strings strings, struct symbol_list *list)
{
	GElf_Shdr header;
	Elf_Data *data = NULL;
	if (!section_content(find_table(elf, type), &header, &data) || !load_strings(elf, &header, strings, list))
		return 0;
	size_t bytes = gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT);
	size_t n = bytes ? data->d_size / bytes : 0;
	for (size_t i = 1; i < n && i <= INT32_MAX; i++) {
		GElf_Sym symbol;
		if (!gelf_getsym(data, (int)i, &symbol))
			break;
		int r = add_symbol(elf, list, strings, &symbol);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What sweep() works with: the symbols that began and may not have ended, the one that wins now on top. */
struct sweep {
	const struct symbol *symbols;
	uint32_t *active; /* indices */
	size_t n_active;
	uint64_t position; /* everything below is settled */
	struct symbols *out;
};

static const struct symbol *top_of(const struct sweep *sweep)
{
	return sweep->n_active ? &sweep->symbols[sweep->active[sweep->n_active - 1]] : NULL;
}

static void emit(struct sweep *sweep, const struct symbol *symbol, uint64_t end)
{
	while (sweep->position < end) {
		uint64_t bytes = end - sweep->position;
		if (bytes > UINT32_MAX)
			bytes = UINT32_MAX;
		sweep->out->ranges[sweep->out->n++] =
			(struct symbol_range){.start = sweep->position, .bytes = (uint32_t)bytes, .name = symbol->name};
		sweep->position += bytes;
		if (bytes == UINT32_MAX)
			break; /* no function has 4 GiB; a range for each would not fit the array */
	}
	sweep->position = end;
}

/* Settles all addresses up to end. */
static void advance(struct sweep *sweep, uint64_t end)
{
	const struct symbol *top = NULL;
	while ((top = top_of(sweep)) && sweep->position < end) {
		if (top->end > sweep->position)
			emit(sweep, top, top->end < end ? top->end : end);
		if (top->end <= sweep->position)
			sweep->n_active--;
	}
	while ((top = top_of(sweep)) && top->end <= end)
		sweep->n_active--;
	sweep->position = end;
}

/* A symbol without size reaches to the next start of any other, at most to the end of its section. */
static void give_sizes(struct symbol_list *list)
{
	uint64_t next = UINT64_MAX;
	for (size_t i = list->n; i-- > 0;) {
		struct symbol *symbol = &list->symbols[i];
		if (i + 1 < list->n && list->symbols[i + 1].start != symbol->start)
			next = list->symbols[i + 1].start;
		if (!symbol->sized)
			symbol->end = next < symbol->section_end ? next : symbol->section_end;
	}
}

/* From the sorted list, disjoint ranges: at most two for each symbol. */
static int sweep_list(struct symbol_list *list, struct symbols *out)
{
	if (list->n == 0)
		return 0;
	give_sizes(list);
	_cleanup_free_ uint32_t *active = reallocarray(NULL, list->n, sizeof(*active));
	out->ranges = reallocarray(NULL, 2 * list->n, sizeof(out->ranges[0]));
	if (!active || !out->ranges)
		return -ENOMEM;
	struct sweep sweep = {.symbols = list->symbols, .active = active, .out = out};
	for (size_t i = 0; i < list->n; i++) {
		const struct symbol *symbol = &list->symbols[i];
		advance(&sweep, symbol->start);
		const struct symbol *around = top_of(&sweep);
		if (!symbol->sized && around && around->sized)
			continue; /* a label within a function */
		active[sweep.n_active++] = (uint32_t)i;
	}
	advance(&sweep, UINT64_MAX);
	struct symbol_range *fitted = reallocarray(out->ranges, out->n ? out->n : 1, sizeof(out->ranges[0]));
	if (fitted)
		out->ranges = fitted;
	return 0;
}

static int read_list(Elf *elf, struct symbol_list *list)
{
	int r = read_table(elf, SHT_SYMTAB, STRINGS_SYMTAB, list);
	list->symbols_out->has_symtab = list->n > 0;
	if (r == 0 && list->n == 0)
		r = read_table(elf, SHT_DYNSYM, STRINGS_DYNSYM, list);
	if (r < 0)
		return r;
	symbol_list_sort(list);
	GElf_Shdr header;
	Elf_Data *data = NULL;
	if (!list->text[STRINGS_DYNSYM] && section_content(find_table(elf, SHT_DYNSYM), &header, &data))
		(void)load_strings(elf, &header, STRINGS_DYNSYM, list);
	bool added = false;
	r = plt_collect(elf, list, &added);
	if (added)
		symbol_list_sort(list);
	return r;
}

int symbols_read(Elf *elf, struct symbols *ret)
{
	struct symbols symbols = {};
	struct symbol_list list = {.symbols_out = &symbols};
	int r = read_list(elf, &list);
	if (r == 0)
		r = sweep_list(&list, &symbols);
	symbol_list_free(&list);
	if (r < 0) {
		symbols_free(&symbols);
		return r;
	}
	*ret = symbols;
	return 0;
}

void symbols_free(struct symbols *symbols)
{
	free(symbols->ranges);
	*symbols = (struct symbols){};
}

const struct symbol_range *symbols_find(const struct symbols *symbols, uint64_t address)
{
	size_t low = 0, high = symbols->n; /* the answer, if any, is the last range that starts at or below address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (symbols->ranges[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || address - symbols->ranges[low - 1].start >= symbols->ranges[low - 1].bytes)
		return NULL;
	return &symbols->ranges[low - 1];
}
