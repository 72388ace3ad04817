#include "elf/unpack.h"

#include <zlib.h>
#include <zstd.h>

static bool unpack_zlib(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
	z_stream stream = {.next_in = (Bytef *)in, .next_out = out};
	size_t in_left = in_bytes, out_left = out_bytes;
	if (inflateInit(&stream) != Z_OK)
		return false;
	int r = Z_OK;
	while (r == Z_OK) {
		if (stream.avail_in == 0) {
			stream.avail_in = in_left < INT32_MAX ? (uInt)in_left : INT32_MAX;
			in_left -= stream.avail_in;
		}
		if (stream.avail_out == 0) {
			stream.avail_out = out_left < INT32_MAX ? (uInt)out_left : INT32_MAX;
			out_left -= stream.avail_out;
		}
		r = inflate(&stream, Z_NO_FLUSH);
	}
	bool whole = r == Z_STREAM_END && out_left == 0 && stream.avail_out == 0;
	inflateEnd(&stream);
	return whole;
}

bool unpack(enum unpack_format format, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
	if (format == UNPACK_ZSTD)
		return ZSTD_decompress(out, out_bytes, in, in_bytes) == out_bytes;
	return unpack_zlib(in, in_bytes, out, out_bytes);
}
