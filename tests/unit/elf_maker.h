/* Small ELF files made by hand, for tests that need one nobody would link: one executable segment at MAKER_ADDRESS, a .text section in it,
 * and any symbols. Everything a test wants wrong it can change in the bytes afterwards. */
#pragma once
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAKER_ADDRESS = 0x400000, MAKER_TEXT = 0x1000, MAKER_TEXT_BYTES = 0x1000, MAKER_MAX_BYTES = 1 << 20 };

struct maker_symbol {
	uint64_t offset, bytes; /* in .text */
	int binding, type;
	const char *name;
};

struct maker {
	uint8_t bytes[MAKER_MAX_BYTES];
	size_t n;
};

/* Layout: header, segments, note; .text at MAKER_TEXT; then symbols, strings, section headers. */
enum { MAKER_NULL_SECTION, MAKER_TEXT_SECTION, MAKER_SYMTAB_SECTION, MAKER_STRTAB_SECTION, MAKER_SECTIONS };

static inline Elf64_Ehdr *maker_header(struct maker *maker)
{
	return (Elf64_Ehdr *)maker->bytes;
}

static inline Elf64_Phdr *maker_segments(struct maker *maker)
{
	return (Elf64_Phdr *)(maker->bytes + sizeof(Elf64_Ehdr));
}

static inline Elf64_Shdr *maker_sections(struct maker *maker)
{
	return (Elf64_Shdr *)(maker->bytes + maker_header(maker)->e_shoff);
}

static inline void maker_note(struct maker *maker, const uint8_t *build_id, size_t n)
{
	size_t at = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);
	Elf64_Nhdr note = {.n_namesz = 4, .n_descsz = (Elf64_Word)n, .n_type = NT_GNU_BUILD_ID};
	memcpy(maker->bytes + at, &note, sizeof(note));
	memcpy(maker->bytes + at + sizeof(note), "GNU", 4);
	memcpy(maker->bytes + at + sizeof(note) + 4, build_id, n);
	maker_segments(maker)[1] = (Elf64_Phdr){.p_type = PT_NOTE,
						.p_offset = at,
						.p_filesz = sizeof(note) + 4 + n,
						.p_memsz = sizeof(note) + 4 + n,
						.p_align = 4};
}

static inline void maker_make(struct maker *maker, const struct maker_symbol *symbols, size_t n_symbols)
{
	memset(maker->bytes, 0, sizeof(maker->bytes));
	Elf64_Ehdr *header = maker_header(maker);
	*header = (Elf64_Ehdr){
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 2,
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = MAKER_SECTIONS,
	};
	maker_segments(maker)[0] = (Elf64_Phdr){.p_type = PT_LOAD,
						.p_flags = PF_R | PF_X,
						.p_offset = MAKER_TEXT,
						.p_vaddr = MAKER_ADDRESS,
						.p_filesz = MAKER_TEXT_BYTES,
						.p_memsz = MAKER_TEXT_BYTES,
						.p_align = 4096};
	maker_note(maker, (const uint8_t *)"\x01\x02\xab\xcd", 4);
	size_t symtab = MAKER_TEXT + MAKER_TEXT_BYTES;
	size_t strtab = symtab + (n_symbols + 1) * sizeof(Elf64_Sym);
	size_t used = 1;
	for (size_t i = 0; i < n_symbols; i++) {
		Elf64_Sym symbol = {
			.st_name = (Elf64_Word)used,
			.st_info = (unsigned char)ELF64_ST_INFO(symbols[i].binding, symbols[i].type),
			.st_shndx = MAKER_TEXT_SECTION,
			.st_value = MAKER_ADDRESS + symbols[i].offset,
			.st_size = symbols[i].bytes,
		};
		memcpy(maker->bytes + symtab + (i + 1) * sizeof(symbol), &symbol, sizeof(symbol));
		memcpy(maker->bytes + strtab + used, symbols[i].name, strlen(symbols[i].name) + 1);
		used += strlen(symbols[i].name) + 1;
	}
	header->e_shoff = (strtab + used + 7) & ~7UL;
	Elf64_Shdr *sections = maker_sections(maker);
	sections[MAKER_TEXT_SECTION] = (Elf64_Shdr){.sh_type = SHT_PROGBITS,
						    .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
						    .sh_addr = MAKER_ADDRESS,
						    .sh_offset = MAKER_TEXT,
						    .sh_size = MAKER_TEXT_BYTES};
	sections[MAKER_SYMTAB_SECTION] = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
						      .sh_offset = symtab,
						      .sh_size = strtab - symtab,
						      .sh_link = MAKER_STRTAB_SECTION,
						      .sh_entsize = sizeof(Elf64_Sym)};
	sections[MAKER_STRTAB_SECTION] = (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_offset = strtab, .sh_size = used};
	maker->n = header->e_shoff + MAKER_SECTIONS * sizeof(Elf64_Shdr);
}

/* A memfd with the n bytes; -1 on failure. */
static inline int maker_memfd(const void *bytes, size_t n)
{
	int fd = memfd_create("made", MFD_CLOEXEC);
	if (fd >= 0 && write(fd, bytes, n) != (ssize_t)n) {
		close(fd);
		return -1;
	}
	return fd;
}
