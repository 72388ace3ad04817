/* Text that comes from outside: pprof wants valid UTF-8, people want no control characters in it. Thread: any. */
#pragma once
#include <stddef.h>

/* How many bytes the first character of text takes (1 to 4), which has length bytes; 0 when length is 0, or what it begins with
 * is no valid UTF-8 (RFC 3629: overlong forms, surrogates and values above U+10FFFF are not) or is a control character. */
size_t utf8_printable(const char *text, size_t length);

/* Copies length bytes of text to out, U+FFFD in place of each byte that belongs to no good character as above, and a NUL. out has room
 * for UTF8_REPAIRED_BYTES(length). */
#define UTF8_REPAIRED_BYTES(length) (3 * (length) + 1)
void utf8_repair(const char *text, size_t length, char *out);
