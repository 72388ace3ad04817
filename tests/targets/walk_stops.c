/* Walks stacks of a stopped process that another program took down (tests/system/gdb_stops.py): by the walk of bpf/unwind.h, with tables that libdw tells.
 *     walk_stops PID < STOPS
 * A stop: 17 registers (8 bytes each, numbered as in DWARF), the address of the stack's copy, its length, and its bytes. For each, a line: the
 * number of the enum stack_end, and the addresses in hexadecimal. */
#include <stdio.h>
#include <stdlib.h>

#include "recorded_code.h"

enum { MAX_FRAMES = 4096, MAX_STACK_BYTES = 16 << 20 };

int main(int argc, char **argv)
{
	static __u64 frames[MAX_FRAMES], head[UNWIND_REGISTERS + 2];
	struct recorded_code code = {0};
	unsigned char *stack = malloc(MAX_STACK_BYTES);
	if (argc != 2 || !stack)
		return 2;
	recorded_read(&code, (pid_t)strtol(argv[1], NULL, 10));
	while (fread(head, sizeof(head), 1, stdin) == 1) {
		__u64 start = head[UNWIND_REGISTERS], n = head[UNWIND_REGISTERS + 1];
		struct recorded_memory memory = {.start = start, .n = n, .bytes = stack};
		struct unwind_registers registers = {.known = UNWIND_KNOWN_ALL, .pc_is_exact = 1};
		size_t n_frames;
		if (n > MAX_STACK_BYTES || fread(stack, n, 1, stdin) != 1)
			return 1;
		memcpy(registers.by_number, head, sizeof(registers.by_number));
		recorded_use(&code, &memory);
		printf("%d", (int)unwind_walk(registers, &memory, frames, MAX_FRAMES, &n_frames));
		for (size_t i = 0; i < n_frames; i++)
			printf(" %llx", (unsigned long long)frames[i]);
		putchar('\n');
	}
	recorded_free(&code);
	free(stack);
	return 0;
}
