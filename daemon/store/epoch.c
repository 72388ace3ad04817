#include "store/epoch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

/* What makes two stacks the same. */
struct stack_key {
	const uint64_t *kernel, *user;
	uint32_t maps_version;
	uint16_t n_kernel, n_user;
	enum stack_end user_end;
};

struct cell_key {
	const struct stack *stack;
	uint64_t code_ns;
	uint32_t tid;
	char comm[SAMPLE_COMM_BYTES];
};

struct epoch *epoch_new(size_t budget_bytes)
{
	struct epoch *epoch = calloc(1, sizeof(*epoch));
	if (!epoch)
		return NULL;
	epoch->references = 1;
	arena_init(&epoch->arena, 0);
	heap_init(&epoch->heap, &epoch->arena, budget_bytes > sizeof(*epoch) ? budget_bytes - sizeof(*epoch) : 0);
	return epoch;
}

struct epoch *epoch_ref(struct epoch *epoch)
{
	epoch->references++;
	return epoch;
}

void epoch_unref(struct epoch *epoch)
{
	if (!epoch || --epoch->references > 0)
		return;
	set_free(&epoch->stacks, &epoch->heap);
	set_free(&epoch->cells, &epoch->heap);
	arena_free(&epoch->arena);
	free(epoch);
}

size_t epoch_sample_bytes(const struct sample *sample)
{
	return sizeof(struct cell) + sizeof(struct stack) +
	       ((size_t)sample->n_kernel + sample->n_user) * sizeof(uint64_t);
}

static bool same_frames(const uint64_t *a, const uint64_t *b, size_t n)
{
	return n == 0 || memcmp(a, b, n * sizeof(*a)) == 0;
}

static bool stack_equal(const struct set_entry *entry, const void *key_)
{
	const struct stack *stack = (const struct stack *)entry;
	const struct stack_key *key = key_;
	return stack->maps_version == key->maps_version && stack->n_kernel == key->n_kernel &&
	       stack->n_user == key->n_user && stack->user_end == key->user_end &&
	       same_frames(stack->frames, key->kernel, key->n_kernel) &&
	       same_frames(stack->frames + key->n_kernel, key->user, key->n_user);
}

static uint32_t stack_hash(const struct stack_key *key)
{
	uint64_t numbers[3] = {((uint64_t)key->maps_version << 32) | (uint64_t)key->n_kernel << 16 | key->n_user,
			       (uint64_t)key->user_end, 0};
	uint64_t seed = hash_seed();
	if (key->n_kernel)
		numbers[2] = hash_bytes(key->kernel, key->n_kernel * sizeof(uint64_t), seed);
	if (key->n_user)
		seed = hash_bytes(key->user, key->n_user * sizeof(uint64_t), seed);
	return (uint32_t)hash_bytes(numbers, sizeof(numbers), seed);
}

static bool cell_equal(const struct set_entry *entry, const void *key_)
{
	const struct cell *cell = (const struct cell *)entry;
	const struct cell_key *key = key_;
	return cell->stack == key->stack && cell->tid == key->tid && cell->code_ns == key->code_ns &&
	       memcmp(cell->comm, key->comm, sizeof(key->comm)) == 0;
}

static uint32_t cell_hash(const struct cell_key *key, uint32_t hash_of_stack)
{
	struct {
		uint32_t stack, tid;
		uint64_t code_ns;
		char comm[SAMPLE_COMM_BYTES];
	} bytes = {.stack = hash_of_stack, .tid = key->tid, .code_ns = key->code_ns};
	memcpy(bytes.comm, key->comm, sizeof(bytes.comm));
	return (uint32_t)hash_bytes(&bytes, sizeof(bytes), hash_seed());
}

static void fill_stack(struct stack *stack, const struct stack_key *key, size_t id)
{
	stack->maps_version = key->maps_version;
	stack->id = (uint32_t)id;
	stack->n_kernel = key->n_kernel;
	stack->n_user = key->n_user;
	stack->user_end = key->user_end;
	if (key->n_kernel)
		memcpy(stack->frames, key->kernel, key->n_kernel * sizeof(uint64_t));
	if (key->n_user)
		memcpy(stack->frames + key->n_kernel, key->user, key->n_user * sizeof(uint64_t));
}

/* A cell for cell_key, together with its stack when that is NULL in it. The memory of both comes in one piece, so that on
 * failure nothing is half added; and a stack lies beside its first cell. NULL: out of memory or budget. */
static struct cell *add_cell(struct epoch *epoch, struct cell_key *cell_key, uint32_t hash,
			     const struct stack_key *stack_key, uint32_t hash_of_stack)
{
	size_t stack_bytes = 0;
	if (!cell_key->stack) {
		if (epoch->stacks.n >= UINT32_MAX || set_reserve(&epoch->stacks, &epoch->heap) < 0)
			return NULL;
		stack_bytes =
			sizeof(struct stack) + ((size_t)stack_key->n_kernel + stack_key->n_user) * sizeof(uint64_t);
	}
	if (set_reserve(&epoch->cells, &epoch->heap) < 0)
		return NULL;
	struct cell *cell = arena_alloc(&epoch->arena, sizeof(*cell) + stack_bytes);
	if (!cell)
		return NULL;
	if (!cell_key->stack) {
		struct stack *stack = (struct stack *)(cell + 1);
		fill_stack(stack, stack_key, epoch->stacks.n);
		set_insert(&epoch->stacks, &stack->entry, hash_of_stack);
		cell_key->stack = stack;
	}
	*cell = (struct cell){.stack = cell_key->stack, .tid = cell_key->tid, .code_ns = cell_key->code_ns};
	memcpy(cell->comm, cell_key->comm, sizeof(cell->comm));
	set_insert(&epoch->cells, &cell->entry, hash);
	return cell;
}

