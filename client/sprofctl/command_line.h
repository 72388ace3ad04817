/* What the user asks for. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "control.pb-c.h"

struct problem;
struct command_line;

/* Does a command; 0 or -errno with *problem. Prints its result on stdout. */
typedef int command_function(const struct command_line *command_line, struct problem *problem);

struct command_line {
	command_function *run;
	const char *socket;
	uint32_t pid;
	uint32_t frequency_hz; /* 0: the daemon's default */
	Sprof__Control__Event event;
	bool json;
	bool has_seconds;
	uint32_t seconds;
	bool no_symbols;
	const char *output;     /* NULL: a name of our choice; "-": stdout */
	char **pprof_arguments; /* NULL-terminated */
};

/* Everything in *ret is borrowed from argv, the environment or static, but for pprof_arguments (free it; its strings are argv's).
 * Exits by itself for --help, --usage and --version (0) and for wrong usage (2, told on stderr). */
void command_line_parse(int argc, char **argv, struct command_line *ret);
