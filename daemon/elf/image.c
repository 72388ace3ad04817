#include "elf/image.h"

#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "elf/build_id.h"
#include "elf/demangle.h"
#include "elf/symbols.h"

enum { SEGMENTS_MAX = 64, NAME_FIRST_READ_BYTES = 256 };

struct segment {
	uint64_t offset, bytes, address;
};

struct image {
	int fd;
	char build_id[2 * READER_BUILD_ID_MAX_BYTES + 1];
	size_t n_segments;
	struct segment segments[SEGMENTS_MAX]; /* the executable ones first: at page borders two can hold one offset */
	struct symbols symbols;
};

static int check_regular(int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) && st.st_size > 0 ? 0 : -ENOEXEC;
}

static int read_segments(Elf *elf, struct image *image)
{
	size_t n = 0;
	if (elf_getphdrnum(elf, &n) < 0)
		return -ENOEXEC;
	for (int executable = 1; executable >= 0; executable--) {
		for (size_t i = 0; i < n && image->n_segments < SEGMENTS_MAX; i++) {
			GElf_Phdr header;
			if (!gelf_getphdr(elf, (int)i, &header))
				return -ENOEXEC;
			if (header.p_type != PT_LOAD || header.p_filesz == 0 || !!(header.p_flags & PF_X) != executable)
				continue;
			image->segments[image->n_segments++] = (struct segment){
				.offset = header.p_offset, .bytes = header.p_filesz, .address = header.p_vaddr};
		}
	}
	return 0;
}

static int read_elf(Elf *elf, struct image *image)
{
	GElf_Ehdr header;
	if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header) ||
	    (header.e_type != ET_EXEC && header.e_type != ET_DYN))
		return -ENOEXEC;
	int r = read_segments(elf, image);
	if (r < 0)
		return r;
	build_id_read(elf, image->build_id);
	return symbols_read(elf, &image->symbols);
}

int image_open(int fd, struct image **ret)
{
	_cleanup_close_ int owned = fd;
	int r = check_regular(fd);
	if (r < 0)
		return r;
	struct image *image = calloc(1, sizeof(*image));
	if (!image)
		return -ENOMEM;
	image->fd = TAKE_FD(owned);
	elf_version(EV_CURRENT);
	Elf *elf = elf_begin(image->fd, ELF_C_READ, NULL);
	r = elf ? read_elf(elf, image) : -ENOEXEC;
	elf_end(elf);
	if (r < 0) {
		image_free(image);
		return r;
	}
	*ret = image;
	return 0;
}

void image_free(struct image *image)
{
	if (!image)
		return;
	symbols_free(&image->symbols);
	close(image->fd);
	free(image);
}

const char *image_build_id(const struct image *image)
{
	return image->build_id;
}

bool image_has_symbols(const struct image *image)
{
	return image->symbols.n > 0;
}

size_t image_bytes(const struct image *image)
{
	return sizeof(*image) + image->symbols.n * sizeof(image->symbols.ranges[0]);
}

static bool address_of(const struct image *image, uint64_t file_offset, uint64_t *ret)
{
	for (size_t i = 0; i < image->n_segments; i++) {
		const struct segment *segment = &image->segments[i];
		if (file_offset >= segment->offset && file_offset - segment->offset < segment->bytes) {
			*ret = segment->address + (file_offset - segment->offset);
			return true;
		}
	}
	return false;
}

/* Reads the string at offset, without its NUL; what is longer than bytes - 1 is cut. Most names are short: one small read. */
static bool read_string(int fd, uint64_t offset, uint64_t limit, char *out, size_t bytes)
{
	if (offset > INT64_MAX || limit == 0)
		return false;
	size_t wanted = bytes - 1 < NAME_FIRST_READ_BYTES ? bytes - 1 : NAME_FIRST_READ_BYTES;
	for (;;) {
		if (wanted > limit)
			wanted = limit;
		ssize_t n = pread(fd, out, wanted, (off_t)offset);
		if (n <= 0)
			return false;
		out[n] = '\0';
		if (strlen(out) < (size_t)n || (size_t)n < wanted || wanted == bytes - 1 || wanted == limit)
			return true;
		wanted = bytes - 1;
	}
}

/* What no valid character begins at becomes '?'. Cut short or not, the result is valid. */
static void make_printable(char *text)
{
	size_t length = strlen(text);
	for (size_t at = 0; at < length;) {
		size_t n = utf8_printable(text + at, length - at);
		if (n == 0)
			text[at] = '?';
		at += n ? n : 1;
	}
}

/* "memcpy@@GLIBC_2.14" is memcpy. */
static void strip_version(char *name)
{
	char *at = strchr(name, '@');
	if (at && at > name)
		*at = '\0';
}

static void append_plt(char *name)
{
	static const char suffix[] = "@plt";
	size_t length = strlen(name);
	if (length + sizeof(suffix) <= READER_NAME_MAX_BYTES + 1)
		memcpy(name + length, suffix, sizeof(suffix));
}

bool image_find(const struct image *image, uint64_t file_offset, struct image_name *ret)
{
	uint64_t address = 0;
	if (!address_of(image, file_offset, &address))
		return false;
	const struct symbol_range *range = symbols_find(&image->symbols, address);
	if (!range)
		return false;
	uint64_t table = image->symbols.strings[range->name.strings].file_offset;
	uint64_t table_bytes = image->symbols.strings[range->name.strings].bytes;
	if (range->name.offset >= table_bytes || table > INT64_MAX ||
	    !read_string(image->fd, table + range->name.offset, table_bytes - range->name.offset, ret->system_name,
			 sizeof(ret->system_name)))
		return false;
	strip_version(ret->system_name);
	make_printable(ret->system_name);
	if (!ret->system_name[0])
		return false; /* the file changed since it was opened */
	if (demangle(ret->system_name, ret->name, sizeof(ret->name)))
		make_printable(ret->name);
	else
		memcpy(ret->name, ret->system_name, strlen(ret->system_name) + 1);
	if (range->name.is_plt) {
		append_plt(ret->name);
		append_plt(ret->system_name);
	}
	return true;
}
