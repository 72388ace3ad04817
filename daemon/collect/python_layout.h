/* How the versions of CPython that we know lay out their state: facts of their public headers (Include/internal), for x86-64. */
#pragma once
#include <linux/types.h>
#include <stdint.h>

#include "bpf/python_config.h"

struct python_layout {
	uint32_t version; /* major << 8 | minor */
	/* From 3.13 on _PyRuntime begins with a table that tells the next two. */
	uint16_t tells_offsets;
	uint16_t runtime_main_interpreter; /* of _PyRuntime: interpreters.main */
	uint16_t interpreter_threads;      /* of a PyInterpreterState: threads.head */
	uint16_t state_next, state_interpreter;
	uint16_t runtime_holder; /* of _PyRuntime: gilstate.tstate_current; 0: from 3.12 on each thread keeps that */
	uint16_t ascii_bytes,
		text_bytes; /* sizes of PyASCIIObject and PyCompactUnicodeObject, behind which the characters are */
	struct python_config config; /* but for program and addresses */
};

/* By PY_VERSION_HEX (the variable Py_Version of a process). NULL: not a version that we know. */
const struct python_layout *python_layout_find(uint64_t version_hex);
