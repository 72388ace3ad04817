/* The records of a table that are in use, each copied in one piece, by section 8 of the specification: each version word by a read of its own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "collect/process_memory.h"
#include "collect/table_look_parts.h"
#include "collect/table_memory.h"

enum {
	CHUNK_BYTES = 65536, /* of an array, while looking for what is in use */
	THREAD_TRIES = 50,
	STACK_TRIES = 8,
};

static int read_at(const struct table_look *look, uint64_t offset, void *ret, size_t bytes)
{
	return table_memory_read(look->table_fd, offset, ret, bytes);
}

static uint64_t stack_offset(const struct table_look *look, uint32_t index)
{
	return look->table.header.off_stack + (uint64_t)index * look->table.header.stack_size;
}

static uint64_t thread_offset(const struct table_look *look, uint32_t place)
{
	return look->table.header.off_thread + (uint64_t)place * look->table.header.thread_size;
}

static int read_seq_begin(const struct table_look *look, uint32_t index, uint64_t *ret)
{
	return read_at(look, stack_offset(look, index) + offsetof(struct sprof_stack, seq_begin), ret, sizeof(*ret));
}

/* The record of a stack if its lock is free: 0; -EBUSY; other -errno. Accepted only once seq_begin is *ret_version again. */
static int begin_stack(const struct table_look *look, uint32_t index, struct sprof_stack *ret, uint64_t *ret_version)
{
	uint64_t begin = 0, end = 0;
	int r = read_seq_begin(look, index, &begin);
	if (r == 0)
		r = read_at(look, stack_offset(look, index) + offsetof(struct sprof_stack, seq_end), &end, sizeof(end));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (r == 0)
		r = read_at(look, stack_offset(look, index), ret, sizeof(*ret));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (r < 0)
		return r;
	*ret_version = begin;
	return begin == end ? 0 : -EBUSY;
}

/* --- references --- */

static bool is_none(struct sprof_ref ref)
{
	return ref.index == SPROF_INDEX_NONE || ref.gen == 0;
}

static enum look_ref_state state_of(struct sprof_ref ref, const struct sprof_stack *stack)
{
	if (stack->self.gen != ref.gen)
		return LOOK_REF_STALE;
	return stack->lo == 0 && stack->hi == 0 ? LOOK_REF_UNUSED : LOOK_REF_STACK;
}

/* *ret_version: seq_begin, if a stack was read. */
static int begin_ref(const struct table_look *look, struct sprof_ref ref, struct look_ref *ret, uint64_t *ret_version)
{
	*ret = (struct look_ref){.ref = ref, .state = LOOK_REF_NONE};
	if (is_none(ref))
		return 0;
	if (ref.index >= look->table.header.cap_stack) {
		ret->state = LOOK_REF_OUT_OF_RANGE;
		return 0;
	}
	int r = begin_stack(look, ref.index, &ret->stack, ret_version);
	if (r == 0)
		ret->state = state_of(ref, &ret->stack);
	else if (r == -EBUSY)
		ret->state = LOOK_REF_BUSY;
	return r == -EBUSY ? 0 : r;
}

static bool reads_stack(const struct look_ref *ref)
{
	return ref->state == LOOK_REF_STALE || ref->state == LOOK_REF_UNUSED || ref->state == LOOK_REF_STACK;
}

/* 0; -EAGAIN: the stack changed since. */
static int end_ref(const struct table_look *look, const struct look_ref *ref, uint64_t version)
{
	uint64_t again = 0;
	if (!reads_stack(ref))
		return 0;
	int r = read_seq_begin(look, ref->ref.index, &again);
	return r < 0 ? r : again == version ? 0 : -EAGAIN;
}

/* --- threads --- */

static struct sprof_ref ref_of(const struct sprof_thread *record, int which)
{
	const struct sprof_ref refs[LOOK_REFS] = {record->current, record->user, record->system, record->foreign,
						  record->libcall};
	return refs[which];
}

struct tid_seq {
	uint32_t tid, seq;
};

