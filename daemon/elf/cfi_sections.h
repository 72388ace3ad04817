/* Where an ELF file keeps its call frame information, and where its code is: the input of cfi_build. x86-64 alone.
 * Section contents are read with pread, once: they may be any bytes, but do not change. */
#pragma once
#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/scratch.h"

enum { CFI_SEGMENTS_MAX = 64, CFI_SECTIONS_MAX = 8, CFI_SECTION_MAX_BYTES = 512 << 20 };

struct cfi_segment { /* an executable PT_LOAD */
	uint64_t address, bytes, file_offset;
};

enum cfi_section_kind {
	CFI_EH_FRAME,
	CFI_DEBUG_FRAME,
	CFI_GO_FUNCTIONS, /* .gopclntab */
};

struct cfi_section {
	const uint8_t *bytes;
	size_t n;
	uint64_t address; /* of its first byte; .debug_frame has none that matters */
	enum cfi_section_kind kind;
	bool ends_at_zero; /* its length is not known: an entry of length 0 ends it */
};

struct cfi_sections {
	Elf *elf;
	struct scratch *scratch; /* where the sections are that libelf need not unpack */
	int fd;
	uint64_t file_bytes;
	struct cfi_segment segments[CFI_SEGMENTS_MAX];
	size_t n_segments;
	struct cfi_section list[CFI_SECTIONS_MAX]; /* .eh_frame first */
	size_t n;
	bool is_go; /* a program in Go */
	uint64_t text_address,
		data_address; /* what DW_EH_PE_textrel and DW_EH_PE_datarel start from; 0: no such section */
};

/* fd stays the caller's, and open until cfi_sections_free; what is read is in the scratch. A file without section headers is read by its PT_GNU_EH_FRAME.
 * -ENOEXEC: no ELF executable or shared library, or malformed; -EOPNOTSUPP: not for x86-64; -ENODATA: no CFI in it; -EFBIG: more than
 * we would read; -ENOMEM; errors of fstat. */
int cfi_sections_read(struct scratch *scratch, int fd, struct cfi_sections *ret);
void cfi_sections_free(struct cfi_sections *sections);

/* What a relocation that adds nothing but where the file is loaded puts at address: as linked. 0: there is none. */
uint64_t cfi_sections_relocated(const struct cfi_sections *sections, uint64_t address);

/* Where in the file the code at address is, and how many bytes from there its segment has. False: address is not executable. */
bool cfi_sections_locate(const struct cfi_sections *sections, uint64_t address, uint64_t *ret_file_offset,
			 uint64_t *ret_bytes);
