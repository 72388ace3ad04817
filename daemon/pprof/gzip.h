/* A gzip stream in memory that grows as it is written. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

struct gzip {
	z_stream stream;
	uint8_t *out; /* malloc'ed */
	size_t n, capacity;
};

/* -ENOMEM. After success, gzip_free. */
int gzip_init(struct gzip *gzip, int level);
void gzip_free(struct gzip *gzip);
/* -ENOMEM. */
int gzip_write(struct gzip *gzip, const uint8_t *data, size_t n);
/* Ends the stream and hands the output over. -ENOMEM. */
int gzip_finish(struct gzip *gzip, uint8_t **ret, size_t *ret_n);
