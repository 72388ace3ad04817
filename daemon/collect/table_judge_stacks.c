/* The records of stacks, their barriers, and what stands in the slots. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "collect/table_judge_parts.h"

enum { MAX_CHAIN = 4096 }; /* of resumers */

/* --- bounds, barriers --- */

static void judge_memory(const struct table_look *look, struct findings *findings, const char *where,
			 const struct look_stack *stack)
{
	const struct sprof_stack *record = &stack->record;
	if (record->lo >= record->hi) {
		findings_add(findings, FINDING_STACK_BOUNDS, 0, where, "lo 0x%" PRIx64 " is not below hi 0x%" PRIx64,
			     record->lo, record->hi);
		return;
	}
	const struct look_mapping *top = table_look_mapping(look, record->hi - 1);
	if (!top || !top->readable) /* the lowest pages may be a guard */
		findings_add(findings, FINDING_STACK_UNMAPPED, stack->version, where,
			     "its highest page, at 0x%" PRIx64 ", is not readable memory", record->hi - 1);
}

static void judge_array(const struct table_look *look, struct findings *findings, const char *where,
			const struct look_stack *stack)
{
	const struct sprof_stack *record = &stack->record;
	const struct sprof_header *header = &look->table.header;
	uint64_t bytes = (uint64_t)record->cap * header->barrier_size;
	if (record->self.index != stack->index || record->self.gen == 0)
		findings_add(findings, FINDING_STACK_SELF, 0, where, "self is (%" PRIu32 ", %" PRIu32 ")",
			     record->self.index, record->self.gen);
	if (record->cap > SPROF_MAX_BARRIERS)
		findings_add(findings, FINDING_STACK_CAP, 0, where, "cap is %" PRIu32, record->cap);
	if (bytes > header->total_size || record->off_barrier > header->total_size - bytes)
		findings_add(findings, FINDING_STACK_ARRAY, 0, where,
			     "off_barrier is %" PRIu64 " for %" PRIu32 " barriers, and total_size %" PRIu64,
			     record->off_barrier, record->cap, header->total_size);
	else if (record->cap && record->off_barrier % 16 != 0)
		findings_add(findings, FINDING_UNALIGNED, 0, where, "off_barrier is %" PRIu64, record->off_barrier);
	if (record->n > record->cap)
		findings_add(findings, FINDING_STACK_N, 0, where, "n is %" PRIu32 ", and cap %" PRIu32, record->n,
			     record->cap);
	if (stack->pos > record->n)
		findings_add(findings, FINDING_STACK_POS, 0, where, "pos is %" PRIu64 ", and n %" PRIu32, stack->pos,
			     record->n);
}

static void judge_barrier(const struct table_look *look, struct findings *findings, const struct look_stack *stack,
			  uint64_t number, const struct look_barrier *barrier)
{
	const struct sprof_stack *record = &stack->record;
	uint64_t slot = barrier->barrier.slot, pc = barrier->barrier.original_pc;
	/* That of the next return may be leaving right now: then its slot is no one's any more, and the trampoline may overwrite it. The same version and
	 * the same pos in two looks tell that it is not. */
	uint64_t identity = stack->version * 65536 + stack->pos;
	char where[FINDING_WHERE_BYTES];
	snprintf(where, sizeof(where), "stack %" PRIu32 " barrier %" PRIu64, stack->index, number);
	if (slot < record->lo || slot >= record->hi) {
		findings_add(findings, FINDING_SLOT_OUTSIDE, 0, where,
			     "its slot is 0x%" PRIx64 ", and the stack 0x%" PRIx64 "-0x%" PRIx64, slot, record->lo,
			     record->hi);
		return;
	}
	if (slot % 8 != 0)
		findings_add(findings, FINDING_SLOT_ALIGNMENT, 0, where, "its slot is 0x%" PRIx64, slot);
	if (barrier->word_read && !judge_is_entry(look, barrier->word))
		findings_add(findings, FINDING_SLOT_WORD, identity, where,
			     "it is installed, and its slot 0x%" PRIx64 " holds 0x%" PRIx64
			     ", which is no TRAMPOLINE's entry%s",
			     slot, barrier->word, barrier->word == pc ? " but its original pc" : "");
	if (judge_is_trampoline(look, pc))
		findings_add(findings, FINDING_ORIGINAL_TRAMPOLINE, 0, where,
			     "its original_pc is 0x%" PRIx64 ", in a trampoline", pc);
	else if (!judge_is_code(look, pc))
		findings_add(findings, FINDING_ORIGINAL_PC, stack->version, where,
			     "its original_pc is 0x%" PRIx64 ", not executable memory", pc);
}

