/* How an epoch lies in memory. Private to store: epoch.c fills it, build.c reads it.
 *
 * Two sets in one arena: the stacks, and the cells, each of which counts the samples of one stack in one thread under one name; where names depend
 * on the time, of one time.
 * A new stack always comes with a new cell, so walking the cells in their order meets the stacks in the order of their ids. */
#pragma once
#include <stdatomic.h>

#include "base/arena.h"
#include "store/set.h"
#include "store/store.h"

struct stack {
	struct set_entry entry;
	uint32_t maps_version;
	uint32_t id; /* 0 .. n_stacks - 1 */
	uint16_t n_kernel, n_user;
	enum stack_end user_end;
	uint64_t frames[]; /* kernel, then user */
};

struct cell {
	struct set_entry entry;
	uint32_t tid;
	const struct stack *stack;
	uint64_t count, cpu_ns;
	uint64_t code_ns;             /* as in struct sample */
	char comm[SAMPLE_COMM_BYTES]; /* cleared behind its end; not terminated when 16 bytes long */
};

struct epoch {
	_Atomic unsigned references;
	struct arena arena;
	struct heap heap;
	struct set stacks, cells;
	struct epoch_totals totals; /* bytes and n_stacks are computed when asked for */
};

/* A copy that shares nothing with epoch, or NULL when memory is out. It is bounded by what it copies. */
struct epoch *epoch_copy(const struct epoch *epoch);
/* An upper bound of what the frames of a sample take in an epoch. */
size_t epoch_sample_bytes(const struct sample *sample);
