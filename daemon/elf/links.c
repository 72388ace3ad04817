#include "elf/links.h"

#include <gelf.h>
#include <string.h>

#include "elf/build_id.h"
#include "elf/text.h"

enum { SECTION_MAX_BYTES = 8192 };

static Elf_Data *content_of(Elf_Scn *section)
{
	GElf_Shdr header;

	if (!gelf_getshdr(section, &header) || header.sh_type == SHT_NOBITS || header.sh_size > SECTION_MAX_BYTES)
		return NULL;
	Elf_Data *data = elf_getdata(section, NULL);
	return data && data->d_buf && data->d_size ? data : NULL;
}

/* Its length with the NUL; 0: it does not end, is too long, or is not fit to be a path. */
static size_t take_name(const Elf_Data *data, char *out)
{
	const char *text = data->d_buf;
	size_t length = strnlen(text, data->d_size);
	if (length == data->d_size || length == 0 || length > READER_LINK_MAX_BYTES)
		return 0;
	memcpy(out, text, length + 1);
	text_make_printable(out);
	if (memcmp(out, text, length + 1) != 0) {
		out[0] = '\0';
		return 0;
	}
	return length + 1;
}

static void read_debug_link(const Elf_Data *data, struct links *links)
{
	size_t bytes = take_name(data, links->debug_link), crc_at = (bytes + 3) & ~(size_t)3;
	if (bytes == 0 || strchr(links->debug_link, '/') || crc_at + sizeof(uint32_t) > data->d_size) {
		links->debug_link[0] = '\0';
		return;
	}
	memcpy(&links->debug_link_crc, (const char *)data->d_buf + crc_at, sizeof(uint32_t));
}

static void read_alt_link(const Elf_Data *data, struct links *links)
{
	size_t bytes = take_name(data, links->alt_link);
	if (bytes == 0)
		return;
	size_t n = data->d_size - bytes;
	if (n == 0 || n > READER_BUILD_ID_MAX_BYTES)
		links->alt_link[0] = '\0';
	else
		build_id_write_hex((const uint8_t *)data->d_buf + bytes, n, links->alt_build_id);
}

void links_read(Elf *elf, struct links *ret)
{
	size_t strings = 0;
	Elf_Scn *section = NULL;
	*ret = (struct links){};
	if (elf_getshdrstrndx(elf, &strings) < 0)
		return;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		const char *name = gelf_getshdr(section, &header) ? elf_strptr(elf, strings, header.sh_name) : NULL;
		bool debug = name && strcmp(name, ".gnu_debuglink") == 0;
		if (!debug && !(name && strcmp(name, ".gnu_debugaltlink") == 0))
			continue;
		const Elf_Data *data = content_of(section);
		if (data && debug)
			read_debug_link(data, ret);
		else if (data)
			read_alt_link(data, ret);
	}
}
