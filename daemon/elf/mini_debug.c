#include "elf/mini_debug.h"

#include <gelf.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

enum {
	PACKED_MAX_BYTES = 64 << 20,
	UNPACKED_MAX_BYTES = 128 << 20,
	FIRST_BYTES = 1 << 20,
	DECODER_MAX_BYTES = 80 << 20, /* the largest preset's dictionary is 64 MiB */
};

static Elf_Data *find_packed(Elf *elf)
{
	size_t strings = 0;
	Elf_Scn *section = NULL;
	if (elf_getshdrstrndx(elf, &strings) < 0)
		return NULL;
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		const char *name = gelf_getshdr(section, &header) ? elf_strptr(elf, strings, header.sh_name) : NULL;
		if (name && strcmp(name, ".gnu_debugdata") == 0 && header.sh_type != SHT_NOBITS &&
		    header.sh_size <= PACKED_MAX_BYTES)
			return elf_rawdata(section, NULL);
	}
	return NULL;
}

/* One xz stream. NULL: malformed, or larger than it may be. */
static char *unpack(const uint8_t *packed, size_t packed_bytes, size_t *ret_bytes)
{
	lzma_stream stream = LZMA_STREAM_INIT;
	if (lzma_stream_decoder(&stream, DECODER_MAX_BYTES, 0) != LZMA_OK)
		return NULL;
	_cleanup_free_ char *out = NULL;
	size_t allocated = 0;
	lzma_ret r = LZMA_OK;
	stream.next_in = packed;
	stream.avail_in = packed_bytes;
	while (r == LZMA_OK && allocated < UNPACKED_MAX_BYTES) {
		size_t used = stream.total_out;
		allocated = allocated ? allocated * 2 : FIRST_BYTES;
		char *grown = realloc(out, allocated);
		if (!grown)
			break;
		out = grown;
		stream.next_out = (uint8_t *)out + used;
		stream.avail_out = allocated - used;
		while (r == LZMA_OK && stream.avail_out > 0)
			r = lzma_code(&stream, LZMA_FINISH);
	}
	*ret_bytes = stream.total_out;
	lzma_end(&stream);
	return r == LZMA_STREAM_END ? TAKE_PTR(out) : NULL;
}

void mini_debug_read(Elf *elf, struct symbol_source *ret)
{
	const Elf_Data *packed = find_packed(elf);
	size_t bytes = 0;
	_cleanup_free_ char *file = packed && packed->d_buf ? unpack(packed->d_buf, packed->d_size, &bytes) : NULL;
	if (!file)
		return;
	struct symbols symbols = {};
	Elf *inner = elf_memory(file, bytes);
	GElf_Ehdr header;
	if (inner && elf_kind(inner) == ELF_K_ELF && gelf_getehdr(inner, &header))
		(void)symbols_read(inner, &symbols);
	elf_end(inner);
	if (symbols.n == 0) {
		symbols_free(&symbols);
		return;
	}
	*ret = (struct symbol_source){.symbols = symbols, .fd = -1, .memory = TAKE_PTR(file), .memory_bytes = bytes};
}
