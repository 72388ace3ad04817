/* A world for the walk of bpf/walk.h in its user-mode build: a table made by libsprof in this process, stacks that are arrays, code that is
 * nothing but addresses; and what reconcile makes of the record. */
#pragma once
#include <check.h>
#include <linux/types.h>
#include <sprof/sprof.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/cfi_table.h"
#include "bpf/mapping_list.h"
#include "collect/table_config.h"

enum { WORLD_WORDS = 4608, WORLD_STACKS = 48, WORLD_REGIONS = 64 };

struct world_stack {
	struct sprof_stack *record; /* NULL: not in the table */
	size_t top;                 /* words in use, from the end */
	_Alignas(4096) uint64_t words[WORLD_WORDS];
};

struct world_region {
	uint64_t lo, hi;
};

/* Memory as the walk may read it: the table and the stacks. before_read is called with each address first. */
static struct world {
	struct world_region regions[WORLD_REGIONS];
	size_t n_regions;
	void (*before_read)(uint64_t address);
	unsigned reads;
} world;

static inline long unwind_read(void *to, __u32 bytes, __u64 address, void *memory)
{
	(void)memory;
	world.reads++;
	if (world.before_read)
		world.before_read(address);
	for (size_t i = 0; i < world.n_regions; i++)
		if (address >= world.regions[i].lo && address < world.regions[i].hi &&
		    bytes <= world.regions[i].hi - address) {
			memcpy(to, (const void *)(uintptr_t)address, bytes); // NOLINT(performance-no-int-to-ptr)
			return 0;
		}
	return -14; /* EFAULT */
}

/* All addresses of code are code without unwind information. */
static inline const void *unwind_list_page(__u32 list, __u32 page, void *memory)
{
	static const struct unwind_list_header header = {.n_entries = 1, .n_pages = 1, .first = {0x1000}};
	static const struct unwind_list_entry entries[UNWIND_PAGE_ENTRIES] = {
		{.start = 0x1000, .end = 1ull << 47, .kind = UNWIND_CODE_PLAIN}};
	(void)list, (void)memory;
	return page == 0 ? (const void *)&header : (const void *)entries;
}

static inline void *unwind_table_open(__u32 table, void *memory)
{
	(void)table, (void)memory;
	return NULL;
}

static inline const void *unwind_table_page(void *table, __u32 page)
{
	(void)table, (void)page;
	return NULL;
}

static int world_walks_quickly = 1;
#define WALK_QUICK world_walks_quickly
/* Frames that walks have passed quickly. */
static unsigned world_quick_frames;
#define WALK_WENT_QUICKLY() (world_quick_frames++)
#include "bpf/walk.h"

#include "model/sample.h"
#include "reconcile/segments.h"

static inline void world_add_region(uint64_t lo, uint64_t bytes)
{
	ck_assert_uint_lt(world.n_regions, WORLD_REGIONS);
	world.regions[world.n_regions++] = (struct world_region){.lo = lo, .hi = lo + bytes};
}

static struct sprof_table *world_table;
static struct sprof_thread *world_thread;
static struct table_config world_config;
static struct walk world_walk;
static const struct python_walk *world_python; /* CPython's frames of the sample; NULL: none */
static struct barrier_thread world_who;
static const struct sprof_header *world_header;

/* Code. A function is a page of addresses: its pc is anywhere in it. */
enum {
	WORLD_CODE = 0x400000,
	TRAMPOLINE = 0x700000,      /* the entry; 0x10 bytes in which nothing is pushed yet */
	TRAMPOLINE_DEEP = 0x700010, /* 0x30 bytes, two words pushed, one of them the caller's fp at c - 8 */
	TRAMPOLINE_END = 0x700040,
	SETS_SP = 0x700100,
	SETS_SP_END = 0x700140,
	TOP = 0x700200,
	TOP_END = 0x700240,
};
#define FUNCTION(i) ((uint64_t)WORLD_CODE + (uint64_t)(i)*0x1000 + 0x10)

