/* The cache directory: one file for each build id, complete or not there; those used longest ago go first. What else is in it is left alone. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Removes what an earlier run left unfinished. -errno. */
int debug_cache_open(const char *directory, int *ret_fd);

/* Whether it is there; it then counts as used now. */
bool debug_cache_has(int directory_fd, const char *build_id);
/* A file to write, which is not seen under its name before debug_cache_commit. The caller's fd, or -errno. */
int debug_cache_begin(int directory_fd, const char *build_id);
/* After the fd was closed. -errno: it is not there. */
int debug_cache_commit(int directory_fd, const char *build_id);
void debug_cache_abort(int directory_fd, const char *build_id);
/* Removes files until all that are there, unfinished ones included, have at most max_bytes. */
void debug_cache_trim(int directory_fd, uint64_t max_bytes);
