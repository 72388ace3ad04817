/* One ELF file, as far as names need it: its build id, where its segments are mapped from, the index of its functions, its DWARF.
 *
 * Symbols are read with pread (libelf's ELF_C_READ), never mapped: a file that is cut short while it is read gives an error instead of
 * a SIGBUS. What is kept is 16 to 32 bytes a function; names are read again from the file when they are asked for. DWARF is mapped when
 * it is first needed: see dwarf_sections.h. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/dwarf.h"
#include "elf/links.h"
#include "proto/reader_limits.h"

struct image;

/* Takes fd in every case. -ENOEXEC: no ELF executable or shared library, or a malformed one; -EFBIG: its tables are larger than we
 * would read; -ENOMEM; -EIO and others of fstat. */
int image_open(int fd, struct image **ret);
void image_free(struct image *image); /* NULL is fine */

const char *image_build_id(const struct image *image); /* lower-case hex; "": none */
bool image_has_symbols(
	const struct image *image);              /* of whatever kind: false means that nothing will ever have a name */
bool image_has_debug(const struct image *image); /* debug information, its own or attached */
size_t image_bytes(const struct image *image);   /* of memory */

const struct links *
image_links(const struct image *image); /* where more about it may be; as of what was attached last */

/* A file that tells more about the image. */
enum image_attachment {
	ATTACH_DEBUG,   /* its separate debug file */
	ATTACH_ALT,     /* dwz's supplementary file */
	ATTACH_SPLIT,   /* a file of split DWARF that image_want told */
	ATTACH_PACKAGE, /* a package of them */
};
/* Takes fd in every case. 0: it is used from now on; -ENOENT: it belongs to another image (by its build id, or, where the image has
 * none, by the CRC in .gnu_debuglink), or such a one is there already; -ENOEXEC, -EFBIG, -ENOMEM, -EIO as image_open. */
int image_attach(struct image *image, enum image_attachment kind, int fd);

/* Which files of split DWARF are needed for the functions at n file offsets, each told once: into ret, at most max, and whether there may be a
 * package. How many. What image_find_frames says without them is what the program itself says. */
size_t image_want(struct image *image, const uint64_t *file_offsets, size_t n, struct dwarf_wanted *ret, size_t max,
		  bool *ret_package);

struct image_name {
	char name[READER_NAME_MAX_BYTES + 1];        /* demangled */
	char system_name[READER_NAME_MAX_BYTES + 1]; /* as in the symbol table, without version, made printable */
};

/* The function at file_offset, which is where in the file the code is, as it is mapped. False: none is known. */
bool image_find(const struct image *image, uint64_t file_offset, struct image_name *ret);

/* The functions at file_offset, innermost first, into ret; how many. By DWARF, where there is some: with files, lines and inlined calls;
 * by symbols otherwise. 0: none is known. What ret points to lives until the next call on any image. */
struct image_frame {
	const char *name, *system_name; /* never empty */
	const char *filename;           /* "": unknown */
	uint32_t line, start_line;      /* 0: unknown */
};
size_t image_find_frames(struct image *image, uint64_t file_offset, struct image_frame ret[READER_FRAMES_MAX]);