static inline uint64_t starttime_of(const char *path)
{
	char text[1024];
	FILE *file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	size_t n = fread(text, 1, sizeof(text) - 1, file);
	ck_assert_int_eq(fclose(file), 0);
	text[n] = '\0';
	const char *p = strrchr(text, ')');
	for (int field = 2; field < 22; field++)
		p = strchr(p, ' ') + 1;
	return strtoull(p, NULL, 10);
}

/* What discovery would tell the program. */
static inline void world_configure(void)
{
	struct barrier_table table = {
		.header = *world_header, .n_ranges = world_header->n_range, .ranges_version = world_header->range_end};
	memcpy(table.ranges, (const char *)world_header + world_header->off_range,
	       world_header->n_range * sizeof(struct sprof_range));
	table_config_fill(&table, 0, &world_config);
}

static inline void world_add_range(struct sprof_range range)
{
	range.entry_offset = (int32_t)(TRAMPOLINE - range.lo);
	ck_assert_int_ge(sprof_range_add(world_table, &range), 0);
}

static inline void world_open(void)
{
	const struct sprof_options options = {.size = sizeof(options),
					      .flags = SPROF_OPEN_PRIVATE | SPROF_OPEN_NO_ATFORK,
					      .threads = 8,
					      .stacks = WORLD_STACKS,
					      .barriers = 1100};
	memset(&world, 0, sizeof(world));
	ck_assert_int_eq(sprof_open(&options, &world_table), 0);
	world_header = sprof_table_address(world_table);
	world_thread = sprof_thread_attach(world_table);
	ck_assert_ptr_nonnull(world_thread);
	world_add_range((struct sprof_range){.lo = TRAMPOLINE, .hi = TRAMPOLINE_DEEP, .kind = SPROF_RANGE_TRAMPOLINE});
	world_add_range((struct sprof_range){.lo = TRAMPOLINE_DEEP,
					     .hi = TRAMPOLINE_END,
					     .kind = SPROF_RANGE_TRAMPOLINE,
					     .cfa_offset = 16,
					     .fp_offset = -8});
	world_add_range((struct sprof_range){.lo = SETS_SP, .hi = SETS_SP_END, .kind = SPROF_RANGE_SETS_SP});
	world_add_range((struct sprof_range){.lo = TOP, .hi = TOP_END, .kind = SPROF_RANGE_STACK_TOP});
	world_add_region((uintptr_t)world_header, world_header->total_size);
	world_configure();
	world_who = (struct barrier_thread){.tid = (uint32_t)syscall(SYS_gettid),
					    .start_ticks = starttime_of("/proc/thread-self/stat"),
					    .leader_ticks = starttime_of("/proc/self/stat")};
}

/* --- stacks --- */

static inline struct world_stack *world_stack_new(bool in_table)
{
	static struct world_stack stacks[WORLD_STACKS]; /* each above the one before */
	static size_t n_stacks;
	ck_assert_uint_lt(n_stacks, WORLD_STACKS);
	struct world_stack *stack = &stacks[n_stacks++];
	uint64_t lo = (uintptr_t)stack->words;
	world_add_region(lo, sizeof(stack->words));
	if (in_table) {
		stack->record = sprof_stack_add(world_table, lo, lo + sizeof(stack->words));
		ck_assert_ptr_nonnull(stack->record);
		stack->record->owner_tid = world_who.tid;
	}
	return stack;
}

static inline uint64_t world_address(const struct world_stack *stack, size_t from_end)
{
	return (uintptr_t)(stack->words + WORLD_WORDS - from_end);
}

/* Puts the frames of a chain of calls on the stack: pcs[0] is the leaf's (and returned in its registers), the others are return addresses, the last
 * one's frame pointer is 0. Each frame has four words. */
