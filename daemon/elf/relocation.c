#include "elf/relocation.h"

#include <gelf.h>
#include <stddef.h>

enum {
	SECTION_MAX_BYTES = 256 << 20,
	ASKED_MAX = 16, /* a file may have it put anywhere, any number of times */
};

/* The next section of relocations that the loader goes by, behind section; *ret_n of them. NULL: there is none. */
static Elf_Data *next_list(Elf *elf, Elf_Scn **section, size_t *ret_n)
{
	while ((*section = elf_nextscn(elf, *section))) {
		GElf_Shdr header;
		if (!gelf_getshdr(*section, &header) || header.sh_type != SHT_RELA || !(header.sh_flags & SHF_ALLOC) ||
		    header.sh_size > SECTION_MAX_BYTES || header.sh_entsize == 0)
			continue;
		Elf_Data *data = elf_getdata(*section, NULL);
		if (!data)
			continue;
		*ret_n = data->d_size / header.sh_entsize;
		return data;
	}
	return NULL;
}

static bool read_relative(Elf_Data *data, size_t i, GElf_Rela *ret)
{
	return i <= INT32_MAX && gelf_getrela(data, (int)i, ret) && GELF_R_TYPE(ret->r_info) == R_X86_64_RELATIVE;
}

uint64_t relocation_of(Elf *elf, uint64_t address)
{
	Elf_Scn *section = NULL;
	Elf_Data *data;
	size_t n = 0;
	while ((data = next_list(elf, &section, &n))) {
		GElf_Rela entry;
		for (size_t i = 0; i < n; i++)
			if (read_relative(data, i, &entry) && entry.r_offset == address)
				return (uint64_t)entry.r_addend;
	}
	return 0;
}

uint64_t relocation_to(Elf *elf, uint64_t target, bool (*wanted)(Elf *elf, uint64_t address, void *context),
		       void *context)
{
	Elf_Scn *section = NULL;
	Elf_Data *data;
	size_t n = 0;
	unsigned asked = 0;
	while ((data = next_list(elf, &section, &n))) {
		GElf_Rela entry;
		for (size_t i = 0; i < n && asked < ASKED_MAX; i++) {
			if (!read_relative(data, i, &entry) || (uint64_t)entry.r_addend != target)
				continue;
			if (wanted(elf, entry.r_offset, context))
				return entry.r_offset;
			asked++;
		}
	}
	return 0;
}
