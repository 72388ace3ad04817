#include "serve/openmetrics.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "bpf/outcome.h"

/* https://prometheus.io/docs/specs/om/open_metrics_spec/ : the samples of a family follow its HELP, TYPE and UNIT without a gap,
 * a counter's sample ends in _total, a name ends in its unit, and no two samples have the same labels. */

static void family(FILE *out, const char *name, const char *type, const char *unit, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
	if (unit)
		fprintf(out, "# UNIT %s %s\n", name, unit);
}

/* A label's value in its quotes. What is no UTF-8 becomes U+FFFD. */
static void quoted(FILE *out, const char *text)
{
	size_t length = text ? strlen(text) : 0;
	fputc('"', out);
	for (size_t i = 0; i < length;) {
		size_t n = utf8_printable(text + i, length - i);
		if (n > 1)
			fwrite(text + i, 1, n, out);
		else if (text[i] == '"' || text[i] == '\\')
			fprintf(out, "\\%c", text[i]);
		else if (text[i] == '\n')
			fputs("\\n", out);
		else if (n == 1 || (unsigned char)text[i] < 0x80)
			fputc(text[i], out);
		else
			fputs("\xef\xbf\xbd", out);
		i += n ? n : 1;
	}
	fputc('"', out);
}

static void real(FILE *out, double value)
{
	if (isnan(value))
		fputs("NaN", out);
	else if (isinf(value))
		fputs(value < 0 ? "-Inf" : "+Inf", out);
	else
		fprintf(out, "%.17g", value);
}

static void seconds(FILE *out, uint64_t ns)
{
	fprintf(out, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);
}

/* A family of one sample without labels. */
static void counter(FILE *out, const char *name, const char *help, uint64_t value)
{
	family(out, name, "counter", NULL, help);
	fprintf(out, "%s_total %" PRIu64 "\n", name, value);
}
static void gauge(FILE *out, const char *name, const char *unit, const char *help, uint64_t value)
{
	family(out, name, "gauge", unit, help);
	fprintf(out, "%s %" PRIu64 "\n", name, value);
}

static void seconds_family(FILE *out, const char *name, const char *type, const char *help, uint64_t ns)
{
	family(out, name, type, "seconds", help);
	fprintf(out, "%s%s ", name, strcmp(type, "counter") == 0 ? "_total" : "");
	seconds(out, ns);
	fputc('\n', out);
}

static void unwind_families(FILE *out, const Sprof__Control__UnwindTables *tables)
{
	gauge(out, "sprofd_unwind_tables", NULL, "Unwind tables that are loaded.", tables->tables);
	gauge(out, "sprofd_unwind_lists", NULL, "Targets that are unwound by them.", tables->lists);
	gauge(out, "sprofd_unwind_bytes", "bytes", "Memory of unwind tables and lists of mappings in the kernel.",
	      tables->table_bytes + tables->list_bytes);
	gauge(out, "sprofd_unwind_budget_bytes", "bytes", "What they may take together.", tables->budget_bytes);
	counter(out, "sprofd_unwind_refused", "Unwind tables and lists of mappings that had no room.", tables->refused);
}

static void daemon_families(FILE *out, const Sprof__Control__Status *status)
{
	family(out, "sprofd_build", "info", NULL, "What runs here.");
	fputs("sprofd_build_info{version=", out);
	quoted(out, status->version);
	fputs(",kernel=", out);
	quoted(out, status->kernel);
	fputs("} 1\n", out);
	seconds_family(out, "sprofd_start_time_seconds", "gauge", "When the daemon started, since the Unix epoch.",
		       status->started_unix_ns);
	seconds_family(out, "sprofd_cpu_seconds", "counter", "CPU time of the daemon.", status->cpu_ns);
	gauge(out, "sprofd_resident_memory_bytes", "bytes", "Resident memory of the daemon.", status->rss_bytes);
	gauge(out, "sprofd_ring_bytes", "bytes", "Size of the ring buffer.", status->ring_bytes);
	gauge(out, "sprofd_ring_used_max_bytes", "bytes", "The fullest the ring buffer was seen.",
	      status->ring_used_max_bytes);
	counter(out, "sprofd_records_read", "Records read from the ring buffer.", status->records_read);
	gauge(out, "sprofd_max_frequency_hertz", "hertz", "The kernel's limit on the sampling frequency.",
	      status->max_frequency_hz);
	gauge(out, "sprofd_perf_event_paranoid", NULL, "kernel.perf_event_paranoid.", status->perf_event_paranoid);
	gauge(out, "sprofd_files_held", NULL, "Files of targets that are held open.", status->files_held);
	gauge(out, "sprofd_reader_running", NULL, "Whether sprofd-elf, which looks up names, runs.",
	      status->reader_running != 0);
	counter(out, "sprofd_reader_restarts", "Times sprofd-elf had to be started again.", status->reader_restarts);
	if (status->unwind_tables)
		unwind_families(out, status->unwind_tables);
}

