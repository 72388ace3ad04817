#include "app/settings.h"

#include <argp.h>
#include <errno.h>
#include <ini.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

enum key_kind { KEY_TEXT, KEY_NUMBER, KEY_MODE, KEY_LEVEL, KEY_SWITCH };

struct key {
	const char *section, *name;
	enum key_kind kind;
	size_t offset, bytes;
	uint32_t min, max; /* of numbers */
};

#define TEXT_KEY(section, name, field)                                                                                 \
	{                                                                                                              \
		section, name, KEY_TEXT, offsetof(struct settings, field), sizeof(((struct settings *)0)->field), 0, 0 \
	}
#define NUMBER_KEY(section, name, field, min, max)                                                      \
	{                                                                                               \
		section, name, KEY_NUMBER, offsetof(struct settings, field), sizeof(uint32_t), min, max \
	}

static const struct key keys[] = {
	TEXT_KEY("daemon", "socket", socket),
	{"daemon", "socket_mode", KEY_MODE, offsetof(struct settings, socket_mode), sizeof(mode_t), 0, 0777},
	TEXT_KEY("daemon", "socket_group", socket_group),
	{"daemon", "log_level", KEY_LEVEL, offsetof(struct settings, log_level), sizeof(enum log_level), 0, 0},
	TEXT_KEY("daemon", "reader", reader),
	NUMBER_KEY("sampling", "frequency", frequency_hz, 1, 100000),
	{"sampling", "python", KEY_SWITCH, offsetof(struct settings, python), sizeof(bool), 0, 0},
	NUMBER_KEY("memory", "ring_mib", ring_mib, 1, 1024),
	NUMBER_KEY("memory", "target_mib", target_mib, 1, 4096),
	NUMBER_KEY("memory", "unwind_mib", unwind_mib, 1, 65536),
	NUMBER_KEY("retention", "exited_seconds", exited_seconds, 0, 86400),
	NUMBER_KEY("limits", "max_targets", max_targets, 1, 1024),
	NUMBER_KEY("limits", "max_connections", max_connections, 1, 100000),
	TEXT_KEY("debuginfod", "urls", debuginfod_urls),
	TEXT_KEY("debuginfod", "socket", debuginfod_socket),
	TEXT_KEY("debuginfod", "cache_dir", debuginfod_cache_dir),
	NUMBER_KEY("debuginfod", "timeout_seconds", debuginfod_timeout_seconds, 1, 600),
	NUMBER_KEY("debuginfod", "max_mib", debuginfod_max_mib, 1, 65536),
	NUMBER_KEY("debuginfod", "cache_mib", debuginfod_cache_mib, 1, 1048576),
};

/* sprofd-elf beside us (a build tree), where an installation under any prefix has it, or where this build was to be installed. */
static void find_reader(char *ret, size_t bytes)
{
	char exe[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (length > 0) {
		static const char *const beside[] = {"sprofd-elf", "../libexec/sprofd/sprofd-elf"};
		exe[length] = '\0';
		*strrchr(exe, '/') = '\0';
		for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++)
			if ((size_t)snprintf(ret, bytes, "%s/%s", exe, beside[i]) < bytes && access(ret, X_OK) == 0)
				return;
	}
	snprintf(ret, bytes, "%s", SPROF_READER_PATH);
}

void settings_defaults(struct settings *settings)
{
	*settings = (struct settings){
		.socket = "/run/sprofd/sprofd.sock",
		.socket_mode = 0660,
		.socket_group = "sprof",
		.log_level = LOG_NOTICE,
		.frequency_hz = 99,
		.python = true,
		.ring_mib = 4,
		.target_mib = 32,
		.unwind_mib = 256,
		.exited_seconds = 300,
		.max_targets = 512,
		.max_connections = 256,
		.debuginfod_socket = "/run/sprofd/fetch.sock",
		.debuginfod_cache_dir = "/var/cache/sprofd-fetch",
		.debuginfod_timeout_seconds = 60,
		.debuginfod_max_mib = 1024,
		.debuginfod_cache_mib = 4096,
	};
	find_reader(settings->reader, sizeof(settings->reader));
}

static int parse_number(const char *text, int base, uint64_t *ret)
{
	char *end;
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	*ret = strtoull(text, &end, base);
	return *end || errno ? -EINVAL : 0;
}

static int set_key(struct settings *settings, const struct key *key, const char *value, struct error *err)
{
	void *field = (char *)settings + key->offset;
	uint64_t number;
	switch (key->kind) {
	case KEY_TEXT:
		if (strlen(value) >= key->bytes)
			return error_set(err, EINVAL, "%s is longer than %zu bytes", key->name, key->bytes - 1);
		strcpy(field, value);
		return 0;
	case KEY_NUMBER:
		if (parse_number(value, 10, &number) < 0 || number < key->min || number > key->max)
			return error_set(err, EINVAL, "%s must be a number from %u to %u, and is \"%s\"", key->name,
					 key->min, key->max, value);
		*(uint32_t *)field = (uint32_t)number;
		return 0;
	case KEY_MODE:
		if (parse_number(value, 8, &number) < 0 || number > key->max)
			return error_set(err, EINVAL, "%s must be an octal mode such as 0660, and is \"%s\"", key->name,
					 value);
		*(mode_t *)field = (mode_t)number;
		return 0;
	case KEY_LEVEL:
		if (log_parse_level(value, field) < 0)
			return error_set(err, EINVAL, "%s must be error, warning, notice, info or debug, and is \"%s\"",
					 key->name, value);
		return 0;
	case KEY_SWITCH:
		if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
			return error_set(err, EINVAL, "%s must be yes or no, and is \"%s\"", key->name, value);
		*(bool *)field = strcmp(value, "yes") == 0;
		return 0;
	}
	return -EINVAL;
}

