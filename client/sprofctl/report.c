#include "sprofctl/report.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "sprofctl/printable.h"

enum { TEXT_BYTES = 500, COLUMNS = 9, CELL_BYTES = 80 };

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t since_ns(uint64_t unix_ns)
{
	uint64_t now = now_ns();
	return now > unix_ns ? now - unix_ns : 0;
}

static const char *state_name(Sprof__Control__TargetState state)
{
	switch (state) {
	case SPROF__CONTROL__TARGET_STATE__TARGET_ARMING:
		return "arming";
	case SPROF__CONTROL__TARGET_STATE__TARGET_LIVE:
		return "live";
	case SPROF__CONTROL__TARGET_STATE__TARGET_EXITED:
		return "exited";
	case SPROF__CONTROL__TARGET_STATE__TARGET_DETACHED:
		return "detached";
	default:
		return "?";
	}
}

static const char *event_name(Sprof__Control__Event event)
{
	switch (event) {
	case SPROF__CONTROL__EVENT__EVENT_AUTO:
	case SPROF__CONTROL__EVENT__EVENT_CPU_CLOCK:
		return "cpu-clock";
	case SPROF__CONTROL__EVENT__EVENT_CYCLES:
		return "cycles";
	default:
		return "?";
	}
}

static uint64_t sum(Sprof__Control__Count *const *counts, size_t n)
{
	uint64_t total = 0;
	for (size_t i = 0; i < n; i++)
		total += counts[i]->count;
	return total;
}

/* --- list --- */

static const struct {
	const char *title;
	int left; /* aligned */
} columns[COLUMNS] = {{"PID", 0},     {"COMM", 1}, {"STATE", 1}, {"THREADS", 0}, {"HZ", 0},
		      {"SAMPLES", 0}, {"LOST", 0}, {"CPU", 0},   {"ATTACHED", 1}};

struct row {
	char cells[COLUMNS][CELL_BYTES];
};

static void fill_row(const Sprof__Control__Target *target, struct row *row)
{
	snprintf(row->cells[0], CELL_BYTES, "%" PRIu32, target->pid);
	printable(target->comm, row->cells[1], CELL_BYTES);
	snprintf(row->cells[2], CELL_BYTES, "%s", state_name(target->state));
	snprintf(row->cells[3], CELL_BYTES, "%" PRIu32, target->threads);
	snprintf(row->cells[4], CELL_BYTES, "%" PRIu32, target->frequency_hz);
	snprintf(row->cells[5], CELL_BYTES, "%" PRIu64, target->samples);
	snprintf(row->cells[6], CELL_BYTES, "%" PRIu64, sum(target->losses, target->n_losses));
	printable_duration(target->cpu_ns, row->cells[7]);
	printable_time(target->attached_unix_ns, row->cells[8]);
}

static void print_row(FILE *stream, const struct row *row, const int widths[COLUMNS])
{
	for (int i = 0; i < COLUMNS; i++) {
		int padding = widths[i] - printable_width(row->cells[i]);
		int last = i == COLUMNS - 1;
		if (columns[i].left)
			fprintf(stream, "%s%*s", row->cells[i], last ? 0 : padding, "");
		else
			fprintf(stream, "%*s%s", padding, "", row->cells[i]);
		fputs(last ? "\n" : "  ", stream);
	}
}

void report_list(FILE *stream, const Sprof__Control__TargetList *list)
{
	int widths[COLUMNS];
	struct row row;
	if (list->n_targets == 0) {
		fputs("no process is attached: sprofctl attach PID\n", stream);
		return;
	}
	for (int i = 0; i < COLUMNS; i++)
		widths[i] = (int)strlen(columns[i].title);
	for (size_t t = 0; t < list->n_targets; t++) {
		fill_row(list->targets[t], &row);
		for (int i = 0; i < COLUMNS; i++) {
			int width = printable_width(row.cells[i]);
			widths[i] = width > widths[i] ? width : widths[i];
		}
	}
	for (int i = 0; i < COLUMNS; i++)
		snprintf(row.cells[i], CELL_BYTES, "%s", columns[i].title);
	print_row(stream, &row, widths);
	for (size_t t = 0; t < list->n_targets; t++) {
		fill_row(list->targets[t], &row);
		print_row(stream, &row, widths);
	}
}

/* --- status --- */

static void report_losses(FILE *stream, Sprof__Control__Count *const *losses, size_t n)
{
	char name[TEXT_BYTES], text[TEXT_BYTES];
	for (size_t i = 0; i < n; i++) {
		if (losses[i]->count == 0)
			continue;
		fprintf(stream, "    lost %s %" PRIu64 ": %s\n", printable(losses[i]->name, name, sizeof(name)),
			losses[i]->count, printable(losses[i]->text, text, sizeof(text)));
	}
}

static void report_entries(FILE *stream, const Sprof__Control__Target *target)
{
	char name[TEXT_BYTES];
	fprintf(stream, "  entries        %" PRIu64 " = samples %" PRIu64, target->entries, target->samples);
	for (size_t i = 0; i < target->n_losses; i++)
		fprintf(stream, " + %s %" PRIu64, printable(target->losses[i]->name, name, sizeof(name)),
			target->losses[i]->count);
	fprintf(stream, " + in flight %" PRIu64 "\n", target->in_flight);
	report_losses(stream, target->losses, target->n_losses);
	fprintf(stream, "  not delivered  %" PRId64 " (%.2f %%), of which %" PRIu64 " while a timer was late\n",
		target->not_delivered, 100 * target->not_delivered_ratio, target->late_periods);
}

