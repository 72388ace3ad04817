/* The build id of an ELF file: the note NT_GNU_BUILD_ID of owner "GNU", from its PT_NOTE segments, or else its SHT_NOTE sections. */
#pragma once
#include <libelf.h>

#include "proto/reader_limits.h"

/* Lower-case hex into ret; "" when there is none, or one of no bytes or more than READER_BUILD_ID_MAX_BYTES. */
void build_id_read(Elf *elf, char ret[2 * READER_BUILD_ID_MAX_BYTES + 1]);

/* n bytes as lower-case hex, with a NUL. */
void build_id_write_hex(const uint8_t *bytes, size_t n, char *out);
