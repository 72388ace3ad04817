/* Text from the daemon may hold what a process chose as its name: only what this terminal shows as characters is printed.
 * Follows LC_CTYPE (setlocale). */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* text in out, with each byte that is no printable character replaced by '?', and cut where out is full. Returns out. */
char *printable(const char *text, char *out, size_t out_bytes);
/* Columns that printable text takes. */
int printable_width(const char *text);

enum { PRINTABLE_AMOUNT_BYTES = 40 };
/* "850 bytes", "12.3 MiB"; returns out. */
char *printable_bytes(uint64_t bytes, char out[PRINTABLE_AMOUNT_BYTES]);
/* "0.85 s", "3 min 5 s", "2 h 3 min", "4 d 1 h"; returns out. */
char *printable_duration(uint64_t ns, char out[PRINTABLE_AMOUNT_BYTES]);
/* "2026-11-23 20:37:00", local time; returns out. */
char *printable_time(uint64_t unix_ns, char out[PRINTABLE_AMOUNT_BYTES]);
