/* Logging to stderr; with the `<N>` prefixes that the journal reads when stderr is the journal. Only daemon/app and the
 * main of sprofd-elf log: stages return errors and count. Thread: any; one write(2) per line. */
#pragma once

enum log_level { LOG_ERROR = 3, LOG_WARNING = 4, LOG_NOTICE = 5, LOG_INFO = 6, LOG_DEBUG = 7 }; /* syslog's numbers */

/* "error", "warning", "notice", "info", "debug" -> *ret_level; -EINVAL for any other word. */
int log_parse_level(const char *word, enum log_level *ret_level);
void log_set_level(enum log_level level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...)   log_write(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)  log_write(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)    log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_DEBUG, __VA_ARGS__)
