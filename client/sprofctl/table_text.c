#include "sprofctl/table_text.h"

#include <inttypes.h>
#include <string.h>

#include "sprofctl/printable.h"

enum {
	COLUMNS = 120,
	TEXT_BYTES = 500,
	CELL_BYTES = 80,
	COMM_BYTES = 16,
	FILE_BYTES = 24,  /* the last part of a name */
	MAX_THREADS = 64, /* that are shown; --json shows more */
	MAX_STACKS = 64,
	MAX_BARRIERS = 8, /* of one stack */
};

/* Text in lines that begin at column `indent`; the cursor is there already. */
static void wrap(FILE *stream, int indent, const char *text)
{
	int column = indent;
	while (*text) {
		int word = (int)strcspn(text, " "), blanks = (int)strspn(text + word, " ");
		if (column > indent && column + word > COLUMNS) {
			fprintf(stream, "\n%*s", indent, "");
			column = indent;
		}
		fprintf(stream, "%.*s", word, text);
		column += word + blanks;
		text += word + blanks;
		if (*text && column + (int)strcspn(text, " ") <= COLUMNS)
			fprintf(stream, "%*s", blanks, "");
	}
	fputc('\n', stream);
}

/* --- findings --- */

static const char *severity_name(Sprof__Control__TableSeverity severity)
{
	switch (severity) {
	case SPROF__CONTROL__TABLE_SEVERITY__TABLE_ERROR:
		return "error";
	case SPROF__CONTROL__TABLE_SEVERITY__TABLE_WARNING:
		return "warning";
	default:
		return "note";
	}
}

static void show_finding(FILE *stream, const Sprof__Control__TableFinding *finding)
{
	char text[2 * TEXT_BYTES], a[TEXT_BYTES], b[TEXT_BYTES];
	fprintf(stream, "  %-8s ", severity_name(finding->severity));
	snprintf(text, sizeof(text), "%s: %s", printable(finding->where, a, sizeof(a)),
		 printable(finding->what, b, sizeof(b)));
	wrap(stream, 11, text);
	fprintf(stream, "%11s", "");
	snprintf(text, sizeof(text), "-> %s [%s%s%s]", printable(finding->todo, a, sizeof(a)), finding->code,
		 finding->rule[0] ? ", " : "", finding->rule);
	wrap(stream, 11, text);
	if (finding->more)
		fprintf(stream, "%11sand %" PRIu32 " more like this\n", "", finding->more);
}

static void show_findings(FILE *stream, const Sprof__Control__Table *table)
{
	if (table->n_findings)
		fputs("\nfindings\n", stream);
	for (size_t i = 0; i < table->n_findings; i++)
		show_finding(stream, table->findings[i]);
}

/* --- the table itself --- */

static void show_seals(FILE *stream, uint32_t seals)
{
	static const char *const names[] = {"seal", "shrink", "grow", "write", "future-write", "exec"}; /* F_SEAL_* */
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (seals & 1u << i)
			fprintf(stream, " %s", names[i]);
	fputs(seals ? "\n" : " none\n", stream);
}

static void show_table(FILE *stream, const Sprof__Control__Table *table)
{
	char bytes[PRINTABLE_AMOUNT_BYTES];
	fprintf(stream,
		"  mapping   0x%" PRIx64 ", %s, %s; %" PRIu64 " of %" PRIu64 " pages resident; seals:", table->start,
		printable_bytes(table->total_bytes, bytes), table->locked ? "locked" : "not locked",
		table->resident_pages, table->pages);
	show_seals(stream, table->seals);
	fprintf(stream, "  process   tgid %" PRIu32 ", begun at tick %" PRIu64 "%s\n", table->tgid,
		table->proc_starttime, table->foreign_process ? " (not this one)" : "");
	fprintf(stream,
		"  in use    %" PRIu32 " of %" PRIu32 " threads (n_probe %" PRIu32 "), %" PRIu32 " of %" PRIu32
		" stacks, %zu of %" PRIu32 " ranges (version %" PRIu64 ")\n",
		table->threads_in_use, table->cap_thread, table->n_probe, table->stacks_in_use, table->cap_stack,
		table->n_ranges, table->cap_range, table->ranges_version);
}

