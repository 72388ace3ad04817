#include "elf/function_starts.h"

#include <gelf.h>
#include <string.h>
#include <unistd.h>

enum {
	/* As every linker writes it: version, three encodings; where .eh_frame is; how many entries; then these, sorted. */
	VERSION = 1,
	COUNT_ENCODING = 0x03, /* DW_EH_PE_udata4 */
	TABLE_ENCODING = 0x3b, /* DW_EH_PE_datarel | DW_EH_PE_sdata4 */
	HEADER_BYTES = 12,
	ENTRY_BYTES = 8,
	FDE_BYTES = 16, /* length, CIE, pc_begin (pcrel, 4 bytes), range */
};

bool function_starts_open(Elf *elf, int fd, uint64_t file_bytes, struct function_starts *ret)
{
	size_t n = 0;
	if (elf_getphdrnum(elf, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr header;
		if (!gelf_getphdr(elf, (int)i, &header) || header.p_type != PT_GNU_EH_FRAME)
			continue;
		if (header.p_filesz < HEADER_BYTES || header.p_offset > file_bytes ||
		    header.p_filesz > file_bytes - header.p_offset)
			return false;
		*ret = (struct function_starts){.sections = {.fd = fd, .file_size = file_bytes},
						.address = header.p_vaddr};
		ret->sections.sections[DWARF_FRAME_INDEX] =
			(struct dwarf_section){.file_offset = header.p_offset, .file_bytes = header.p_filesz};
		return true;
	}
	return false;
}

void function_starts_close(struct function_starts *starts)
{
	dwarf_sections_release(&starts->sections);
}

static int32_t signed_at(const uint8_t *bytes)
{
	int32_t number;
	memcpy(&number, bytes, sizeof(number));
	return number;
}

static uint64_t relative(uint64_t base, const uint8_t *bytes)
{
	return base + (uint64_t)(int64_t)signed_at(bytes);
}

/* The last entry that begins at address or before; NULL: there is none. */
static const uint8_t *find_entry(const struct function_starts *starts, const struct dwarf_section *index,
				 uint64_t address)
{
	if (!index->bytes || index->n < HEADER_BYTES || index->bytes[0] != VERSION ||
	    index->bytes[2] != COUNT_ENCODING || index->bytes[3] != TABLE_ENCODING)
		return NULL;
	const uint8_t *entries = index->bytes + HEADER_BYTES;
	size_t low = 0, high = (uint32_t)signed_at(index->bytes + 8);
	if (high > (index->n - HEADER_BYTES) / ENTRY_BYTES)
		high = (index->n - HEADER_BYTES) / ENTRY_BYTES;
	while (low < high) { /* the first that is above */
		size_t middle = low + (high - low) / 2;
		if (relative(starts->address, entries + middle * ENTRY_BYTES) <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? entries + (low - 1) * ENTRY_BYTES : NULL;
}

bool function_starts_find(struct function_starts *starts, uint64_t address, uint64_t *ret)
{
	const struct dwarf_section *index = dwarf_section(&starts->sections, DWARF_FRAME_INDEX);
	const uint8_t *entry = find_entry(starts, index, address);
	uint8_t fde[FDE_BYTES];
	if (!entry)
		return false;
	uint64_t start = relative(starts->address, entry), at = relative(starts->address, entry + 4);
	/* .eh_frame is where the index is, in the same segment. */
	uint64_t offset = index->file_offset + (at - starts->address);
	if (offset > starts->sections.file_size || FDE_BYTES > starts->sections.file_size - offset ||
	    pread(starts->sections.fd, fde, sizeof(fde), (off_t)offset) != (ssize_t)sizeof(fde))
		return false;
	if (relative(at + 8, fde + 8) != start || address - start >= (uint32_t)signed_at(fde + 12))
		return false;
	*ret = start;
	return true;
}
