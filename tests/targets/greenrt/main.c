/* greenrt --seconds=N --threads=N --stacks=N --barriers=none|doubling|every [--no-table]
 *         [--depth=N] of recursions  [--pause-us=N] of the collector between stacks  [--hold-us=N] how long it keeps a stack's lock
 * Runs --stacks green threads on --threads threads, with a collector beside them; at its end prints, as JSON, the true share of each
 * function of the call graph in work.c, and what the runtime did. --no-table: nothing is published, and of what is only for a profiler to see nothing is written. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "green.h"

#include "target.h"
#include "worker.h"

enum { MAX_THREADS = 64, MAX_STACKS = 1000, MAX_DEPTH = 1000, FRAME_BYTES = 256 };

static long seconds = 5, threads = 2, stacks = 8, depth = 24, pause_us = 300, hold_us;
static enum green_barriers barriers = BARRIERS_DOUBLING;
static bool no_table;
static struct green greens[MAX_STACKS];
static struct green *items[MAX_STACKS];
static struct green_worker workers[MAX_THREADS];
static struct green_queue queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .items = items};

/* Takes out what is not --name=NUMBER. */
static int parse_words(int argc, char **argv)
{
	static const char *const names[] = {"--barriers=none", "--barriers=doubling", "--barriers=every"};
	int kept = 1;
	for (int i = 1; i < argc; i++) {
		bool known = strcmp(argv[i], "--no-table") == 0;
		no_table |= known;
		for (int b = 0; b < 3; b++)
			if (strcmp(argv[i], names[b]) == 0) {
				barriers = (enum green_barriers)b;
				known = true;
			}
		if (!known)
			argv[kept++] = argv[i];
	}
	return kept;
}

static void add_range(uint32_t kind, uint64_t lo, uint64_t hi, int32_t cfa_offset)
{
	const struct sprof_range range = {.lo = lo,
					  .hi = hi,
					  .kind = kind,
					  .entry_offset = (int32_t)((uintptr_t)green_trampoline - lo),
					  .cfa_offset = cfa_offset};
	if (sprof_range_add(green_table, &range) < 0)
		target_die("sprof_range_add");
}

static void publish(void)
{
	const struct sprof_options options = {.size = sizeof(options),
					      .flags = no_table ? SPROF_OPEN_PRIVATE : 0,
					      .threads = MAX_THREADS * 4,
					      .stacks = MAX_STACKS + MAX_THREADS,
					      .barriers = (uint32_t)depth + 64};
	static const int32_t pushed[9] = {0, 8, 16, 24, 32, 24, 16, 8, 0};
	if (sprof_open(&options, &green_table) < 0)
		target_die("sprof_open");
	if (!no_table && strcmp(sprof_status_text(green_table), "ok") != 0)
		(void)fprintf(stderr, "greenrt: %s\n", sprof_status_text(green_table));
	for (int i = 0; i < 9; i++)
		add_range(SPROF_RANGE_TRAMPOLINE, green_trampoline_parts[i], green_trampoline_parts[i + 1], pushed[i]);
	add_range(SPROF_RANGE_SETS_SP, (uintptr_t)green_switch_begin, (uintptr_t)green_switch_end, 0);
	add_range(SPROF_RANGE_SETS_SP, (uintptr_t)__start_green_library, (uintptr_t)__stop_green_library, 0);
	add_range(SPROF_RANGE_STACK_TOP, (uintptr_t)green_first, (uintptr_t)green_entry_end, 0);
}

static void *work(void *argument)
{
	struct green_worker *worker = argument;
	pthread_attr_t attr;
	void *lo = NULL;
	size_t bytes = 0;
	sigset_t all;
	sigfillset(&all); /* a handler would need room on a green stack */
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	worker->thread = no_table ? NULL : sprof_thread_attach(green_table);
	if (pthread_getattr_np(pthread_self(), &attr) == 0) {
		pthread_attr_getstack(&attr, &lo, &bytes);
		pthread_attr_destroy(&attr);
	}
	worker->system = sprof_stack_add(green_table, (uintptr_t)lo, (uintptr_t)lo + bytes);
	uint32_t step = sprof_begin(worker->thread);
	sprof_set_system(worker->thread, worker->system);
	sprof_set_current(worker->thread, worker->system);
	sprof_end(worker->thread, step);
	__atomic_store_n(&worker->tid, target_tid(), __ATOMIC_RELEASE);
	green_schedule(worker);
	worker->cpu_ns = target_thread_cpu_ns();
	sprof_thread_detach(worker->thread);
	return NULL;
}

static uint64_t sum(size_t offset)
{
	uint64_t total = 0;
	for (long i = 0; i < stacks; i++)
		total += *(const uint64_t *)(const void *)((const char *)&greens[i] + offset);
	return total;
}
#define SUM(field) ((unsigned long)sum(offsetof(struct green, field)))