static void show_ranges(FILE *stream, const Sprof__Control__Table *table)
{
	char file[FILE_BYTES];
	if (table->n_ranges == 0)
		return;
	fprintf(stream, "\nranges\n%5s  %-12s  %-14s  %-14s  %-14s  %-9s  %-8s  %s\n", "#", "KIND", "FROM", "TO",
		"ENTRY", "CFA", "FP", "IN");
	for (size_t i = 0; i < table->n_ranges; i++) {
		const Sprof__Control__TableRange *range = table->ranges[i];
		char entry[20] = "", cfa[20] = "", fp[20] = "";
		if (range->entry) {
			snprintf(entry, sizeof(entry), "%" PRIx64, range->entry);
			snprintf(cfa, sizeof(cfa), "%s%+" PRId32, range->cfa_register ? "fp" : "sp", range->cfa_offset);
			if (range->fp_offset)
				snprintf(fp, sizeof(fp), "c%+" PRId32, range->fp_offset);
			else
				snprintf(fp, sizeof(fp), "kept");
		}
		const char *slash = strrchr(range->file, '/');
		printable(slash ? slash + 1 : range->file, file, sizeof(file));
		fprintf(stream, "%5" PRIu32 "  %-12s  %-14" PRIx64 "  %-14" PRIx64 "  %-14s  %-9s  %-8s  %s\n",
			range->index, range->kind_name, range->lo, range->hi, entry, cfa, fp, file);
	}
}

/* --- threads --- */

static const char *ref_text(const Sprof__Control__TableRef *ref, char out[CELL_BYTES])
{
	if (!ref || ref->state == SPROF__CONTROL__TABLE_REF_STATE__TABLE_REF_NONE)
		return "-";
	const char *mark = ref->state == SPROF__CONTROL__TABLE_REF_STATE__TABLE_REF_STACK  ? ""
			   : ref->state == SPROF__CONTROL__TABLE_REF_STATE__TABLE_REF_BUSY ? "?"
											   : "!";
	snprintf(out, CELL_BYTES, "%" PRIu32 ".%" PRIu32 "%s", ref->index, ref->gen, mark);
	return out;
}

static void show_context(FILE *stream, const char *name, const Sprof__Control__TableContext *context)
{
	if (context)
		fprintf(stream, "%9s%-16s pc %" PRIx64 ", sp %" PRIx64 ", fp %" PRIx64 "\n", "", name, context->pc,
			context->sp, context->fp);
}

static const char *state_text(const Sprof__Control__TableThread *thread, char out[CELL_BYTES])
{
	const char *gc = thread->flags & 1 ? " gc" : "";
	if (!thread->alive)
		return "dead";
	if (!thread->stable)
		return "switching";
	if (thread->foreign_depth)
		snprintf(out, CELL_BYTES, "foreign %" PRIu32 "%s", thread->foreign_depth, gc);
	else
		snprintf(out, CELL_BYTES, "even%s", gc);
	return out;
}

static void show_thread(FILE *stream, const Sprof__Control__TableThread *thread)
{
	char comm[COMM_BYTES], state[CELL_BYTES], refs[5][CELL_BYTES];
	fprintf(stream, "%7" PRIu32 "  %-15s %7" PRIu32 " %10" PRIu32 "  %-13.13s %-11s %-11s %-11s %-11s %s\n",
		thread->tid, printable(thread->comm, comm, sizeof(comm)), thread->slot, thread->seq,
		state_text(thread, state), ref_text(thread->current, refs[0]), ref_text(thread->user, refs[1]),
		ref_text(thread->system, refs[2]), ref_text(thread->foreign, refs[3]),
		ref_text(thread->libcall, refs[4]));
	show_context(stream, "foreign context", thread->foreign_context);
	show_context(stream, "jump context", thread->jump_context);
	show_context(stream, "libcall context", thread->libcall_context);
}

static void show_more(FILE *stream, size_t all, size_t shown, const char *what)
{
	if (all > shown)
		fprintf(stream, "%9s%zu more %s: --json shows them\n", "", all - shown, what);
}

static void show_threads(FILE *stream, const Sprof__Control__Table *table)
{
	size_t n = table->n_threads < MAX_THREADS ? table->n_threads : MAX_THREADS;
	if (n == 0)
		return;
	fprintf(stream, "\nthreads (stacks by place.generation; ! refers to nothing, ? its lock was held)\n");
	fprintf(stream, "%7s  %-15s %7s %10s  %-13s %-11s %-11s %-11s %-11s %s\n", "TID", "COMM", "SLOT", "SEQ",
		"STATE", "CURRENT", "USER", "SYSTEM", "FOREIGN", "LIBCALL");
	for (size_t i = 0; i < n; i++)
		show_thread(stream, table->threads[i]);
	show_more(stream, table->n_threads, n, "threads");
}

