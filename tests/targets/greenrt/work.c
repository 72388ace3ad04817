/* The call graph. n_0_3_1 is called by n_0_3, or by itself, and by nobody else; n_0_2_3, a callback, counts as called by the managed
 * caller of the foreign function that calls it. What is between them on a stack is the runtime's (green_...).
 *
 * Each managed function, as the first thing, makes sure that there is room for it on its stack, which may so be moved under it.
 *
 * Every node burns a known number of iterations, all of the same loop, and counts them: a function's true share. */
#include "green.h"

#include "target.h"
#include "worker.h"

enum node {
	N_0,
	N_0_0,
	N_0_0_0,
	N_0_0_1,
	N_0_1,
	N_0_1_0,
	N_0_1_0_0,
	N_0_2,
	N_0_2_0,
	N_0_2_1,
	N_0_2_2,
	N_0_2_3,
	N_0_2_3_0,
	N_0_2_3_1,
	N_0_2_4,
	N_0_3,
	N_0_3_0,
	N_0_3_0_0,
	N_0_3_1,
};

const char *const green_names[GREEN_NODES] = {
	[N_0] = "n_0",
	[N_0_0] = "n_0_0",
	[N_0_0_0] = "n_0_0_0",
	[N_0_0_1] = "n_0_0_1",
	[N_0_1] = "n_0_1",
	[N_0_1_0] = "n_0_1_0",
	[N_0_1_0_0] = "n_0_1_0_0",
	[N_0_2] = "n_0_2",
	[N_0_2_0] = "n_0_2_0",
	[N_0_2_1] = "n_0_2_1",
	[N_0_2_2] = "n_0_2_2",
	[N_0_2_3] = "n_0_2_3",
	[N_0_2_3_0] = "n_0_2_3_0",
	[N_0_2_3_1] = "n_0_2_3_1",
	[N_0_2_4] = "n_0_2_4",
	[N_0_3] = "n_0_3",
	[N_0_3_0] = "n_0_3_0",
	[N_0_3_0_0] = "n_0_3_0_0",
	[N_0_3_1] = "n_0_3_1",
};

enum { LONG_BURN = 20000, BURN = 5000, SHORT_BURN = 1000 };

#define MANAGED TARGET_NOINLINE static void
#define FOREIGN MANAGED /* not on a green stack, or not knowing of it: it asks for no room */

static inline __attribute__((always_inline)) void make_room(struct green *green)
{
	if (__builtin_expect((uintptr_t)__builtin_frame_address(0) < green->limit, 0))
		green_grow(green);
}

static inline __attribute__((always_inline)) void burn(struct green *green, enum node node, uint64_t iterations)
{
	target_burn(iterations);
	green->iterations[node] += iterations;
}

static uint64_t draw(struct green *green, uint64_t below)
{
	green->random = green->random * 6364136223846793005u + 1442695040888963407u;
	return (green->random >> 33) % below;
}

MANAGED n_0_0_0(struct green *green)
{
	make_room(green);
	burn(green, N_0_0_0, BURN);
	green_safepoint(green);
	burn(green, N_0_0_0, BURN);
	TARGET_OWN_FRAME(n_0_0_0);
}

MANAGED n_0_0_1(struct green *green)
{
	make_room(green);
	burn(green, N_0_0_1, LONG_BURN);
	TARGET_OWN_FRAME(n_0_0_1);
}

MANAGED n_0_0(struct green *green, uint64_t again) // NOLINT(misc-no-recursion)
{
	make_room(green);
	burn(green, N_0_0, SHORT_BURN);
	if (again > 0) {
		n_0_0(green, again - 1);
	} else {
		n_0_0_0(green);
		n_0_0_1(green);
	}
	burn(green, N_0_0, SHORT_BURN);
	green_safepoint(green);
	TARGET_OWN_FRAME(n_0_0);
}

MANAGED n_0_1_0_0(struct green *green)
{
	make_room(green);
	burn(green, N_0_1_0_0, LONG_BURN);
	green_safepoint(green);
	TARGET_OWN_FRAME(n_0_1_0_0);
}

MANAGED n_0_1_0(struct green *green)
{
	make_room(green);
	burn(green, N_0_1_0, SHORT_BURN);
	n_0_1_0_0(green);
	burn(green, N_0_1_0, BURN);
	TARGET_OWN_FRAME(n_0_1_0);
}

MANAGED n_0_1(struct green *green)
{
	make_room(green);
	n_0_1_0(green);
	burn(green, N_0_1, BURN);
	green_safepoint(green);
	n_0_1_0(green);
	TARGET_OWN_FRAME(n_0_1);
}