/* The record and the stacks that it refers to, as they were at one moment. 0; -EAGAIN: they changed; other -errno. */
static int try_thread(const struct table_look *look, struct look_thread *thread)
{
	uint64_t offset = thread_offset(look, thread->place), versions[LOOK_REFS] = {0};
	struct tid_seq before = {0}, after = {0};
	struct sprof_thread record;
	int r = read_at(look, offset, &before, sizeof(before));
	if (r == 0)
		r = read_at(look, offset, &thread->record, sizeof(thread->record));
	for (int i = 0; r == 0 && i < LOOK_REFS; i++)
		r = begin_ref(look, ref_of(&thread->record, i), &thread->refs[i], &versions[i]);
	/* Again, since whoever moves a stack changes the contexts that point into it, under that stack's lock. */
	if (r == 0)
		r = read_at(look, offset, &record, sizeof(record));
	for (int i = 0; r == 0 && i < LOOK_REFS; i++)
		r = end_ref(look, &thread->refs[i], versions[i]);
	if (r == 0)
		r = read_at(look, offset, &after, sizeof(after));
	if (r < 0)
		return r;
	if (before.seq & 1 || before.seq != after.seq || before.tid != after.tid)
		return -EAGAIN;
	thread->record = record;
	return 0;
}

static int take_thread(struct table_look *look, uint32_t place)
{
	if (look->n_threads == LOOK_MAX_THREADS) {
		look->threads_left_out++;
		return 0;
	}
	struct look_thread *threads = look_grow(look->threads, look->n_threads, sizeof(*threads));
	if (!threads)
		return -ENOMEM;
	look->threads = threads;
	struct look_thread *thread = &look->threads[look->n_threads];
	*thread = (struct look_thread){.place = place};
	int r = -EAGAIN;
	for (unsigned i = 0; i < THREAD_TRIES && r == -EAGAIN; i++)
		r = try_thread(look, thread);
	if (r < 0 && r != -EAGAIN)
		return r;
	thread->stable = r == 0;
	if (thread->record.tid != SPROF_TID_FREE && thread->record.tid != SPROF_TID_RETIRED)
		look->n_threads++;
	return 0;
}

/* --- stacks --- */

static bool may_read(const struct table_look *look, uint64_t address)
{
	const struct look_mapping *mapping = table_look_mapping(look, address);
	return mapping && mapping->is_memory && mapping->readable && mapping->end - address >= sizeof(uint64_t);
}

/* Copies the barriers from pos on, and what stands in their slots. They are for the caller to keep, or to drop. */
static int take_barriers(struct table_look *look, struct look_stack *stack)
{
	const struct sprof_stack *record = &stack->record;
	uint32_t stride = look->table.header.barrier_size;
	if (record->pos >= record->n)
		return 0;
	uint32_t n = record->n - (uint32_t)record->pos;
	uint64_t room = look->table.header.total_size, bytes = (uint64_t)record->n * stride;
	if (record->n > SPROF_MAX_BARRIERS || bytes > room || record->off_barrier > room - bytes ||
	    n > LOOK_MAX_BARRIERS - stack->first_barrier) {
		stack->barriers_left_out = true;
		return 0;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct look_barrier barrier = {.word_read = false};
		int r = read_at(look, record->off_barrier + (record->pos + i) * stride, &barrier.barrier,
				sizeof(barrier.barrier));
		uint64_t slot = barrier.barrier.slot;
		if (r == 0 && slot >= record->lo && slot < record->hi && may_read(look, slot))
			barrier.word_read =
				process_memory_read(look->table.tid, slot, &barrier.word, sizeof(barrier.word)) == 0;
		if (r < 0)
			return r;
		struct look_barrier *barriers = look_grow(look->barriers, look->n_barriers, sizeof(*barriers));
		if (!barriers)
			return -ENOMEM;
		look->barriers = barriers;
		look->barriers[look->n_barriers++] = barrier;
	}
	stack->n_barriers = n;
	return 0;
}