int settings_set(struct settings *settings, const char *section, const char *key, const char *value, struct error *err)
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!strcmp(section, keys[i].section) && !strcmp(key, keys[i].name))
			return set_key(settings, &keys[i], value, err);
	return error_set(err, EINVAL, "there is no setting %s in [%s]: see sprofd.conf(5)", key, section);
}

struct reading {
	struct settings *settings;
	FILE *file;
	int line;       /* read last */
	int cut_line;   /* longer than the parser takes; 0: none */
	int first_line; /* of the first error */
	struct error first;
};

static int on_key(void *context, const char *section, const char *key, const char *value)
{
	struct reading *reading = context;
	struct error err = {0};
	if (settings_set(reading->settings, section, key, value ? value : "", &err) == 0)
		return 1;
	if (!reading->first.code) {
		reading->first = err;
		reading->first_line = reading->line;
	}
	return 0;
}

/* The parser would take the rest of a line that is too long for the next line. */
static char *read_line(char *to, int bytes, void *context)
{
	struct reading *reading = context;
	if (reading->cut_line || !fgets(to, bytes, reading->file))
		return NULL;
	reading->line++;
	if (!strchr(to, '\n') && !feof(reading->file))
		reading->cut_line = reading->line;
	return to;
}

int settings_read(struct settings *settings, const char *path, struct error *err)
{
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	struct reading reading = {.settings = settings, .file = file};
	if (file)
		errno = 0;
	int line = file ? ini_parse_stream(read_line, &reading, on_key, &reading) : -1;
	if (line < 0 || ferror(file)) {
		int error = errno ? errno : EIO;
		return error_set(err, error, "cannot read the configuration %s: %s", path, strerror(error));
	}
	if (reading.cut_line && (line == 0 || line >= reading.cut_line))
		return error_set(err, EINVAL, "%s, line %d: longer than %d bytes", path, reading.cut_line,
				 INI_MAX_LINE - 2);
	if (line == 0)
		return 0;
	return error_set(err, EINVAL, "%s, line %d: %s", path, line,
			 reading.first_line == line ? reading.first.text
						    : "neither [section], nor key = value, nor comment");
}

enum { OPTION_SOCKET = 1, OPTION_CONFIG, OPTION_LOG_LEVEL };

struct command_line {
	const char *socket, *config;
	enum log_level log_level;
	bool has_log_level;
};

static error_t on_option(int option, char *argument, struct argp_state *state)
{
	struct command_line *command_line = state->input;
	switch (option) {
	case OPTION_SOCKET:
		command_line->socket = argument;
		return 0;
	case OPTION_CONFIG:
		command_line->config = argument;
		return 0;
	case OPTION_LOG_LEVEL:
		if (log_parse_level(argument, &command_line->log_level) < 0)
			argp_error(state, "--log-level is error, warning, notice, info or debug, not \"%s\"", argument);
		command_line->has_log_level = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", argument);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option argp_options[] = {
	{"socket", OPTION_SOCKET, "PATH", 0,
	 "The Unix socket to serve (default /run/sprofd/sprofd.sock; SPROFD_SOCKET sets it too)", 0},
	{"config", OPTION_CONFIG, "FILE", 0,
	 "Configuration, see sprofd.conf(5) (default " SPROF_CONFIG_PATH ", if it exists)", 0},
	{"log-level", OPTION_LOG_LEVEL, "LEVEL", 0, "error, warning, notice, info or debug (default notice)", 0},
	{0},
};

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	fprintf(stream, "sprofd %s\n", SPROF_VERSION);
}

static int use_text(char *to, size_t bytes, const char *text, const char *what, struct error *err)
{
	if (!text[0] || strlen(text) >= bytes)
		return error_set(err, EINVAL, "%s must have 1 to %zu bytes", what, bytes - 1);
	strcpy(to, text);
	return 0;
}

int settings_parse(struct settings *settings, int argc, char **argv, struct error *err)
{
	static const struct argp argp = {
		argp_options,
		on_option,
		NULL,
		"The sampling profiler daemon. It samples the processes that sprofctl attaches, and serves their "
		"profiles on a Unix socket.",
		NULL,
		NULL,
		NULL};
	struct command_line command_line = {0};
	argp_program_version_hook = print_version;
	argp_err_exit_status = 2;
	argp_parse(&argp, argc, argv, 0, NULL, &command_line);

	int r = 0;
	if (command_line.config)
		r = settings_read(settings, command_line.config, err);
	else if (access(SPROF_CONFIG_PATH, F_OK) == 0)
		r = settings_read(settings, SPROF_CONFIG_PATH, err);
	const char *socket = command_line.socket ? command_line.socket : getenv("SPROFD_SOCKET");
	if (r == 0 && socket)
		r = use_text(settings->socket, sizeof(settings->socket), socket, "the socket's path", err);
	if (r == 0 && command_line.has_log_level)
		settings->log_level = command_line.log_level;
	return r;
}