static void print_shares(void)
{
	uint64_t total = 0, of[GREEN_NODES] = {0};
	const char *comma = "";
	for (int node = 0; node < GREEN_NODES; node++) {
		of[node] = sum(offsetof(struct green, iterations) + (size_t)node * sizeof(uint64_t));
		total += of[node];
	}
	printf(", \"iterations\": %lu, \"shares\": {", (unsigned long)total);
	for (int node = 0; node < GREEN_NODES && green_names[node]; node++, comma = ", ")
		printf("%s\"%s\": %.6f", comma, green_names[node], total ? (double)of[node] / (double)total : 0);
	printf("}}\n");
}

static void print_truth(const struct green_collector *collector)
{
	static const char *const names[] = {"none", "doubling", "every"};
	uint64_t cpu_ns = 0, hits = 0;
	for (long i = 0; i < threads; i++)
		cpu_ns += workers[i].cpu_ns;
	for (long i = 0; i < stacks; i++)
		hits += greens[i].hits;
	printf("{\"threads\": %ld, \"stacks\": %ld, \"barriers\": \"%s\", \"published\": %s, \"cpu_ns\": %lu", threads,
	       stacks, names[barriers], no_table ? "false" : "true", (unsigned long)cpu_ns);
	printf(", \"barriers_installed\": %lu, \"barriers_full\": %lu, \"barrier_hits\": %lu, \"helper_calls\": %lu",
	       (unsigned long)collector->installed, (unsigned long)collector->full, (unsigned long)hits,
	       SUM(helper_calls));
	printf(", \"moves\": %lu, \"growths\": %lu, \"panics\": %lu, \"callbacks\": %lu, \"rounds\": %lu, "
	       "\"foreign_rounds\": %lu",
	       SUM(moves), SUM(growths), SUM(panics), SUM(callbacks), SUM(rounds), SUM(foreign_rounds));
	printf(", \"held_ns\": %lu, \"foreign_held_ns\": %lu, \"held_share\": %.6f", (unsigned long)collector->held_ns,
	       SUM(foreign_held_ns),
	       cpu_ns ? (double)sum(offsetof(struct green, foreign_held_ns)) / (double)cpu_ns : 0);
	print_shares();
}

/* With the workers' tids: they run green threads, and nothing else does. */
static void say_ready(void)
{
	char more[MAX_THREADS * 12 + 32] = "\"workers\": [";
	for (long i = 0; i < threads; i++) {
		int tid = 0;
		while ((tid = __atomic_load_n(&workers[i].tid, __ATOMIC_ACQUIRE)) == 0)
			target_sleep_us(100);
		size_t n = strlen(more);
		(void)snprintf(more + n, sizeof(more) - n, "%s%d%s", i ? ", " : "", tid, i + 1 < threads ? "" : "]");
	}
	target_ready(more);
}

int main(int argc, char **argv)
{
	const struct target_flag flags[] = {{"seconds", &seconds}, {"threads", &threads},   {"stacks", &stacks},
					    {"depth", &depth},     {"pause-us", &pause_us}, {"hold-us", &hold_us}};
	argc = parse_words(argc, argv);
	if (target_parse(argc, argv, flags, 6) < argc || threads < 1 || threads > MAX_THREADS || stacks < 1 ||
	    stacks > MAX_STACKS || depth < 1 || depth > MAX_DEPTH || pause_us < 0 || pause_us >= 1000000 ||
	    hold_us < 0 || hold_us >= 1000000 || seconds < 0) {
		(void)fprintf(
			stderr,
			"usage: greenrt --seconds=N --threads=1..%d --stacks=1..%d --barriers=none|doubling|every "
			"[--no-table] [--depth=1..%d] [--pause-us=N] [--hold-us=N]\n",
			MAX_THREADS, MAX_STACKS, MAX_DEPTH);
		return 2;
	}
	green_depth = (uint64_t)depth;
	while (green_max_bytes < 65536 + green_depth * FRAME_BYTES)
		green_max_bytes = green_max_bytes ? 2 * green_max_bytes : GREEN_MIN_BYTES;
	publish();
	queue.capacity = stacks;
	for (long i = 0; i < stacks; i++) {
		greens[i].random = (uint64_t)i;
		green_start(&greens[i]);
		queue_put(&queue, &greens[i]);
	}
	target_begin(seconds);
	struct green_collector collector = {
		.barriers = barriers, .greens = greens, .n = stacks, .pause_us = pause_us, .hold_us = hold_us};
	pthread_t id;
	if (pthread_create(&id, NULL, green_collect, &collector) != 0)
		target_die("pthread_create");
	for (long i = 0; i < threads; i++) {
		workers[i].queue = &queue;
		workers[i].stop = &target_stop;
		if (pthread_create(&workers[i].id, NULL, work, &workers[i]) != 0)
			target_die("pthread_create");
	}
	say_ready();
	for (long i = 0; i < threads; i++)
		pthread_join(workers[i].id, NULL);
	pthread_join(id, NULL);
	print_truth(&collector);
	return 0;
}
