/* Gives bpf/unwind.h a user-mode memory: a recorded buffer that stands for the target's addresses, a mapping list, tables. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
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

/* The walk as the BPF program does it: at most max frames, the sampled pc first. Returns why it ended; STACK_END_TOO_DEEP at max. */
static inline enum stack_end unwind_walk(struct unwind_registers registers, struct recorded_memory *memory,
					 __u64 *frames, size_t max, size_t *ret_n)
{
	const struct unwind_tables tables = {.ready = !memory->not_ready,
					     .outdated = memory->outdated,
					     .hijacker = memory->hijacker,
					     .stack_lo = memory->stack_lo,
					     .stack_hi = memory->stack_hi};
	struct unwind_window window;
	__u64 slot;
	unwind_window_reset(&window);
	for (size_t n = 0; n < max;) {
		frames[n++] = registers.pc;
		*ret_n = n;
		int end = unwind_step(&registers, &window, &tables, memory, &slot);
		if (end != UNWIND_GOES_ON)
			return (enum stack_end)end;
	}
	return STACK_END_TOO_DEEP;
}
