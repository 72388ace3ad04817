#include "sprofctl/printable.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <wchar.h>
#include <wctype.h>

enum { NS_PER_S = 1000000000 };

/* Bytes of the printable character that text begins with; 0: it begins with none. */
static size_t printable_character(const char *text, size_t length, int *ret_width)
{
	mbstate_t state = {0};
	wchar_t wide;
	size_t n = mbrtowc(&wide, text, length, &state);
	if (n == 0 || n > length || !iswprint((wint_t)wide) || wcwidth(wide) < 0)
		return 0;
	*ret_width = wcwidth(wide);
	return n;
}

char *printable(const char *text, char *out, size_t out_bytes)
{
	size_t length = strlen(text), used = 0;
	for (size_t i = 0; i < length;) {
		int width;
		size_t n = printable_character(text + i, length - i, &width);
		if (used + (n ? n : 1) >= out_bytes)
			break;
		if (n)
			memcpy(out + used, text + i, n);
		else
			out[used] = '?';
		used += n ? n : 1;
		i += n ? n : 1;
	}
	out[used] = '\0';
	return out;
}

int printable_width(const char *text)
{
	size_t length = strlen(text);
	int columns = 0;
	for (size_t i = 0; i < length;) {
		int width = 1;
		size_t n = printable_character(text + i, length - i, &width);
		columns += width;
		i += n ? n : 1;
	}
	return columns;
}

char *printable_bytes(uint64_t bytes, char out[PRINTABLE_AMOUNT_BYTES])
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
	if (bytes < 1024) {
		snprintf(out, PRINTABLE_AMOUNT_BYTES, "%" PRIu64 " bytes", bytes);
		return out;
	}
	double amount = (double)bytes / 1024;
	size_t unit = 0;
	for (; amount >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
		amount /= 1024;
	snprintf(out, PRINTABLE_AMOUNT_BYTES, "%.1f %s", amount, units[unit]);
	return out;
}

char *printable_duration(uint64_t ns, char out[PRINTABLE_AMOUNT_BYTES])
{
	uint64_t s = ns / NS_PER_S;
	if (s < 60)
		snprintf(out, PRINTABLE_AMOUNT_BYTES, "%.2f s", (double)ns / NS_PER_S);
	else if (s < 3600)
		snprintf(out, PRINTABLE_AMOUNT_BYTES, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, PRINTABLE_AMOUNT_BYTES, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(out, PRINTABLE_AMOUNT_BYTES, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
	return out;
}

char *printable_time(uint64_t unix_ns, char out[PRINTABLE_AMOUNT_BYTES])
{
	time_t seconds = (time_t)(unix_ns / NS_PER_S);
	struct tm local;
	if (!localtime_r(&seconds, &local) || !strftime(out, PRINTABLE_AMOUNT_BYTES, "%Y-%m-%d %H:%M:%S", &local))
		snprintf(out, PRINTABLE_AMOUNT_BYTES, "?");
	return out;
}
