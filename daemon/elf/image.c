#include "elf/image.h"

#include <errno.h>
#include <gelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "elf/build_id.h"
#include "elf/go_table.h"
#include "elf/image_internal.h"
#include "elf/mini_debug.h"

int image_check_regular(int fd, uint64_t *ret_bytes)
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
	links_read(elf, &image->links);
	dwarf_sections_find(elf, image->fd, file_bytes, false, &image->sections);
	image->has_dwarf = dwarf_sections_any(&image->sections);
	image->has_starts = function_starts_open(elf, image->fd, file_bytes, &image->starts);
	image->has_go_table = go_table_open(elf, image->fd, file_bytes, &image->go_table);
	r = symbols_read(elf, &image->own.symbols);
	if (r == 0 && !image->own.symbols.has_symtab)
		mini_debug_read(elf, &image->mini);
	return r;
}

int image_open(int fd, struct image **ret)
{
	_cleanup_close_ int owned = fd;
	uint64_t bytes = 0;
	int r = image_check_regular(fd, &bytes);
	if (r < 0)
		return r;
	struct image *image = calloc(1, sizeof(*image));
	if (!image)
		return -ENOMEM;
	image->fd = TAKE_FD(owned);
	image->own.fd = image->fd;
	image->debug.fd = image->alt_fd = image->package_fd = -1;
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
	dwarf_free(image->dwarf);
	dwarf_sections_release(&image->sections);
	go_table_close(&image->go_table);
	function_starts_close(&image->starts);
	if (image->debug.fd >= 0)
		close(image->debug.fd);
	if (image->alt_fd >= 0)
		close(image->alt_fd);
	if (image->package_fd >= 0)
		close(image->package_fd);
	symbol_source_release(&image->own);
	symbol_source_release(&image->mini);
	symbol_source_release(&image->debug);
	close(image->fd);
	free(image);
}

const char *image_build_id(const struct image *image)
{
	return image->build_id;
}

bool image_has_symbols(const struct image *image)
{
	return image->own.symbols.n > 0 || image->mini.symbols.n > 0 || image->debug.symbols.n > 0 ||
	       image->has_dwarf || image->has_go_table || image->has_starts;
}

bool image_has_debug(const struct image *image)
{
	return image->has_dwarf;
}

size_t image_bytes(const struct image *image)
{
	size_t n = image->own.symbols.n + image->mini.symbols.n + image->debug.symbols.n;
	return sizeof(*image) + n * sizeof(struct symbol_range) + image->mini.memory_bytes +
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

const struct links *image_links(const struct image *image)
{
	return &image->links;
}

/* In order of trust: .symtab, here or in the debug file; .gnu_debugdata; .dynsym. */
static bool find_symbol(const struct image *image, uint64_t address, struct image_name *ret)
{
	bool own_first = image->own.symbols.has_symtab;
	return (own_first && symbol_source_find(&image->own, address, ret)) ||
	       symbol_source_find(&image->debug, address, ret) || symbol_source_find(&image->mini, address, ret) ||
	       (!own_first && symbol_source_find(&image->own, address, ret));
}

bool image_find(const struct image *image, uint64_t file_offset, struct image_name *ret)
{
	uint64_t address = 0;
	return address_of(image, file_offset, &address) && find_symbol(image, address, ret);
}

/* The frames that DWARF has; 0: none. */
static size_t find_dwarf(struct image *image, uint64_t address, struct dwarf_frame *frames)
{
	struct dwarf *dwarf = image_dwarf(image);
	return dwarf ? dwarf_find(dwarf, address, frames) : 0;
}

size_t image_want(struct image *image, const uint64_t *file_offsets, size_t n, struct dwarf_wanted *ret, size_t max,
		  bool *ret_package)
{
	struct dwarf *dwarf = image_dwarf(image);
	uint64_t address = 0;
	size_t n_wanted = 0;
	*ret_package = false;
	for (size_t i = 0; dwarf && i < n && n_wanted < max && !*ret_package; i++)
		if (address_of(image, file_offsets[i], &address))
			n_wanted += dwarf_want(dwarf, address, ret + n_wanted, max - n_wanted, ret_package);
	return n_wanted;
}

/* The compiler's own pieces and copies of a function: "f.cold", "f.part.0". Cuts name in place to what it is a piece of. */
static void strip_clone(char *name)
{
	static const char *const marks[] = {".cold", ".part.", ".isra.", ".constprop.", ".lto_priv.", ".llvm."};
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		char *at = strstr(name, marks[i]);
		if (at && at > name)
			*at = '\0';
	}
}

/* The function that all others are inlined into has the symbol's name, which is what people call it ("abort", where DWARF has glibc's own
 * "__GI_abort"), or says more than the source's word for it ("operator()"). Not where DWARF has a mangled name: of functions that the
 * linker has folded into one, that is the one whose lines and inlined calls we show. */
static void name_outermost(struct dwarf_frame *frame, struct image_name *symbol)
{
	if (strcmp(symbol->name, symbol->system_name) == 0)
		strip_clone(symbol->name);
	frame->name = symbol->name;
	frame->system_name = symbol->system_name;
}

/* A function that has no name: by where it begins, which is to be read behind the file's. */
static size_t find_start(struct image *image, uint64_t address, struct image_frame *ret)
{
	static char name[sizeof("+0x") + 16]; /* there is one thread */
	uint64_t start = 0;
	if (!image->has_starts || !function_starts_find(&image->starts, address, &start))
		return 0;
	snprintf(name, sizeof(name), "%c0x%llx", READER_NAMELESS, (unsigned long long)start);
	*ret = (struct image_frame){.name = name, .system_name = name, .filename = ""};
	return 1;
}

size_t image_find_frames(struct image *image, uint64_t file_offset, struct image_frame ret[READER_FRAMES_MAX])
{
	static struct image_name symbol; /* what ret points to; there is one thread */
	struct dwarf_frame frames[READER_FRAMES_MAX];
	uint64_t address = 0;
	if (!address_of(image, file_offset, &address))
		return 0;
	size_t n = find_dwarf(image, address, frames), kept = 0;
	bool wants_symbol = n == 0 || !frames[n - 1].name || !frames[n - 1].is_mangled;
	bool has_symbol = wants_symbol && find_symbol(image, address, &symbol);
	if (n == 0 && image->has_go_table && (kept = go_table_find(&image->go_table, address, ret))) {
		if (has_symbol) { /* which has the types of a generic function */
			ret[kept - 1].name = symbol.name;
			ret[kept - 1].system_name = symbol.system_name;
		}
		return kept;
	}
	if (n == 0 && has_symbol)
		frames[n++] = (struct dwarf_frame){.filename = ""};
	for (size_t i = 0; i < n; i++) {
		struct dwarf_frame *frame = &frames[i];
		if (i == n - 1 && has_symbol)
			name_outermost(frame, &symbol);
		if (frame->name)
			ret[kept++] = (struct image_frame){frame->name, frame->system_name, frame->filename,
							   frame->line, frame->start_line};
	}
	return kept ? kept : find_start(image, address, ret);
}
