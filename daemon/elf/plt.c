/* What the entries of .plt, .plt.sec and .plt.got jump to. Each entry is decoded (x86-64 psABI, "Procedure Linkage Table"; the layouts of
 * GNU ld with and without IBT, of lld and mold): it holds either `jmp *slot(%rip)`, and a relocation fills the slot, or
 * `push index` of a relocation in .rela.plt. That is independent of the order that a linker gave them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "elf/symbol_list.h"

enum { ENTRY_BYTES = 16, SECTION_MAX_BYTES = 16 << 20, RANK_PLT = UINT8_MAX };

struct relocation {
	uint64_t slot; /* virtual address */
	struct symbol_name name;
};

struct plt {
	struct symbol_list *list;
	Elf_Data *dynamic_symbols; /* NULL: none */
	struct relocation *by_slot;
	size_t n, allocated;
	struct relocation *rela_plt; /* in the order of .rela.plt; an unknown one has slot 0 */
	size_t n_rela_plt;
	bool added;
};

static bool name_of(const struct plt *plt, const GElf_Rela *rela, struct symbol_name *ret)
{
	unsigned type = (unsigned)GELF_R_TYPE(rela->r_info);
	if (type == R_X86_64_IRELATIVE) {
		const struct symbol *target = symbol_list_at(plt->list, (uint64_t)rela->r_addend);
		if (target)
			*ret = target->name;
		return target;
	}
	GElf_Sym symbol;
	uint64_t index = GELF_R_SYM(rela->r_info);
	if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) || index == 0 || index > INT32_MAX ||
	    !plt->dynamic_symbols || !gelf_getsym(plt->dynamic_symbols, (int)index, &symbol) ||
	    symbol.st_name >= plt->list->text_bytes[STRINGS_DYNSYM] || symbol.st_name >= 1U << 30)
		return false;
	*ret = (struct symbol_name){.offset = symbol.st_name & ((1U << 30) - 1), .strings = STRINGS_DYNSYM};
	return symbol_list_text(plt->list, *ret)[0] != '\0';
}

