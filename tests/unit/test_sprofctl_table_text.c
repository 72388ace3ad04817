#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "sprofctl/printable.h"
#include "sprofctl/table_text.h"

typedef Sprof__Control__Table Table;
typedef Sprof__Control__TableFinding Finding;

static char text[200000];

static void show(const Table *table)
{
	memset(text, 0, sizeof(text));
	FILE *stream = fmemopen(text, sizeof(text), "w");
	table_text(stream, table);
	fclose(stream);
}

static void assert_has(const char *part)
{
	if (!strstr(text, part))
		ck_abort_msg("no \"%s\" in:\n%s", part, text);
}

static void assert_narrow(void)
{
	char *rest = text, *line;
	while ((line = strsep(&rest, "\n")))
		if (printable_width(line) > 120)
			ck_abort_msg("%d columns: %s", printable_width(line), line);
}

static Table make_table(void)
{
	Table table = SPROF__CONTROL__TABLE__INIT;
	table.pid = 1234;
	table.comm = (char *)"rt";
	return table;
}

START_TEST(the_verdict)
{
	Table table = make_table();
	table.errors = 1, table.notes = 2;
	table.state = SPROF__CONTROL__TABLE_STATE__TABLE_STATE_NONE;
	show(&table);
	assert_has("1234 (rt): no barrier-lock table: 1 error, 0 warnings, 2 notes\n");
	table.state = SPROF__CONTROL__TABLE_STATE__TABLE_STATE_VALID;
	show(&table);
	assert_has("a barrier-lock table that breaks unwinding: 1 error,");
	table.errors = 0;
	show(&table);
	assert_has("a valid barrier-lock table: 0 errors,");
	table.state = SPROF__CONTROL__TABLE_STATE__TABLE_STATE_INVALID;
	show(&table);
	assert_has("a barrier-lock table that is not valid");
}
END_TEST

START_TEST(long_findings_are_wrapped)
{
	char what[400] = "", word[13];
	Table table = make_table();
	Finding finding = SPROF__CONTROL__TABLE_FINDING__INIT;
	Finding *findings[] = {&finding};
	for (int i = 0; i < 30; i++) {
		snprintf(word, sizeof(word), "word-%04d  ", i);
		strcat(what, word);
	}
	finding.severity = SPROF__CONTROL__TABLE_SEVERITY__TABLE_ERROR;
	finding.code = (char *)"slot-word";
	finding.rule = (char *)"W4";
	finding.where = (char *)"stack 3";
	finding.what = what;
	finding.todo = (char *)"do it";
	finding.more = 7;
	table.findings = findings, table.n_findings = 1;
	show(&table);
	assert_has("  error    stack 3: word-0000");
	assert_has("\n           word-00");
	assert_has("           -> do it [slot-word, W4]\n");
	assert_has("and 7 more like this");
	for (int i = 0; i < 30; i++) {
		snprintf(word, sizeof(word), "word-%04d", i);
		assert_has(word);
	}
	assert_narrow();
}
END_TEST

START_TEST(names_cannot_forge_lines)
{
	Table table = make_table();
	Sprof__Control__TableThread thread = SPROF__CONTROL__TABLE_THREAD__INIT, *threads[] = {&thread};
	Sprof__Control__TableRange range = SPROF__CONTROL__TABLE_RANGE__INIT, *ranges[] = {&range};
	Finding finding = SPROF__CONTROL__TABLE_FINDING__INIT, *findings[] = {&finding};
	table.comm = thread.comm = (char *)"x\n66 \033[1m";
	range.file = (char *)"/a/\033]0;title\a\n, and a name that goes on for longer than there is room";
	finding.what = (char *)"mapped from \"\033[2J\"";
	table.threads = threads, table.n_threads = 1;
	table.ranges = ranges, table.n_ranges = 1;
	table.findings = findings, table.n_findings = 1;
	show(&table);
	assert_has("(x?66 ?[1m)");
	assert_has("?]0;title??");
	assert_has("\"?[2J\"");
	ck_assert_ptr_null(strchr(text, '\033'));
	assert_narrow();
}
END_TEST

