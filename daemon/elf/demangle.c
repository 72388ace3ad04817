#include "elf/demangle.h"

#include <libiberty/demangle.h>
#include <setjmp.h>
#include <string.h>

#include "base/cleanup.h"

enum {
	/* Longer ones are left as they are. Within it the depth of the C++ parser, whose own limit refuses names of more than 1,024
	 * characters, takes less than the 8 MiB of stack that we have. */
	SYMBOL_MAX_BYTES = 4096,
};

struct output {
	char *text;
	size_t capacity, used;
	jmp_buf full;
};

/* A short symbol can stand for exabytes of text (substitutions of substitutions), and libiberty offers no way to stop but not to return.
 * What it holds then is on the stack; at worst a few bytes leak in a process that forgets every file in the end. */
static void append(const char *text, size_t length, void *opaque)
{
	struct output *output = opaque;
	if (length >= output->capacity - output->used)
		longjmp(output->full, 1); // NOLINT(cert-err52-cpp)
	memcpy(output->text + output->used, text, length);
	output->used += length;
}

static bool demangle_streamed(const char *symbol, char *out, size_t bytes)
{
	struct output output = {.text = out, .capacity = bytes};
	if (setjmp(output.full)) // NOLINT(cert-err52-cpp)
		return false;
	int options = DMGL_PARAMS | DMGL_ANSI | DMGL_NO_RECURSE_LIMIT;
	/* Rust first: its legacy names are C++ names with a hash behind. It keeps its own limit of recursion. */
	bool done = rust_demangle_callback(symbol, DMGL_PARAMS | DMGL_ANSI, append, &output);
	if (!done) {
		output.used = 0;
		done = cplus_demangle_v3_callback(symbol, options, append, &output);
	}
	if (!done || output.used == 0)
		return false;
	out[output.used] = '\0';
	return true;
}

static bool demangle_d(const char *symbol, char *out, size_t bytes)
{
	_cleanup_free_ char *text = dlang_demangle(symbol, DMGL_PARAMS | DMGL_ANSI);
	size_t length = text ? strlen(text) : 0;
	if (length == 0 || length >= bytes)
		return false;
	memcpy(out, text, length + 1);
	return true;
}

bool demangle(const char *symbol, char *out, size_t bytes)
{
	if (symbol[0] != '_' || bytes == 0 || strnlen(symbol, SYMBOL_MAX_BYTES + 1) > SYMBOL_MAX_BYTES)
		return false;
	if (symbol[1] == 'Z' || symbol[1] == 'R')
		return demangle_streamed(symbol, out, bytes);
	return symbol[1] == 'D' && demangle_d(symbol, out, bytes);
}
