#include "pprof/gzip.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/cleanup.h"

enum {
	OUT_MIN_BYTES = 16 * 1024,
	GZIP_WRAPPER = 16, /* deflateInit2: added to the window bits, asks for a gzip header and trailer */
	MEMORY_LEVEL = 9,  /* 256 KiB instead of 128, some percent faster */
};

int gzip_init(struct gzip *gzip, int level)
{
	*gzip = (struct gzip){0};
	int z = deflateInit2(&gzip->stream, level, Z_DEFLATED, GZIP_WRAPPER + MAX_WBITS, MEMORY_LEVEL,
			     Z_DEFAULT_STRATEGY);
	assert(z == Z_OK || z == Z_MEM_ERROR);
	return z == Z_OK ? 0 : -ENOMEM;
}

void gzip_free(struct gzip *gzip)
{
	deflateEnd(&gzip->stream);
	free(gzip->out);
}

static int make_room(struct gzip *gzip)
{
	size_t capacity = gzip->capacity ? gzip->capacity * 2 : OUT_MIN_BYTES;
	uint8_t *out = realloc(gzip->out, capacity);
	if (!out)
		return -ENOMEM;
	gzip->out = out;
	gzip->capacity = capacity;
	return 0;
}

static int run(struct gzip *gzip, const uint8_t *data, size_t n, int flush)
{
	assert(n <= UINT_MAX);
	gzip->stream.next_in = (uint8_t *)data;
	gzip->stream.avail_in = (uInt)n;
	for (;;) {
		if (gzip->n == gzip->capacity && make_room(gzip) < 0)
			return -ENOMEM;
		size_t room = gzip->capacity - gzip->n;
		gzip->stream.next_out = gzip->out + gzip->n;
		gzip->stream.avail_out = room < UINT_MAX ? (uInt)room : UINT_MAX;
		int z = deflate(&gzip->stream, flush);
		gzip->n = (size_t)(gzip->stream.next_out - gzip->out);
		if (flush == Z_FINISH ? z == Z_STREAM_END : gzip->stream.avail_out > 0)
			return 0;
	}
}

int gzip_write(struct gzip *gzip, const uint8_t *data, size_t n)
{
	return run(gzip, data, n, Z_NO_FLUSH);
}

int gzip_finish(struct gzip *gzip, uint8_t **ret, size_t *ret_n)
{
	int r = run(gzip, NULL, 0, Z_FINISH);
	if (r < 0)
		return r;
	*ret_n = gzip->n;
	*ret = TAKE_PTR(gzip->out);
	return 0;
}
