#include "app/table_report.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 2048, MAX_STACKS = 4096, MAX_BARRIERS = 32768 }; /* that are listed; all are judged */

/* The enums of the message are those of the look, in the same order. */
#define SAME(a, b) _Static_assert((int)(a) == (int)(b), #a)
SAME(SPROF__CONTROL__TABLE_STATE__TABLE_STATE_INVALID, LOOK_INVALID);
SAME(SPROF__CONTROL__TABLE_STATE__TABLE_STATE_UNSETTLED, LOOK_UNSETTLED);
SAME(SPROF__CONTROL__TABLE_REF_STATE__TABLE_REF_OUT_OF_RANGE, LOOK_REF_OUT_OF_RANGE);
SAME(SPROF__CONTROL__TABLE_REF_STATE__TABLE_REF_STALE, LOOK_REF_STALE);
SAME(SPROF__CONTROL__TABLE_REF_STATE__TABLE_REF_BUSY, LOOK_REF_BUSY);
SAME(SPROF__CONTROL__TABLE_LOCK__TABLE_LOCK_HELD, LOOK_HELD);
SAME(SPROF__CONTROL__TABLE_LOCK__TABLE_LOCK_CHANGING, LOOK_CHANGING);
SAME(SPROF__CONTROL__TABLE_SEVERITY__TABLE_WARNING, FINDING_WARNING);
SAME(SPROF__CONTROL__TABLE_SEVERITY__TABLE_ERROR, FINDING_ERROR);

/* --- messages in the arena --- */

struct builder {
	struct arena *arena;
	bool failed;
	Sprof__Control__Table *table;
};

static void *take(struct builder *builder, size_t bytes)
{
	void *memory = builder->failed ? NULL : arena_alloc(builder->arena, bytes);
	builder->failed = !memory;
	return memory;
}
#define NEW(builder, name, type)                                                     \
	({                                                                           \
		Sprof__Control__##type *_message = take(builder, sizeof(*_message)); \
		if (_message)                                                        \
			sprof__control__##name##__init(_message);                    \
		_message;                                                            \
	})

/* Codes are upper case with underscores here, and lower case with hyphens for people and scripts. */
static char *code_name(struct builder *builder, const char *name)
{
	char *copy = builder->failed ? NULL : arena_strndup(builder->arena, name, strlen(name));
	builder->failed |= !copy;
	for (char *c = copy; c && *c; c++)
		*c = (char)(*c == '_' ? '-' : tolower((unsigned char)*c));
	return copy;
}

static Sprof__Control__TableRef *ref_message(struct builder *builder, const struct look_ref *ref)
{
	Sprof__Control__TableRef *message = NEW(builder, table_ref, TableRef);
	if (!message)
		return NULL;
	message->state = (Sprof__Control__TableRefState)ref->state;
	message->index = ref->state == LOOK_REF_NONE ? 0 : ref->ref.index;
	message->gen = ref->state == LOOK_REF_NONE ? 0 : ref->ref.gen;
	return message;
}

static Sprof__Control__TableContext *context_message(struct builder *builder, const struct sprof_context *context)
{
	if (context->pc == 0 && context->sp == 0)
		return NULL;
	Sprof__Control__TableContext *message = NEW(builder, table_context, TableContext);
	if (!message)
		return NULL;
	message->pc = context->pc;
	message->sp = context->sp;
	message->fp = context->fp;
	return message;
}

/* --- findings --- */

static int by_severity(const void *a, const void *b)
{
	const struct finding *const *one = a, *const *other = b;
	int x = (int)finding_info((*one)->code)->severity, y = (int)finding_info((*other)->code)->severity;
	if (x != y)
		return y - x;
	if ((*one)->code != (*other)->code)
		return (*one)->code < (*other)->code ? -1 : 1;
	return *one < *other ? -1 : *one > *other; /* as they were found */
}

static void count_findings(const struct findings *findings, Sprof__Control__Table *table)
{
	for (int code = 0; code < FINDING_COUNT; code++) {
		enum finding_severity severity = finding_info((enum finding_code)code)->severity;
		uint32_t *count = severity == FINDING_ERROR     ? &table->errors
				  : severity == FINDING_WARNING ? &table->warnings
								: &table->notes;
		*count += findings->counts[code];
	}
}

