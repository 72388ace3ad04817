#include "elf/image.h"

#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "elf/build_id.h"
#include "elf/demangle.h"
#include "elf/dwarf.h"
#include "elf/symbols.h"
#include "elf/text.h"

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
	struct dwarf_sections sections; /* until they are dwarf's */
	struct dwarf *dwarf;            /* NULL: not tried yet, or there is none */
	bool has_dwarf;
};

static int check_regular(int fd, uint64_t *ret_bytes)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0)
		return -ENOEXEC;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
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

static int read_elf(Elf *elf, uint64_t file_bytes, struct image *image)
{
	GElf_Ehdr header;
	if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header) ||
	    (header.e_type != ET_EXEC && header.e_type != ET_DYN))
		return -ENOEXEC;
	int r = read_segments(elf, image);
	if (r < 0)
		return r;
	build_id_read(elf, image->build_id);
	dwarf_sections_find(elf, image->fd, file_bytes, false, &image->sections);
	image->has_dwarf = dwarf_sections_any(&image->sections);
	return symbols_read(elf, &image->symbols);
}

int image_open(int fd, struct image **ret)
{
	_cleanup_close_ int owned = fd;
	uint64_t bytes = 0;
	int r = check_regular(fd, &bytes);
	if (r < 0)
		return r;
	struct image *image = calloc(1, sizeof(*image));
	if (!image)
		return -ENOMEM;
	image->fd = TAKE_FD(owned);
	elf_version(EV_CURRENT);
	Elf *elf = elf_begin(image->fd, ELF_C_READ, NULL);
	r = elf ? read_elf(elf, bytes, image) : -ENOEXEC;
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
	dwarf_free(image->dwarf);
	dwarf_sections_release(&image->sections);
	close(image->fd);
	free(image);
}

const char *image_build_id(const struct image *image)
{
	return image->build_id;
}

bool image_has_symbols(const struct image *image)
{
	return image->symbols.n > 0 || image->has_dwarf;
}

size_t image_bytes(const struct image *image)
{
	return sizeof(*image) + image->symbols.n * sizeof(image->symbols.ranges[0]) +
	       (image->dwarf ? dwarf_bytes(image->dwarf) : 0);
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

static bool find_symbol(const struct image *image, uint64_t address, struct image_name *ret)
{
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
	text_make_printable(ret->system_name);
	if (!ret->system_name[0])
		return false; /* the file changed since it was opened */
	if (demangle(ret->system_name, ret->name, sizeof(ret->name)))
		text_make_printable(ret->name);
	else
		memcpy(ret->name, ret->system_name, strlen(ret->system_name) + 1);
	if (range->name.is_plt) {
		append_plt(ret->name);
		append_plt(ret->system_name);
	}
	return true;
}

bool image_find(const struct image *image, uint64_t file_offset, struct image_name *ret)
{
	uint64_t address = 0;
	return address_of(image, file_offset, &address) && find_symbol(image, address, ret);
}

/* The frames that DWARF has; 0: none. */
static size_t find_dwarf(struct image *image, uint64_t address, struct dwarf_frame *frames)
{
	if (!image->dwarf && image->has_dwarf && dwarf_new(&image->sections, &image->dwarf) < 0)
		image->has_dwarf = false;
	return image->dwarf ? dwarf_find(image->dwarf, address, frames) : 0;
}

/* The function itself, which all others are inlined into, has its name by DWARF too, unless that has none or only the source's word
 * for it ("operator()") where the symbol says more. */
static bool symbol_is_better(const struct dwarf_frame *outermost, const struct image_name *symbol)
{
	return !outermost->name || (!outermost->is_mangled && strcmp(symbol->name, symbol->system_name) != 0);
}

size_t image_find_frames(struct image *image, uint64_t file_offset, struct image_frame ret[READER_FRAMES_MAX])
{
	static struct image_name symbol; /* what ret points to; there is one thread */
	struct dwarf_frame frames[READER_FRAMES_MAX];
	uint64_t address = 0;
	if (!address_of(image, file_offset, &address))
		return 0;
	size_t n = find_dwarf(image, address, frames), kept = 0;
	bool complete = n > 0 && frames[n - 1].name && frames[n - 1].is_mangled;
	bool has_symbol = !complete && find_symbol(image, address, &symbol);
	if (n == 0 && has_symbol) {
		ret[0] = (struct image_frame){.name = symbol.name, .system_name = symbol.system_name, .filename = ""};
		return 1;
	}
	for (size_t i = 0; i < n; i++) {
		struct dwarf_frame *frame = &frames[i];
		if (i == n - 1 && has_symbol && symbol_is_better(frame, &symbol)) {
			frame->name = symbol.name;
			frame->system_name = symbol.system_name;
		}
		if (frame->name)
			ret[kept++] = (struct image_frame){frame->name, frame->system_name, frame->filename,
							   frame->line, frame->start_line};
	}
	return kept;
}
