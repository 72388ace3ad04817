/* The barriers of a stack: an array ascending by slot, of which pos .. n-1 are installed. Younger frames lie lower, so a new barrier of
 * a young frame goes before pos: into the room that returned ones left. When there is no room at one end, all move to the middle. */
#include "internal.h"

struct sprof_barrier *sprof_barriers(struct sprof_table *table, const struct sprof_stack *stack)
{
	if (!table || !stack)
		return NULL;
	return (struct sprof_barrier *)((char *)table->header + stack->off_barrier);
}

static void put(struct sprof_barrier *barrier, uint64_t slot, uint64_t original_pc)
{
	SPROF_STORE(barrier->slot, slot);
	SPROF_STORE(barrier->original_pc, original_pc);
}

/* Moves the installed barriers so that the first is at place `to`. */
static void shift(struct sprof_barrier *barriers, struct sprof_stack *stack, uint32_t to)
{
	uint32_t pos = (uint32_t)SPROF_LOAD(stack->pos), n = stack->n - pos;
	if (to < pos)
		for (uint32_t i = 0; i < n; i++)
			put(&barriers[to + i], barriers[pos + i].slot, barriers[pos + i].original_pc);
	else
		for (uint32_t i = n; i-- > 0;)
			put(&barriers[to + i], barriers[pos + i].slot, barriers[pos + i].original_pc);
	SPROF_STORE(stack->pos, to);
	SPROF_STORE(stack->n, to + n);
}

static int full(struct sprof_table *table)
{
	if (table)
		count(&table->barriers_refused);
	return -ENOSPC;
}

int sprof_barrier_append(struct sprof_table *table, struct sprof_stack *stack, uint64_t slot, uint64_t original_pc)
{
	struct sprof_barrier *barriers = sprof_barriers(table, stack);
	if (!barriers || stack->n - SPROF_LOAD(stack->pos) >= stack->cap)
		return full(table);
	if (stack->n > SPROF_LOAD(stack->pos) && barriers[stack->n - 1].slot >= slot)
		return -EINVAL;
	if (stack->n == stack->cap)
		shift(barriers, stack, (uint32_t)SPROF_LOAD(stack->pos) / 2);
	put(&barriers[stack->n], slot, original_pc);
	SPROF_STORE(stack->n, stack->n + 1);
	return 0;
}

int sprof_barrier_push(struct sprof_table *table, struct sprof_stack *stack, uint64_t slot, uint64_t original_pc)
{
	struct sprof_barrier *barriers = sprof_barriers(table, stack);
	if (!barriers || stack->n - SPROF_LOAD(stack->pos) >= stack->cap)
		return full(table);
	if (stack->n > SPROF_LOAD(stack->pos) && barriers[SPROF_LOAD(stack->pos)].slot <= slot)
		return -EINVAL;
	if (SPROF_LOAD(stack->pos) == 0)
		shift(barriers, stack, (stack->cap - stack->n + 1) / 2);
	uint64_t pos = SPROF_LOAD(stack->pos) - 1;
	put(&barriers[pos], slot, original_pc);
	SPROF_STORE(stack->pos, pos);
	return 0;
}

int sprof_barrier_peek(struct sprof_table *table, const struct sprof_stack *stack, struct sprof_barrier *ret)
{
	const struct sprof_barrier *barriers = sprof_barriers(table, stack);
	if (!barriers || SPROF_LOAD(stack->pos) >= stack->n)
		return 0;
	*ret = barriers[SPROF_LOAD(stack->pos)];
	return 1;
}

int sprof_barrier_pop(struct sprof_table *table, struct sprof_stack *stack, struct sprof_barrier *ret)
{
	int there = sprof_barrier_peek(table, stack, ret);
	if (there)
		SPROF_STORE(stack->pos, SPROF_LOAD(stack->pos) + 1);
	return there;
}

int sprof_barrier_replace(struct sprof_table *table, struct sprof_stack *stack, uint64_t original_pc)
{
	struct sprof_barrier *barriers = sprof_barriers(table, stack);
	if (!barriers || SPROF_LOAD(stack->pos) >= stack->n)
		return -ENOENT;
	SPROF_STORE(barriers[SPROF_LOAD(stack->pos)].original_pc, original_pc);
	return 0;
}

uint32_t sprof_barrier_unwind(struct sprof_table *table, struct sprof_stack *stack, uint64_t sp)
{
	const struct sprof_barrier *barriers = sprof_barriers(table, stack);
	uint32_t removed = 0;
	if (!barriers)
		return 0;
	uint64_t pos = SPROF_LOAD(stack->pos);
	while (pos + removed < stack->n && barriers[pos + removed].slot < sp)
		removed++;
	SPROF_STORE(stack->pos, pos + removed);
	return removed;
}

void sprof_barrier_clear(struct sprof_stack *stack)
{
	if (!stack)
		return;
	SPROF_STORE(stack->n, 0);
	SPROF_STORE(stack->pos, 0);
}
