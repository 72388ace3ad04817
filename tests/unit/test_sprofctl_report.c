#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sprofctl/report.h"

typedef Sprof__Control__Count Count;
typedef Sprof__Control__Target Target;

static char text[10000];

static FILE *open_text(void)
{
	setenv("TZ", "UTC", 1);
	memset(text, 0, sizeof(text));
	return fmemopen(text, sizeof(text) - 1, "w");
}

static Target make_target(uint32_t pid, const char *comm)
{
	Target target = SPROF__CONTROL__TARGET__INIT;
	target.pid = pid;
	target.comm = (char *)comm;
	target.state = SPROF__CONTROL__TARGET_STATE__TARGET_LIVE;
	target.frequency_hz = 99;
	target.threads = 1;
	target.attached_unix_ns = UINT64_C(1795470333000000000);
	return target;
}

static Count make_count(const char *name, uint64_t count, const char *what)
{
	Count message = SPROF__CONTROL__COUNT__INIT;
	message.name = (char *)name;
	message.count = count;
	message.text = (char *)what;
	return message;
}

static const char *list(Target **targets, size_t n)
{
	Sprof__Control__TargetList message = SPROF__CONTROL__TARGET_LIST__INIT;
	message.targets = targets;
	message.n_targets = n;
	FILE *stream = open_text();
	report_list(stream, &message);
	fclose(stream);
	return text;
}

static uint64_t refused; /* unwind tables */

static const char *status(Target **targets, size_t n)
{
	Sprof__Control__Status message = SPROF__CONTROL__STATUS__INIT;
	message.version = (char *)"9.8.7";
	message.kernel = (char *)"6.1.0";
	message.pid = 4321;
	message.ring_bytes = 4 << 20;
	message.ring_used_max_bytes = 1 << 20;
	Sprof__Control__UnwindTables tables = SPROF__CONTROL__UNWIND_TABLES__INIT;
	tables.tables = 21;
	tables.lists = 3;
	tables.table_bytes = 6 << 20;
	tables.list_bytes = 1 << 20;
	tables.budget_bytes = 256 << 20;
	tables.refused = refused;
	message.unwind_tables = &tables;
	message.targets = targets;
	message.n_targets = n;
	FILE *stream = open_text();
	report_status(stream, &message, "/the/socket");
	fclose(stream);
	return text;
}

static void assert_has(const char *part)
{
	if (!strstr(text, part))
		ck_abort_msg("no \"%s\" in:\n%s", part, text);
}

START_TEST(an_empty_list_says_what_to_do)
{
	list(NULL, 0);
	assert_has("sprofctl attach PID");
	status(NULL, 0);
	assert_has("sprofctl attach PID");
}
END_TEST

START_TEST(the_columns_line_up)
{
	Target first = make_target(7, "a"), second = make_target(1234567, "a-long-name");
	Target *targets[] = {&first, &second};
	second.state = SPROF__CONTROL__TARGET_STATE__TARGET_DETACHED;
	second.samples = 123456789012;
	list(targets, 2);
	ck_assert_str_eq(
		text, "    PID  COMM         STATE     THREADS  HZ       SAMPLES  LOST     CPU  ATTACHED\n"
		      "      7  a            live            1  99             0     0  0.00 s  2026-11-23 21:45:33\n"
		      "1234567  a-long-name  detached        1  99  123456789012     0  0.00 s  2026-11-23 21:45:33\n");
}
END_TEST

START_TEST(a_name_cannot_forge_lines)
{
	Target target = make_target(7, "x\n666  root\033[1m");
	Target *targets[] = {&target};
	list(targets, 1);
	assert_has("  7  x?666  root?[1m  live");
	target.note = (char *)"\033]0;title\a";
	status(targets, 1);
	assert_has("?]0;title?");
}
END_TEST

START_TEST(the_account_of_a_target)
{
	Target target = make_target(7, "xz");
	Count full = make_count("ring_full", 40, "too slow"), aged = make_count("aged_out", 2, "too old");
	Count root = make_count("root", 75, "to the end"), bad = make_count("no_unwind_info", 25, "no frame pointers");
	Count python = make_count("whole", 100, "all frames");
	Count *losses[] = {&full, &aged}, *ends[] = {&root, &bad}, *python_ends[] = {&python};
	Target *targets[] = {&target};
	target.entries = 150;
	target.samples = 100;
	target.in_flight = 8;
	target.losses = losses;
	target.n_losses = 2;
	target.stack_ends = ends;
	target.n_stack_ends = 2;
	target.not_delivered = 5;
	target.late_periods = 4;
	target.not_delivered_ratio = 0.0125;
	target.effective_hz = 98.76;
	target.note = (char *)"something to know";
	status(targets, 1);
	assert_has("sprofd 9.8.7, pid 4321, up ");
	assert_has("on /the/socket, Linux 6.1.0\n");
	assert_has("4.0 MiB, at most 25.0 % full");
	assert_has("unwind tables  21 of files, 3 lists of mappings; 7.0 MiB of 256.0 MiB\n");
	refused = 4;
	status(targets, 1);
	assert_has("of 256.0 MiB; 4 had no room: raise unwind_mib in sprofd.conf\n");
	assert_has("7 (xz): live, 1 thread at 99 Hz of cpu-clock\n");
	assert_has("150 = samples 100 + ring_full 40 + aged_out 2 + in flight 8\n");
	assert_has("lost ring_full 40: too slow\n");
	assert_has("not delivered  5 (1.25 %), of which 4 while a timer was late\n");
	assert_has("effective rate 98.8 Hz");
	assert_has(" 75.0 %  root: to the end\n");
	assert_has(" 25.0 %  no_unwind_info: no frame pointers\n");
	ck_assert_ptr_null(strstr(text, "python"));
	target.python_ends = python_ends;
	target.n_python_ends = 1;
	status(targets, 1);
	assert_has("  python frames\n    100.0 %  whole: all frames\n");
	assert_has("something to know\n");
	list(targets, 1);
	assert_has("  100    42  ");
}
END_TEST

START_TEST(what_we_do_not_know_is_no_reason_to_crash)
{
	Target target = make_target(7, "xz");
	Target *targets[] = {&target};
	target.state = (Sprof__Control__TargetState)77;
	target.event = (Sprof__Control__Event)-1;
	target.attached_unix_ns = target.ended_unix_ns = target.retained_since_unix_ns = UINT64_MAX;
	status(targets, 1);
	assert_has("7 (xz): ?, 1 thread");
	list(targets, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sprofctl_report");
	TCase *tcase = tcase_create("text");
	tcase_add_test(tcase, an_empty_list_says_what_to_do);
	tcase_add_test(tcase, the_columns_line_up);
	tcase_add_test(tcase, a_name_cannot_forge_lines);
	tcase_add_test(tcase, the_account_of_a_target);
	tcase_add_test(tcase, what_we_do_not_know_is_no_reason_to_crash);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
