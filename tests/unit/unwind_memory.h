/* Gives bpf/unwind.h a user-mode memory: a recorded buffer that stands for the target's addresses, a mapping list, tables. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/cfi_table.h"
#include "bpf/mapping_list.h"

struct unwind_list_page {
	struct unwind_list_entry entries[UNWIND_PAGE_ENTRIES];
};

struct recorded_table {
	const unsigned char *bytes; /* room for whole pages */
	size_t n;
};

struct recorded_memory {
	__u64 start;
	size_t n;
	const unsigned char *bytes;
	struct unwind_list_page *list; /* a struct unwind_list_header, then entries */
	__u32 list_pages;
	const struct recorded_table *tables;
	__u32 n_tables;
	__u64 stack_lo, stack_hi;
	bool not_ready, outdated;
	__u64 hijacker, hijacked_slot, original;
	__u64 thread_pointer;
	unsigned reads;
	bool out_of_page; /* a copy did not end with a page */
};

static inline long unwind_read(void *to, __u32 bytes, __u64 address, void *memory)
{
	struct recorded_memory *recorded = memory;
	recorded->reads++;
	if (bytes != 8 && bytes != 4 /* of text */ && bytes != 136 /* of a signal frame */ &&
	    ((address + bytes) & 4095))
		recorded->out_of_page = true;
	if (address < recorded->start || address - recorded->start > recorded->n ||
	    recorded->n - (address - recorded->start) < bytes)
		return -14; /* EFAULT */
	memcpy(to, recorded->bytes + (address - recorded->start), bytes);
	return 0;
}

static inline const void *unwind_list_page(__u32 list, __u32 page, void *memory)
{
	const struct recorded_memory *recorded = memory;
	return list == 0 && page < recorded->list_pages ? &recorded->list[page] : NULL;
}

static inline void *unwind_table_open(__u32 table, void *memory)
{
	const struct recorded_memory *recorded = memory;
	return table < recorded->n_tables ? (void *)&recorded->tables[table] : NULL;
}

static inline const void *unwind_table_page(void *table, __u32 page)
{
	const struct recorded_table *recorded = table;
	return (size_t)page * CFI_PAGE_BYTES < recorded->n ? recorded->bytes + (size_t)page * CFI_PAGE_BYTES : NULL;
}

static inline __u64 original_return(__u64 slot, const struct recorded_memory *recorded)
{
	return slot && slot == recorded->hijacked_slot ? recorded->original : 0;
}
#define UNWIND_ORIGINAL(slot, memory) original_return(slot, memory)
#define UNWIND_THREAD_POINTER(memory) (((const struct recorded_memory *)(memory))->thread_pointer)

#include "bpf/unwind.h"

/* A list of two pages: all addresses but the lowest are code without unwind information. */
static inline void plain_list(struct unwind_list_page list[2])
{
	struct unwind_list_header *header = (struct unwind_list_header *)list;
	*header = (struct unwind_list_header){.n_entries = 1, .n_pages = 1, .first = {0x10000}};
	list[1].entries[0] = (struct unwind_list_entry){.start = 0x10000, .end = 1ull << 47, .kind = UNWIND_CODE_PLAIN};
}

/* The registers of a leaf frame, of which nothing but these matters. */
static inline struct unwind_registers unwind_leaf(__u64 pc, __u64 sp, __u64 fp)
{
	return (struct unwind_registers){.pc = pc, .sp = sp, .fp = fp, .known = UNWIND_KNOWN_ALL, .pc_is_exact = 1};
}

/* Not check's: programs that are no tests include this too. */
#define unwind_expect(condition)                                                                             \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "unwind_memory.h:%d: it is not so that %s\n", __LINE__, #condition); \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

/* Steps that cfi_step_quick took over, of unwind_walk's. */
static unsigned unwind_quick_steps __attribute__((unused));

/* unwind_step; and cfi_step_quick says the same, where it says anything. */
static inline int unwind_step_both_ways(struct unwind_registers *registers, struct unwind_window *window,
					const struct unwind_tables *tables, struct recorded_memory *memory,
					__u64 *ret_slot)
{
	struct unwind_registers quick = *registers;
	const struct unwind_registers before = quick;
	__u64 slot = cfi_step_quick(&quick, window, tables, tables->stack_lo, tables->stack_hi);
	int end = unwind_step(registers, window, tables, memory, ret_slot);
	if (!slot) {
		unwind_expect(memcmp(&quick, &before, sizeof(quick)) == 0);
		return end;
	}
	unwind_quick_steps++;
	unwind_expect(end == UNWIND_GOES_ON);
	unwind_expect(slot == *ret_slot);
	unwind_expect(memcmp(&quick, registers, sizeof(quick)) == 0);
	return end;
}

static inline enum stack_end unwind_walk_once(struct unwind_registers registers, struct unwind_window *window,
					      __u64 serial, struct recorded_memory *memory, __u64 *frames, size_t max,
					      size_t *ret_n)
{
	const struct unwind_tables tables = {.ready = !memory->not_ready,
					     .serial = serial,
					     .outdated = memory->outdated,
					     .hijacker = memory->hijacker,
					     .stack_lo = memory->stack_lo,
					     .stack_hi = memory->stack_hi};
	__u64 slot;
	unwind_window_reset(window);
	for (size_t n = 0; n < max;) {
		frames[n++] = registers.pc;
		*ret_n = n;
		int end = unwind_step_both_ways(&registers, window, &tables, memory, &slot);
		if (end != UNWIND_GOES_ON)
			return (enum stack_end)end;
	}
	return STACK_END_TOO_DEEP;
}

/* The walk as the BPF program does it: at most max frames, the sampled pc first. Returns why it ended; STACK_END_TOO_DEEP at max. Without what is remembered
 * of rules, while it is being remembered, and by it: all the same. */
static inline enum stack_end unwind_walk(struct unwind_registers registers, struct recorded_memory *memory,
					 __u64 *frames, size_t max, size_t *ret_n)
{
	static struct unwind_window window;
	static __u64 serial;
	enum stack_end end = unwind_walk_once(registers, &window, 0, memory, frames, max, ret_n);
	__u64 *again = calloc(max, sizeof(*again));
	unsigned reads = memory->reads;
	unwind_expect(again != NULL);
	serial++;
	for (int i = 0; i < 2; i++) {
		size_t n = 0;
		unwind_expect(unwind_walk_once(registers, &window, serial, memory, again, max, &n) == end);
		unwind_expect(n == *ret_n && memcmp(again, frames, n * sizeof(*again)) == 0);
	}
	memory->reads = reads;
	free(again);
	return end;
}
