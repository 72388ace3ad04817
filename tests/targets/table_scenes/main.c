/* table_scenes SCENE: puts one thread, the actor, into the state that SCENE names, and keeps it busy there until SIGTERM. At SIGUSR1 a
 * scene that has a second part goes on with it. Says {"ready": PID, "tid": of the actor} first, {"part": 2} then.
 * Without SCENE it lists them. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "scene.h"

#include "target.h"

struct sprof_table *scene_table;
struct sprof_thread *scene_record;
struct made_stack a, b, c, system_stack, native, above;
const struct scene *scene_playing;

static volatile int actor_tid, parts_played;
static pthread_t actor_id;
static char signal_stack[65536];

const struct scene *scene_find(const char *name)
{
	const struct scene *const lists[] = {scenes_still, scenes_moving};
	for (int i = 0; i < 2; i++)
		for (const struct scene *s = lists[i]; s->name; s++)
			if (strcmp(s->name, name) == 0)
				return s;
	return NULL;
}

static void list_scenes(void)
{
	const struct scene *const lists[] = {scenes_still, scenes_moving};
	for (int i = 0; i < 2; i++)
		for (const struct scene *s = lists[i]; s->name; s++)
			puts(s->name);
}

/* From low to high addresses, with gaps. */
static void make_memory(void)
{
	struct made_stack *const stacks[] = {&native, &system_stack, &a, &b, &c, &above};
	enum { N = 6, GAP = 65536 };
	char *memory = mmap(NULL, (size_t)N * (STACK_BYTES + GAP), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		target_die("mmap");
	for (size_t i = 0; i < N; i++) {
		stacks[i]->lo = address_of(memory) + i * (STACK_BYTES + GAP);
		stacks[i]->hi = stacks[i]->lo + STACK_BYTES;
	}
	make_all_chains();
}

static void add_range(uint32_t kind, uint64_t lo, uint64_t hi, int32_t cfa_offset, uint16_t cfa_register,
		      int16_t fp_offset)
{
	const struct sprof_range range = {.lo = lo,
					  .hi = hi,
					  .kind = kind,
					  .entry_offset = (int32_t)(address_of(scene_trampoline) - lo),
					  .cfa_offset = cfa_offset,
					  .cfa_register = cfa_register,
					  .fp_offset = fp_offset};
	if (sprof_range_add(scene_table, &range) < 0)
		target_die("sprof_range_add");
}

enum { TRAMPOLINE_RANGES = 5 }; /* and the first that are added */

static void add_ranges(void)
{
	const uint64_t *part = scene_trampoline_parts;
	add_range(SPROF_RANGE_TRAMPOLINE, part[0], part[1], 0, SPROF_CFA_SP, 0);
	add_range(SPROF_RANGE_TRAMPOLINE, part[1], part[2], 8, SPROF_CFA_SP, 0);
	add_range(SPROF_RANGE_TRAMPOLINE, part[2], part[3], 16, SPROF_CFA_SP, 0);
	add_range(SPROF_RANGE_TRAMPOLINE, part[3], part[4], 8, SPROF_CFA_SP, -8);
	add_range(SPROF_RANGE_TRAMPOLINE, part[4], part[5], 8, SPROF_CFA_FP, -8);
	add_range(SPROF_RANGE_STACK_TOP, address_of(scene_stack_top), address_of(scene_native_top), 0, 0, 0);
	add_range(SPROF_RANGE_SETS_SP, address_of(scene_switch), address_of(scene_before_trampoline), 0, 0, 0);
}

void scene_use_other_trampoline(void)
{
	for (int i = 0; i < TRAMPOLINE_RANGES; i++)
		sprof_range_remove(scene_table, i);
	scene_entry = scene_other_trampoline;
	const struct sprof_range range = {
		.lo = address_of(scene_entry), .hi = address_of(scene_entry) + 16, .kind = SPROF_RANGE_TRAMPOLINE};
	if (sprof_range_add(scene_table, &range) < 0)
		target_die("sprof_range_add");
}

void scene_publish(uint32_t threads)
{
	struct made_stack *const stacks[] = {&a, &b, &c, &system_stack};
	const struct sprof_options options = {
		.size = sizeof(options), .threads = threads, .stacks = 64, .barriers = 64};
	if (sprof_open(&options, &scene_table) < 0)
		target_die("sprof_open");
	if (strcmp(sprof_status_text(scene_table), "ok") != 0)
		(void)fprintf(stderr, "table_scenes: %s\n", sprof_status_text(scene_table));
	add_ranges();
	for (int i = 0; i < 4; i++)
		stacks[i]->stack = sprof_stack_add(scene_table, stacks[i]->lo, stacks[i]->hi);
}

void scene_in_place(void)
{
	parts_played++;
}

static void *act(void *unused)
{
	sigset_t all;
	(void)unused;
	sigfillset(&all);
	sigdelset(&all, SIGUSR2);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	const stack_t alternate = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};
	sigaltstack(&alternate, NULL);
	actor_tid = target_tid();
	scene_record = sprof_thread_attach(scene_table);
	scene_playing->act();
	return NULL;
}

/* In the actor, on its alternate stack, which it leaves for good. */
static void on_usr2(int number)
{
	(void)number;
	scene_playing->then();
}

/* SIGTERM and SIGUSR1 are for the first thread, which waits for them: it must not appear in the profile. */
static sigset_t install_handlers(void)
{
	struct sigaction usr2 = {.sa_handler = on_usr2, .sa_flags = SA_ONSTACK | SA_NODEFER};
	sigset_t waited;
	sigaction(SIGUSR2, &usr2, NULL);
	sigemptyset(&waited);
	sigaddset(&waited, SIGTERM);
	sigaddset(&waited, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &waited, NULL); /* an execution may have kept the actor's */
	return waited;
}

static void wait_in_place(int parts)
{
	while (parts_played < parts)
		target_sleep_us(200);
	target_sleep_us(200); /* and a few instructions more */
}

static void start(void)
{
	pthread_t meddler;
	if (pthread_create(&actor_id, NULL, act, NULL) != 0)
		target_die("pthread_create");
	wait_in_place(1);
	if (scene_playing->hold)
		scene_playing->hold();
	if (scene_playing->meddle && pthread_create(&meddler, NULL, scene_playing->meddle, NULL) != 0)
		target_die("pthread_create");
}

static void play_second_part(void)
{
	if (!scene_playing->then)
		return;
	pthread_kill(actor_id, SIGUSR2);
	wait_in_place(parts_played + 1);
	printf("{\"part\": %d}\n", parts_played);
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	char more[64];
	if (argc == 1) {
		list_scenes();
		return 0;
	}
	scene_playing = scene_find(argv[1]);
	if (!scene_playing || argc != 2) {
		(void)fprintf(stderr, "usage: table_scenes [SCENE]; without, it lists them\n");
		return 2;
	}
	make_memory();
	sigset_t waited = install_handlers();
	if (!scene_playing->without_table)
		scene_publish(64);
	start();
	(void)snprintf(more, sizeof(more), "\"tid\": %d, \"child\": %d", actor_tid, scene_child);
	target_ready(more);
	for (int number = 0; sigwait(&waited, &number) == 0 && number == SIGUSR1;)
		play_second_part();
	printf("{\"scene\": \"%s\"}\n", scene_playing->name);
	(void)fflush(stdout);
	_Exit(0);
}
