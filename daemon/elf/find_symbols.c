#include "elf/find_symbols.h"

#include <errno.h>
#include <gelf.h>
#include <stdbool.h>
#include <string.h>

#include "elf/image_internal.h"
#include "elf/symbol_list.h"

static bool first_code(Elf *elf, GElf_Phdr *ret)
{
	size_t n = 0;
	if (elf_getphdrnum(elf, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (gelf_getphdr(elf, (int)i, ret) && ret->p_type == PT_LOAD && ret->p_flags & PF_X)
			return true;
	return false;
}

static void take_symbol(const GElf_Sym *symbol, const char *name, const GElf_Phdr *code, char *const *names, size_t n,
			uint64_t *ret)
{
	if (symbol->st_shndx == SHN_UNDEF || symbol->st_value == 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (ret[i] == FIND_SYMBOLS_NONE && strcmp(name, names[i]) == 0)
			ret[i] = symbol->st_value - code->p_vaddr + code->p_offset;
}

static void search_table(Elf *elf, Elf_Scn *section, const GElf_Phdr *code, char *const *names, size_t n, uint64_t *ret)
{
	GElf_Shdr header, strings_header;
	Elf_Data *data = NULL, *strings = NULL;
	if (!section_content(section, &header, &data) || header.sh_entsize == 0)
		return;
	Elf_Scn *strings_section = elf_getscn(elf, header.sh_link);
	if (!strings_section || !section_content(strings_section, &strings_header, &strings) || strings->d_size == 0)
		return;
	size_t count = header.sh_size / header.sh_entsize;
	for (size_t i = 1; i < count && i < SYMBOLS_MAX; i++) {
		GElf_Sym symbol;
		if (!gelf_getsym(data, (int)i, &symbol))
			return;
		const char *text = strings->d_buf;
		if (symbol.st_name < strings->d_size &&
		    memchr(text + symbol.st_name, '\0', strings->d_size - symbol.st_name))
			take_symbol(&symbol, text + symbol.st_name, code, names, n, ret);
	}
}

static void search(Elf *elf, GElf_Word type, const GElf_Phdr *code, char *const *names, size_t n, uint64_t *ret)
{
	Elf_Scn *section = NULL;
	GElf_Shdr header;
	while ((section = elf_nextscn(elf, section)))
		if (gelf_getshdr(section, &header) && header.sh_type == type)
			search_table(elf, section, code, names, n, ret);
}

int find_symbols(int fd, char *const *names, size_t n, uint64_t *ret)
{
	uint64_t bytes = 0;
	GElf_Phdr code;
	int r = image_check_regular(fd, &bytes);
	if (r < 0)
		return r;
	elf_version(EV_CURRENT);
	Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
	r = elf && elf_kind(elf) == ELF_K_ELF && first_code(elf, &code) ? 0 : -ENOEXEC;
	for (size_t i = 0; i < n; i++)
		ret[i] = FIND_SYMBOLS_NONE;
	if (r == 0) {
		search(elf, SHT_DYNSYM, &code, names, n, ret);
		search(elf, SHT_SYMTAB, &code, names, n, ret);
	}
	elf_end(elf);
	return r;
}
