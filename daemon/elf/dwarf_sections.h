/* The debug sections of one ELF file, mapped or unpacked when they are first needed.
 *
 * Mapped, because only few pages of a large file are needed, and the page cache has them already. A file that is cut short afterwards
 * would be a SIGBUS: dwarf_sections_survive_truncation() makes what is gone read as zeros, which every parser here survives.
 * Compressed ones (SHF_COMPRESSED with zlib or zstd, and the older .zdebug_*) are unpacked whole, within bounds. */
#pragma once
#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/dwarf_cursor.h"

enum dwarf_section_id {
	DWARF_INFO,
	DWARF_ABBREV,
	DWARF_LINE,
	DWARF_STR,
	DWARF_LINE_STR,
	DWARF_STR_OFFSETS,
	DWARF_ADDR,
	DWARF_RANGES,
	DWARF_RNGLISTS,
	DWARF_ARANGES,
	DWARF_CU_INDEX, /* of a package of split DWARF */
	/* No debug sections, and found by others alone, but kept in the same way: */
	DWARF_GO_TABLE,    /* go_table.h */
	DWARF_FRAME_INDEX, /* function_starts.h */
	DWARF_SECTION_COUNT,
};

struct dwarf_section {
	/* Where it is in the file; file_bytes 0: there is none. */
	uint64_t file_offset, file_bytes;
	bool compressed, old_compressed, tried;
	/* Once loaded; bytes NULL: not there, or it cannot be read. */
	const uint8_t *bytes;
	size_t n;
	void *mapped; /* what to unmap */
	size_t mapped_bytes;
};

struct dwarf_sections {
	int fd; /* borrowed */
	uint64_t file_size;
	size_t unpacked_bytes;
	void *whole; /* the file, when it is held in one mapping; NULL: each section has its own */
	struct dwarf_section sections[DWARF_SECTION_COUNT];
};

/* Where the sections of elf are, whose file is fd, of file_size bytes. dwo: those of split DWARF (".debug_info.dwo" and so on). */
void dwarf_sections_find(Elf *elf, int fd, uint64_t file_size, bool dwo, struct dwarf_sections *ret);
/* Maps the whole file at once, so that fd may be closed: for the many small files of split DWARF. -ENOMEM: not possible, or too many are. */
int dwarf_sections_hold(struct dwarf_sections *sections);
void dwarf_sections_release(struct dwarf_sections *sections);
/* There is debug information to be read (.debug_info and .debug_abbrev). */
bool dwarf_sections_any(const struct dwarf_sections *sections);

/* Loads it if need be. Its bytes are NULL and n is 0 when it is missing or cannot be had. */
const struct dwarf_section *dwarf_section(struct dwarf_sections *sections, enum dwarf_section_id id);
/* The text at offset of a string section; n is 0 when there is none, or one that is longer than anybody would read. */
struct dwarf_text dwarf_section_text(struct dwarf_sections *sections, enum dwarf_section_id id, uint64_t offset);

/* Once, before any file is mapped (and before the sandbox): handles SIGBUS within mapped sections. */
int dwarf_sections_survive_truncation(void);