static Sprof__Control__TableFinding *finding_message(struct builder *builder, const struct finding *finding)
{
	const struct finding_info *info = finding_info(finding->code);
	Sprof__Control__TableFinding *message = NEW(builder, table_finding, TableFinding);
	if (!message)
		return NULL;
	message->severity = (Sprof__Control__TableSeverity)info->severity;
	message->code = code_name(builder, info->name);
	message->where = (char *)finding->where;
	message->what = (char *)finding->what;
	message->todo = (char *)info->todo;
	message->rule = (char *)info->rule;
	return message;
}

static void add_findings(struct builder *builder, const struct findings *findings)
{
	Sprof__Control__Table *table = builder->table;
	const struct finding **sorted = take(builder, (findings->n + 1) * sizeof(struct finding *));
	table->findings = take(builder, (findings->n + 1) * sizeof(table->findings[0]));
	if (builder->failed)
		return;
	for (size_t i = 0; i < findings->n; i++)
		sorted[i] = &findings->list[i];
	qsort(sorted, findings->n, sizeof(struct finding *), by_severity);
	for (size_t i = 0; i < findings->n && !builder->failed; i++) {
		Sprof__Control__TableFinding *message = finding_message(builder, sorted[i]);
		bool last = i + 1 == findings->n || sorted[i + 1]->code != sorted[i]->code;
		if (message && last && findings->counts[sorted[i]->code] > FINDINGS_OF_A_CODE)
			message->more = findings->counts[sorted[i]->code] - FINDINGS_OF_A_CODE;
		table->findings[table->n_findings++] = message;
	}
	count_findings(findings, table);
}

/* --- ranges, threads, stacks --- */

static const char *kind_name(uint32_t kind)
{
	static const char *const names[] = {"none", "trampoline", "sets-sp", "stack-top", "managed-text"};
	return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}

static void add_ranges(struct builder *builder, const struct table_look *look)
{
	Sprof__Control__Table *table = builder->table;
	table->ranges = take(builder, (look->table.n_ranges + 1) * sizeof(table->ranges[0]));
	for (uint32_t i = 0; i < look->table.n_ranges && !builder->failed; i++) {
		const struct sprof_range *range = &look->table.ranges[i];
		const struct look_mapping *mapping = table_look_mapping(look, range->lo);
		if (range->kind == SPROF_RANGE_NONE)
			continue;
		Sprof__Control__TableRange *message = NEW(builder, table_range, TableRange);
		if (!message)
			return;
		message->index = i;
		message->lo = range->lo;
		message->hi = range->hi;
		message->kind = range->kind;
		message->kind_name = (char *)kind_name(range->kind);
		message->file = (char *)(mapping ? mapping->name : "");
		if (range->kind == SPROF_RANGE_TRAMPOLINE) {
			message->entry = range->lo + (uint64_t)(int64_t)range->entry_offset;
			message->cfa_register = range->cfa_register;
			message->cfa_offset = range->cfa_offset;
			message->fp_offset = range->fp_offset;
		}
		table->ranges[table->n_ranges++] = message;
	}
}

static Sprof__Control__TableThread *thread_message(struct builder *builder, const struct table_look *look,
						   const struct look_thread *thread)
{
	const struct sprof_thread *record = &thread->record;
	const struct look_task *task = table_look_task(look, record->tid);
	Sprof__Control__TableThread *message = NEW(builder, table_thread, TableThread);
	if (!message)
		return NULL;
	message->tid = record->tid;
	message->comm = (char *)(task ? task->comm : "");
	message->alive = task != NULL;
	message->host_tid = task ? (uint32_t)task->tid : 0;
	message->slot = thread->place;
	message->seq = record->seq;
	message->stable = thread->stable;
	message->flags = record->flags;
	message->foreign_depth = record->foreign_depth;
	message->starttime = record->starttime;
	message->current = ref_message(builder, &thread->refs[LOOK_CURRENT]);
	message->user = ref_message(builder, &thread->refs[LOOK_USER]);
	message->system = ref_message(builder, &thread->refs[LOOK_SYSTEM]);
	message->foreign = ref_message(builder, &thread->refs[LOOK_FOREIGN]);
	message->libcall = ref_message(builder, &thread->refs[LOOK_LIBCALL]);
	message->foreign_context = context_message(builder, &record->foreign_context);
	message->jump_context = context_message(builder, &record->jump_context);
	message->libcall_context = context_message(builder, &record->libcall_context);
	return message;
}

