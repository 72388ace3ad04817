/* Gives bpf/unwind.h a user-mode memory: a recorded buffer that stands for the target's addresses. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct recorded_memory {
	__u64 start;
	size_t n;
	const unsigned char *bytes;
	unsigned reads;
	bool out_of_page; /* a read crossed a page although no frame does */
};

static inline long unwind_read(void *to, __u32 bytes, __u64 address, void *memory)
{
	struct recorded_memory *recorded = memory;
	recorded->reads++;
	if ((address & 4095) + bytes > 4096 && bytes != 16)
		recorded->out_of_page = true;
	if (address < recorded->start || address - recorded->start > recorded->n ||
	    recorded->n - (address - recorded->start) < bytes)
		return -14; /* EFAULT */
	memcpy(to, recorded->bytes + (address - recorded->start), bytes);
	return 0;
}

#include "bpf/unwind.h"

/* The walk as the BPF program does it: at most max frames, the sampled pc first. Returns why it ended; STACK_END_TOO_DEEP at max. */
static inline enum stack_end unwind_walk(struct unwind_registers registers, struct recorded_memory *memory,
					 __u64 *frames, size_t max, size_t *ret_n)
{
	struct unwind_window window;
	window.start = window.n = 0;
	for (size_t n = 0; n < max;) {
		frames[n++] = registers.pc;
		*ret_n = n;
		int end = unwind_step_frame_pointer(&registers, &window, memory);
		if (end != UNWIND_GOES_ON)
			return (enum stack_end)end;
	}
	return STACK_END_TOO_DEEP;
}
