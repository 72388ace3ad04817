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
