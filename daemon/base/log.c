#include "base/log.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic int log_threshold = LOG_NOTICE;

int log_parse_level(const char *word, enum log_level *ret_level)
{
	static const struct {
		const char *word;
		enum log_level level;
	} levels[] = {{"error", LOG_ERROR},
		      {"warning", LOG_WARNING},
		      {"notice", LOG_NOTICE},
		      {"info", LOG_INFO},
		      {"debug", LOG_DEBUG}};
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (!strcmp(word, levels[i].word)) {
			*ret_level = levels[i].level;
			return 0;
		}
	return -EINVAL;
}

void log_set_level(enum log_level level)
{
	log_threshold = level;
}

void log_write(enum log_level level, const char *format, ...)
{
	if ((int)level > log_threshold)
		return;
	char line[1024];
	int prefix = getenv("JOURNAL_STREAM") ? snprintf(line, sizeof(line), "<%d>", (int)level)
					      : snprintf(line, sizeof(line), "sprofd: ");
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line + prefix, sizeof(line) - (size_t)prefix, format, args);
	va_end(args);
	if (length < 0)
		return;
	size_t end = strlen(line);
	for (size_t i = (size_t)prefix; i < end; i++) /* a target's name must not forge lines or drive a terminal */
		if (iscntrl((unsigned char)line[i]))
			line[i] = ' ';
	if (end == sizeof(line) - 1)
		end--;
	line[end++] = '\n';
	ssize_t written = write(STDERR_FILENO, line, end); /* nobody is left to tell when this fails */
	(void)written;
}