/* --- stacks --- */

static const char *lock_name(Sprof__Control__TableLock lock)
{
	switch (lock) {
	case SPROF__CONTROL__TABLE_LOCK__TABLE_LOCK_FREE:
		return "free";
	case SPROF__CONTROL__TABLE_LOCK__TABLE_LOCK_HELD:
		return "held";
	default:
		return "changing";
	}
}

static void show_barriers(FILE *stream, const Sprof__Control__TableStack *stack)
{
	size_t n = stack->n_barriers < MAX_BARRIERS ? stack->n_barriers : MAX_BARRIERS;
	for (size_t i = 0; i < n; i++) {
		const Sprof__Control__TableBarrier *barrier = stack->barriers[i];
		fprintf(stream, "%9sbarrier %-8" PRIu64 " slot %" PRIx64 ", original pc %" PRIx64, "", stack->pos + i,
			barrier->slot, barrier->original_pc);
		if (barrier->slot_read)
			fprintf(stream, ", in it %" PRIx64 "\n", barrier->in_slot);
		else
			fputs(", not read\n", stream);
	}
	show_more(stream, stack->n_barriers, n, "barriers");
}

static void show_stack(FILE *stream, const Sprof__Control__TableStack *stack)
{
	char size[PRINTABLE_AMOUNT_BYTES], resumer[CELL_BYTES], count[CELL_BYTES], owner[CELL_BYTES] = "-";
	snprintf(count, sizeof(count), "%" PRIu64 "/%" PRIu32 "/%" PRIu32, stack->pos, stack->n, stack->cap);
	if (stack->owner_tid)
		snprintf(owner, sizeof(owner), "%" PRIu32, stack->owner_tid);
	fprintf(stream,
		"%7" PRIu32 " %5" PRIu32 "  %14" PRIx64 "-%-14" PRIx64 "  %10s  %-8s %10" PRIu64 "  %7s  %-14s %s\n",
		stack->index, stack->gen, stack->lo, stack->hi,
		stack->hi > stack->lo ? printable_bytes(stack->hi - stack->lo, size) : "?", lock_name(stack->lock),
		stack->version, owner, count, ref_text(stack->resumer, resumer));
	show_context(stream, "resumer context", stack->resumer_context);
	show_barriers(stream, stack);
}

static void show_stacks(FILE *stream, const Sprof__Control__Table *table)
{
	size_t n = table->n_stacks < MAX_STACKS ? table->n_stacks : MAX_STACKS;
	if (n == 0)
		return;
	fprintf(stream, "\nstacks\n%7s %5s  %14s %-14s  %10s  %-8s %10s  %7s  %-14s %s\n", "#", "GEN", "LO", "HI",
		"SIZE", "LOCK", "VERSION", "OWNER", "POS/N/CAP", "RESUMER");
	for (size_t i = 0; i < n; i++)
		show_stack(stream, table->stacks[i]);
	show_more(stream, table->n_stacks, n, "stacks");
}

/* --- all --- */

static const char *verdict(const Sprof__Control__Table *table)
{
	switch (table->state) {
	case SPROF__CONTROL__TABLE_STATE__TABLE_STATE_NONE:
		return "no barrier-lock table";
	case SPROF__CONTROL__TABLE_STATE__TABLE_STATE_UNSETTLED:
		return "a barrier-lock table that is not ready";
	case SPROF__CONTROL__TABLE_STATE__TABLE_STATE_INVALID:
		return "a barrier-lock table that is not valid";
	default:
		return table->errors ? "a barrier-lock table that breaks unwinding" : "a valid barrier-lock table";
	}
}

void table_text(FILE *stream, const Sprof__Control__Table *table)
{
	char comm[CELL_BYTES];
	fprintf(stream, "%" PRIu32 " (%s): %s: %" PRIu32 " error%s, %" PRIu32 " warning%s, %" PRIu32 " note%s\n",
		table->pid, printable(table->comm, comm, sizeof(comm)), verdict(table), table->errors,
		table->errors == 1 ? "" : "s", table->warnings, table->warnings == 1 ? "" : "s", table->notes,
		table->notes == 1 ? "" : "s");
	if (table->state == SPROF__CONTROL__TABLE_STATE__TABLE_STATE_VALID)
		show_table(stream, table);
	show_findings(stream, table);
	show_ranges(stream, table);
	show_threads(stream, table);
	show_stacks(stream, table);
}
