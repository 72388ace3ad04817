#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sprofctl/commands.h"

enum { MAX_WORDS = 16 };

/* Parses "word word ..."; the words live as long as the test. */
static struct command_line parse(const char *text)
{
	static char copy[500];
	static char *words[MAX_WORDS];
	struct command_line command_line;
	int n = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok(copy, " "); word && n < MAX_WORDS - 1; word = strtok(NULL, " "))
		words[n++] = word;
	words[n] = NULL;
	command_line_parse(n, words, &command_line);
	return command_line;
}

START_TEST(attach_takes_its_options)
{
	struct command_line c = parse("sprofctl attach 1234 --frequency=999 --event=cycles");
	ck_assert_ptr_eq(c.run, command_attach);
	ck_assert_uint_eq(c.pid, 1234);
	ck_assert_uint_eq(c.frequency_hz, 999);
	ck_assert_int_eq(c.event, SPROF__CONTROL__EVENT__EVENT_CYCLES);
	c = parse("sprofctl attach --event=cpu-clock 7");
	ck_assert_uint_eq(c.pid, 7);
	ck_assert_uint_eq(c.frequency_hz, 0);
	ck_assert_int_eq(c.event, SPROF__CONTROL__EVENT__EVENT_CPU_CLOCK);
}
END_TEST

START_TEST(the_other_commands)
{
	struct command_line c = parse("sprofctl detach 5");
	ck_assert_ptr_eq(c.run, command_detach);
	c = parse("sprofctl rate 5 199");
	ck_assert_ptr_eq(c.run, command_rate);
	ck_assert_uint_eq(c.pid, 5);
	ck_assert_uint_eq(c.frequency_hz, 199);
	c = parse("sprofctl list --json");
	ck_assert_ptr_eq(c.run, command_list);
	ck_assert(c.json);
	c = parse("sprofctl table 7 --json");
	ck_assert_ptr_eq(c.run, command_table);
	ck_assert_uint_eq(c.pid, 7);
	ck_assert(c.json);
	c = parse("sprofctl status");
	ck_assert_ptr_eq(c.run, command_status);
	ck_assert(!c.json);
	c = parse("sprofctl pull 9 --seconds=30 --output=-");
	ck_assert_ptr_eq(c.run, command_pull);
	ck_assert(c.has_seconds);
	ck_assert_uint_eq(c.seconds, 30);
	ck_assert_str_eq(c.output, "-");
	c = parse("sprofctl pull 9");
	ck_assert(!c.has_seconds);
	ck_assert_ptr_null(c.output);
}
END_TEST

START_TEST(the_socket_comes_from_the_option_then_the_environment)
{
	unsetenv("SPROFD_SOCKET");
	ck_assert_str_eq(parse("sprofctl list").socket, "/run/sprofd/sprofd.sock");
	setenv("SPROFD_SOCKET", "", 1);
	ck_assert_str_eq(parse("sprofctl list").socket, "/run/sprofd/sprofd.sock");
	setenv("SPROFD_SOCKET", "/env", 1);
	ck_assert_str_eq(parse("sprofctl list").socket, "/env");
	ck_assert_str_eq(parse("sprofctl --socket=/before list").socket, "/before");
	ck_assert_str_eq(parse("sprofctl list --socket=/after").socket, "/after");
	ck_assert_str_eq(parse("sprofctl --socket /before attach 1 --socket /after").socket, "/after");
}
END_TEST

static void assert_pprof(const char *text, uint32_t seconds, const char *const *arguments)
{
	struct command_line c = parse(text);
	ck_assert_ptr_eq(c.run, command_pprof);
	ck_assert_uint_eq(c.pid, 12);
	ck_assert_uint_eq(c.seconds, seconds);
	ck_assert_int_eq(c.has_seconds, seconds != 0);
	size_t i = 0;
	for (; arguments[i]; i++) {
		ck_assert_ptr_nonnull(c.pprof_arguments[i]);
		ck_assert_str_eq(c.pprof_arguments[i], arguments[i]);
	}
	ck_assert_ptr_null(c.pprof_arguments[i]);
	free(c.pprof_arguments);
}

