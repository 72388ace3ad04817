/* A file that appears whole or not at all: written under a temporary name in the same directory, then renamed. */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sprofctl/problem.h"

struct output_file {
	int fd;
	bool renames;             /* false: written in place (a pipe, a device) */
	char final[PATH_MAX];     /* symbolic links resolved */
	char temporary[PATH_MAX]; /* "": none left */
};

/* Opens for writing. What exists at path and is no regular file (a pipe, /dev/null) is written in place. -errno with *problem. */
int output_file_open(struct output_file *file, const char *path, struct problem *problem);
int output_file_write(struct output_file *file, const uint8_t *data, size_t bytes, struct problem *problem);
/* Gives the file its name. When overwrite is false and the name is taken: -EEXIST, with *problem; it may be called again after
 * another name was put into file->final. */
int output_file_commit(struct output_file *file, bool overwrite, struct problem *problem);
/* Closes, and removes what was not committed. */
void output_file_close(struct output_file *file);

/* Writes all of data to fd; 0 or -errno. */
int write_all(int fd, const uint8_t *data, size_t bytes);
