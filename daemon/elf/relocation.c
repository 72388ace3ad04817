#include "elf/relocation.h"

#include <gelf.h>
#include <stddef.h>

enum {
	SECTIONS_MAX_BYTES = 256 << 20, /* all together */
	ASKED_MAX = 4,                  /* a file may have it put anywhere, any number of times */
};

/* Where a look through the relocations is that the loader goes by. */
struct walk {
	Elf *elf;
	Elf_Scn *section;
	Elf_Data *data;
	size_t i, n; /* of those in data */
	uint64_t bytes;
};

static bool next_section(struct walk *walk)
{
	size_t each = gelf_fsize(walk->elf, ELF_T_RELA, 1, EV_CURRENT);
	while (each && (walk->section = elf_nextscn(walk->elf, walk->section))) {
		GElf_Shdr header;
		if (!gelf_getshdr(walk->section, &header) || header.sh_type != SHT_RELA ||
		    !(header.sh_flags & SHF_ALLOC) || header.sh_size > SECTIONS_MAX_BYTES - walk->bytes)
			continue;
		walk->bytes += header.sh_size;
		walk->data = elf_getdata(walk->section, NULL);
		walk->i = 0;
		walk->n = walk->data ? walk->data->d_size / each : 0;
		if (walk->n)
			return true;
	}
	return false;
}

/* The next that adds nothing but where the file is loaded. False: there are no more. */
static bool next_relative(struct walk *walk, GElf_Rela *ret)
{
	do {
		while (walk->i < walk->n && walk->i <= INT32_MAX && gelf_getrela(walk->data, (int)walk->i++, ret))
			if (GELF_R_TYPE(ret->r_info) == R_X86_64_RELATIVE)
				return true;
	} while (next_section(walk));
	return false;
}

uint64_t relocation_of(Elf *elf, uint64_t address)
{
	struct walk walk = {.elf = elf};
	GElf_Rela entry;
	while (next_relative(&walk, &entry))
		if (entry.r_offset == address)
			return (uint64_t)entry.r_addend;
	return 0;
}

uint64_t relocation_to(Elf *elf, uint64_t target, bool (*wanted)(Elf *elf, uint64_t address, void *context),
		       void *context)
{
	struct walk walk = {.elf = elf};
	GElf_Rela entry;
	unsigned asked = 0;
	while (asked < ASKED_MAX && next_relative(&walk, &entry)) {
		if ((uint64_t)entry.r_addend != target)
			continue;
		if (wanted(elf, entry.r_offset, context))
			return entry.r_offset;
		asked++;
	}
	return 0;
}
