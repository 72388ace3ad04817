/* The walk of a stack that the target has filled as it likes: it ends, it reads nothing but what it is given, and its stack pointer
 * only grows. Input: pc, sp, fp (8 bytes each; sp and fp relative to the stack's start), an offset of the start in its page, the stack. */
#undef NDEBUG /* a check that is left out checks nothing */
#include <assert.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/outcome.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct memory {
	const uint8_t *bytes;
	__u64 start, n;
	unsigned reads;
};

/* What is not in the recorded stack cannot be read; and nobody asks for more than the rest of a page. */
static long unwind_read(void *to, __u32 bytes, __u64 address, void *context)
{
	struct memory *memory = context;
	memory->reads++;
	assert(bytes >= 16 && bytes <= 4096);
	assert(bytes == 16 || (address & 4095) + bytes == 4096);
	if (address < memory->start || address - memory->start > memory->n ||
	    memory->n - (address - memory->start) < bytes)
		return -14;
	memcpy(to, memory->bytes + (address - memory->start), bytes);
	return 0;
}

#include "bpf/record.h"
#include "bpf/unwind.h"

enum { HEAD_BYTES = 26 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct unwind_registers registers;
	uint16_t offset;
	if (bytes < HEAD_BYTES)
		return 0;
	memcpy(&registers, data, sizeof(registers));
	memcpy(&offset, data + sizeof(registers), sizeof(offset));
	struct memory memory = {
		.bytes = data + HEAD_BYTES, .n = bytes - HEAD_BYTES, .start = 0x7ffc00000000 + (offset & 4088)};
	registers.sp += memory.start;
	registers.fp += memory.start;
	struct unwind_window *window = malloc(sizeof(*window)); /* so that AddressSanitizer guards its ends */
	if (!window)
		return 0;
	window->start = window->n = 0;
	int end = UNWIND_GOES_ON;
	size_t frames = 0;
	/* Each frame takes 16 bytes of stack at least: so a walk of given memory is never longer. */
	size_t most = memory.n / UNWIND_FRAME_BYTES + 2;
	while (end == UNWIND_GOES_ON) {
		__u64 sp = registers.sp;
		end = unwind_step_frame_pointer(&registers, window, &memory);
		assert(end != UNWIND_GOES_ON || registers.sp > sp);
		assert(end == UNWIND_GOES_ON || (end > STACK_END_NONE && end < STACK_END_COUNT));
		assert(++frames <= most);
	}
	assert(memory.reads <= frames);
	free(window);
	return 0;
}
