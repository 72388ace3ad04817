/* Where a file says that more about it is to be found: .gnu_debuglink (the name and CRC of its separate debug file; binutils' objcopy)
 * and .gnu_debugaltlink (the name and build id of dwz's supplementary file). */
#pragma once
#include <libelf.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/reader_limits.h"

struct links {
	char debug_link[READER_LINK_MAX_BYTES + 1]; /* a file name without slash, or "" */
	uint32_t debug_link_crc;
	char alt_link[READER_LINK_MAX_BYTES + 1]; /* a path, absolute or from where this file is; or "" */
	char alt_build_id[2 * READER_BUILD_ID_MAX_BYTES + 1];
};

/* What is missing or malformed is "". */
void links_read(Elf *elf, struct links *ret);
