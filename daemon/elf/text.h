/* Text of hostile files made fit to be shown. Thread: any. */
#pragma once
#include <stdbool.h>

/* What no valid, printable character begins at becomes '?'. Cut short or not, the result is valid. In place. */
void text_make_printable(char *text);
/* Whether the above would leave it as it is. */
bool text_is_printable(const char *text);