static void judge_barriers(const struct table_look *look, struct findings *findings, const char *where,
			   const struct look_stack *stack)
{
	uint64_t first = stack->record.pos;
	for (uint32_t i = 0; i < stack->n_barriers; i++) {
		const struct look_barrier *barriers = look->barriers + stack->first_barrier;
		if (first + i < stack->pos) /* returned through meanwhile */
			continue;
		judge_barrier(look, findings, stack, first + i, &barriers[i]);
		if (i > 0 && first + i - 1 >= stack->pos && barriers[i].barrier.slot <= barriers[i - 1].barrier.slot)
			findings_add(findings, FINDING_SLOT_ORDER, 0, where,
				     "barrier %" PRIu64 " has slot 0x%" PRIx64 ", and that before it 0x%" PRIx64,
				     first + i, barriers[i].barrier.slot, barriers[i - 1].barrier.slot);
	}
	if (stack->barriers_left_out && stack->record.n <= stack->record.cap)
		findings_add(findings, FINDING_LEFT_OUT, 0, where, "its barriers were not looked at");
}

/* --- owner, resumer --- */

static const struct look_stack *find_stack(const struct table_look *look, uint32_t index)
{
	size_t low = 0, high = look->n_stacks;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (look->stacks[middle].index < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low < look->n_stacks && look->stacks[low].index == index ? &look->stacks[low] : NULL;
}

static void judge_owner(const struct table_look *look, struct findings *findings, const char *where,
			const struct look_stack *stack)
{
	uint32_t owner = stack->record.owner_tid;
	if (owner == 0 || look->threads_left_out)
		return;
	for (size_t i = 0; i < look->n_threads; i++)
		if (look->threads[i].record.tid == owner)
			return;
	findings_add(findings, FINDING_OWNER_UNKNOWN, owner, where, "its owner_tid is %" PRIu32 ", which has no record",
		     owner);
}

/* Whether following resumers leads back to this stack. Each look may mix two moments: two looks must agree. */
static bool is_in_cycle(const struct table_look *look, const struct look_stack *stack)
{
	const struct look_stack *at = stack;
	for (unsigned i = 0; i < MAX_CHAIN && at && at->resumer.state == LOOK_REF_STACK && at->lock == LOOK_FREE; i++) {
		if (at->resumer.ref.index == stack->index)
			return true;
		at = find_stack(look, at->resumer.ref.index);
	}
	return false;
}

static void judge_resumer(const struct table_look *look, struct findings *findings, const char *where,
			  const struct look_stack *stack)
{
	const struct look_ref *resumer = &stack->resumer;
	if (resumer->state == LOOK_REF_BUSY)
		return;
	if (resumer->state == LOOK_REF_OUT_OF_RANGE)
		findings_add(findings, FINDING_RESUMER_REF, 0, where, "resumer refers to stack %" PRIu32 ", of fewer",
			     resumer->ref.index);
	else if (resumer->state == LOOK_REF_STALE || resumer->state == LOOK_REF_UNUSED)
		findings_add(findings, FINDING_RESUMER_REF, 0, where,
			     "resumer refers to generation %" PRIu32 " of stack %" PRIu32 ", which is gone",
			     resumer->ref.gen, resumer->ref.index);
	else
		judge_context(look, findings, where, "resumer_context", &stack->record.resumer_context, resumer);
	if (is_in_cycle(look, stack))
		findings_add(findings, FINDING_RESUMER_CYCLE, 0, where,
			     "following resumers from stack %" PRIu32 " leads back to it", resumer->ref.index);
}

/* --- all --- */

struct span {
	uint64_t start, end, version;
	uint32_t index;
};

static int by_start(const void *a, const void *b)
{
	const struct span *one = a, *other = b;
	if (one->start != other->start)
		return one->start < other->start ? -1 : 1;
	return one->index < other->index ? -1 : one->index > other->index;
}

static void judge_spans(struct findings *findings, enum finding_code code, const char *what, struct span *spans,
			size_t n)
{
	qsort(spans, n, sizeof(*spans), by_start);
	for (size_t i = 1, widest = 0; i < n; i++) {
		char where[FINDING_WHERE_BYTES];
		const struct span *before = &spans[widest];
		if (spans[i].start < before->end) {
			snprintf(where, sizeof(where), "stack %" PRIu32, spans[i].index);
			/* Both versions the same in two looks: both records stood all the while. */
			findings_add(findings, code, spans[i].version * 31 + before->version, where,
				     "its %s 0x%" PRIx64 "-0x%" PRIx64 ", and those of stack %" PRIu32 " 0x%" PRIx64
				     "-0x%" PRIx64 ", overlap",
				     what, spans[i].start, spans[i].end, before->index, before->start, before->end);
		}
		if (spans[i].end > before->end)
			widest = i;
	}
}

static void judge_overlaps(const struct table_look *look, struct findings *findings)
{
	struct span *spans = calloc(look->n_stacks + 1, sizeof(*spans));
	if (!spans) {
		findings->out_of_memory = true;
		return;
	}
	size_t n = 0;
	for (size_t i = 0; i < look->n_stacks; i++) {
		const struct look_stack *s = &look->stacks[i];
		if (s->lock == LOOK_FREE && s->record.lo < s->record.hi)
			spans[n++] = (struct span){s->record.lo, s->record.hi, s->version, s->index};
	}
	judge_spans(findings, FINDING_STACKS_OVERLAP, "bounds", spans, n);
	n = 0;
	for (size_t i = 0; i < look->n_stacks; i++) {
		const struct look_stack *s = &look->stacks[i];
		uint64_t bytes = (uint64_t)s->record.cap * look->table.header.barrier_size;
		if (s->lock == LOOK_FREE && bytes && bytes <= look->table.header.total_size &&
		    s->record.off_barrier <= look->table.header.total_size - bytes)
			spans[n++] = (struct span){s->record.off_barrier, s->record.off_barrier + bytes, 0, s->index};
	}
	judge_spans(findings, FINDING_OVERLAPPING, "barriers in the table", spans, n);
	free(spans);
}

void judge_stacks(const struct table_look *look, struct findings *findings)
{
	for (size_t i = 0; i < look->n_stacks; i++) {
		const struct look_stack *stack = &look->stacks[i];
		char where[FINDING_WHERE_BYTES];
		snprintf(where, sizeof(where), "stack %" PRIu32, stack->index);
		if (stack->lock == LOOK_HELD) {
			findings_add(findings, FINDING_LOCK_HELD, stack->version, where,
				     "its lock was held, at version %" PRIu64 ", in both looks", stack->version);
			continue;
		}
		if (stack->lock == LOOK_CHANGING) {
			findings_add(findings, FINDING_STACK_RESTLESS, 0, where, "it changed each time it was read");
			continue;
		}
		judge_memory(look, findings, where, stack);
		judge_array(look, findings, where, stack);
		judge_barriers(look, findings, where, stack);
		judge_owner(look, findings, where, stack);
		judge_resumer(look, findings, where, stack);
	}
	judge_overlaps(look, findings);
}
