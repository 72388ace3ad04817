#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "check_main.h"

static char written[8192];
static int stderr_before, read_end;

static void catch_stderr(void)
{
	int fds[2];
	ck_assert_int_eq(pipe(fds), 0);
	stderr_before = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	read_end = fds[0];
}

/* What was written since catch_stderr. */
static const char *caught(void)
{
	dup2(stderr_before, STDERR_FILENO); /* closes the pipe's last write end */
	close(stderr_before);
	size_t n = 0;
	ssize_t got;
	while (n < sizeof(written) - 1 && (got = read(read_end, written + n, sizeof(written) - 1 - n)) > 0)
		n += (size_t)got;
	close(read_end);
	written[n] = '\0';
	return written;
}

START_TEST(levels_have_names)
{
	static const char *const words[] = {"error", "warning", "notice", "info", "debug"};
	enum log_level level = LOG_ERROR;
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(log_parse_level(words[i], &level), 0);
		ck_assert_int_eq((int)level, 3 + i);
	}
	ck_assert_int_eq(log_parse_level("Error", &level), -EINVAL);
	ck_assert_int_eq(log_parse_level("", &level), -EINVAL);
	ck_assert_int_eq(log_parse_level("infos", &level), -EINVAL);
	ck_assert_int_eq((int)level, LOG_DEBUG); /* untouched */
}
END_TEST

START_TEST(the_threshold_holds)
{
	unsetenv("JOURNAL_STREAM");
	catch_stderr();
	log_set_level(LOG_WARNING);
	log_error("one");
	log_warning("two %d", 2);
	log_notice("three");
	log_debug("four");
	ck_assert_str_eq(caught(), "sprofd: one\nsprofd: two 2\n");
}
END_TEST

START_TEST(the_journal_is_told_the_level)
{
	setenv("JOURNAL_STREAM", "1:2", 1);
	catch_stderr();
	log_set_level(LOG_DEBUG);
	log_error("broken");
	log_debug("detail");
	ck_assert_str_eq(caught(), "<3>broken\n<7>detail\n");
}
END_TEST

START_TEST(a_name_cannot_forge_a_line)
{
	unsetenv("JOURNAL_STREAM");
	catch_stderr();
	log_error("process %s", "x\n<0>panic\r\033[2J");
	ck_assert_str_eq(caught(), "sprofd: process x <0>panic  [2J\n");
}
END_TEST

START_TEST(long_lines_are_cut)
{
	char text[4096];
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	catch_stderr();
	log_error("%s", text);
	const char *line = caught();
	ck_assert_uint_gt(strlen(line), 500);
	ck_assert_uint_lt(strlen(line), 1025);
	ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
}
END_TEST

CHECK_MAIN("log", 10, levels_have_names, the_threshold_holds, the_journal_is_told_the_level, a_name_cannot_forge_a_line,
	   long_lines_are_cut)
