/* Scenes in which something changes: the table while it is read, or the program while it is profiled. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"

#include "target.h"

int scene_child;

/* --- What is re-checked is what was taken (T5, rules 7 and 16) ----------------------------------------------------------------- */

enum { DEEP = 40, DISTANCE = 1536, DWELL = 1500 };

static void pin(unsigned which)
{
	cpu_set_t allowed, one;
	unsigned seen = 0;
	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && seen++ == which)
			CPU_SET(cpu, &one);
	if (CPU_COUNT(&one) == 1)
		sched_setaffinity(0, sizeof(one), &one);
}

static void rewrite(const char *function)
{
	sprof_lock(a.stack);
	refill_deep(&a, function);
	target_burn(DWELL); /* and is still inside */
	sprof_unlock(a.stack);
}

static void make_deep_stacks(void)
{
	pin(0);
	make_deep(&a, scene_first, DEEP, DISTANCE);
	make_deep(&b, scene_b_mid, DEEP, DISTANCE);
}

/* The foreign context is in a or in b, and only while it is in b, a changes; the versions of both are equal then. */
static void between_two_stacks(void)
{
	make_deep_stacks();
	set_refs(&system_stack, NULL, &system_stack);
	own(&b);
	enter_foreign(&a, scene_caller);
	run_in(&system_stack, scene_system_leaf);
}

static void refer_to(const struct made_stack *s)
{
	struct sprof_context at = context_in(s, scene_caller);
	uint32_t step = sprof_begin(scene_record);
	sprof_ref_store_(&scene_record->foreign, s->stack);
	sprof_context_store_(&scene_record->foreign_context, at.pc, at.sp, at.fp);
	sprof_end(scene_record, step);
}

static void *meddle_with_refs(void *unused)
{
	pin(1);
	while (a.stack->seq_end != b.stack->seq_end) {
		struct sprof_stack *behind = a.stack->seq_end < b.stack->seq_end ? a.stack : b.stack;
		sprof_lock(behind);
		sprof_unlock(behind);
	}
	for (unsigned i = 0; !target_stop; i++) {
		refer_to(&a);
		target_burn(DWELL);
		refer_to(&b);
		rewrite(i & 1 ? scene_first : scene_second);
		sprof_lock(b.stack);
		sprof_unlock(b.stack);
		target_burn(DWELL);
	}
	return unused;
}

/* The same stack all the while; its content changes. */
static void *meddle_with_content(void *unused)
{
	pin(1);
	for (unsigned i = 0; !target_stop; i++) {
		rewrite(i & 1 ? scene_first : scene_second);
		target_burn(4 * DWELL);
	}
	return unused;
}

static void foreign_that_changes(void)
{
	make_deep_stacks();
	set_refs(&system_stack, NULL, &system_stack);
	enter_foreign(&a, scene_caller);
	run_in(&system_stack, scene_system_leaf);
}

static void jump_that_changes(void)
{
	make_deep_stacks();
	set_refs(&system_stack, &a, &system_stack);
	set_jump(&a, scene_caller);
	run_in(&system_stack, scene_system_leaf);
}

static void user_that_changes(void)
{
	make_deep_stacks();
	set_refs(&a, &a, &system_stack);
	run_in(&a, scene_a_leaf);
}

static void resumer_that_changes(void)
{
	make_deep_stacks();
	set_resumer(&c, &a, scene_caller);
	set_refs(&c, &c, &system_stack);
	run_in(&c, scene_c_leaf);
}

/* --- Tables that come, change and go ------------------------------------------------------------------------------------------- */

static void native_first(void)
{
	run_in(&a, scene_a_leaf);
}

static void publish_then(void)
{
	scene_publish(64);
	scene_record = sprof_thread_attach(scene_table);
	hijack_all(&a);
	set_refs(&a, &a, &system_stack);
	run_in(&a, scene_a_leaf);
}

static void on_a(void)
{
	hijack_all(&a);
	set_refs(&a, &a, &system_stack);
	run_in(&a, scene_a_leaf);
}

/* Another table, at another place, in which a is unknown, and b has barriers. */
static void replace_then(void)
{
	make_all_chains();
	sprof_close(scene_table);
	scene_publish(2048);
	scene_record = sprof_thread_attach(scene_table);
	hijack_all(&b);
	set_refs(&b, &b, &system_stack);
	run_in(&b, scene_b_leaf);
}

