/* Reading DWARF's bytes, little-endian, never beyond their end: what is not there reads as 0 and leaves the cursor failed, at its end.
 * Inline: millions of bytes go through here. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
	const uint8_t *at, *end;
	bool failed;
};

/* The bytes from offset to end of a section of n bytes; failed when that is not within it. */
static inline struct cursor cursor_at(const uint8_t *bytes, size_t n, uint64_t offset, uint64_t end)
{
	if (!bytes || end > n || offset > end)
		return (struct cursor){.failed = true};
	return (struct cursor){.at = bytes + offset, .end = bytes + end};
}

static inline size_t cursor_left(const struct cursor *in)
{
	return (size_t)(in->end - in->at);
}

static inline void cursor_fail(struct cursor *in)
{
	in->at = in->end;
	in->failed = true;
}

static inline void cursor_skip(struct cursor *in, uint64_t n)
{
	if (n > cursor_left(in))
		cursor_fail(in);
	else
		in->at += n;
}

/* n of 1 to 8 bytes. */
static inline uint64_t cursor_uint(struct cursor *in, unsigned n)
{
	uint64_t value = 0;
	if (n == 0 || n > cursor_left(in)) {
		cursor_fail(in);
		return 0;
	}
	memcpy(&value, in->at, n);
	in->at += n;
	return value;
}

static inline uint8_t cursor_u8(struct cursor *in)
{
	if (in->at >= in->end) {
		cursor_fail(in);
		return 0;
	}
	return *in->at++;
}

/* Bits of a LEB128 that may be padded; a hostile one might go on to the end of its section. */
enum { CURSOR_LEB_MAX_BITS = 32 * 7 };

static inline uint64_t cursor_uleb(struct cursor *in)
{
	uint64_t value = 0;
	unsigned shift = 0;
	while (in->at < in->end && shift < CURSOR_LEB_MAX_BITS) {
		uint8_t byte = *in->at++;
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
		if (!(byte & 0x80))
			return value;
	}
	cursor_fail(in);
	return 0;
}

static inline int64_t cursor_sleb(struct cursor *in)
{
	uint64_t value = 0;
	unsigned shift = 0;
	while (in->at < in->end && shift < CURSOR_LEB_MAX_BITS) {
		uint8_t byte = *in->at++;
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
		if (byte & 0x80)
			continue;
		if (byte & 0x40 && shift < 64)
			value |= UINT64_MAX << shift;
		return (int64_t)value;
	}
	cursor_fail(in);
	return 0;
}

static inline void cursor_skip_leb(struct cursor *in)
{
	for (unsigned bits = 0; in->at < in->end && bits < CURSOR_LEB_MAX_BITS; bits += 7) {
		if (!(*in->at++ & 0x80))
			return;
	}
	in->failed = true;
}

/* Text in a section: by its length, since the bytes may change under us while a file is written to. Not NUL-terminated. */
struct dwarf_text {
	const char *at;
	size_t n;
};

/* The text up to the next NUL within the bytes; failed when there is none. */
static inline struct dwarf_text cursor_text(struct cursor *in)
{
	const uint8_t *start = in->at, *nul = cursor_left(in) ? memchr(in->at, 0, cursor_left(in)) : NULL;
	if (!nul) {
		cursor_fail(in);
		return (struct dwarf_text){};
	}
	in->at = nul + 1;
	return (struct dwarf_text){.at = (const char *)start, .n = (size_t)(nul - start)};
}

/* The length that begins a unit or a table (DWARF 5, 7.4): 4 bytes, or 0xffffffff and 8. *ret_offset_bytes is 4 or 8. */
static inline uint64_t cursor_initial_length(struct cursor *in, uint8_t *ret_offset_bytes)
{
	uint64_t length = cursor_uint(in, 4);
	*ret_offset_bytes = 4;
	if (length == UINT32_MAX) {
		*ret_offset_bytes = 8;
		return cursor_uint(in, 8);
	}
	if (length >= 0xfffffff0)
		cursor_fail(in);
	return length;
}
