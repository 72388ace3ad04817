/* An error that a person can act on: a negative errno for code, and one line of text for people.
 *
 * Functions that can fail in ways a user must be told of take a `struct error *err` last, return 0 or -errno, and fill
 * *err only on failure. err may be NULL where the caller does not care. Nothing is allocated. Thread: any. */
#pragma once

enum { ERROR_TEXT_BYTES = 400 };

struct error {
	int code;                    /* positive errno; 0: none */
	char text[ERROR_TEXT_BYTES]; /* one line, no newline: what is wrong and what to do */
};

/* Fills *err (unless NULL) and returns -code, so that `return error_set(err, EPERM, "...")` is the whole failure path.
 * code is a positive errno. Text that does not fit is cut. Newlines and control characters in it become spaces. */
int error_set(struct error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