static void take_away_then(void)
{
	make_all_chains();
	sprof_close(scene_table);
	run_in(&b, scene_b_leaf);
}

/* A profiler that still knows the ranges of before must not use them. */
static void use_other_trampoline_then(void)
{
	sprof_lock(a.stack);
	make_all_chains();
	sprof_barrier_clear(a.stack);
	sprof_unlock(a.stack);
	scene_use_other_trampoline();
	on_a();
}

static void execute_then(void)
{
	execl("/proc/self/exe", "table_scenes", "resumers", (char *)NULL);
	target_die("execl");
}

static void execute_native_then(void)
{
	execl("/proc/self/exe", "table_scenes", "published_late", (char *)NULL);
	target_die("execl");
}

/* The child has a copy of the table and goes on; the actor waits for it. */
static void fork_and_wait(void)
{
	set_refs(&a, &a, &system_stack);
	hijack_all(&a);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		scene_record = sprof_thread_self(scene_table);
		set_refs(&a, &a, &system_stack);
		run_in(&a, scene_a_leaf);
	}
	scene_child = pid;
	scene_in_place();
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static int run_in_childs_clothes(void *unused)
{
	(void)unused;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	struct sprof_context at = context_in(&a, scene_a_leaf);
	scene_run(address_of(scene_a_leaf), at.sp, at.fp);
}

/* As vfork does it: the child shares the memory, and is not the process of the table. */
static void share_and_wait(void)
{
	set_refs(&a, &a, &system_stack);
	hijack(&a, 1);
	pid_t pid = clone(run_in_childs_clothes, word_at(native.hi), CLONE_VM | SIGCHLD, NULL);
	if (pid < 0)
		target_die("clone");
	scene_child = pid;
	scene_in_place();
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* --- Signals ------------------------------------------------------------------------------------------------------------------- */

static void with_signal_stack(const struct made_stack *s)
{
	const stack_t alternate = {.ss_sp = word_at(s->lo), .ss_size = STACK_BYTES};
	sigaltstack(&alternate, NULL);
	hijack_all(&a);
	set_refs(&a, &a, &system_stack);
	run_in(&a, scene_a_leaf);
}

static void signal_stack_below(void)
{
	with_signal_stack(&native);
}

static void signal_stack_above(void)
{
	with_signal_stack(&above);
}

/* In the handler's frame, which leads to the interrupted state. */
static void burn_in_handler(void)
{
	uint64_t fp = address_of(__builtin_frame_address(0));
	scene_in_place();
	scene_run(address_of(scene_handler_leaf), fp - 1024, fp);
}

static void hold_a_in_handler(void)
{
	sprof_lock(a.stack);
}

const struct scene scenes_moving[] = {
	{.name = "t5", .act = between_two_stacks, .meddle = meddle_with_refs},
	{.name = "foreign_changes", .act = foreign_that_changes, .meddle = meddle_with_content},
	{.name = "jump_changes", .act = jump_that_changes, .meddle = meddle_with_content},
	{.name = "user_changes", .act = user_that_changes, .meddle = meddle_with_content},
	{.name = "resumer_changes", .act = resumer_that_changes, .meddle = meddle_with_content},
	{.name = "published_late", .act = native_first, .then = publish_then, .without_table = true},
	{.name = "replaced", .act = on_a, .then = replace_then},
	{.name = "taken_away", .act = on_a, .then = take_away_then},
	{.name = "ranges_replaced", .act = on_a, .then = use_other_trampoline_then},
	{.name = "exec", .act = on_a, .then = execute_then},
	{.name = "exec_native", .act = on_a, .then = execute_native_then},
	{.name = "fork_child", .act = fork_and_wait},
	{.name = "vfork_child", .act = share_and_wait},
	{.name = "signal_below", .act = signal_stack_below, .then = burn_in_handler},
	{.name = "signal_above", .act = signal_stack_above, .then = burn_in_handler},
	{.name = "signal_locked", .act = signal_stack_below, .hold = hold_a_in_handler, .then = burn_in_handler},
	{.name = NULL},
};