/* The cell of a stack, added if need be; cell_key.stack is set here. NULL: out of memory or budget. */
static struct cell *intern(struct epoch *epoch, const struct stack_key *key, struct cell_key cell_key,
			   bool *ret_new_stack)
{
	uint32_t hash_of_stack = stack_hash(key);
	cell_key.stack = set_find(&epoch->stacks, hash_of_stack, stack_equal, key);
	bool new_stack = !cell_key.stack;
	uint32_t hash = cell_hash(&cell_key, hash_of_stack);
	struct cell *cell = new_stack ? NULL : set_find(&epoch->cells, hash, cell_equal, &cell_key);
	if (!cell)
		cell = add_cell(epoch, &cell_key, hash, key, hash_of_stack);
	if (cell)
		*ret_new_stack = new_stack;
	return cell;
}

static void add_to_totals(struct epoch_totals *totals, const struct sample *sample)
{
	/* Samples of several CPUs do not come strictly in the order of their time. */
	if (totals->samples == 0 || sample->time_ns < totals->first_ns)
		totals->first_ns = sample->time_ns;
	if (sample->time_ns > totals->last_ns)
		totals->last_ns = sample->time_ns;
	if (totals->samples == 0 || sample->maps_version < totals->oldest_maps_version)
		totals->oldest_maps_version = sample->maps_version;
	totals->samples++;
	totals->cpu_ns += sample->cpu_ns;
	totals->stack_ends[sample->user_end]++;
	totals->python_ends[sample->python_end]++;
}

int epoch_add(struct epoch *epoch, const struct sample *sample, bool *ret_new_stack)
{
	if ((unsigned)sample->n_kernel + sample->n_user > UINT16_MAX || (unsigned)sample->user_end >= STACK_END_COUNT)
		return -EINVAL;
	struct stack_key key = {
		.kernel = sample->kernel,
		.user = sample->user,
		.maps_version = sample->maps_version,
		.n_kernel = sample->n_kernel,
		.n_user = sample->n_user,
		.user_end = sample->user_end,
	};
	struct cell_key cell_key = {.tid = sample->tid, .code_ns = sample->code_ns};
	memcpy(cell_key.comm, sample->comm, strnlen(sample->comm, SAMPLE_COMM_BYTES));
	bool new_stack;
	struct cell *cell = intern(epoch, &key, cell_key, &new_stack);
	if (!cell)
		return -ENOMEM;
	cell->count++;
	cell->cpu_ns += sample->cpu_ns;
	add_to_totals(&epoch->totals, sample);
	if (ret_new_stack)
		*ret_new_stack = new_stack;
	return 0;
}

void epoch_totals(const struct epoch *epoch, struct epoch_totals *ret)
{
	*ret = epoch->totals;
	ret->bytes = sizeof(*epoch) + heap_bytes(&epoch->heap);
	ret->n_stacks = epoch->stacks.n;
}

void epoch_totals_add(struct epoch_totals *sum, const struct epoch_totals *part)
{
	sum->bytes += part->bytes;
	if (part->samples == 0)
		return;
	if (sum->samples == 0 || part->first_ns < sum->first_ns)
		sum->first_ns = part->first_ns;
	if (part->last_ns > sum->last_ns)
		sum->last_ns = part->last_ns;
	if (sum->samples == 0 || part->oldest_maps_version < sum->oldest_maps_version)
		sum->oldest_maps_version = part->oldest_maps_version;
	sum->samples += part->samples;
	sum->cpu_ns += part->cpu_ns;
	sum->n_stacks += part->n_stacks;
	for (size_t i = 0; i < STACK_END_COUNT; i++)
		sum->stack_ends[i] += part->stack_ends[i];
	for (size_t i = 0; i < PYTHON_END_COUNT; i++)
		sum->python_ends[i] += part->python_ends[i];
}

struct epoch *epoch_copy(const struct epoch *epoch)
{
	struct epoch *copy = epoch_new(SIZE_MAX);
	if (!copy)
		return NULL;
	for (const struct set_entry *entry = epoch->cells.first; entry; entry = entry->next) {
		const struct cell *from = (const struct cell *)entry;
		const struct stack *stack = from->stack;
		struct stack_key key = {
			.kernel = stack->frames,
			.user = stack->frames + stack->n_kernel,
			.maps_version = stack->maps_version,
			.n_kernel = stack->n_kernel,
			.n_user = stack->n_user,
			.user_end = stack->user_end,
		};
		struct cell_key cell_key = {.tid = from->tid, .code_ns = from->code_ns};
		memcpy(cell_key.comm, from->comm, sizeof(cell_key.comm));
		bool new_stack;
		struct cell *to = intern(copy, &key, cell_key, &new_stack);
		if (!to) {
			epoch_unref(copy);
			return NULL;
		}
		to->count = from->count;
		to->cpu_ns = from->cpu_ns;
	}
	copy->totals = epoch->totals;
	return copy;
}