static inline struct unwind_registers world_chain(struct world_stack *stack, const uint64_t *pcs, size_t n)
{
	uint64_t fp = 0;
	for (size_t i = n; i-- > 0;) {
		if (i + 1 == n) { /* the outermost function: its frame pointer is 0 */
			stack->top += 4;
			continue;
		}
		stack->top += 4;
		uint64_t *frame = stack->words + WORLD_WORDS - stack->top;
		frame[2] = fp;
		frame[3] = pcs[i + 1];
		fp = (uintptr_t)(frame + 2);
	}
	return (struct unwind_registers){.pc = pcs[0], .sp = world_address(stack, stack->top), .fp = fp};
}

/* The context of a caller whose callee is pcs' own leaf: as if the leaf's function had made a call that returns to pcs[0]. */
static inline struct sprof_context world_context(struct world_stack *stack, const uint64_t *pcs, size_t n)
{
	struct unwind_registers r = world_chain(stack, pcs, n);
	return (struct sprof_context){.pc = r.pc, .sp = r.sp, .fp = r.fp};
}

/* Hijacks the return address of the i-th frame from the leaf of the chain whose registers these are. */
static inline void world_hijack(struct world_stack *stack, struct unwind_registers registers, size_t i)
{
	uint64_t *frame = (uint64_t *)(uintptr_t)registers.fp; // NOLINT(performance-no-int-to-ptr)
	while (i-- > 0)
		frame = (uint64_t *)(uintptr_t)*frame; // NOLINT(performance-no-int-to-ptr)
	sprof_lock(stack->record);
	ck_assert_int_eq(sprof_barrier_append(world_table, stack->record, (uintptr_t)(frame + 1), frame[1]), 0);
	frame[1] = TRAMPOLINE;
	sprof_unlock(stack->record);
}

static inline void world_on(struct world_stack *current, struct world_stack *user, struct world_stack *system)
{
	uint32_t step = sprof_begin(world_thread);
	sprof_set_user(world_thread, user ? user->record : NULL);
	sprof_set_system(world_thread, system ? system->record : NULL);
	sprof_set_current(world_thread, current ? current->record : NULL);
	sprof_end(world_thread, step);
}

/* --- walking --- */

static uint64_t world_room[RECORD_MAX_USER_FRAMES + 1];

static inline void world_finish(void)
{
	for (uint32_t i = world_walk.n_segments; i-- > 0;)
		walk_read_version(&world_walk, &world_config, i, NULL);
	walk_check_table(&world_walk, &world_config);
}

static inline void world_steps(void)
{
	for (int i = 0; i < WALK_STEPS; i++)
		if (walk_step(&world_walk, &world_config, NULL))
			break;
	world_finish();
}

static inline void world_walk_stack(struct unwind_registers registers, __u64 serial)
{
	registers.known = UNWIND_KNOWN_ALL;
	registers.pc_is_exact = 1;
	world_walk.registers = registers;
	world_walk.tables = (struct unwind_tables){.ready = 1, .serial = serial};
	walk_reset(&world_walk);
	if (world_python)
		world_walk.python = *world_python;
	walk_start(&world_walk, &world_config, &world_who, NULL);
	world_steps();
	if (walk_again(&world_walk))
		world_steps();
}

/* For all frames of a segment but its first and its last: as by the frame pointer. */
static inline void world_remember(const struct walk *walked, __u64 serial)
{
	for (__u32 i = 0; i < walked->n_segments; i++)
		for (__u32 j = 1; j + 1 < walked->segments[i].n; j++) {
			__u64 pc = walked->frames[walked->segments[i].first + j] - 1;
			struct unwind_remembered *remembered = cfi_memory_of(&world_walk.window, pc);
			*remembered = (struct unwind_remembered){.pc = pc, .serial = serial};
			remembered->rule = (struct cfi_rule){.cfa_register = UNWIND_RBP,
							     .cfa_offset = 16,
							     .ra_where = CFI_AT_CFA,
							     .ra_value = -8,
							     .where = {[1] = CFI_AT_CFA},
							     .value = {[1] = -16}};
			cfi_remember_quick(remembered, false);
		}
}

