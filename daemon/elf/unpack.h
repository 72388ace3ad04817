/* Compressed sections, unpacked into memory whose size is given. Both formats are read in one pass without a window of their own. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum unpack_format { UNPACK_ZLIB, UNPACK_ZSTD };

/* Unpacks exactly out_bytes, or false: malformed, or it stands for more or for fewer. */
bool unpack(enum unpack_format format, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes);
