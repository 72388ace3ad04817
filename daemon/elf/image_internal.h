/* What the parts of image share. */
#pragma once
#include "elf/dwarf.h"
#include "elf/function_starts.h"
#include "elf/go_table.h"
#include "elf/image.h"
#include "elf/symbol_source.h"

enum { SEGMENTS_MAX = 64 };

struct segment {
	uint64_t offset, bytes, address;
};

struct image {
	int fd;
	char build_id[2 * READER_BUILD_ID_MAX_BYTES + 1];
	size_t n_segments;
	struct segment segments[SEGMENTS_MAX]; /* the executable ones first: at page borders two can hold one offset */
	struct symbol_source own, mini, debug; /* debug.fd is ours; -1: none */
	struct links links;
	struct dwarf_sections sections; /* until they are dwarf's */
	struct dwarf *dwarf;            /* NULL: not read yet, or there is none */
	bool has_dwarf, has_go_table, has_starts;
	struct go_table go_table;
	struct function_starts starts;
	int alt_fd, package_fd; /* -1: none */
};

/* Of a regular file with something in it. -ENOEXEC: it is none; -errno. */
int image_check_regular(int fd, uint64_t *ret_bytes);
/* Reads it when it is first needed; NULL: there is none. */
struct dwarf *image_dwarf(struct image *image);
