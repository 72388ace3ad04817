/* Reads what a code object of a process's CPython says of itself. Thread: any; blocks as process_memory.h says. */
#pragma once
#include <sys/types.h>

#include "collect/python_layout.h"
#include "model/python_codes.h"

enum {
	PYTHON_NAME_MAX_CHARACTERS = 1024, /* of a name or path: the rest is cut */
	PYTHON_LINES_MAX_BYTES = 1 << 20,
};

/* Room for what was read last. */
struct python_code_room {
	char name[4 * PYTHON_NAME_MAX_CHARACTERS + 1], filename[4 * PYTHON_NAME_MAX_CHARACTERS + 1];
	uint8_t characters[4 * PYTHON_NAME_MAX_CHARACTERS];
	uint8_t lines[PYTHON_LINES_MAX_BYTES];
};

/* 0, and *ret is set: its texts are in *room. -ESTALE: there is another object by now, or none; -EFAULT, -ESRCH, -EPERM: it cannot be read. */
int python_code_read(pid_t pid, const struct python_layout *layout, uint64_t code_type,
		     const struct python_code_key *key, struct python_code_room *room, struct python_code *ret);
