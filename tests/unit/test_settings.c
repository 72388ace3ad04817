#include <check.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/settings.h"
#include "check_main.h"

static struct settings settings;
static struct error err;

static int set(const char *section, const char *key, const char *value)
{
	return settings_set(&settings, section, key, value, &err);
}

START_TEST(defaults)
{
	settings_defaults(&settings);
	ck_assert_str_eq(settings.socket, "/run/sprofd/sprofd.sock");
	ck_assert_uint_eq(settings.socket_mode, 0660);
	ck_assert_str_eq(settings.socket_group, "sprof");
	ck_assert_uint_eq(settings.frequency_hz, 99);
	ck_assert_uint_eq(settings.exited_seconds, 300);
	ck_assert_int_eq((int)settings.log_level, LOG_NOTICE);
	ck_assert_ptr_nonnull(strstr(settings.reader, "sprofd-elf"));
	ck_assert_str_eq(settings.debuginfod_urls, "");
}
END_TEST

START_TEST(numbers_and_their_bounds)
{
	static const struct {
		const char *section, *key;
		size_t offset;
		const char *min, *max, *below, *above;
	} keys[] = {
		{"sampling", "frequency", offsetof(struct settings, frequency_hz), "1", "100000", "0", "100001"},
		{"memory", "ring_mib", offsetof(struct settings, ring_mib), "1", "1024", "0", "1025"},
		{"memory", "target_mib", offsetof(struct settings, target_mib), "1", "4096", "0", "4097"},
		{"memory", "unwind_mib", offsetof(struct settings, unwind_mib), "1", "65536", "0", "65537"},
		{"retention", "exited_seconds", offsetof(struct settings, exited_seconds), "0", "86400", NULL, "86401"},
		{"limits", "max_targets", offsetof(struct settings, max_targets), "1", "1024", "0", "1025"},
		{"limits", "max_connections", offsetof(struct settings, max_connections), "1", "100000", "0", "100001"},
		{"debuginfod", "timeout_seconds", offsetof(struct settings, debuginfod_timeout_seconds), "1", "600",
		 "0", "601"},
		{"debuginfod", "max_mib", offsetof(struct settings, debuginfod_max_mib), "1", "65536", "0", "65537"},
		{"debuginfod", "cache_mib", offsetof(struct settings, debuginfod_cache_mib), "1", "1048576", "0",
		 "1048577"},
	};
	static const char *const odd[] = {
		"", " ", "-1", "+5", "5 ", "0x10", "1e3", "1.5", "ten", "18446744073709551617", "4294967297"};
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const uint32_t *field = (const uint32_t *)((const char *)&settings + keys[i].offset);
		ck_assert_int_eq(set(keys[i].section, keys[i].key, keys[i].min), 0);
		ck_assert_uint_eq(*field, strtoul(keys[i].min, NULL, 10));
		ck_assert_int_eq(set(keys[i].section, keys[i].key, keys[i].max), 0);
		uint32_t max = (uint32_t)strtoul(keys[i].max, NULL, 10);
		ck_assert_uint_eq(*field, max);
		if (keys[i].below)
			ck_assert_int_eq(set(keys[i].section, keys[i].key, keys[i].below), -EINVAL);
		ck_assert_int_eq(set(keys[i].section, keys[i].key, keys[i].above), -EINVAL);
		ck_assert_ptr_nonnull(strstr(err.text, keys[i].key));
		ck_assert_ptr_nonnull(strstr(err.text, keys[i].max));
		for (size_t k = 0; k < sizeof(odd) / sizeof(odd[0]); k++)
			ck_assert_int_eq(set(keys[i].section, keys[i].key, odd[k]), -EINVAL);
		ck_assert_uint_eq(*field, max);                                     /* untouched */
		ck_assert_int_eq(set("daemon", keys[i].key, keys[i].min), -EINVAL); /* another section's */
	}
}
END_TEST

