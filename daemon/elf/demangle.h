/* Readable names of symbols: C++ (_Z, Itanium ABI), Rust (legacy and v0, _R) and D (_D), by libiberty.
 * Symbols come from hostile files: output, recursion and expansion are bounded. Thread: any. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* Writes the readable form of symbol to out, NUL-terminated, at most bytes with the NUL. False, and nothing promised of out, when symbol
 * is not mangled, not understood, or its readable form does not fit. */
bool demangle(const char *symbol, char *out, size_t bytes);
