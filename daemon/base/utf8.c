#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

static size_t sequence_bytes(unsigned char lead)
{
	if (lead < 0x80)
		return 1;
	if (lead >= 0xc2 && lead <= 0xdf)
		return 2;
	if (lead >= 0xe0 && lead <= 0xef)
		return 3;
	if (lead >= 0xf0 && lead <= 0xf4)
		return 4;
	return 0;
}

size_t utf8_printable(const char *text, size_t length)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	static const uint32_t lead_mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	const unsigned char *bytes = (const unsigned char *)text;
	size_t n = length ? sequence_bytes(bytes[0]) : 0;
	if (n == 0 || n > length)
		return 0;
	uint32_t value = bytes[0] & lead_mask[n];
	for (size_t i = 1; i < n; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
		value = (value << 6) | (bytes[i] & 0x3f);
	}
	if (value < smallest[n] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
		return 0;
	if (value < 0x20 || (value >= 0x7f && value < 0xa0)) /* C0, DEL, C1 */
		return 0;
	return n;
}

void utf8_repair(const char *text, size_t length, char *out)
{
	for (size_t i = 0, n; i < length; i += n) {
		n = utf8_printable(text + i, length - i);
		out = n ? mempcpy(out, text + i, n) : stpcpy(out, "\xEF\xBF\xBD");
		n += n == 0;
	}
	*out = '\0';
}