static uint64_t find_count(Sprof__Control__Count *const *counts, size_t n, const char *name)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++)
		if (strcmp(counts[i]->name, name) == 0)
			sum += counts[i]->count;
	return sum;
}

/* Every reason of the one table, also when it never happened: an alert must be able to tell zero from absent. */
static void loss_family(FILE *out, const Sprof__Control__Status *status)
{
	static const struct {
		enum outcome outcome;
		const char *name;
	} reasons[] = {
#define REASON(NAME, name, where, text) {OUTCOME_##NAME, #name},
		OUTCOME_TABLE(REASON)
#undef REASON
	};
	family(out, "sprofd_losses", "counter", NULL, "Entries of the BPF program that became no sample, by reason.");
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].outcome != OUTCOME_CAPTURED && reasons[i].outcome != OUTCOME_SAMPLE)
			fprintf(out, "sprofd_losses_total{reason=\"%s\"} %" PRIu64 "\n", reasons[i].name,
				find_count(status->losses, status->n_losses, reasons[i].name));
}

struct target_list {
	const Sprof__Control__Target **targets;
	size_t n;
};

static void target_list_free(struct target_list *list)
{
	free(list->targets);
}

static int by_pid_newest_first(const void *a, const void *b)
{
	const Sprof__Control__Target *left = *(const Sprof__Control__Target *const *)a;
	const Sprof__Control__Target *right = *(const Sprof__Control__Target *const *)b;
	if (left->pid != right->pid)
		return left->pid < right->pid ? -1 : 1;
	if (left->attached_unix_ns != right->attached_unix_ns)
		return left->attached_unix_ns > right->attached_unix_ns ? -1 : 1;
	return 0;
}

/* One target for each pid, since pid is what tells the samples of a family apart: the newest, if a number was used again. */
static int list_targets(const Sprof__Control__Status *status, struct target_list *ret)
{
	const Sprof__Control__Target **targets = calloc(status->n_targets + 1, sizeof(void *));
	if (!targets)
		return -ENOMEM;
	for (size_t i = 0; i < status->n_targets; i++)
		targets[i] = status->targets[i];
	qsort(targets, status->n_targets, sizeof(void *), by_pid_newest_first);
	size_t n = 0;
	for (size_t i = 0; i < status->n_targets; i++)
		if (n == 0 || targets[n - 1]->pid != targets[i]->pid)
			targets[n++] = targets[i];
	*ret = (struct target_list){targets, n};
	return 0;
}

/* The families that have a sample for each target, as {pid, comm}. How the value of a field is written: */
enum value_kind {
	VALUE_U64,
	VALUE_I64,
	VALUE_U32,
	VALUE_REAL,
	VALUE_NS, /* as seconds */
};
struct target_family {
	const char *name, *type, *unit, *help;
	enum value_kind kind;
	size_t offset;
};
#define FIELD(kind, field) kind, offsetof(Sprof__Control__Target, field)
static const struct target_family target_families[] = {
	{"sprofd_entries", "counter", NULL, "Times the BPF program ran.", FIELD(VALUE_U64, entries)},
	{"sprofd_samples", "counter", NULL, "Samples delivered into the profile.", FIELD(VALUE_U64, samples)},
	{"sprofd_target_in_flight", "gauge", NULL, "Samples in the ring buffer, not yet read.",
	 FIELD(VALUE_U64, in_flight)},
	{"sprofd_target_not_delivered", "gauge", NULL, "The kernel's count of the period, less the entries.",
	 FIELD(VALUE_I64, not_delivered)},
	{"sprofd_target_not_delivered_ratio", "gauge", "ratio", "Share of the kernel's count that became no entry.",
	 FIELD(VALUE_REAL, not_delivered_ratio)},
	{"sprofd_target_late_periods", "gauge", NULL,
	 "Of those not delivered: periods that passed while the kernel's timer was late.",
	 FIELD(VALUE_U64, late_periods)},
	{"sprofd_target_threads", "gauge", NULL, "Threads.", FIELD(VALUE_U32, threads)},
	{"sprofd_target_frequency_hertz", "gauge", "hertz", "The sampling frequency asked for.",
	 FIELD(VALUE_U32, frequency_hz)},
	{"sprofd_target_effective_hertz", "gauge", "hertz", "Entries per second of the target's CPU time.",
	 FIELD(VALUE_REAL, effective_hz)},
	{"sprofd_target_retained_bytes", "gauge", "bytes", "Memory that the retained profile takes.",
	 FIELD(VALUE_U64, retained_bytes)},
	{"sprofd_target_cpu_seconds", "counter", "seconds", "CPU time that the samples stand for.",
	 FIELD(VALUE_NS, cpu_ns)},
};
#undef FIELD

