#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "elf/jit_internal.h"

enum { CHUNK_BYTES = 1 << 20 };

/* A number in hex, perhaps after "0x"; moves behind it and the one space that ends it. */
static bool take_hex(const char **text, const char *end, uint64_t *ret)
{
	const char *at = *text;
	uint64_t value = 0;
	size_t digits = 0;
	if (end - at > 2 && at[0] == '0' && (at[1] == 'x' || at[1] == 'X'))
		at += 2;
	for (; at < end && isxdigit((unsigned char)*at); at++, digits++) {
		int digit = isdigit((unsigned char)*at) ? *at - '0' : tolower((unsigned char)*at) - 'a' + 10;
		value = value << 4 | (uint64_t)digit;
	}
	if (digits == 0 || digits > 16 || at == end || *at != ' ')
		return false;
	*text = at + 1;
	*ret = value;
	return true;
}

/* A malformed line is skipped: a file that is being written to ends in half a one. */
static int take_line(struct jit *jit, const char *text, const char *end)
{
	uint64_t start = 0, bytes = 0;
	if (!take_hex(&text, end, &start) || !take_hex(&text, end, &bytes))
		return 0;
	struct jit_symbol symbol = {.start = start, .end = start + bytes};
	return jit_add_named(jit, symbol, text, (size_t)(end - text));
}

/* The whole lines of chunk; how many bytes they take. */
static int take_lines(struct jit *jit, const char *chunk, size_t bytes, size_t *ret_used)
{
	const char *at = chunk, *newline = NULL;
	int r = 0;
	while (r == 0 && (newline = memchr(at, '\n', (size_t)(chunk + bytes - at)))) {
		r = take_line(jit, at, newline);
		at = newline + 1;
	}
	*ret_used = (size_t)(at - chunk);
	return r;
}

int jit_read_perf_map(struct jit *jit, int fd, uint64_t bytes)
{
	size_t room = bytes < CHUNK_BYTES ? (bytes ? bytes : 1) : CHUNK_BYTES;
	_cleanup_free_ char *chunk = malloc(room);
	if (!chunk)
		return -ENOMEM;
	size_t kept = 0, used = 0;
	for (uint64_t at = 0; at < bytes;) {
		ssize_t n = pread(fd, chunk + kept, room - kept, (off_t)at);
		if (n < 0)
			return -EIO;
		if (n == 0)
			break;
		at += (uint64_t)n;
		kept += (size_t)n;
		int r = take_lines(jit, chunk, kept, &used);
		if (r < 0)
			return r;
		if (used == 0 && kept == room)
			used = kept; /* no line is that long */
		kept -= used;
		memmove(chunk, chunk + used, kept);
	}
	return 0; // NOLINT(clang-analyzer-unix.Malloc): freed by its cleanup
}
