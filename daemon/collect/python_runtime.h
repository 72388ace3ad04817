/* Finds the state of a process's CPython, and learns from it what the sampling program must know. What is read is the process's, which may lie: the
 * worst that it can do is to be shown frames that it does not have. Thread: any; blocks as process_memory.h says. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "collect/python_layout.h"

/* Whether a mapped file of this path may be CPython: python3.11, libpython3.12.so.1.0 and the like. */
bool python_is_named_so(const char *path);

/* The symbols that are needed, and the addresses in the process where they are. */
#define PYTHON_SYMBOLS "_PyRuntime", "Py_Version", "PyCode_Type"
enum python_symbol { PYTHON_RUNTIME, PYTHON_VERSION, PYTHON_CODE_TYPE, PYTHON_SYMBOL_COUNT };

/* 0, and *ret_layout and *ret (but for program) are set. -EOPNOTSUPP: a version that we do not know; -EAGAIN: it is not initialized yet, or not
 * in a way that we know: try again; -EFAULT, -ESRCH, -EPERM: it cannot be read. */
int python_runtime_read(pid_t pid, const uint64_t addresses[PYTHON_SYMBOL_COUNT],
			const struct python_layout **ret_layout, struct python_config *ret);
