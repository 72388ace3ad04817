#include <errno.h>
#include <gelf.h>
#include <string.h>
#include <zlib.h>

#include "base/cleanup.h"
#include "elf/build_id.h"
#include "elf/image_internal.h"

enum { CRC_CHUNK_BYTES = 256 << 10 };
#define CRC_FILE_MAX_BYTES (1UL << 30)

struct dwarf *image_dwarf(struct image *image)
{
	if (!image->dwarf && image->has_dwarf && dwarf_new(&image->sections, &image->dwarf) < 0)
		image->has_dwarf = false;
	return image->dwarf;
}

/* The CRC of a whole file, as .gnu_debuglink has it. False: too large to be worth it, or unreadable. */
static bool has_crc(int fd, uint64_t bytes, uint32_t wanted)
{
	_cleanup_free_ uint8_t *chunk = bytes <= CRC_FILE_MAX_BYTES ? malloc(CRC_CHUNK_BYTES) : NULL;
	if (!chunk)
		return false;
	uLong crc = crc32(0, NULL, 0);
	ssize_t n = 0;
	for (uint64_t at = 0; at < bytes; at += (uint64_t)n) {
		n = pread(fd, chunk, CRC_CHUNK_BYTES, (off_t)at);
		if (n <= 0)
			return false;
		crc = crc32(crc, chunk, (uInt)n);
	}
	return crc == wanted; // NOLINT(clang-analyzer-unix.Malloc): freed by its cleanup
}

/* A file that tells the debug information of another program is worse than none. */
static bool belongs(const struct image *image, Elf *elf, int fd, uint64_t bytes)
{
	char build_id[2 * READER_BUILD_ID_MAX_BYTES + 1];
	build_id_read(elf, build_id);
	if (image->build_id[0])
		return strcmp(build_id, image->build_id) == 0;
	return image->links.debug_link[0] && has_crc(fd, bytes, image->links.debug_link_crc);
}

static int attach_debug(struct image *image, Elf *elf, int fd, uint64_t bytes)
{
	if (image->debug.fd >= 0 || !belongs(image, elf, fd, bytes))
		return -ENOENT;
	struct dwarf_sections sections;
	dwarf_sections_find(elf, fd, bytes, false, &sections);
	struct symbols symbols = {};
	int r = image->own.symbols.has_symtab ? 0 : symbols_read(elf, &symbols);
	if (r < 0)
		return r;
	image->debug.symbols = symbols;
	image->debug.fd = fd;
	links_read(elf, &image->links);
	if (!image->has_dwarf && dwarf_sections_any(&sections)) {
		dwarf_sections_release(&image->sections);
		image->sections = sections; /* nothing of them is mapped yet */
		image->has_dwarf = true;
	}
	return 0;
}

static int attach_alt(struct image *image, Elf *elf, int fd, uint64_t bytes)
{
	char build_id[2 * READER_BUILD_ID_MAX_BYTES + 1];
	build_id_read(elf, build_id);
	if (image->alt_fd >= 0 || !build_id[0] || strcmp(build_id, image->links.alt_build_id) != 0)
		return -ENOENT;
	struct dwarf *dwarf = image_dwarf(image);
	if (!dwarf)
		return -ENOENT;
	struct dwarf_sections sections;
	dwarf_sections_find(elf, fd, bytes, false, &sections);
	int r = dwarf_set_alt(dwarf, &sections);
	if (r == 0)
		image->alt_fd = fd;
	return r;
}

/* There may be thousands: each is mapped, and its fd closed. */
static int attach_split(struct image *image, Elf *elf, int fd, uint64_t bytes)
{
	struct dwarf *dwarf = image_dwarf(image);
	struct dwarf_sections sections;
	dwarf_sections_find(elf, fd, bytes, true, &sections);
	if (!dwarf || !dwarf_sections_any(&sections))
		return -ENOENT;
	int r = dwarf_sections_hold(&sections);
	return r < 0 ? r : dwarf_add_split(dwarf, &sections);
}

static int attach_package(struct image *image, Elf *elf, int fd, uint64_t bytes)
{
	struct dwarf *dwarf = image_dwarf(image);
	if (!dwarf || image->package_fd >= 0)
		return -ENOENT;
	struct dwarf_sections sections;
	dwarf_sections_find(elf, fd, bytes, true, &sections);
	int r = dwarf_add_package(dwarf, &sections);
	if (r == 0)
		image->package_fd = fd;
	return r;
}

static int attach(struct image *image, enum image_attachment kind, Elf *elf, int fd, uint64_t bytes)
{
	switch (kind) {
	case ATTACH_ALT:
		return attach_alt(image, elf, fd, bytes);
	case ATTACH_SPLIT:
		return attach_split(image, elf, fd, bytes);
	case ATTACH_PACKAGE:
		return attach_package(image, elf, fd, bytes);
	default:
		return attach_debug(image, elf, fd, bytes);
	}
}

int image_attach(struct image *image, enum image_attachment kind, int fd)
{
	_cleanup_close_ int owned = fd;
	uint64_t bytes = 0;
	int r = image_check_regular(fd, &bytes);
	if (r < 0)
		return r;
	Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
	GElf_Ehdr header;
	if (!elf || elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header))
		r = -ENOEXEC;
	else
		r = attach(image, kind, elf, fd, bytes);
	elf_end(elf);
	if (r == 0 && kind != ATTACH_SPLIT)
		TAKE_FD(owned);
	return r;
}
