#include "elf/build_id.h"

#include <gelf.h>
#include <stdbool.h>
#include <string.h>

enum { NOTES_MAX_BYTES = 1 << 20 };

void build_id_write_hex(const uint8_t *bytes, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < n; i++) {
		*out++ = digits[bytes[i] >> 4];
		*out++ = digits[bytes[i] & 15];
	}
	*out = '\0';
}

static bool find_in(Elf_Data *notes, char *out)
{
	GElf_Nhdr note;
	size_t at = 0, name = 0, content = 0;
	while (notes && (at = gelf_getnote(notes, at, &note, &name, &content)) > 0) {
		const char *bytes = notes->d_buf;
		if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != sizeof("GNU") ||
		    memcmp(bytes + name, "GNU", sizeof("GNU")) != 0)
			continue;
		if (note.n_descsz == 0 || note.n_descsz > READER_BUILD_ID_MAX_BYTES)
			continue;
		build_id_write_hex((const uint8_t *)bytes + content, note.n_descsz, out);
		return true;
	}
	return false;
}

static bool find_in_segments(Elf *elf, char *out)
{
	size_t n = 0;
	if (elf_getphdrnum(elf, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr segment;
		if (!gelf_getphdr(elf, (int)i, &segment))
			return false;
		if (segment.p_type != PT_NOTE || segment.p_filesz == 0 || segment.p_filesz > NOTES_MAX_BYTES ||
		    segment.p_offset > INT64_MAX)
			continue;
		Elf_Type type = segment.p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR;
		if (find_in(elf_getdata_rawchunk(elf, (int64_t)segment.p_offset, segment.p_filesz, type), out))
			return true;
	}
	return false;
}

static bool find_in_sections(Elf *elf, char *out)
{
	Elf_Scn *section = NULL;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		if (gelf_getshdr(section, &header) && header.sh_type == SHT_NOTE && header.sh_size <= NOTES_MAX_BYTES &&
		    find_in(elf_getdata(section, NULL), out))
			return true;
	}
	return false;
}

void build_id_read(Elf *elf, char ret[2 * READER_BUILD_ID_MAX_BYTES + 1])
{
	ret[0] = '\0';
	if (!find_in_segments(elf, ret))
		(void)find_in_sections(elf, ret);
}