static void add_threads(struct builder *builder, const struct table_look *look)
{
	Sprof__Control__Table *table = builder->table;
	size_t n = look->n_threads < MAX_THREADS ? look->n_threads : MAX_THREADS;
	table->threads = take(builder, (n + 1) * sizeof(table->threads[0]));
	for (size_t i = 0; i < n && !builder->failed; i++)
		table->threads[table->n_threads++] = thread_message(builder, look, &look->threads[i]);
	table->threads_in_use = (uint32_t)(look->n_threads + look->threads_left_out);
	table->cut |= table->threads_in_use > n;
}

static void add_barriers(struct builder *builder, const struct table_look *look, const struct look_stack *stack,
			 size_t room, Sprof__Control__TableStack *message)
{
	size_t n = stack->n_barriers < room ? stack->n_barriers : room;
	builder->table->cut |= n < stack->n_barriers || stack->barriers_left_out;
	message->barriers = take(builder, (n + 1) * sizeof(message->barriers[0]));
	for (size_t i = 0; i < n && !builder->failed; i++) {
		const struct look_barrier *barrier = &look->barriers[stack->first_barrier + i];
		Sprof__Control__TableBarrier *one = NEW(builder, table_barrier, TableBarrier);
		if (!one)
			return;
		one->slot = barrier->barrier.slot;
		one->original_pc = barrier->barrier.original_pc;
		one->in_slot = barrier->word;
		one->slot_read = barrier->word_read;
		message->barriers[message->n_barriers++] = one;
	}
}

static Sprof__Control__TableStack *stack_message(struct builder *builder, const struct look_stack *stack)
{
	const struct sprof_stack *record = &stack->record;
	Sprof__Control__TableStack *message = NEW(builder, table_stack, TableStack);
	if (!message)
		return NULL;
	message->index = stack->index;
	message->gen = record->self.gen;
	message->lo = record->lo;
	message->hi = record->hi;
	message->lock = (Sprof__Control__TableLock)stack->lock;
	message->version = stack->version;
	message->owner_tid = record->owner_tid;
	message->pos = stack->pos;
	message->n = record->n;
	message->cap = record->cap;
	message->resumer = ref_message(builder, &stack->resumer);
	message->resumer_context = context_message(builder, &record->resumer_context);
	return message;
}

static void add_stacks(struct builder *builder, const struct table_look *look)
{
	Sprof__Control__Table *table = builder->table;
	size_t n = look->n_stacks < MAX_STACKS ? look->n_stacks : MAX_STACKS, room = MAX_BARRIERS;
	table->stacks = take(builder, (n + 1) * sizeof(table->stacks[0]));
	for (size_t i = 0; i < n && !builder->failed; i++) {
		Sprof__Control__TableStack *message = stack_message(builder, &look->stacks[i]);
		if (!message)
			return;
		add_barriers(builder, look, &look->stacks[i], room, message);
		room -= message->n_barriers;
		table->stacks[table->n_stacks++] = message;
	}
	table->stacks_in_use = (uint32_t)(look->n_stacks + look->stacks_left_out);
	table->cut |= table->stacks_in_use > n;
}

static void add_header(const struct table_look *look, Sprof__Control__Table *table)
{
	const struct sprof_header *header = &look->table.header;
	table->start = look->table.start;
	table->total_bytes = header->total_size;
	table->abi = header->abi;
	table->tgid = header->tgid;
	table->proc_starttime = header->proc_starttime;
	table->foreign_process = look->table.foreign_process;
	table->cap_thread = header->cap_thread;
	table->cap_stack = header->cap_stack;
	table->cap_range = header->cap_range;
	table->n_probe = header->n_probe;
	table->ranges_version = look->table.ranges_version;
	table->locked = look->memory.locked;
	table->pages = look->memory.pages;
	table->resident_pages = look->memory.resident_pages;
	table->seals = look->memory.seals;
}

Sprof__Control__Table *table_report(struct arena *arena, const struct process *process,
				    const struct table_inspection *inspection)
{
	const struct table_look *look = &inspection->look;
	struct builder builder = {.arena = arena};
	Sprof__Control__Table *table = builder.table = NEW(&builder, table, Table);
	if (!table)
		return NULL;
	table->pid = (uint32_t)process->pid;
	table->comm = (char *)process->comm;
	table->state = (Sprof__Control__TableState)look->state;
	table->reason = (char *)look->why.text;
	table->looked_ns = inspection->apart_ns;
	add_findings(&builder, &inspection->findings);
	if (look->state == LOOK_VALID) {
		table->reason = "";
		add_header(look, table);
		add_ranges(&builder, look);
		add_threads(&builder, look);
		add_stacks(&builder, look);
	}
	return builder.failed ? NULL : table;
}
