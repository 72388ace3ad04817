/* Text of hostile files made fit to be shown. Thread: any. */
#pragma once

/* What no valid, printable character begins at becomes '?'. Cut short or not, the result is valid. In place. */
void text_make_printable(char *text);