MANAGED n_0_2_3_0(struct green *green)
{
	make_room(green);
	burn(green, N_0_2_3_0, BURN);
	TARGET_OWN_FRAME(n_0_2_3_0);
}

/* Foreign code, called from a callback. */
FOREIGN n_0_2_3_1(struct green *green)
{
	green_allow_collector(green);
	burn(green, N_0_2_3_1, BURN);
	TARGET_OWN_FRAME(n_0_2_3_1);
}

/* Called back from n_0_2_0. */
MANAGED n_0_2_3(struct green *green)
{
	make_room(green);
	burn(green, N_0_2_3, SHORT_BURN);
	n_0_2_3_0(green);
	green_on_system(green, n_0_2_3_1, GREEN_CALL_FOREIGN);
	burn(green, N_0_2_3, SHORT_BURN);
	TARGET_OWN_FRAME(n_0_2_3);
}

/* Foreign code, on the system stack. */
FOREIGN n_0_2_0(struct green *green)
{
	green_allow_collector(green);
	burn(green, N_0_2_0, LONG_BURN);
	if (draw(green, 2) == 0)
		green_callback(green, n_0_2_3);
	burn(green, N_0_2_0, LONG_BURN);
	TARGET_OWN_FRAME(n_0_2_0);
}

/* The runtime's own work, on the system stack. */
FOREIGN n_0_2_1(struct green *green)
{
	burn(green, N_0_2_1, BURN);
	TARGET_OWN_FRAME(n_0_2_1);
}

/* A library call, on the system stack, of code in which nothing is known of the stack: SETS_SP. */
__attribute__((section("green_library"))) FOREIGN n_0_2_2(struct green *green)
{
	burn(green, N_0_2_2, BURN);
	TARGET_OWN_FRAME(n_0_2_2);
}

/* Foreign code, on the green stack itself. */
FOREIGN n_0_2_4(struct green *green)
{
	burn(green, N_0_2_4, LONG_BURN);
	TARGET_OWN_FRAME(n_0_2_4);
}

MANAGED n_0_2(struct green *green)
{
	make_room(green);
	burn(green, N_0_2, SHORT_BURN);
	green_on_system(green, n_0_2_0, GREEN_CALL_FOREIGN);
	burn(green, N_0_2, SHORT_BURN);
	green_on_system(green, n_0_2_1, GREEN_CALL_SYSTEM);
	burn(green, N_0_2, SHORT_BURN);
	green_on_system(green, n_0_2_2, GREEN_CALL_LIBRARY);
	green_here(green, n_0_2_4);
	TARGET_OWN_FRAME(n_0_2);
}

MANAGED n_0_3_0_0(struct green *green)
{
	make_room(green);
	burn(green, N_0_3_0_0, BURN);
	green_safepoint(green);
	if (draw(green, 3) == 0)
		green_panic(green);
	burn(green, N_0_3_0_0, BURN);
	TARGET_OWN_FRAME(n_0_3_0_0);
}

MANAGED n_0_3_0(struct green *green, uint64_t again) // NOLINT(misc-no-recursion)
{
	make_room(green);
	burn(green, N_0_3_0, SHORT_BURN);
	if (again > 0)
		n_0_3_0(green, again - 1);
	else
		n_0_3_0_0(green);
	burn(green, N_0_3_0, SHORT_BURN);
	TARGET_OWN_FRAME(n_0_3_0);
}

MANAGED n_0_3_1(struct green *green)
{
	make_room(green);
	burn(green, N_0_3_1, BURN);
	TARGET_OWN_FRAME(n_0_3_1);
}

MANAGED n_0_3(struct green *green)
{
	make_room(green);
	if (green_save(&green->recover) == 0) {
		green->recover.rsp = green->stack->hi - green->recover.rsp;
		green->recover.rbp = green->stack->hi - green->recover.rbp;
		n_0_3_0(green, draw(green, green_depth));
	} else {
		green_recovered(green_current);
		burn(green_current, N_0_3, BURN);
	}
	n_0_3_1(green_current); /* what was in registers may be of before */
	TARGET_OWN_FRAME(n_0_3);
}

MANAGED n_0(struct green *green)
{
	make_room(green);
	burn(green, N_0, SHORT_BURN);
	switch (draw(green, 4)) {
	case 0:
		n_0_0(green, draw(green, green_depth));
		break;
	case 1:
		n_0_1(green);
		break;
	case 2:
		n_0_2(green);
		break;
	default:
		n_0_3(green);
	}
	green_safepoint(green);
	TARGET_OWN_FRAME(n_0);
}

void green_work(struct green *green)
{
	n_0(green);
	__asm__ volatile("");
}
