/* What the operations of libsprof cost: rounds of each beside rounds of the same loop without it, in turn. Prints one object of JSON:
 * {"lock": {"with": [ns per operation, ...], "without": [...]}, ...}. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <sprof/sprof.h>

enum { ROUNDS = 400, OPERATIONS = 20000, BARRIERS = 32 };

static struct sprof_table *table;
static struct sprof_thread *thread;
static struct sprof_stack *stacks[2];
static struct sprof_barrier *barriers;

static void keep(void)
{
	__asm__ volatile("" : : : "memory");
}

static void nothing(int n)
{
	for (int i = 0; i < n; i++)
		keep();
}

static void lock_pairs(int n)
{
	for (int i = 0; i < n; i++) {
		sprof_lock(stacks[0]);
		keep();
		sprof_unlock(stacks[0]);
	}
}

static void switches(int n)
{
	for (int i = 0; i < n; i++) {
		sprof_switch_begin(thread, stacks[i & 1], stacks[~i & 1]);
		keep();
		sprof_switch_end(thread);
	}
}

static void foreign_calls(int n)
{
	for (int i = 0; i < n; i++) {
		sprof_foreign_enter(thread, stacks[0], 0x401000, 0x7000, 0x7010);
		keep();
		sprof_foreign_leave(thread);
	}
}

/* What any runtime with barriers must do: find the next one, and be done with it. */
struct own_stack {
	const struct sprof_barrier *barriers;
	uint64_t pos, n;
};
static struct own_stack own;

static uint64_t __attribute__((noinline)) own_hit(struct own_stack *stack, uint64_t slot)
{
	for (uint64_t i = stack->pos; i < stack->n; i++)
		if (stack->barriers[i].slot == slot) {
			stack->pos = i + 1;
			return stack->barriers[i].original_pc;
		}
	return 0;
}

static uint64_t __attribute__((noinline)) table_hit(struct sprof_stack *stack, uint64_t slot)
{
	return sprof_barrier_hit(stack, barriers, slot);
}

static void hits(int n)
{
	for (int i = 0; i < n; i++) {
		if (i % BARRIERS == 0)
			SPROF_STORE(stacks[0]->pos, 0);
		if (table_hit(stacks[0], barriers[i % BARRIERS].slot) == 0)
			abort();
	}
}

static void own_hits(int n)
{
	for (int i = 0; i < n; i++) {
		if (i % BARRIERS == 0)
			own.pos = 0;
		if (own_hit(&own, barriers[i % BARRIERS].slot) == 0)
			abort();
	}
}

static double ns_per_operation(void (*run)(int))
{
	struct timespec before, after;
	clock_gettime(CLOCK_MONOTONIC, &before);
	run(OPERATIONS);
	clock_gettime(CLOCK_MONOTONIC, &after);
	return ((double)(after.tv_sec - before.tv_sec) * 1e9 + (double)(after.tv_nsec - before.tv_nsec)) / OPERATIONS;
}

static void measure(const char *name, void (*with)(int), void (*without)(int), const char *before)
{
	static double ns[2][ROUNDS];
	for (int i = 0; i < ROUNDS; i++) {
		ns[0][i] = ns_per_operation(with);
		ns[1][i] = ns_per_operation(without);
	}
	printf("%s\"%s\": {", before, name);
	for (int w = 0; w < 2; w++) {
		printf("%s: [", w ? ", \"without\"" : "\"with\"");
		for (int i = 0; i < ROUNDS; i++)
			printf("%s%.3f", i ? ", " : "", ns[w][i]);
		printf("]");
	}
	printf("}");
}

int main(void)
{
	static char memory[2][65536];
	if (sprof_open(NULL, &table) < 0)
		return 1;
	thread = sprof_thread_attach(table);
	for (int i = 0; i < 2; i++)
		stacks[i] = sprof_stack_add(table, (uintptr_t)memory[i], (uintptr_t)memory[i] + sizeof(memory[i]));
	barriers = sprof_barriers(table, stacks[0]);
	for (uint64_t i = 0; i < BARRIERS; i++)
		if (sprof_barrier_append(table, stacks[0], (uintptr_t)memory[0] + 64 * i, 0x401000 + i) < 0)
			return 1;
	own = (struct own_stack){.barriers = barriers, .n = BARRIERS};
	printf("{\"status\": \"%s\"", sprof_status_text(table));
	measure("lock and unlock", lock_pairs, nothing, ", ");
	measure("switch of stacks", switches, nothing, ", ");
	measure("foreign call", foreign_calls, nothing, ", ");
	measure("barrier hit", hits, own_hits, ", ");
	printf("}\n");
	return 0;
}
