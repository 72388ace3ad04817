/* What a switch there and back costs, by each way of switching. Run with and without libsprof-preload. Prints one object of JSON: {"swapcontext": [ns per
 * switch, ...], ...}. */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <ucontext.h>

enum { ROUNDS = 200, SWITCHES = 4000, STACK_BYTES = 65536 };

static ucontext_t home, fiber;
static char stack[STACK_BYTES];

static void swaps(void)
{
	for (;;)
		swapcontext(&fiber, &home);
}

static void run_swaps(int n)
{
	for (int i = 0; i < n; i += 2)
		swapcontext(&home, &fiber);
}

static jmp_buf home_jump, fiber_jump;
/* Not what _FORTIFY_SOURCE makes of it. */
extern void jump(jmp_buf buf, int value) __asm__("longjmp");

static void jumps(void)
{
	for (;;)
		if (_setjmp(fiber_jump) == 0)
			jump(home_jump, 1);
}

static void run_jumps(int n)
{
	for (volatile int i = 0; i < n; i += 2)
		if (_setjmp(home_jump) == 0)
			jump(fiber_jump, 1);
}

static void make(void (*function)(void))
{
	getcontext(&fiber);
	fiber.uc_stack.ss_sp = stack;
	fiber.uc_stack.ss_size = sizeof(stack);
	fiber.uc_link = NULL;
	makecontext(&fiber, function, 0);
}

#ifdef HAVE_BOOST_CONTEXT
struct transfer {
	void *from, *data;
};
extern void *make_fcontext(void *sp, size_t size, void (*function)(struct transfer));
extern struct transfer jump_fcontext(void *to, void *data);

static void *boost;

static void boost_jumps(struct transfer transfer)
{
	for (;;)
		transfer = jump_fcontext(transfer.from, NULL);
}

static void run_boost(int n)
{
	for (int i = 0; i < n; i += 2)
		boost = jump_fcontext(boost, NULL).from;
}
#endif

static double ns_per_switch(void (*run)(int))
{
	struct timespec before, after;
	clock_gettime(CLOCK_MONOTONIC, &before);
	run(SWITCHES);
	clock_gettime(CLOCK_MONOTONIC, &after);
	return ((double)(after.tv_sec - before.tv_sec) * 1e9 + (double)(after.tv_nsec - before.tv_nsec)) / SWITCHES;
}

static void measure(const char *name, void (*run)(int), const char *before)
{
	printf("%s\"%s\": [", before, name);
	for (int i = 0; i < ROUNDS; i++)
		printf("%s%.3f", i ? ", " : "", ns_per_switch(run));
	printf("]");
}

int main(void)
{
	make(swaps);
	measure("swapcontext", run_swaps, "{");
	make(jumps);
	if (_setjmp(home_jump) == 0)
		setcontext(&fiber);
	measure("longjmp", run_jumps, ", ");
#ifdef HAVE_BOOST_CONTEXT
	boost = make_fcontext(stack + sizeof(stack), sizeof(stack), boost_jumps);
	measure("jump_fcontext", run_boost, ", ");
#endif
	printf("}\n");
	return 0;
}