/* 0 (stack->lock says whether it is in one piece), or -errno. */
static int try_stack(struct table_look *look, struct look_stack *stack)
{
	uint64_t again = 0, resumer_version = 0;
	look->n_barriers = stack->first_barrier;
	stack->n_barriers = 0;
	stack->barriers_left_out = false;
	int r = begin_stack(look, stack->index, &stack->record, &stack->version);
	if (r == -EBUSY) {
		stack->lock = LOOK_HELD;
		stack->pos = stack->record.pos;
		stack->resumer = (struct look_ref){.ref = stack->record.resumer, .state = LOOK_REF_BUSY};
		return 0;
	}
	struct sprof_stack resumed = {0};
	if (r == 0)
		r = begin_ref(look, stack->record.resumer, &stack->resumer, &resumer_version);
	if (r == 0) /* again: its resumer's context is covered by the resumer's lock */
		r = read_at(look, stack_offset(look, stack->index), &resumed, sizeof(resumed));
	if (r == 0)
		r = end_ref(look, &stack->resumer, resumer_version);
	bool changed = r == -EAGAIN || memcmp(&resumed.resumer, &stack->record.resumer, sizeof(resumed.resumer)) != 0;
	if (r == 0 || r == -EAGAIN)
		r = take_barriers(look, stack);
	if (r == 0)
		r = read_at(look, stack_offset(look, stack->index) + offsetof(struct sprof_stack, pos), &stack->pos,
			    sizeof(stack->pos));
	if (r == 0)
		r = read_seq_begin(look, stack->index, &again);
	if (r < 0)
		return r;
	stack->record.resumer_context = resumed.resumer_context;
	stack->lock = again == stack->version ? LOOK_FREE : LOOK_CHANGING;
	if (changed) /* by the thread that runs on it, perhaps without its lock: nothing is known of the resumer */
		stack->resumer.state = LOOK_REF_BUSY;
	return 0;
}

static int take_stack(struct table_look *look, uint32_t index)
{
	if (look->n_stacks == LOOK_MAX_STACKS) {
		look->stacks_left_out++;
		return 0;
	}
	struct look_stack *stacks = look_grow(look->stacks, look->n_stacks, sizeof(*stacks));
	if (!stacks)
		return -ENOMEM;
	look->stacks = stacks;
	struct look_stack *stack = &look->stacks[look->n_stacks];
	*stack = (struct look_stack){.index = index, .lock = LOOK_CHANGING, .first_barrier = look->n_barriers};
	for (unsigned i = 0; i < STACK_TRIES && stack->lock != LOOK_FREE; i++) {
		int r = try_stack(look, stack);
		if (r < 0)
			return r;
	}
	if (stack->record.lo || stack->record.hi || stack->lock != LOOK_FREE)
		look->n_stacks++;
	return 0;
}

/* --- arrays --- */

struct array {
	uint64_t offset;
	uint32_t n, stride;
	bool (*in_use)(const void *record);
	int (*take)(struct table_look *look, uint32_t index);
};

static bool thread_in_use(const void *record)
{
	struct tid_seq head;
	memcpy(&head, record, sizeof(head));
	return head.tid != SPROF_TID_FREE && head.tid != SPROF_TID_RETIRED;
}

static bool stack_in_use(const void *record)
{
	struct sprof_stack stack;
	memcpy(&stack, record, sizeof(stack));
	return stack.lo || stack.hi || stack.seq_begin != stack.seq_end;
}

static int take_array(struct table_look *look, const struct array *array, uint8_t *chunk)
{
	uint32_t in_chunk = CHUNK_BYTES / array->stride;
	for (uint32_t first = 0; first < array->n; first += in_chunk) {
		uint32_t n = array->n - first < in_chunk ? array->n - first : in_chunk;
		int r = read_at(look, array->offset + (uint64_t)first * array->stride, chunk,
				(size_t)n * array->stride);
		for (uint32_t i = 0; r == 0 && i < n; i++)
			if (array->in_use(chunk + (size_t)i * array->stride))
				r = array->take(look, first + i);
		if (r < 0)
			return r;
	}
	return 0;
}

int look_take_records(struct table_look *look)
{
	const struct sprof_header *header = &look->table.header;
	const struct array threads = {header->off_thread, header->cap_thread, header->thread_size, thread_in_use,
				      take_thread};
	const struct array stacks = {header->off_stack, header->cap_stack, header->stack_size, stack_in_use,
				     take_stack};
	uint8_t *chunk = malloc(CHUNK_BYTES);
	if (!chunk)
		return -ENOMEM;
	int r = take_array(look, &threads, chunk);
	if (r == 0)
		r = take_array(look, &stacks, chunk);
	free(chunk);
	return r;
}
