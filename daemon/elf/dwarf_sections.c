#include "elf/dwarf_sections.h"

#include <errno.h>
#include <gelf.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "elf/unpack.h"

#ifndef ELFCOMPRESS_ZSTD
#define ELFCOMPRESS_ZSTD 2 /* since glibc 2.37; gABI */
#endif

enum {
	/* A hostile file of a few megabytes must not take gigabytes: DWARF packs to a third or fourth. */
	RATIO_MAX = 64,
	RATIO_FREE_BYTES = 16 << 20,
	UNPACKED_MAX_BYTES = 1 << 30, /* of one file */
	MAPPINGS_MAX = 16384, /* of sections and of files of split DWARF, of which a large program has thousands */
	PAGE_BYTES = 4096,
	TEXT_MAX_BYTES = 64 << 10,
	OLD_HEADER_BYTES = 12, /* "ZLIB" and the size, big-endian */
};

static const char *const names[DWARF_GO_TABLE] = {
	[DWARF_INFO] = "info",       [DWARF_ABBREV] = "abbrev",     [DWARF_LINE] = "line",
	[DWARF_STR] = "str",         [DWARF_LINE_STR] = "line_str", [DWARF_STR_OFFSETS] = "str_offsets",
	[DWARF_ADDR] = "addr",       [DWARF_RANGES] = "ranges",     [DWARF_RNGLISTS] = "rnglists",
	[DWARF_ARANGES] = "aranges", [DWARF_CU_INDEX] = "cu_index",
};

/* What is mapped from files now, for the handler of SIGBUS. Only the one thread of the reader (or of a test) changes it, and the handler
 * runs in that thread, at a read of such memory, never within a change. */
static struct {
	uintptr_t start, end;
} mappings[MAPPINGS_MAX];

static void replace_with_zeros(int number, siginfo_t *info, void *context)
{
	(void)number, (void)context;
	uintptr_t address = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE_BYTES - 1);
	for (size_t i = 0; info->si_code == BUS_ADRERR && i < MAPPINGS_MAX; i++) {
		if (address < mappings[i].start || address >= mappings[i].end)
			continue;
		void *zeros = mmap((void *)address, mappings[i].end - address, PROT_READ, /* NOLINT */
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		if (zeros != MAP_FAILED)
			return;
	}
	_exit(128 + SIGBUS);
}

int dwarf_sections_survive_truncation(void)
{
	struct sigaction action = {.sa_sigaction = replace_with_zeros, .sa_flags = SA_SIGINFO};
	return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

/* False: too many are mapped. */
static bool note_mapping(const void *start, size_t bytes)
{
	for (size_t i = 0; i < MAPPINGS_MAX; i++) {
		if (mappings[i].end == 0) {
			mappings[i].start = (uintptr_t)start;
			mappings[i].end = ((uintptr_t)start + bytes + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
			return true;
		}
	}
	return false;
}

static void forget_mapping(const void *start)
{
	for (size_t i = 0; i < MAPPINGS_MAX; i++) {
		if (mappings[i].end && mappings[i].start == (uintptr_t)start)
			mappings[i].start = mappings[i].end = 0;
	}
}

/* Which section name stands for. *ret_old: it is of the older compressed kind. */
static enum dwarf_section_id section_of_name(const char *name, bool dwo, bool *ret_old)
{
	*ret_old = strncmp(name, ".zdebug_", 8) == 0;
	if (!*ret_old && strncmp(name, ".debug_", 7) != 0)
		return DWARF_SECTION_COUNT;
	name += *ret_old ? 8 : 7;
	for (enum dwarf_section_id id = 0; id < DWARF_GO_TABLE; id++) {
		size_t length = strlen(names[id]);
		bool has_suffix = dwo && id != DWARF_CU_INDEX;
		if (strncmp(name, names[id], length) == 0 && strcmp(name + length, has_suffix ? ".dwo" : "") == 0)
			return id;
	}
	return DWARF_SECTION_COUNT;
}

void dwarf_sections_find(Elf *elf, int fd, uint64_t file_size, bool dwo, struct dwarf_sections *ret)
{
	*ret = (struct dwarf_sections){.fd = fd, .file_size = file_size};
	size_t strings = 0;
	if (elf_getshdrstrndx(elf, &strings) < 0)
		return;
	Elf_Scn *section = NULL;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		if (!gelf_getshdr(section, &header) || header.sh_type == SHT_NOBITS)
			continue;
		bool old = false;
		const char *name = elf_strptr(elf, strings, header.sh_name);
		enum dwarf_section_id id = name ? section_of_name(name, dwo, &old) : DWARF_SECTION_COUNT;
		if (id == DWARF_SECTION_COUNT || ret->sections[id].file_bytes || header.sh_offset > file_size ||
		    header.sh_size > file_size - header.sh_offset)
			continue;
		ret->sections[id] = (struct dwarf_section){
			.file_offset = header.sh_offset,
			.file_bytes = header.sh_size,
			.compressed = header.sh_flags & SHF_COMPRESSED,
			.old_compressed = old,
		};
	}
}

void dwarf_sections_release(struct dwarf_sections *sections)
{
	for (enum dwarf_section_id id = 0; id < DWARF_SECTION_COUNT; id++) {
		struct dwarf_section *section = &sections->sections[id];
		if (section->mapped) {
			forget_mapping(section->mapped);
			munmap(section->mapped, section->mapped_bytes);
		}
	}
	if (sections->whole) {
		forget_mapping(sections->whole);
		munmap(sections->whole, sections->file_size);
	}
	*sections = (struct dwarf_sections){.fd = -1};
}

int dwarf_sections_hold(struct dwarf_sections *sections)
{
	void *start = mmap(NULL, sections->file_size, PROT_READ, MAP_PRIVATE, sections->fd, 0);
	if (start == MAP_FAILED)
		return -ENOMEM;
	if (!note_mapping(start, sections->file_size)) {
		munmap(start, sections->file_size);
		return -ENOMEM;
	}
	sections->whole = start;
	sections->fd = -1;
	return 0;
}

bool dwarf_sections_any(const struct dwarf_sections *sections)
{
	return sections->sections[DWARF_INFO].file_bytes && sections->sections[DWARF_ABBREV].file_bytes;
}

/* Maps the section's bytes of the file. */
static void map(const struct dwarf_sections *sections, struct dwarf_section *section)
{
	if (sections->whole) {
		section->bytes = (const uint8_t *)sections->whole + section->file_offset;
		section->n = section->file_bytes;
		return;
	}
	uint64_t skip = section->file_offset % PAGE_BYTES;
	size_t bytes = section->file_bytes + skip;
	void *start = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, sections->fd, (off_t)(section->file_offset - skip));
	if (start == MAP_FAILED)
		return;
	if (!note_mapping(start, bytes)) {
		munmap(start, bytes);
		return;
	}
	section->mapped = start;
	section->mapped_bytes = bytes;
	section->bytes = (const uint8_t *)start + skip;
	section->n = section->file_bytes;
}

