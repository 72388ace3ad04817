/* Burns CPU at the bottom of --depth=N frames: --table=1 with its stack in a barrier-lock table, --barriers=1 with each return address of them
 * hijacked. The threads never return, so that nothing has to be put back. */
#include <pthread.h>
#include <stdio.h>

#include <sprof/sprof.h>

#include "target.h"

enum { MAX_DEPTH = 1000 };

static long depth = 10, with_table, with_barriers;
static struct sprof_table *table;
static volatile int ready, over;

/* Where hijacked returns lead, or would. */
TARGET_NOINLINE static void table_trampoline(void)
{
	TARGET_OWN_FRAME(table_trampoline);
}

static void publish(uint64_t fp)
{
	const struct sprof_options options = {.size = sizeof(options), .barriers = MAX_DEPTH};
	const struct sprof_range trampoline = {.lo = (uintptr_t)table_trampoline,
					       .hi = (uintptr_t)table_trampoline + 1,
					       .kind = SPROF_RANGE_TRAMPOLINE};
	if (sprof_open(&options, &table) < 0 || sprof_range_add(table, &trampoline) < 0)
		target_die("sprof_open");
	pthread_attr_t attr;
	void *lo = NULL;
	size_t bytes = 0;
	if (pthread_getattr_np(pthread_self(), &attr) != 0 || pthread_attr_getstack(&attr, &lo, &bytes) != 0)
		target_die("pthread_getattr_np");
	struct sprof_stack *stack = sprof_stack_add(table, (uintptr_t)lo, (uintptr_t)lo + bytes);
	struct sprof_thread *thread = sprof_thread_attach(table);
	uint32_t step = sprof_begin(thread);
	sprof_set_user(thread, stack);
	sprof_set_current(thread, stack);
	sprof_end(thread, step);
	for (long i = 0; with_barriers && i < depth - 1; i++) {
		uint64_t *record = (uint64_t *)(uintptr_t)fp; // NOLINT(performance-no-int-to-ptr)
		if (sprof_barrier_append(table, stack, fp + 8, record[1]) < 0)
			target_die("sprof_barrier_append");
		record[1] = (uintptr_t)table_trampoline;
		fp = record[0];
	}
}

TARGET_NOINLINE static void deep_leaf(void)
{
	if (with_table)
		publish((uintptr_t)__builtin_frame_address(0));
	ready = 1;
	while (!over)
		target_burn(1000000);
	TARGET_OWN_FRAME(deep_leaf);
}

TARGET_NOINLINE static void deep_frame(long left) // NOLINT(misc-no-recursion)
{
	if (left > 1)
		deep_frame(left - 1);
	else
		deep_leaf();
	TARGET_OWN_FRAME(deep_frame);
}

static void *burn(void *unused)
{
	deep_frame(depth - 1);
	return unused;
}

int main(int argc, char **argv)
{
	const struct target_flag flags[] = {{"depth", &depth}, {"table", &with_table}, {"barriers", &with_barriers}};
	pthread_t id;
	if (target_parse(argc, argv, flags, 3) < argc || depth < 2 || depth > MAX_DEPTH) {
		(void)fprintf(stderr, "usage: table_deep --depth=2..%d [--table] [--barriers]\n", MAX_DEPTH);
		return 2;
	}
	target_begin(0);
	if (pthread_create(&id, NULL, burn, NULL) != 0)
		target_die("pthread_create");
	while (!ready)
		target_sleep_us(1000);
	target_ready(NULL);
	while (!target_over())
		target_sleep_us(50000);
	return 0;
}
