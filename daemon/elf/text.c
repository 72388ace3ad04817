#include "elf/text.h"

#include <string.h>

#include "base/utf8.h"

void text_make_printable(char *text)
{
	size_t length = strlen(text);
	for (size_t at = 0; at < length;) {
		size_t n = utf8_printable(text + at, length - at);
		if (n == 0)
			text[at] = '?';
		at += n ? n : 1;
	}
}

bool text_is_printable(const char *text)
{
	size_t length = strlen(text), at = 0, n = 1;
	while (at < length && (n = utf8_printable(text + at, length - at)) > 0)
		at += n;
	return n > 0;
}