/* The same stack by rules that are remembered, quickly and closely: what comes of it is the same. */
static inline void world_sample_by_rules(struct unwind_registers registers)
{
	static struct walk before;
	static __u64 serial;
	before = world_walk;
	serial++;
	world_remember(&before, serial);
	for (world_walks_quickly = 0; world_walks_quickly < 2; world_walks_quickly++) {
		world_walk_stack(registers, serial);
		ck_assert_uint_eq(world_walk.end, before.end);
		ck_assert_uint_eq(world_walk.n, before.n);
		ck_assert_uint_eq(world_walk.n_barriers, before.n_barriers);
		ck_assert_uint_eq(world_walk.n_segments, before.n_segments);
		ck_assert_uint_eq(world_walk.flags, before.flags);
		ck_assert_mem_eq(world_walk.frames, before.frames, before.n * sizeof(before.frames[0]));
		ck_assert_mem_eq(world_walk.barriers, before.barriers, before.n_barriers * sizeof(before.barriers[0]));
		ck_assert_mem_eq(world_walk.segments, before.segments, before.n_segments * sizeof(before.segments[0]));
		ck_assert_mem_eq(world_walk.python.runs, before.python.runs, sizeof(before.python.runs));
	}
	world_walks_quickly = 1;
}

/* The sample's stack, as reconcile has it. */
static inline struct segments_stack world_sample(struct unwind_registers registers)
{
	memset(&world_walk, 0xff, sizeof(world_walk)); /* what is left of the last sample must not count */
	world_walk_stack(registers, 0);
	if (!world.before_read) /* which may change the world */
		world_sample_by_rules(registers);
	size_t segment_bytes = world_walk.n_segments * sizeof(struct record_segment);
	size_t bytes = sizeof(struct record) + world_walk.n * 8 + segment_bytes + world_walk.n_barriers * 8;
	struct record *record = calloc(1, bytes);
	ck_assert_ptr_nonnull(record);
	record->n_user = (__u16)world_walk.n;
	record->user_end = (__u8)world_walk.end;
	record->n_segments = (__u8)world_walk.n_segments;
	record->n_barriers = (__u16)world_walk.n_barriers;
	record->flags = (__u8)world_walk.flags;
	record->thread_flags = world_walk.thread_at ? (__u8)world_walk.table.thread.flags : 0;
	memcpy(record->frames, world_walk.frames, world_walk.n * 8);
	memcpy(record->frames + world_walk.n, world_walk.segments, segment_bytes);
	memcpy((char *)(record->frames + world_walk.n) + segment_bytes, world_walk.barriers, world_walk.n_barriers * 8);
	struct segments_stack stack;
	ck_assert_int_eq(segments_reconcile(record, NULL, world_room, &stack), 0);
	if (stack.user != world_room) {
		memcpy(world_room, stack.user, stack.n * 8);
		stack.user = world_room;
	}
	free(record);
	return stack;
}

#define expect_stack(stack, expected_end, ...)                                                           \
	do {                                                                                             \
		const uint64_t expected_[] = {__VA_ARGS__};                                              \
		struct segments_stack stack_ = (stack);                                                  \
		ck_assert_int_eq((int)stack_.end, expected_end);                                         \
		for (size_t i_ = 0; i_ < sizeof(expected_) / 8 && i_ < stack_.n; i_++)                   \
			ck_assert_msg(stack_.user[i_] == expected_[i_], "frame %zu is %lx, not %lx", i_, \
				      (unsigned long)stack_.user[i_], (unsigned long)expected_[i_]);     \
		ck_assert_uint_eq(stack_.n, sizeof(expected_) / 8);                                      \
	} while (0)