static void report_ends(FILE *stream, const char *title, Sprof__Control__Count *const *ends, size_t n)
{
	char name[TEXT_BYTES], text[TEXT_BYTES];
	uint64_t total = sum(ends, n);
	if (total == 0)
		return;
	fprintf(stream, "  %s\n", title);
	for (size_t i = 0; i < n; i++) {
		const Sprof__Control__Count *end = ends[i];
		fprintf(stream, "    %5.1f %%  %s: %s\n", 100.0 * (double)end->count / (double)total,
			printable(end->name, name, sizeof(name)), printable(end->text, text, sizeof(text)));
	}
}

static void report_target(FILE *stream, const Sprof__Control__Target *target)
{
	char text[TEXT_BYTES], a[PRINTABLE_AMOUNT_BYTES], b[PRINTABLE_AMOUNT_BYTES];
	fprintf(stream, "\n%" PRIu32 " (%s): %s, %" PRIu32 " thread%s at %" PRIu32 " Hz of %s\n", target->pid,
		printable(target->comm, text, sizeof(text)), state_name(target->state), target->threads,
		target->threads == 1 ? "" : "s", target->frequency_hz, event_name(target->event));
	fprintf(stream, "  attached       %s, %s ago, by uid %" PRIu32 "\n",
		printable_time(target->attached_unix_ns, a), printable_duration(since_ns(target->attached_unix_ns), b),
		target->owner_uid);
	if (target->ended_unix_ns)
		fprintf(stream, "  ended          %s, %s ago\n", printable_time(target->ended_unix_ns, a),
			printable_duration(since_ns(target->ended_unix_ns), b));
	if (target->note[0])
		fprintf(stream, "  note           %s\n", printable(target->note, text, sizeof(text)));
	report_entries(stream, target);
	fprintf(stream, "  effective rate %.1f Hz of CPU time; %s of CPU time sampled\n", target->effective_hz,
		printable_duration(target->cpu_ns, a));
	fprintf(stream, "  retained       %s since %s\n", printable_bytes(target->retained_bytes, a),
		printable_time(target->retained_since_unix_ns, b));
	report_ends(stream, "stack ends", target->stack_ends, target->n_stack_ends);
	report_ends(stream, "python frames", target->python_ends, target->n_python_ends);
}

static void report_unwind_tables(FILE *stream, const Sprof__Control__UnwindTables *tables)
{
	char a[PRINTABLE_AMOUNT_BYTES], b[PRINTABLE_AMOUNT_BYTES];
	fprintf(stream, "  unwind tables  %" PRIu32 " of files, %" PRIu32 " lists of mappings; %s of %s",
		tables->tables, tables->lists, printable_bytes(tables->table_bytes + tables->list_bytes, a),
		printable_bytes(tables->budget_bytes, b));
	if (tables->refused)
		fprintf(stream, "; %" PRIu64 " had no room: raise unwind_mib in sprofd.conf", tables->refused);
	fputc('\n', stream);
}

void report_status(FILE *stream, const Sprof__Control__Status *status, const char *socket)
{
	char a[PRINTABLE_AMOUNT_BYTES], b[PRINTABLE_AMOUNT_BYTES];
	char version[TEXT_BYTES], kernel[TEXT_BYTES];
	uint64_t lost = sum(status->losses, status->n_losses);
	fprintf(stream, "sprofd %s, pid %" PRIu32 ", up %s, on %s, Linux %s\n",
		printable(status->version, version, sizeof(version)), status->pid,
		printable_duration(since_ns(status->started_unix_ns), a), socket,
		printable(status->kernel, kernel, sizeof(kernel)));
	fprintf(stream, "  memory         %s; CPU time %s; %" PRIu32 " files of targets held\n",
		printable_bytes(status->rss_bytes, a), printable_duration(status->cpu_ns, b), status->files_held);
	fprintf(stream, "  ring buffer    %s, at most %.1f %% full so far; %" PRIu64 " records read\n",
		printable_bytes(status->ring_bytes, a),
		status->ring_bytes ? 100.0 * (double)status->ring_used_max_bytes / (double)status->ring_bytes : 0,
		status->records_read);
	fprintf(stream, "  kernel         at most %" PRIu32 " Hz; perf_event_paranoid %" PRIu32 "\n",
		status->max_frequency_hz, status->perf_event_paranoid);
	fprintf(stream, "  ELF reader     %s, restarted %" PRIu32 " times\n",
		status->reader_running ? "running" : "not running", status->reader_restarts);
	if (status->unwind_tables)
		report_unwind_tables(stream, status->unwind_tables);
	fprintf(stream, "  lost           %" PRIu64 " over all targets, past ones too\n", lost);
	report_losses(stream, status->losses, status->n_losses);
	if (status->n_targets == 0)
		fputs("\nno process is attached: sprofctl attach PID\n", stream);
	for (size_t i = 0; i < status->n_targets; i++)
		report_target(stream, status->targets[i]);
}
