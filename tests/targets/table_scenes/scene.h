/* Scenes: one thread in an exact state, and busy there, so that every sample sees it.
 *
 * The stacks are made by hand: chains of frame records whose return addresses lie in the functions of code.S, which do not run. The thread
 * (the actor) says in the table what the scene is about, and then takes its place: scene_run sets pc, sp and fp. */
#pragma once
#include <sprof/sprof.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STACK_BYTES = 256 * 1024, MAX_FRAMES = 64 };

/* A stack and the chain of frame records on it, youngest first. record[i] holds the frame pointer of the caller and, in its slot, the
 * address in the caller where it goes on. The function that runs, or waits, at the young end has its frame pointer at record[0]. */
struct made_stack {
	uint64_t lo, hi;
	struct sprof_stack *stack; /* in the table; NULL: nobody knows it */
	unsigned n;
	uint64_t record[MAX_FRAMES];
};

typedef const char code[]; /* a function of code.S */
extern code scene_a_leaf, scene_a_mid, scene_a_root, scene_b_leaf, scene_b_mid, scene_b_root, scene_c_leaf, scene_c_mid,
	scene_c_root;
extern code scene_system_leaf, scene_system_mid, scene_system_root, scene_native_leaf, scene_native_mid,
	scene_native_root;
extern code scene_first, scene_second, scene_caller, scene_helper, scene_handler_leaf;
extern code scene_stack_top, scene_native_top, scene_alone, scene_switch, scene_before_trampoline, scene_trampoline,
	scene_trampoline_end;
extern code scene_other_trampoline;
extern const uint64_t scene_trampoline_parts[6]; /* part i: from label i to label i + 1 */
enum trampoline_part { AT_ENTRY, PUSHED_ONE, PUSHED_TWO, SAVED_FP, OWN_FP };
void scene_run(uint64_t pc, uint64_t sp, uint64_t fp) __attribute__((noreturn));

struct scene {
	const char *name;
	void (*act)(void);  /* the actor: makes the state and calls scene_run */
	void (*hold)(void); /* the first thread, once the actor is in place: takes what is to be held; NULL: nothing */
	void *(*meddle)(void *); /* a thread that changes things all the while; NULL: none */
	void (*then)(void); /* the actor again, at SIGUSR1, in a signal handler that need not return; NULL: nothing */
	bool without_table; /* none is opened at the start */
};

/* main.c */
extern struct sprof_table *scene_table;
extern struct sprof_thread *scene_record; /* the actor's; NULL: it has none */
extern struct made_stack a, b, c, system_stack, native,
	above; /* in this order in memory: native, system_stack, a, b, c, above */
extern const struct scene *scene_playing;
extern int scene_child;               /* a process that plays the scene instead; 0: none */
void scene_publish(uint32_t threads); /* opens the table, with the actor's record and a, b, c, system_stack in it */
void scene_use_other_trampoline(
	void);             /* instead of the one that scene_publish declared: hijack goes by it from now on */
void scene_in_place(void); /* the actor, last thing before scene_run */
const struct scene *scene_find(const char *name);

/* stacks.c */
extern const char *scene_entry; /* what hijack puts into slots */
uint64_t address_of(const void *what);
uint64_t return_into(const char *function); /* a return address in it */
uint64_t *word_at(uint64_t address);
uint64_t slot(const struct made_stack *s, unsigned i);
/* A chain: mid, root, and the outermost. */
void make_chain(struct made_stack *s, const char *mid, const char *root, const char *top);
void make_all_chains(void);
/* n frames of one function, distance bytes apart, under scene_caller. */
void make_deep(struct made_stack *s, const char *function, unsigned n, uint64_t distance);
void refill_deep(struct made_stack *s, const char *function);
/* The state of leaf at the young end of the stack. */
struct sprof_context context_in(const struct made_stack *s, const char *leaf);
void run_in(const struct made_stack *s, const char *leaf) __attribute__((noreturn));
void hijack(struct made_stack *s, unsigned i); /* a barrier in slot i, in the table and on the stack */
void hijack_all(struct made_stack *s);
void set_refs(const struct made_stack *current, const struct made_stack *user, const struct made_stack *system);
void own(const struct made_stack *s);
void enter_foreign(const struct made_stack *s, const char *leaf);
void enter_libcall(const struct made_stack *s, const char *leaf);
void set_jump(const struct made_stack *s, const char *leaf);
void set_resumer(struct made_stack *to, const struct made_stack *from, const char *leaf);

extern const struct scene scenes_still[], scenes_moving[]; /* each ends with a name that is NULL */