START_TEST(texts_and_their_bounds)
{
	char text[PATH_MAX + 10];
	settings_defaults(&settings);
	ck_assert_int_eq(set("daemon", "socket", "/tmp/s"), 0);
	ck_assert_str_eq(settings.socket, "/tmp/s");
	ck_assert_int_eq(set("daemon", "socket_group", ""), 0); /* none */
	ck_assert_str_eq(settings.socket_group, "");
	memset(text, 'x', sizeof(text));
	text[107] = '\0';
	ck_assert_int_eq(set("daemon", "socket", text), 0);
	text[107] = 'x';
	text[108] = '\0';
	ck_assert_int_eq(set("daemon", "socket", text), -EINVAL);
	ck_assert_uint_eq(strlen(settings.socket), 107);
	text[108] = 'x';
	text[PATH_MAX] = '\0';
	ck_assert_int_eq(set("daemon", "reader", text), -EINVAL);
	text[PATH_MAX - 1] = '\0';
	ck_assert_int_eq(set("daemon", "reader", text), 0);
}
END_TEST

START_TEST(switches)
{
	settings_defaults(&settings);
	ck_assert(settings.python);
	ck_assert_int_eq(set("sampling", "python", "no"), 0);
	ck_assert(!settings.python);
	ck_assert_int_eq(set("sampling", "python", "yes"), 0);
	ck_assert(settings.python);
	ck_assert_int_eq(set("sampling", "python", "maybe"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "yes or no"));
	ck_assert_int_eq(set("sampling", "python", ""), -EINVAL);
	ck_assert(settings.python);
}
END_TEST

START_TEST(modes_and_levels)
{
	settings_defaults(&settings);
	ck_assert_int_eq(set("daemon", "socket_mode", "0666"), 0);
	ck_assert_uint_eq(settings.socket_mode, 0666);
	ck_assert_int_eq(set("daemon", "socket_mode", "600"), 0);
	ck_assert_uint_eq(settings.socket_mode, 0600);
	static const char *const modes[] = {"", "0888", "1777", "rw", "-1", "0x1ff", "6 6"};
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		ck_assert_int_eq(set("daemon", "socket_mode", modes[i]), -EINVAL);
	ck_assert_uint_eq(settings.socket_mode, 0600);
	ck_assert_int_eq(set("daemon", "log_level", "debug"), 0);
	ck_assert_int_eq((int)settings.log_level, LOG_DEBUG);
	ck_assert_int_eq(set("daemon", "log_level", "loud"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "loud"));
	ck_assert_int_eq(set("daemon", "volume", "11"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "volume"));
	ck_assert_int_eq(set("", "socket", "x"), -EINVAL);
}
END_TEST

static char path[64];

static void write_file(const char *text)
{
	strcpy(path, "/tmp/sprof-settings-XXXXXX");
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	settings_defaults(&settings);
	err = (struct error){0};
}

static int read_text(const char *text)
{
	write_file(text);
	int r = settings_read(&settings, path, &err);
	unlink(path);
	return r;
}

START_TEST(a_file)
{
	ck_assert_int_eq(read_text("# comment\n; comment\n\n[daemon]\nsocket = /tmp/a b.sock\nlog_level=info ; why\n"
				   "[sampling]\n frequency : 999\n[retention]\nexited_seconds = 0\n"),
			 0);
	ck_assert_str_eq(settings.socket, "/tmp/a b.sock");
	ck_assert_int_eq((int)settings.log_level, LOG_INFO);
	ck_assert_uint_eq(settings.frequency_hz, 999);
	ck_assert_uint_eq(settings.exited_seconds, 0);
	ck_assert_uint_eq(settings.max_targets, 512);
	ck_assert_int_eq(read_text(""), 0);
	ck_assert_int_eq(read_text("\xef\xbb\xbf[sampling]\r\nfrequency = 7\r\n"), 0); /* as some editors write it */
	ck_assert_uint_eq(settings.frequency_hz, 7);
}
END_TEST

static void expect_error(const char *text, const char *line, const char *says)
{
	ck_assert_int_eq(read_text(text), -EINVAL);
	if (!strstr(err.text, line) || !strstr(err.text, says) || !strstr(err.text, path))
		ck_abort_msg("\"%s\" for: %s", err.text, text);
}

START_TEST(errors_name_the_line)
{
	expect_error("[sampling]\nfrequency = 0\n", "line 2:", "frequency must be");
	expect_error("[sampling]\n\n# c\nfrequncy = 5\n", "line 4:", "no setting frequncy in [sampling]");
	expect_error("frequency = 5\n", "line 1:", "no setting frequency");
	expect_error("[sampling]\nfrequency\n", "line 2:", "neither");
	expect_error("[sampling\nfrequency = 5\n", "line 1:", "neither");
	expect_error("[memory]\nring_mib = 9999\n[sampling]\nfrequency = 0\n", "line 2:", "ring_mib");
}
END_TEST

