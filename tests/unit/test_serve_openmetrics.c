#include <check.h>
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "bpf/outcome.h"
#include "serve/openmetrics.h"

static char *formatted(const Sprof__Control__Status *status)
{
	char *text = NULL;
	size_t bytes = 0;
	ck_assert_int_eq(openmetrics_format(status, &text, &bytes), 0);
	ck_assert_uint_eq(strlen(text), bytes);
	return text;
}

static bool has_line(const char *text, const char *line)
{
	for (const char *at = text; (at = strstr(at, line)); at++)
		if ((at == text || at[-1] == '\n') && at[strlen(line)] == '\n')
			return true;
	return false;
}
#define expect_line(text, line) ck_assert_msg(has_line(text, line), "no line %s in:\n%s", line, text)

/* Two targets, the first of which has a hostile name. */
static struct {
	Sprof__Control__Count loss, end;
	Sprof__Control__Count *losses[1], *ends[1];
	Sprof__Control__Target hostile, second, older;
	Sprof__Control__Target *targets[3];
	Sprof__Control__Status status;
} sample;

static void setup(void)
{
	sprof__control__count__init(&sample.loss);
	sprof__control__count__init(&sample.end);
	sprof__control__target__init(&sample.hostile);
	sprof__control__target__init(&sample.second);
	sprof__control__target__init(&sample.older);
	sprof__control__status__init(&sample.status);
	sample.loss.name = (char *)"ring_full";
	sample.loss.count = 3;
	sample.end.name = (char *)"root";
	sample.end.count = 17;
	sample.losses[0] = &sample.loss;
	sample.ends[0] = &sample.end;
	sample.hostile.pid = 42;
	sample.hostile.comm = (char *)"a\"b\\c\nd\xff";
	sample.hostile.entries = 20;
	sample.hostile.samples = 17;
	sample.hostile.not_delivered = -2;
	sample.hostile.not_delivered_ratio = -0.125;
	sample.hostile.late_periods = 3;
	sample.hostile.effective_hz = INFINITY;
	sample.hostile.cpu_ns = 1000000007;
	sample.hostile.n_losses = sample.hostile.n_stack_ends = 1;
	sample.hostile.losses = sample.losses;
	sample.hostile.stack_ends = sample.ends;
	sample.hostile.python_ends = sample.ends;
	sample.hostile.n_python_ends = 1;
	sample.hostile.state = SPROF__CONTROL__TARGET_STATE__TARGET_LIVE;
	sample.hostile.attached_unix_ns = 100;
	sample.second.pid = 7;
	sample.second.comm = (char *)"xz";
	sample.second.state = SPROF__CONTROL__TARGET_STATE__TARGET_EXITED;
	/* the same number, earlier */
	sample.older = sample.second;
	sample.older.pid = 42;
	sample.older.attached_unix_ns = 50;
	sample.targets[0] = &sample.older;
	sample.targets[1] = &sample.hostile;
	sample.targets[2] = &sample.second;
	sample.status.targets = sample.targets;
	sample.status.n_targets = 3;
	sample.status.losses = sample.losses;
	sample.status.n_losses = 1;
	sample.status.version = (char *)"0.1.0";
	sample.status.kernel = (char *)"6.1";
	sample.status.cpu_ns = 2500000000;
	sample.status.rss_bytes = 4096;
	sample.status.reader_restarts = 2;
	static Sprof__Control__UnwindTables tables = SPROF__CONTROL__UNWIND_TABLES__INIT;
	tables.tables = 12;
	tables.table_bytes = 8192;
	tables.list_bytes = 4096;
	tables.refused = 3;
	sample.status.unwind_tables = &tables;
}

