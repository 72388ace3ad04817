/* CPython's state as a target may make it up: the walk of its frames ends within bounds, and what it makes is a record that reconcile understands; and
 * any bytes are a location table. Input: struct head, then the memory, whose first part is also a location table. */
#undef NDEBUG /* a check that is left out checks nothing */
#include <assert.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "collect/python_layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { MEMORY_BYTES = 4096, MAX_READS = 3 * 1536 + 16 };
#define MEMORY_VA UINT64_C(0x10000000)

struct head {
	uint8_t version, passes, spare[6];
};

static uint8_t memory_bytes[MEMORY_BYTES];
static unsigned reads;

/* Memory that repeats: so that more of what is pointed to is there. */
static long unwind_read(void *to, __u32 bytes, __u64 address, void *context)
{
	(void)context;
	assert(++reads < MAX_READS);
	if (address >> 32)
		return -14;
	for (__u32 i = 0; i < bytes; i++)
		((uint8_t *)to)[i] = memory_bytes[(address + i) % MEMORY_BYTES];
	return 0;
}

#include "bpf/python.h"

#include "model/python_lines.h"
#include "reconcile/python_frames.h"

enum { C_FRAMES = 300 };

static void check(const struct python_walk *walk)
{
	static uint64_t room[RECORD_MAX_PYTHON_FRAMES + RECORD_MAX_USER_FRAMES + 1];
	size_t frames_bytes = walk->n_frames * sizeof(walk->frames[0]);
	size_t runs_bytes = walk->n_frames ? walk->n_runs * sizeof(walk->runs[0]) : 0;
	assert(walk->n_frames <= RECORD_MAX_PYTHON_FRAMES && walk->n_runs <= RECORD_MAX_PYTHON_RUNS);
	assert(walk->end < PYTHON_END_COUNT);
	struct record *record = calloc(1, sizeof(*record) + C_FRAMES * 8 + frames_bytes + runs_bytes);
	struct python_codes *codes = python_codes_new(1 << 20);
	if (record && codes) {
		record->n_user = C_FRAMES;
		record->n_python = (__u16)walk->n_frames;
		record->n_python_runs = (__u16)(runs_bytes / sizeof(walk->runs[0]));
		memcpy(record->frames + C_FRAMES, walk->frames, frames_bytes);
		memcpy((char *)(record->frames + C_FRAMES) + frames_bytes, walk->runs, runs_bytes);
		struct segments_stack stack = {.user = (const uint64_t *)record->frames, .n = C_FRAMES};
		assert(python_frames_check(record) == 0);
		python_frames_merge(record, codes, room, &stack);
		assert(stack.n == C_FRAMES + walk->n_frames);
	}
	python_codes_unref(codes);
	free(record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const uint32_t versions[] = {0x030b0000, 0x030c0000, 0x030d0000};
	static struct python_walk walk;
	struct head head;
	if (bytes < sizeof(head))
		return 0;
	memcpy(&head, data, sizeof(head));
	data += sizeof(head);
	bytes -= sizeof(head);
	memset(memory_bytes, 0, sizeof(memory_bytes));
	memcpy(memory_bytes, data, bytes < MEMORY_BYTES ? bytes : MEMORY_BYTES);
	struct python_config config = python_layout_find(versions[head.version % 3])->config;
	config.specific = 64;
	config.holder_at = head.version & 128 ? MEMORY_VA + 8 : 0;
	memcpy(&config.code_type, memory_bytes, sizeof(config.code_type));
	reads = 0;
	memset(&walk, 0xee, sizeof(walk));
	python_reset(&walk);
	if (python_begin(&walk, &config, MEMORY_VA, NULL) == 0)
		for (int i = 0; i < PYTHON_STEPS && !python_step(&walk, &config, NULL); i++)
			;
	for (uint32_t i = 0; i < head.passes && walk.next_entry != ~0ull; i++)
		python_passed(&walk, i);
	check(&walk);
	for (uint32_t instruction = 0; instruction < 64; instruction++)
		assert(python_lines_find(data, bytes, 1, instruction) <= INT32_MAX);
	return 0;
}
