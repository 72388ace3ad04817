/* What the administrator may set: the command line over the configuration file over the defaults. */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"

struct settings {
	char socket[108];
	mode_t socket_mode;
	char socket_group[64];
	enum log_level log_level;
	uint32_t frequency_hz; /* of an attach that names none */
	bool python;           /* CPython's frames are looked for */
	uint32_t ring_mib, target_mib, unwind_mib;
	uint32_t exited_seconds;
	uint32_t max_targets, max_connections;
	char reader[PATH_MAX]; /* sprofd-elf */
	/* debuginfod; without urls it is off */
	char debuginfod_urls[1024], debuginfod_socket[108], debuginfod_cache_dir[PATH_MAX];
	uint32_t debuginfod_timeout_seconds, debuginfod_max_mib, debuginfod_cache_mib;
};

void settings_defaults(struct settings *settings);
/* Reads an ini file. -ENOENT; -EINVAL with the line and what is wrong with it. */
int settings_read(struct settings *settings, const char *path, struct error *err);
/* One key, as in the file: tests and fuzzing. -EINVAL. */
int settings_set(struct settings *settings, const char *section, const char *key, const char *value, struct error *err);
/* Command line, config file, environment (SPROFD_SOCKET). Exits by itself for --help, --version (0) and wrong usage (2). */
int settings_parse(struct settings *settings, int argc, char **argv, struct error *err);