START_TEST(values_are_there)
{
	_cleanup_free_ char *text = formatted(&sample.status);
	expect_line(text, "sprofd_build_info{version=\"0.1.0\",kernel=\"6.1\"} 1");
	expect_line(text, "sprofd_cpu_seconds_total 2.500000000");
	expect_line(text, "sprofd_resident_memory_bytes 4096");
	expect_line(text, "sprofd_reader_restarts_total 2");
	expect_line(text, "sprofd_unwind_tables 12");
	expect_line(text, "sprofd_unwind_bytes 12288");
	expect_line(text, "sprofd_unwind_refused_total 3");
	expect_line(text, "sprofd_entries_total{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} 20");
	expect_line(text, "sprofd_samples_total{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} 17");
	expect_line(text, "sprofd_entries_total{pid=\"7\",comm=\"xz\"} 0");
	expect_line(text, "sprofd_target_not_delivered{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} -2");
	expect_line(text, "sprofd_target_not_delivered_ratio{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} -0.125");
	expect_line(text, "sprofd_target_late_periods{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} 3");
	expect_line(text, "sprofd_target_effective_hertz{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} +Inf");
	expect_line(text,
		    "sprofd_target_cpu_seconds_total{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} 1.000000007");
	expect_line(
		text,
		"sprofd_target_losses_total{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\",reason=\"ring_full\"} 3");
	expect_line(text,
		    "sprofd_target_stack_ends_total{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\",end=\"root\"} 17");
	expect_line(text,
		    "sprofd_target_python_ends_total{pid=\"42\",comm=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\",end=\"root\"} 17");
	expect_line(text, "sprofd_targets{state=\"live\"} 1");
	expect_line(text, "sprofd_targets{state=\"exited\"} 2");
	expect_line(text, "sprofd_targets{state=\"arming\"} 0");
}
END_TEST

START_TEST(every_reason_appears)
{
	_cleanup_free_ char *text = formatted(&sample.status);
	expect_line(text, "sprofd_losses_total{reason=\"ring_full\"} 3");
#define EXPECT_REASON(NAME, name, where, description)                                        \
	ck_assert_int_eq(strstr(text, "sprofd_losses_total{reason=\"" #name "\"} ") != NULL, \
			 OUTCOME_##NAME != OUTCOME_CAPTURED && OUTCOME_##NAME != OUTCOME_SAMPLE);
	OUTCOME_TABLE(EXPECT_REASON)
#undef EXPECT_REASON
	expect_line(text, "sprofd_losses_total{reason=\"aged_out\"} 0");
}
END_TEST

/* The grammar, as far as it can break: each sample belongs to the family just introduced, under the suffix of its type; no family and
 * no sample twice; units end their names; the end is marked. */
static void check_grammar(char *text)
{
	char name[100] = "", type[20] = "", unit[40], word[100];
	const char *seen[512];
	size_t n_seen = 0;
	bool ended = false;
	for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		ck_assert_msg(!ended, "after the end: %s", line);
		ended = strcmp(line, "# EOF") == 0;
		if (ended)
			continue;
		if (sscanf(line, "# HELP %99s", word) == 1) {
			snprintf(name, sizeof(name), "%s", word);
			type[0] = '\0';
		} else if (sscanf(line, "# TYPE %99s %19s", word, type) == 2) {
			ck_assert_str_eq(word, name);
		} else if (sscanf(line, "# UNIT %99s %39s", word, unit) == 2) {
			ck_assert_str_eq(word, name);
			ck_assert_str_eq(name + strlen(name) - strlen(unit), unit);
		} else {
			const char *suffix = strcmp(type, "counter") == 0 ? "_total"
					     : strcmp(type, "info") == 0  ? "_info"
									  : "";
			size_t length = strcspn(line, "{ ");
			ck_assert_msg(length == strlen(name) + strlen(suffix) &&
					      strncmp(line, name, strlen(name)) == 0 &&
					      strncmp(line + strlen(name), suffix, strlen(suffix)) == 0,
				      "%s is not of family %s", line, name);
			char *value = strrchr(line, ' ');
			*value = '\0';
			for (size_t i = 0; i < n_seen; i++)
				ck_assert_str_ne(seen[i], line);
			ck_assert_uint_lt(n_seen, 512);
			seen[n_seen++] = line;
		}
	}
	ck_assert(ended);
	ck_assert_uint_gt(n_seen, 20);
}

START_TEST(the_grammar_holds)
{
	_cleanup_free_ char *text = formatted(&sample.status);
	ck_assert_str_eq(text + strlen(text) - 6, "# EOF\n");
	check_grammar(text);
	Sprof__Control__Status empty = SPROF__CONTROL__STATUS__INIT;
	_cleanup_free_ char *none = formatted(&empty);
	check_grammar(none);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("serve_openmetrics");
	TCase *tcase = tcase_create("serve_openmetrics");
	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, values_are_there);
	tcase_add_test(tcase, every_reason_appears);
	tcase_add_test(tcase, the_grammar_holds);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
