/* The walk by a barrier-lock table whose content is whatever the target likes, and changes while it is read: it ends within bounds, reads nothing but
 * by the one function that may fail, and what it makes is a record that reconcile understands. Only what discovery has checked (offsets, sizes,
 * capacities) is sound. Input: struct head, then the table, then the stacks. */
#undef NDEBUG /* a check that is left out checks nothing */
#include <assert.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/cfi_table.h"
#include "bpf/mapping_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum {
	THREADS = 4,
	STACKS = 8,
	BARRIERS = 16,
	RANGES = 8,
	RANGES_AT = 128,
	THREADS_AT = 4096,
	STACKS_AT = THREADS_AT + THREADS * 256,
	BARRIERS_AT = STACKS_AT + STACKS * 128,
	TABLE_BYTES = BARRIERS_AT + STACKS * BARRIERS * 16,
	STACK_BYTES = 16384,
	MAX_READS = 16 * 1024, /* of a walk: a few for each step */
};
#define TABLE_VA 0x10000000ull
#define STACK_VA 0x20000000ull

struct head {
	uint64_t pc, sp, fp;
	uint32_t tid;
	uint16_t change_at, change_where; /* after that many reads a word of the table becomes another */
	uint64_t change_to;
	uint8_t flags, spare[7];
};

struct memory {
	uint8_t table[TABLE_BYTES], stack[STACK_BYTES];
	struct head head;
	unsigned reads;
};

static long unwind_read(void *to, __u32 bytes, __u64 address, void *context)
{
	struct memory *memory = context;
	memory->reads++;
	assert(memory->reads < MAX_READS);
	if (memory->reads == memory->head.change_at)
		memcpy(memory->table + memory->head.change_where % (TABLE_BYTES - 8), &memory->head.change_to, 8);
	if (address >= TABLE_VA && address < TABLE_VA + TABLE_BYTES && bytes <= TABLE_VA + TABLE_BYTES - address) {
		memcpy(to, memory->table + (address - TABLE_VA), bytes);
		return 0;
	}
	if (address >= STACK_VA && address < STACK_VA + STACK_BYTES && bytes <= STACK_VA + STACK_BYTES - address) {
		memcpy(to, memory->stack + (address - STACK_VA), bytes);
		return 0;
	}
	return -14;
}

static const void *unwind_list_page(__u32 list, __u32 page, void *context)
{
	static const struct unwind_list_header header = {.n_entries = 1, .n_pages = 1, .first = {0x1000}};
	static const struct unwind_list_entry entries[UNWIND_PAGE_ENTRIES] = {
		{.start = 0x1000, .end = 1ull << 47, .kind = UNWIND_CODE_PLAIN}};
	(void)context;
	assert(list == 0);
	return page == 0 ? (const void *)&header : page == 1 ? (const void *)entries : NULL;
}

static void *unwind_table_open(__u32 table, void *context)
{
	(void)table, (void)context;
	return NULL;
}

static const void *unwind_table_page(void *table, __u32 page)
{
	(void)table, (void)page;
	return NULL;
}

#include "bpf/walk.h"

#include "collect/table_config.h"
#include "model/sample.h"
#include "reconcile/segments.h"

/* As the daemon would have found the table. */
static void configure(const struct memory *memory, struct table_config *config)
{
	static struct barrier_table found;
	memset(&found, 0, sizeof(found));
	found.header = (struct sprof_header){.self_va = TABLE_VA,
					     .total_size = TABLE_BYTES,
					     .proc_starttime = 100,
					     .off_thread = THREADS_AT,
					     .off_stack = STACKS_AT,
					     .off_range = RANGES_AT,
					     .thread_size = 256,
					     .stack_size = 128,
					     .cap_thread = THREADS,
					     .cap_stack = STACKS,
					     .cap_range = RANGES};
	found.n_ranges = RANGES;
	memcpy(found.ranges, memory->table + RANGES_AT, RANGES * sizeof(struct sprof_range));
	memcpy(&found.ranges_version, memory->table + offsetof(struct sprof_header, range_end), 8);
	found.foreign_process = memory->head.flags & 1;
	table_config_fill(&found, 0, config);
}

static void check(const struct walk *walk)
{
	static uint64_t room[RECORD_MAX_USER_FRAMES + 1];
	size_t words = walk->n + walk->n_segments * sizeof(struct record_segment) / 8 + walk->n_barriers;
	struct record *record =
		calloc(1, sizeof(*record) + words * 8); /* its very size, so that AddressSanitizer sees */
	struct segments_stack stack;
	if (!record)
		return;
	assert(walk->n <= WALK_FRAMES && walk->n_segments <= RECORD_MAX_SEGMENTS && walk->n_barriers <= WALK_FRAMES);
	record->n_user = (__u16)walk->n;
	record->user_end = (__u8)walk->end;
	record->n_segments = (__u8)walk->n_segments;
	record->n_barriers = (__u16)walk->n_barriers;
	record->flags = (__u8)walk->flags;
	memcpy(record->frames, walk->frames, walk->n * 8);
	__u64 *tail = record->frames + walk->n;
	memcpy(tail, walk->segments, walk->n_segments * sizeof(struct record_segment));
	memcpy(tail + walk->n_segments * sizeof(struct record_segment) / 8, walk->barriers, walk->n_barriers * 8);
	assert(segments_reconcile(record, NULL, room, &stack) == 0);
	assert(stack.n >= 1 && stack.n <= RECORD_MAX_USER_FRAMES + 1 && stack.end < STACK_END_COUNT);
	for (uint16_t i = 1; i < stack.n; i++) /* rule 14, and no address that user mode cannot have */
		assert(!(stack.user[i] >> 47) || stack.user[i] >= SAMPLE_FRAME_EXTERNAL_CODE);
	free(record);
}

static void walk_on(struct walk *walk, const struct table_config *config, struct memory *memory)
{
	for (int i = 0; i < WALK_STEPS; i++)
		if (walk_step(walk, config, memory))
			break;
	for (uint32_t i = walk->n_segments; i-- > 0;)
		walk_read_version(walk, config, i, memory);
	walk_check_table(walk, config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct memory memory;
	static struct walk walk;
	static struct table_config config;
	if (bytes < sizeof(memory.head))
		return 0;
	memset(&memory, 0, sizeof(memory));
	memcpy(&memory.head, data, sizeof(memory.head));
	data += sizeof(memory.head);
	bytes -= sizeof(memory.head);
	size_t n = bytes < TABLE_BYTES ? bytes : TABLE_BYTES;
	memcpy(memory.table, data, n);
	memcpy(memory.stack, data + n, bytes - n < STACK_BYTES ? bytes - n : STACK_BYTES);
	configure(&memory, &config);
	memset(&walk, 0xee, sizeof(walk));
	walk.registers = (struct unwind_registers){.pc = memory.head.pc & ((1ull << 47) - 1),
						   .sp = memory.head.sp,
						   .fp = memory.head.fp,
						   .known = UNWIND_KNOWN_ALL,
						   .pc_is_exact = 1};
	walk.tables = (struct unwind_tables){.ready = 1};
	struct barrier_thread who = {.tid = memory.head.tid, .start_ticks = 100, .leader_ticks = 100};
	walk_reset(&walk);
	walk_start(&walk, &config, &who, &memory);
	walk_on(&walk, &config, &memory);
	if (walk_again(&walk))
		walk_on(&walk, &config, &memory);
	check(&walk);
	return 0;
}
