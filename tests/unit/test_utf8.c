#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "check_main.h"

static size_t encode(uint32_t c, unsigned char out[4])
{
	if (c < 0x80) {
		out[0] = (unsigned char)c;
		return 1;
	}
	size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = 0x80 | (c & 0x3f);
	out[0] = (unsigned char)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | c);
	return n;
}

/* The memory ends where the text ends, so that AddressSanitizer sees a byte too many. */
static size_t measure(const unsigned char *bytes, size_t n)
{
	char *copy = malloc(n ? n : 1);
	memcpy(copy, bytes, n);
	size_t result = utf8_printable(copy, n);
	free(copy);
	return result;
}

START_TEST(every_character_there_is)
{
	for (uint32_t c = 0; c <= 0x10ffff; c++) {
		unsigned char bytes[5] = {0};
		size_t n = encode(c, bytes);
		bool printable = c >= 0x20 && !(c >= 0x7f && c < 0xa0) && !(c >= 0xd800 && c <= 0xdfff);
		if (utf8_printable((char *)bytes, sizeof(bytes)) != (printable ? n : 0))
			ck_abort_msg("U+%04X", c);
	}
}
END_TEST

START_TEST(what_is_cut_short_is_none)
{
	static const uint32_t characters[] = {0xe9, 0x20ac, 0x1f525, 0x10ffff};
	for (size_t i = 0; i < 4; i++) {
		unsigned char bytes[4];
		size_t n = encode(characters[i], bytes);
		for (size_t cut = 0; cut < n; cut++)
			ck_assert_uint_eq(measure(bytes, cut), 0);
		ck_assert_uint_eq(measure(bytes, n), n);
	}
	ck_assert_uint_eq(measure((const unsigned char *)"", 0), 0);
}
END_TEST

START_TEST(forged_forms_are_none)
{
	static const char *const forms[] = {
		"\xc0\xaf",
		"\xc1\xbf",
		"\xe0\x80\xaf",
		"\xe0\x9f\xbf",
		"\xf0\x80\x80\xaf",
		"\xf0\x8f\xbf\xbf", /* overlong */
		"\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80",
		"\xff",
		"\xfe", /* too large */
		"\x80",
		"\xbf",
		"\xc3(",
		"\xe2\x82(",
		"\xe2(\xac",
		"\xf0\x9f\x94(", /* no continuation */
		"\xed\xa0\x80",
		"\xed\xbf\xbf", /* surrogates */
	};
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
		if (measure((const unsigned char *)forms[i], strlen(forms[i])) != 0)
			ck_abort_msg("form %zu", i);
}
END_TEST

CHECK_MAIN("utf8", 20, every_character_there_is, what_is_cut_short_is_none, forged_forms_are_none)