static void target_labels(FILE *out, const Sprof__Control__Target *target)
{
	fprintf(out, "{pid=\"%" PRIu32 "\",comm=", target->pid);
	quoted(out, target->comm);
}

static void target_value(FILE *out, const Sprof__Control__Target *target, const struct target_family *f)
{
	const void *at = (const char *)target + f->offset;
	switch (f->kind) {
	case VALUE_U64:
		fprintf(out, "%" PRIu64, *(const uint64_t *)at);
		break;
	case VALUE_I64:
		fprintf(out, "%" PRId64, *(const int64_t *)at);
		break;
	case VALUE_U32:
		fprintf(out, "%" PRIu32, *(const uint32_t *)at);
		break;
	case VALUE_REAL:
		real(out, *(const double *)at);
		break;
	case VALUE_NS:
		seconds(out, *(const uint64_t *)at);
		break;
	}
}

static void target_value_families(FILE *out, const struct target_list *list)
{
	for (size_t f = 0; f < sizeof(target_families) / sizeof(target_families[0]); f++) {
		const struct target_family *one = &target_families[f];
		family(out, one->name, one->type, one->unit, one->help);
		for (size_t i = 0; i < list->n; i++) {
			fprintf(out, "%s%s", one->name, strcmp(one->type, "counter") == 0 ? "_total" : "");
			target_labels(out, list->targets[i]);
			fputs("} ", out);
			target_value(out, list->targets[i], one);
			fputc('\n', out);
		}
	}
}

/* A name may come twice in a list only by a mistake of ours; the second would make the whole text invalid. */
static bool named_before(Sprof__Control__Count *const *counts, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (strcmp(counts[j]->name, counts[i]->name) == 0)
			return true;
	return false;
}

static void target_counts(FILE *out, const Sprof__Control__Target *target, const char *name, const char *label,
			  Sprof__Control__Count *const *counts, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (named_before(counts, i))
			continue;
		fprintf(out, "%s_total", name);
		target_labels(out, target);
		fprintf(out, ",%s=", label);
		quoted(out, counts[i]->name);
		fprintf(out, "} %" PRIu64 "\n", find_count(counts, n, counts[i]->name));
	}
}

static void target_count_families(FILE *out, const struct target_list *list)
{
	family(out, "sprofd_target_losses", "counter", NULL, "Entries that became no sample, by reason.");
	for (size_t i = 0; i < list->n; i++)
		target_counts(out, list->targets[i], "sprofd_target_losses", "reason", list->targets[i]->losses,
			      list->targets[i]->n_losses);
	family(out, "sprofd_target_stack_ends", "counter", NULL, "Samples by why their user stack ended where it did.");
	for (size_t i = 0; i < list->n; i++)
		target_counts(out, list->targets[i], "sprofd_target_stack_ends", "end", list->targets[i]->stack_ends,
			      list->targets[i]->n_stack_ends);
	family(out, "sprofd_target_python_ends", "counter", NULL,
	       "Samples by how far the frames of CPython are known.");
	for (size_t i = 0; i < list->n; i++)
		target_counts(out, list->targets[i], "sprofd_target_python_ends", "end", list->targets[i]->python_ends,
			      list->targets[i]->n_python_ends);
}

/* In the order of enum TargetState. */
static const char *const state_names[] = {"arming", "live", "exited", "detached"};

static void state_family(FILE *out, const Sprof__Control__Status *status)
{
	family(out, "sprofd_targets", "gauge", NULL, "Targets whose profile can be pulled, by state.");
	for (size_t state = 0; state < sizeof(state_names) / sizeof(state_names[0]); state++) {
		size_t n = 0;
		for (size_t i = 0; i < status->n_targets; i++)
			n += (size_t)status->targets[i]->state == state;
		fprintf(out, "sprofd_targets{state=\"%s\"} %zu\n", state_names[state], n);
	}
}

int openmetrics_format(const Sprof__Control__Status *status, char **ret, size_t *ret_bytes)
{
	_cleanup_(target_list_free) struct target_list list = {0};
	int r = list_targets(status, &list);
	if (r < 0)
		return r;
	_cleanup_free_ char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);
	if (!out)
		return -ENOMEM;
	daemon_families(out, status);
	loss_family(out, status);
	state_family(out, status);
	target_value_families(out, &list);
	target_count_families(out, &list);
	fputs("# EOF\n", out);
	bool failed = ferror(out) != 0;
	if (fclose(out) != 0 || failed)
		return -ENOMEM;
	*ret = TAKE_PTR(text);
	*ret_bytes = bytes;
	return 0;
}
