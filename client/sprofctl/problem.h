/* Why a command failed, in the one line that the user is told: what is wrong and what to do. Nothing is allocated.
 * Functions that take a struct problem fill it exactly when they fail. */
#pragma once

enum { PROBLEM_TEXT_BYTES = 1024 };

struct problem {
	char text[PROBLEM_TEXT_BYTES]; /* one line, no newline */
};

/* Fills *problem and returns -code (code is a positive errno). Text that does not fit is cut; newlines become spaces. */
int problem_set(struct problem *problem, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
