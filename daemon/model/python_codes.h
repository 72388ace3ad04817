/* The code objects of a process's CPython that were met in samples: each has a number, by which a user frame of a sample names it, and what is told
 * of it (its name, its file, its lines) as soon as somebody has read it from the process.
 *
 * Reference-counted. A text once told stays as long as the table. Thread: any. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/sample.h"

struct python_codes;

/* budget_bytes bounds all of its memory. NULL: out of memory. One reference. */
struct python_codes *python_codes_new(size_t budget_bytes);
struct python_codes *python_codes_ref(struct python_codes *codes);
void python_codes_unref(struct python_codes *codes); /* NULL is fine */

struct python_code_key {
	uint64_t address;
	uint32_t identity; /* python_identity: another value is another object */
};

/* The number of a code object, a new one if need be; SAMPLE_PYTHON_NO_CODE: there is no room for more. */
uint32_t python_codes_number(struct python_codes *codes, const struct python_code_key *key);

/* Up to max code objects that nobody has read or begun to read, which begins with this; returns how many. */
struct python_code_unread {
	uint32_t number;
	struct python_code_key key;
};
size_t python_codes_begin(struct python_codes *codes, struct python_code_unread *ret, size_t max);

/* What is told of a code object. */
struct python_code {
	const char *name;     /* its qualified name, valid UTF-8 without control characters */
	const char *filename; /* the same; "": none */
	int32_t first_line;
	const uint8_t *lines; /* co_linetable, of n_lines bytes: see python_lines.h */
	size_t n_lines;
};
/* Copies. Without room for all of it the object remains without name. NULL: it was not there any more. */
void python_codes_tell(struct python_codes *codes, uint32_t number, const struct python_code *code);

enum python_code_state { PYTHON_CODE_UNREAD, PYTHON_CODE_TOLD, PYTHON_CODE_GONE };
struct python_line {
	const char *name, *filename; /* as above */
	int64_t line, start_line;    /* 0: unknown */
};
/* What is at an instruction of a code object, in bytes from its first. *ret is set for PYTHON_CODE_TOLD alone; its texts are the table's. */
enum python_code_state python_codes_find(struct python_codes *codes, uint32_t number, uint32_t instruction,
					 struct python_line *ret);
