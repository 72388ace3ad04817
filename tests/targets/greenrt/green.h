/* greenrt: a small runtime that does to its stacks whatever makes unwinding hard, and says so in the barrier-lock table.
 *
 * Green threads run on worker threads, each green thread on a stack of its own that may be moved while it does not run. A collector
 * thread walks the stacks of green threads that are parked or in foreign code, and replaces return addresses by a trampoline's.
 * Compiled with frame pointers; no managed function takes the address of a local, so that a stack can be moved by correcting the
 * chain of frame pointers. */
#pragma once
#include <pthread.h>
#include <sprof/sprof.h>
#include <stdbool.h>
#include <stddef.h>

/* What a green thread does. Changes from and to GREEN_RUNNING are made under the lock of its stack; only GREEN_RUNNING keeps the
 * collector out. */
enum green_state {
	GREEN_PARKED,
	GREEN_RUNNING,
	GREEN_FOREIGN,
	GREEN_FOREIGN_HERE /* on the stack itself: it stays where it is */
};

enum green_kind {
	GREEN_CALL_SYSTEM,  /* the runtime's own work, on the system stack: a jump context */
	GREEN_CALL_FOREIGN, /* foreign code: the stack may be moved meanwhile */
	GREEN_CALL_LIBRARY, /* a library call that sets sp: nothing but a libcall context */
};

enum { GREEN_NODES = 64, GREEN_FRAME_BYTES = 48, GREEN_QUANTUM = 64 };
enum {
	GREEN_MIN_BYTES = 4096,
	GREEN_GUARD_BYTES = 3072
}; /* of a stack; of it, what a function may use without asking */

struct green_jump {
	uint64_t rsp, rbp, rbx, r12, r13, r14, r15, rip;
};

struct green_worker;

struct green {
	/* known to switch.S */
	uint64_t sp; /* while it does not run: six registers, the last rbp, then the return address */
	uint64_t system_sp;
	struct sprof_stack *stack;
	struct sprof_barrier *barriers;
	struct sprof_thread *thread; /* record of the thread it runs on; NULL: none */
	uint32_t hits;
	/* the rest is C's */
	uint32_t safepoints;
	uint32_t pinned; /* in a callback: the foreign frames are on this worker's stack */
	enum green_state state;
	bool preempt;
	struct green_worker *worker;
	char *memory[2]; /* two stacks, of which one is used, up to bytes */
	unsigned side;
	uint64_t bytes;
	uint64_t limit;            /* a function that finds its frame below grows the stack */
	struct green_jump recover; /* rsp and rbp as distances from the stack's end, since it may move */
	uint64_t random;
	uint64_t helper_calls, panics, moves, growths, rounds, foreign_rounds, callbacks;
	uint64_t foreign_held_ns; /* CPU time of its thread in foreign code while the collector had the lock */
	uint64_t iterations[GREEN_NODES];
};

_Static_assert(offsetof(struct green, sp) == 0 && offsetof(struct green, system_sp) == 8, "switch.S");
_Static_assert(offsetof(struct green, stack) == 16 && offsetof(struct green, barriers) == 24, "switch.S");
_Static_assert(offsetof(struct green, thread) == 32 && offsetof(struct green, hits) == 40, "switch.S");
_Static_assert(offsetof(struct sprof_stack, pos) == 64 && offsetof(struct sprof_stack, n) == 36, "switch.S");
_Static_assert(offsetof(struct sprof_thread, seq) == 4, "switch.S");
_Static_assert(offsetof(struct green_jump, rip) == 56, "switch.S");

extern _Thread_local struct green *green_current; /* read by the trampoline */
extern struct sprof_table *green_table;
extern uint64_t green_depth; /* of the recursions in work.c */
extern uint64_t
	green_max_bytes; /* of a stack: more than enough for that; they start with GREEN_MIN_BYTES, grow and shrink */

/* switch.S. Each completes a change of the thread's record that C began. */
void green_run(struct green *green);          /* from the scheduler's stack; returns when it parks */
void green_to_scheduler(struct green *green); /* parks */
void green_on_system(struct green *green, void (*body)(struct green *), enum green_kind kind);
void green_callback(struct green *green, void (*body)(struct green *)); /* from a body on the system stack */
void green_here(struct green *green, void (*body)(struct green *));     /* foreign code, on the user stack */
int green_save(struct green_jump *jump) __attribute__((returns_twice));
void green_restore(const struct green_jump *jump) __attribute__((noreturn));
void green_entry(void); /* where a green thread's first function returns to */
void green_first(void);
extern const char green_trampoline[], green_switch_begin[], green_switch_end[], green_entry_end[];
/* The trampoline's parts, by how far it has pushed: label i to label i + 1. */
extern const uint64_t green_trampoline_parts[10];

/* runtime.c */
void green_start(struct green *green); /* parked, at the beginning of green_work */
void green_safepoint(struct green *green);
void green_grow(struct green *green);
/* With the lock, while its code runs elsewhere or not at all: to its other memory, with so many bytes. */
void green_move(struct green *green, uint64_t bytes);
/* Unwinds, past barriers, to where green->recover was saved. */
void green_panic(struct green *green) __attribute__((noreturn));
void green_recovered(struct green *green); /* the first thing there */
void green_schedule(struct green_worker *worker);

/* collector.c */
enum green_barriers { BARRIERS_NONE, BARRIERS_DOUBLING, BARRIERS_EVERY };
struct green_collector {
	enum green_barriers barriers;
	struct green *greens;
	long n;
	long pause_us; /* between two stacks */
	long hold_us;  /* for so long it keeps each lock in addition */
	uint64_t installed, full, held_ns;
};
void *green_collect(void *collector);

/* work.c: the call graph. */
extern const char *const green_names[GREEN_NODES]; /* NULL: no such node */
void green_work(struct green *green);
/* The code of library calls, which sets sp: a section of that name, whose ends the linker tells. */
extern const char __start_green_library[], __stop_green_library[]; // NOLINT(bugprone-reserved-identifier)
