/* Fetching a profile. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "sprofctl/command_line.h"
#include "sprofctl/problem.h"

struct pull_sink {
	int (*write)(void *context, const uint8_t *data, size_t bytes, struct problem *problem);
	void *context;
	int interrupt_fd; /* ends the pull with -EINTR once readable; -1: none */
};

/* Hands the profile that the command line asks for to the sink; shows progress when stderr is a terminal. 0; -EINTR; -errno with
 * *problem. */
int pull_profile(const struct command_line *command_line, const struct pull_sink *sink, struct problem *problem);