/* The largest numbers there are, and more of everything than is shown. */
START_TEST(everything_at_its_widest)
{
	enum { N = 500 };
	static Sprof__Control__TableBarrier *barriers[N];
	static Sprof__Control__TableStack *stacks[N];
	static Sprof__Control__TableThread *threads[N];
	Table table = make_table();
	Sprof__Control__TableContext context = SPROF__CONTROL__TABLE_CONTEXT__INIT;
	Sprof__Control__TableRef ref = SPROF__CONTROL__TABLE_REF__INIT;
	Sprof__Control__TableBarrier barrier = SPROF__CONTROL__TABLE_BARRIER__INIT;
	Sprof__Control__TableStack stack = SPROF__CONTROL__TABLE_STACK__INIT;
	Sprof__Control__TableThread thread = SPROF__CONTROL__TABLE_THREAD__INIT;
	context.pc = context.sp = context.fp = 0x7fffffffffff;
	ref.state = SPROF__CONTROL__TABLE_REF_STATE__TABLE_REF_STALE;
	ref.index = 1048575, ref.gen = 99;
	barrier.slot = barrier.original_pc = barrier.in_slot = 0x7fffffffffff;
	barrier.slot_read = true;
	stack.index = 1048575, stack.gen = 12345;
	stack.lo = 0x7ffffffff000, stack.hi = 0x7fffffffffff;
	stack.lock = SPROF__CONTROL__TABLE_LOCK__TABLE_LOCK_CHANGING;
	stack.version = 4294967295, stack.owner_tid = 4194304;
	stack.pos = 65535, stack.n = 65536, stack.cap = 65536;
	stack.resumer = &ref, stack.resumer_context = &context;
	stack.barriers = barriers, stack.n_barriers = N;
	thread.tid = 4194304, thread.slot = 65535, thread.seq = ~0u;
	thread.comm = (char *)"fifteen-letters";
	thread.flags = ~0u, thread.foreign_depth = 9999, thread.alive = thread.stable = true;
	thread.current = thread.user = thread.system = thread.foreign = thread.libcall = &ref;
	thread.foreign_context = thread.jump_context = thread.libcall_context = &context;
	for (int i = 0; i < N; i++)
		barriers[i] = &barrier, stacks[i] = &stack, threads[i] = &thread;
	table.stacks = stacks, table.n_stacks = N;
	table.threads = threads, table.n_threads = N;
	show(&table);
	assert_has("436 more stacks: --json shows them");
	assert_has("436 more threads: --json shows them");
	assert_has("492 more barriers: --json shows them");
	assert_has("1048575.99!");
	assert_has("65535/65536/65536");
	assert_has("changing");
	assert_narrow();
}
END_TEST

START_TEST(what_we_do_not_know_is_no_reason_to_crash)
{
	Table table = make_table();
	Sprof__Control__TableStack stack = SPROF__CONTROL__TABLE_STACK__INIT, *stacks[] = {&stack};
	Finding finding = SPROF__CONTROL__TABLE_FINDING__INIT, *findings[] = {&finding};
	table.state = (Sprof__Control__TableState)77;
	stack.lock = (Sprof__Control__TableLock)77;
	finding.severity = (Sprof__Control__TableSeverity)77;
	table.stacks = stacks, table.n_stacks = 1;
	table.findings = findings, table.n_findings = 1;
	table.seals = ~0u;
	show(&table);
	assert_narrow();
}
END_TEST

CHECK_MAIN("sprofctl_table_text", 10, the_verdict, long_findings_are_wrapped, names_cannot_forge_lines,
	   everything_at_its_widest, what_we_do_not_know_is_no_reason_to_crash)
