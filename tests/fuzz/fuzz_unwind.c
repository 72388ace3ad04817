/* The walk of a stack that the target has filled as it likes, by a table that is whatever it is: it ends, it reads nothing but what it is given,
 * and the stack pointer only grows, except where a signal interrupted. Input: pc, sp, fp (8 bytes each; sp and fp relative to the stack's
 * start), an offset of the start in its page whose highest bit says that a table follows: its length (2 bytes) and bytes; the stack. */
#undef NDEBUG /* a check that is left out checks nothing */
#include <assert.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/cfi_table.h"
#include "bpf/mapping_list.h"
#include "bpf/outcome.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { HEAD_BYTES = 26, MAX_STEPS = 1024, MAX_READS = 64 };
#define TEXT_START 0x400000ull
#define TEXT_END   0x800000ull
#define HAS_TABLE  0x8000u

struct memory {
	const uint8_t *bytes;
	__u64 start, n;
	uint8_t *table;
	size_t table_pages;
	struct unwind_list_header header;
	struct unwind_list_entry entries[UNWIND_PAGE_ENTRIES];
	unsigned reads;
};

/* What is not in the recorded stack cannot be read; and nobody asks for more than a frame and the rest of its page. */
static long unwind_read(void *to, __u32 bytes, __u64 address, void *context)
{
	struct memory *memory = context;
	memory->reads++;
	assert(bytes >= 1 && bytes <= 4096 + 64);
	assert(bytes == 8 || bytes == 4 /* of text */ || bytes == 136 /* of a signal frame */ ||
	       ((address + bytes) & 4095) == 0);
	if (address < memory->start || address - memory->start > memory->n ||
	    memory->n - (address - memory->start) < bytes)
		return -14;
	memcpy(to, memory->bytes + (address - memory->start), bytes);
	return 0;
}

static const void *unwind_list_page(__u32 list, __u32 page, void *context)
{
	const struct memory *memory = context;
	assert(list == 0);
	return page == 0 ? (const void *)&memory->header : page == 1 ? memory->entries : NULL;
}

static void *unwind_table_open(__u32 table, void *context)
{
	assert(table == 7);
	return context;
}

static const void *unwind_table_page(void *table, __u32 page)
{
	const struct memory *memory = table;
	return page < memory->table_pages ? memory->table + (size_t)page * CFI_PAGE_BYTES : NULL;
}

#include "bpf/record.h"
#include "bpf/unwind.h"

/* Code without a table, around code with the table if there is one. */
static void make_list(struct memory *memory)
{
	memory->entries[0] = (struct unwind_list_entry){.start = 0x1000, .end = TEXT_START};
	memory->entries[1] = (struct unwind_list_entry){
		.start = TEXT_START,
		.end = TEXT_END,
		.bias = -TEXT_START,
		.table = 7,
		.kind = memory->table ? UNWIND_CODE_TABLE : UNWIND_CODE_PLAIN,
	};
	memory->entries[2] = (struct unwind_list_entry){.start = TEXT_END, .end = 1ull << 47};
	memory->header = (struct unwind_list_header){.n_entries = 3, .n_pages = 1, .first = {0x1000}};
}

/* Pages of their own, so that AddressSanitizer guards their ends. */
static void take_table(struct memory *memory)
{
	uint16_t n = 0;
	if (memory->n < sizeof(n))
		return;
	memcpy(&n, memory->bytes, sizeof(n));
	memory->bytes += sizeof(n);
	memory->n -= sizeof(n);
	if (n > memory->n)
		n = (uint16_t)memory->n;
	memory->table_pages = ((size_t)n + CFI_PAGE_BYTES - 1) / CFI_PAGE_BYTES;
	memory->table = calloc(memory->table_pages + 1, CFI_PAGE_BYTES);
	assert(memory->table);
	memcpy(memory->table, memory->bytes, n);
	memory->bytes += n;
	memory->n -= n;
}

/* The registers with which a walk ended, and why. */
struct ending {
	struct unwind_registers registers;
	int end;
};

static struct ending walk(struct unwind_registers registers, struct unwind_window *window, __u64 serial,
			  struct memory *memory)
{
	const struct unwind_tables tables = {.ready = 1, .serial = serial};
	int end = UNWIND_GOES_ON;
	unwind_window_reset(window);
	for (int steps = 0; end == UNWIND_GOES_ON && steps < MAX_STEPS; steps++) {
		__u64 sp = registers.sp, slot = 1;
		__u32 switches = window->switches;
		memory->reads = 0;
		struct unwind_registers quick = registers;
		__u64 quick_slot = cfi_step_quick(&quick, window, &tables, 0, 0);
		end = unwind_step(&registers, window, &tables, memory, &slot);
		assert(!quick_slot ||
		       (end == UNWIND_GOES_ON && quick_slot == slot && memcmp(&quick, &registers, sizeof(quick)) == 0));
		/* Upwards, but for a signal's frame, and where a rule says that the caller is on another stack: that a few times alone. */
		assert(end != UNWIND_GOES_ON || registers.sp > sp || registers.pc_is_exact ||
		       window->switches > switches);
		assert(end != UNWIND_GOES_ON || window->switches <= UNWIND_MAX_SWITCHES);
		assert(end == UNWIND_GOES_ON || (end > STACK_END_NONE && end < STACK_END_COUNT));
		assert(memory->reads <= MAX_READS);
	}
	return (struct ending){registers, end};
}

/* Without remembering rules, by those of the walk itself, and by those that the walk before left: all the same. */
static void walk_thrice(struct unwind_registers registers, struct memory *memory)
{
	struct unwind_window *window = calloc(1, sizeof(*window)); /* guarded as well */
	assert(window);
	struct ending without = walk(registers, window, 0, memory);
	for (int i = 0; i < 2; i++) {
		struct ending with = walk(registers, window, 1, memory);
		assert(with.end == without.end);
		assert(memcmp(&with.registers, &without.registers, sizeof(with.registers)) == 0);
	}
	free(window);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct unwind_registers registers = {.known = UNWIND_KNOWN_ALL, .pc_is_exact = 1};
	uint16_t offset;
	if (bytes < HEAD_BYTES)
		return 0;
	memcpy(&registers.pc, data, 8);
	memcpy(&registers.sp, data + 8, 8);
	memcpy(&registers.fp, data + 16, 8);
	memcpy(&offset, data + 24, sizeof(offset));
	struct memory *memory = calloc(1, sizeof(*memory));
	assert(memory);
	memory->bytes = data + HEAD_BYTES;
	memory->n = bytes - HEAD_BYTES;
	memory->start = 0x7ffc00000000 + (offset & 4088);
	if (offset & HAS_TABLE)
		take_table(memory);
	make_list(memory);
	registers.sp += memory->start;
	registers.fp += memory->start;
	walk_thrice(registers, memory);
	free(memory->table);
	free(memory);
	return 0;
}
