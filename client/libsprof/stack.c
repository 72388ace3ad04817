/* Places for stacks. Which are taken is known from a bitmap in private memory; what a place holds is covered by its lock. */
#include "internal.h"

/* Lowest first, so that what fork copies stays small. */
static bool take_place(struct sprof_table *table, uint32_t *ret)
{
	for (uint32_t word = 0; word * 64 < table->cap_stack; word++) {
		uint64_t taken = __atomic_load_n(&table->used[word], __ATOMIC_RELAXED);
		while (~taken != 0) {
			uint32_t bit = (uint32_t)__builtin_ctzll(~taken), i = word * 64 + bit;
			if (i >= table->cap_stack)
				return false;
			taken = __atomic_fetch_or(&table->used[word], 1ull << bit, __ATOMIC_ACQ_REL);
			if (taken >> bit & 1)
				continue;
			/* Only fork may hold the lock of a place that is not in use: then it is passed by, not waited for. */
			if (sprof_trylock(&table->stacks[i])) {
				*ret = i;
				return true;
			}
			bit_clear(table->used, i);
			taken |= 1ull << bit;
		}
	}
	return false;
}

static void raise_stacks_used(struct sprof_table *table, uint32_t n)
{
	uint32_t old = SPROF_LOAD(table->stacks_used);
	while (old < n &&
	       !__atomic_compare_exchange_n(&table->stacks_used, &old, n, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		;
}

static void set_bounds(struct sprof_stack *stack, uint64_t lo, uint64_t hi)
{
	SPROF_STORE(stack->lo, lo);
	SPROF_STORE(stack->hi, hi);
}

struct sprof_stack *sprof_stack_add(struct sprof_table *table, uint64_t lo, uint64_t hi)
{
	uint32_t i = 0;
	if (!table || lo >= hi)
		return NULL;
	if (!take_place(table, &i)) {
		count(&table->stacks_refused);
		return NULL;
	}
	struct sprof_stack *stack = &table->stacks[i];
	set_bounds(stack, lo, hi);
	raise_stacks_used(table, i + 1);
	sprof_unlock(stack);
	return stack;
}

void sprof_stack_remove(struct sprof_table *table, struct sprof_stack *stack)
{
	if (!table || !stack)
		return;
	sprof_lock(stack);
	set_bounds(stack, 0, 0);
	sprof_barrier_clear(stack);
	SPROF_STORE(stack->owner_tid, 0);
	sprof_set_resumer(stack, NULL, 0, 0, 0);
	uint32_t gen = stack->self.gen + 1;
	SPROF_STORE(stack->self.gen, gen ? gen : 1);
	sprof_unlock(stack);
	bit_clear(table->used, stack->self.index);
}

struct bounds {
	uint64_t lo, hi;
};

static void move_context(struct sprof_context *context, struct bounds old, uint64_t delta)
{
	uint64_t sp = SPROF_LOAD(context->sp), fp = SPROF_LOAD(context->fp);
	if (sp >= old.lo && sp <= old.hi)
		SPROF_STORE(context->sp, sp + delta);
	if (fp >= old.lo && fp <= old.hi)
		SPROF_STORE(context->fp, fp + delta);
}

static void move_owners_contexts(struct sprof_table *table, const struct sprof_stack *stack, struct bounds old,
				 uint64_t delta)
{
	uint32_t tid = SPROF_LOAD(stack->owner_tid);
	struct sprof_thread *owner = tid ? thread_find(table, tid) : NULL;
	uint64_t self = sprof_ref_load_(&stack->self);
	if (!owner)
		return;
	if (sprof_ref_load_(&owner->foreign) == self)
		move_context(&owner->foreign_context, old, delta);
	if (sprof_ref_load_(&owner->user) == self)
		move_context(&owner->jump_context, old, delta);
	if (sprof_ref_load_(&owner->libcall) == self)
		move_context(&owner->libcall_context, old, delta);
}

void sprof_stack_move(struct sprof_table *table, struct sprof_stack *stack, uint64_t lo, uint64_t hi)
{
	if (!table || !stack || lo >= hi)
		return;
	struct bounds old = {.lo = stack->lo, .hi = stack->hi};
	uint64_t delta = hi - old.hi;
	struct sprof_barrier *barriers = sprof_barriers(table, stack);
	for (uint64_t i = SPROF_LOAD(stack->pos); i < stack->n; i++)
		SPROF_STORE(barriers[i].slot, barriers[i].slot + delta);
	set_bounds(stack, lo, hi);
	move_owners_contexts(table, stack, old, delta);
}