/* What the packed bytes in raw say of themselves: how many they stand for, and how long their header is. False: not understood. */
static bool read_header(const struct dwarf_section *raw, bool old, uint64_t *ret_bytes, size_t *ret_header,
			enum unpack_format *ret_format)
{
	Elf64_Chdr header;
	*ret_format = UNPACK_ZLIB;
	if (old) {
		uint64_t bytes = 0;
		if (raw->n < OLD_HEADER_BYTES || memcmp(raw->bytes, "ZLIB", 4) != 0)
			return false;
		for (size_t i = 4; i < OLD_HEADER_BYTES; i++)
			bytes = bytes << 8 | raw->bytes[i];
		*ret_bytes = bytes;
		*ret_header = OLD_HEADER_BYTES;
		return true;
	}
	if (raw->n < sizeof(header))
		return false;
	memcpy(&header, raw->bytes, sizeof(header));
	*ret_bytes = header.ch_size;
	*ret_header = sizeof(header);
	*ret_format = header.ch_type == ELFCOMPRESS_ZSTD ? UNPACK_ZSTD : UNPACK_ZLIB;
	return header.ch_type == ELFCOMPRESS_ZLIB || header.ch_type == ELFCOMPRESS_ZSTD;
}

static void load_packed(struct dwarf_sections *sections, struct dwarf_section *section)
{
	struct dwarf_section raw = *section;
	map(sections, &raw);
	uint64_t bytes = 0;
	size_t header = 0;
	enum unpack_format format;
	if (!raw.bytes)
		return;
	if (read_header(&raw, section->old_compressed, &bytes, &header, &format) && bytes > 0 &&
	    bytes <= UNPACKED_MAX_BYTES - sections->unpacked_bytes &&
	    (bytes <= RATIO_FREE_BYTES || bytes / RATIO_MAX <= raw.n)) {
		void *out = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (out != MAP_FAILED) /* all of it is written: in few page faults, where it is large */
			(void)madvise(out, bytes, MADV_HUGEPAGE);
		if (out != MAP_FAILED && unpack(format, raw.bytes + header, raw.n - header, out, bytes)) {
			section->mapped = out;
			section->mapped_bytes = bytes;
			section->bytes = out;
			section->n = bytes;
			sections->unpacked_bytes += bytes;
		} else if (out != MAP_FAILED) {
			munmap(out, bytes);
		}
	}
	if (raw.mapped) {
		forget_mapping(raw.mapped);
		munmap(raw.mapped, raw.mapped_bytes);
	}
}

const struct dwarf_section *dwarf_section(struct dwarf_sections *sections, enum dwarf_section_id id)
{
	struct dwarf_section *section = &sections->sections[id];
	if (!section->tried && section->file_bytes) {
		section->tried = true;
		if (section->compressed || section->old_compressed)
			load_packed(sections, section);
		else
			map(sections, section);
	}
	return section;
}

struct dwarf_text dwarf_section_text(struct dwarf_sections *sections, enum dwarf_section_id id, uint64_t offset)
{
	const struct dwarf_section *section = dwarf_section(sections, id);
	if (offset >= section->n)
		return (struct dwarf_text){};
	size_t room = section->n - offset;
	struct cursor in = {.at = section->bytes + offset, .end = section->bytes + offset};
	in.end += room < TEXT_MAX_BYTES ? room : TEXT_MAX_BYTES;
	return cursor_text(&in);
}