START_TEST(the_line_and_the_reason_belong_together)
{
	expect_error("[sampling]\nnonsense\nfrequency = 0\n", "line 2:", "neither");
	expect_error("[sampling]\nfrequency = 0\nnonsense\n", "line 2:", "frequency");
}
END_TEST

START_TEST(long_lines_are_not_cut)
{
	char text[600], reader[400];
	memset(reader, 'r', sizeof(reader));
	reader[0] = '/';
	reader[sizeof(reader) - 1] = '\0';
	snprintf(text, sizeof(text), "[daemon]\nreader = %s\n", reader);
	if (read_text(text) == 0)
		ck_assert_str_eq(settings.reader, reader);
	else
		ck_assert_ptr_nonnull(strstr(err.text, "line 2:"));
}
END_TEST

START_TEST(a_long_line_that_goes_on_like_a_comment)
{
	char text[600], begin[150], hashes[300];
	memset(begin, 'r', sizeof(begin));
	memset(hashes, '#', sizeof(hashes)); /* wherever the line is cut, a comment begins */
	snprintf(text, sizeof(text), "[daemon]\nreader = /%.*s%.*s\n", (int)sizeof(begin), begin, (int)sizeof(hashes),
		 hashes);
	int r = read_text(text);
	ck_assert(r == -EINVAL || strlen(settings.reader) > 300);
}
END_TEST

START_TEST(files_that_cannot_be_read)
{
	settings_defaults(&settings);
	ck_assert_int_eq(settings_read(&settings, "/nowhere/sprofd.conf", &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nowhere/sprofd.conf"));
	ck_assert_int_lt(settings_read(&settings, "/tmp", &err), 0); /* a directory is no empty file */
}
END_TEST

/* --- the command line, in a child since it may exit --- */

static int parse_in_child(char **argv, const char *expected_socket)
{
	int argc = 0;
	while (argv[argc])
		argc++;
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(90);
		settings_defaults(&settings);
		int r = settings_parse(&settings, argc, argv, &err);
		_exit(r < 0 ? 50 : expected_socket && strcmp(settings.socket, expected_socket) != 0 ? 51 : 42);
	}
	int status;
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#define PARSE(socket, ...) parse_in_child((char *[]){(char *)"sprofd", __VA_ARGS__ __VA_OPT__(, ) NULL}, socket)

START_TEST(the_command_line_wins)
{
	char config[80];
	write_file("[daemon]\nsocket = /tmp/from-file\n");
	snprintf(config, sizeof(config), "--config=%s", path);
	unsetenv("SPROFD_SOCKET");
	ck_assert_int_eq(PARSE("/tmp/from-file", config), 42);
	setenv("SPROFD_SOCKET", "/tmp/from-environment", 1);
	ck_assert_int_eq(PARSE("/tmp/from-environment", config), 42);
	ck_assert_int_eq(PARSE("/tmp/mine", config, (char *)"--socket=/tmp/mine"), 42);
	ck_assert_int_eq(PARSE("/tmp/mine", (char *)"--socket", (char *)"/tmp/mine"), 42);
	ck_assert_int_eq(PARSE(NULL, (char *)"--socket="), 50);
	ck_assert_int_eq(PARSE(NULL, (char *)"--config=/nowhere"), 50);
	unlink(path);
}
END_TEST

START_TEST(exit_codes)
{
	ck_assert_int_eq(PARSE(NULL, (char *)"--version"), 0);
	ck_assert_int_eq(PARSE(NULL, (char *)"--help"), 0);
	ck_assert_int_eq(PARSE(NULL, (char *)"--no-such-option"), 2);
	ck_assert_int_eq(PARSE(NULL, (char *)"argument"), 2);
	ck_assert_int_eq(PARSE(NULL, (char *)"--log-level=loud"), 2);
	ck_assert_int_eq(PARSE(NULL, (char *)"--log-level=info"), 42);
}
END_TEST

CHECK_MAIN("settings", 30, defaults, numbers_and_their_bounds, texts_and_their_bounds, switches, modes_and_levels,
	   a_file, errors_name_the_line, the_line_and_the_reason_belong_together, long_lines_are_not_cut,
	   a_long_line_that_goes_on_like_a_comment, files_that_cannot_be_read, the_command_line_wins, exit_codes)