START_TEST(pprof_gets_what_follows_the_pid)
{
	assert_pprof("sprofctl pprof 12", 0, (const char *[]){NULL});
	assert_pprof("sprofctl pprof 12 -top -cum", 0, (const char *[]){"-top", "-cum", NULL});
	assert_pprof("sprofctl pprof --seconds=5 12 -http=:0", 5, (const char *[]){"-http=:0", NULL});
	assert_pprof("sprofctl pprof 12 -top --seconds 5 -cum", 5, (const char *[]){"-top", "-cum", NULL});
	assert_pprof("sprofctl pprof -s 5 12 -svg", 5, (const char *[]){"-svg", NULL});
	assert_pprof("sprofctl pprof 12 --seconds=3 --socket=/x -- --seconds=9 -top", 3,
		     (const char *[]){"--seconds=9", "-top", NULL});
	assert_pprof("sprofctl pprof 12 -sample_index=samples 13", 0,
		     (const char *[]){"-sample_index=samples", "13", NULL});
}
END_TEST

static const char *const wrong[] = {
	"sprofctl",
	"sprofctl frobnicate",
	"sprofctl --nonsense list",
	"sprofctl attach",
	"sprofctl attach x",
	"sprofctl attach 0",
	"sprofctl attach -5",
	"sprofctl attach 12 13",
	"sprofctl attach 1x",
	"sprofctl attach +1",
	"sprofctl attach 4294967296",
	"sprofctl attach 99999999999999999999999999",
	"sprofctl attach 1 --frequency=0",
	"sprofctl attach 1 --frequency=",
	"sprofctl attach 1 --frequency=-1",
	"sprofctl attach 1 --frequency=1e3",
	"sprofctl attach 1 --frequency=99Hz",
	"sprofctl attach 1 --event=moon",
	"sprofctl attach 1 --seconds=1",
	"sprofctl attach 1 --socket=",
	"sprofctl detach",
	"sprofctl rate 12",
	"sprofctl rate 12 0",
	"sprofctl rate 12 -1",
	"sprofctl rate 12 99 100",
	"sprofctl list extra",
	"sprofctl list --output=x",
	"sprofctl status extra",
	"sprofctl status --json=yes",
	"sprofctl pull",
	"sprofctl pull 12 --seconds=0",
	"sprofctl pull 12 --seconds=86401",
	"sprofctl pull 12 --seconds",
	"sprofctl pull 12 --output=",
	"sprofctl pprof",
	"sprofctl pprof -top",
	"sprofctl pprof 12 --seconds=x",
};

START_TEST(wrong_usage_exits_with_2)
{
	parse(wrong[_i]);
}
END_TEST

static const char *const helpful[] = {"sprofctl --help", "sprofctl --version", "sprofctl --usage",
				      "sprofctl pull --help", "sprofctl pprof --help"};

START_TEST(help_exits_with_0)
{
	parse(helpful[_i]);
	exit(3); /* it must not come to this */
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sprofctl_command_line");
	TCase *tcase = tcase_create("parse");
	tcase_add_test(tcase, attach_takes_its_options);
	tcase_add_test(tcase, the_other_commands);
	tcase_add_test(tcase, the_socket_comes_from_the_option_then_the_environment);
	tcase_add_test(tcase, pprof_gets_what_follows_the_pid);
	tcase_add_loop_exit_test(tcase, wrong_usage_exits_with_2, 2, 0, (int)(sizeof(wrong) / sizeof(wrong[0])));
	tcase_add_loop_exit_test(tcase, help_exits_with_0, 0, 0, (int)(sizeof(helpful) / sizeof(helpful[0])));
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_set_fork_status(runner, CK_FORK);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