static int add_relocation(struct plt *plt, const struct relocation *relocation)
{
	if (plt->n == plt->allocated) {
		size_t allocated = plt->allocated ? plt->allocated * 2 : 256;
		struct relocation *grown = reallocarray(plt->by_slot, allocated, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		plt->by_slot = grown;
		plt->allocated = allocated;
	}
	plt->by_slot[plt->n++] = *relocation;
	return 0;
}

static int read_relocations(struct plt *plt, Elf *elf, Elf_Data *data, bool is_rela_plt)
{
	size_t bytes = gelf_fsize(elf, ELF_T_RELA, 1, EV_CURRENT);
	size_t n = bytes ? data->d_size / bytes : 0;
	if (n > INT32_MAX)
		n = INT32_MAX;
	if (is_rela_plt && !plt->rela_plt) {
		plt->rela_plt = calloc(n ? n : 1, sizeof(plt->rela_plt[0]));
		if (!plt->rela_plt)
			return -ENOMEM;
		plt->n_rela_plt = n;
	} else {
		is_rela_plt = false;
	}
	for (size_t i = 0; i < n; i++) {
		GElf_Rela rela;
		struct relocation relocation = {};
		if (!gelf_getrela(data, (int)i, &rela) || !name_of(plt, &rela, &relocation.name))
			continue;
		relocation.slot = rela.r_offset;
		int r = add_relocation(plt, &relocation);
		if (r < 0)
			return r;
		if (is_rela_plt)
			plt->rela_plt[i] = relocation;
	}
	return 0;
}

static int compare_slots(const void *left, const void *right)
{
	const struct relocation *a = left, *b = right;
	return (a->slot > b->slot) - (a->slot < b->slot);
}

static int32_t read_i32(const unsigned char *at)
{
	uint32_t value = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
	return (int32_t)value;
}

/* The relocation behind one entry; NULL: none that has a name, such as the header of .plt. */
static const struct relocation *decode(const struct plt *plt, const unsigned char *entry, size_t bytes,
				       uint64_t address)
{
	for (size_t i = 0; i + 6 <= bytes && i <= 5; i++) { /* behind endbr64 and a bnd prefix at most */
		if (entry[i] != 0xff || entry[i + 1] != 0x25)
			continue;
		struct relocation key = {.slot = address + i + 6 + (uint64_t)(int64_t)read_i32(entry + i + 2)};
		if (plt->n == 0)
			return NULL;
		return bsearch(&key, plt->by_slot, plt->n, sizeof(key), compare_slots);
	}
	static const unsigned char endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
	if (bytes < 9 || memcmp(entry, endbr64, sizeof(endbr64)) != 0 || entry[4] != 0x68)
		return NULL;
	uint32_t index = (uint32_t)read_i32(entry + 5);
	return index < plt->n_rela_plt && plt->rela_plt[index].slot ? &plt->rela_plt[index] : NULL;
}

static int read_entries(struct plt *plt, const GElf_Shdr *header, const Elf_Data *data)
{
	size_t bytes = header->sh_entsize == 8 ? 8 : ENTRY_BYTES;
	if (data->d_size > SECTION_MAX_BYTES || header->sh_addr > UINT64_MAX - data->d_size)
		return 0;
	for (size_t at = 0; at + bytes <= data->d_size; at += bytes) {
		uint64_t address = header->sh_addr + at;
		const struct relocation *relocation =
			decode(plt, (const unsigned char *)data->d_buf + at, bytes, address);
		if (!relocation)
			continue;
		struct symbol symbol = {
			.start = address,
			.end = address + bytes,
			.section_end = header->sh_addr + data->d_size,
			.name = relocation->name,
			.rank = RANK_PLT,
			.sized = true,
		};
		symbol.name.is_plt = 1;
		int r = symbol_list_add(plt->list, &symbol);
		if (r < 0)
			return r;
		plt->added = true;
	}
	return 0;
}

static int for_each_section(struct plt *plt, Elf *elf, int (*visit)(struct plt *, Elf *, Elf_Scn *, const char *name))
{
	size_t strings = 0;
	if (elf_getshdrstrndx(elf, &strings) < 0)
		return 0;
	Elf_Scn *section = NULL;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		const char *name = gelf_getshdr(section, &header) ? elf_strptr(elf, strings, header.sh_name) : NULL;
		int r = name ? visit(plt, elf, section, name) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int visit_tables(struct plt *plt, Elf *elf, Elf_Scn *section, const char *name)
{
	GElf_Shdr header;
	Elf_Data *data = NULL;
	bool is_rela_plt = strcmp(name, ".rela.plt") == 0;
	/* By its name first: to ask for the content is to read it. */
	if ((!is_rela_plt && strcmp(name, ".rela.dyn") != 0) || !section_content(section, &header, &data) ||
	    header.sh_type != SHT_RELA)
		return 0;
	return read_relocations(plt, elf, data, is_rela_plt);
}

static int visit_entries(struct plt *plt, Elf *elf, Elf_Scn *section, const char *name)
{
	(void)elf;
	GElf_Shdr header;
	Elf_Data *data = NULL;
	if (strncmp(name, ".plt", 4) != 0 || !section_content(section, &header, &data) ||
	    header.sh_type != SHT_PROGBITS || !(header.sh_flags & SHF_EXECINSTR))
		return 0;
	return read_entries(plt, &header, data);
}

static Elf_Data *dynamic_symbols(Elf *elf)
{
	Elf_Scn *section = NULL;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		Elf_Data *data = NULL;
		if (gelf_getshdr(section, &header) && header.sh_type == SHT_DYNSYM &&
		    section_content(section, &header, &data))
			return data;
	}
	return NULL;
}

int plt_collect(Elf *elf, struct symbol_list *list, bool *ret_added)
{
	GElf_Ehdr header;
	if (!gelf_getehdr(elf, &header) || header.e_machine != EM_X86_64)
		return 0;
	struct plt plt = {.list = list, .dynamic_symbols = dynamic_symbols(elf)};
	int r = for_each_section(&plt, elf, visit_tables);
	if (r == 0 && plt.n) {
		qsort(plt.by_slot, plt.n, sizeof(plt.by_slot[0]), compare_slots);
		r = for_each_section(&plt, elf, visit_entries);
	}
	free(plt.by_slot);
	free(plt.rela_plt);
	if (r == 0)
		*ret_added = plt.added;
	return r;
}
