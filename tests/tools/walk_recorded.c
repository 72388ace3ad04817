/* Walks stacks that were recorded elsewhere, out of core dumps or by perf: the walk of the BPF program, built in user mode, with the tables that sprofd-elf makes.
 *     walk_recorded MAPPINGS < STACKS
 * MAPPINGS: see recording.h. A stack: 17 registers (8 bytes each, numbered as in DWARF), the address of the copy of its memory, its length, and its bytes. For each, a
 * line: why the stack ends (bpf/outcome.h), and the addresses in hexadecimal, leaf first. */
#include <sprof/barrier_abi.h>
#include <stdlib.h>
#include <string.h>

#include "recording.h"

/* Each stack is walked with cfi_step_quick() and without. */
static int walks_quickly;
#define WALK_QUICK walks_quickly
static unsigned long quick_frames;
#define WALK_WENT_QUICKLY() (quick_frames++)
#include "bpf/walk.h"

enum { MAX_STACK_BYTES = 64 << 20, MANY_STACKS = 100 };

static const char *const ends[] = {
#define END_NAME(NAME, name, complete, text) [STACK_END_##NAME] = #name,
	STACK_END_TABLE(END_NAME)
#undef END_NAME
};

/* Of a stack that is deeper than a record the end of the leaf, and then it says so. */
static void print(struct walk *walk)
{
	bool whole = walk_keep_ends(walk) == 0;
	printf("%s", ends[whole ? walk->end : STACK_END_TOO_DEEP]);
	for (__u32 i = 0; i < walk->n && (whole || i < WALK_FRAMES); i++)
		printf(" %llx", (unsigned long long)walk->frames[i]);
	putchar('\n');
}

static void walk_stack(struct walk *walk, struct recording *recording, const __u64 *registers)
{
	walk_reset(walk);
	memcpy(walk->registers.by_number, registers, sizeof(walk->registers.by_number));
	walk->registers.known = UNWIND_KNOWN_ALL;
	walk->registers.pc_is_exact = 1;
	walk->tables = (struct unwind_tables){.serial = recording->list[0].header.serial, .ready = 1};
	walk_start(walk, NULL, NULL, recording);
	for (int i = 0; i < WALK_STEPS && !walk_step(walk, NULL, recording); i++)
		;
}

/* 0; negative when the two ways disagree. */
static int walk_both_ways(struct recording *recording, const __u64 *registers)
{
	static struct walk closely, quickly;
	walks_quickly = 0;
	walk_stack(&closely, recording, registers);
	walks_quickly = 1;
	for (int i = 0; i < 2; i++) { /* by what it remembers of itself */
		walk_stack(&quickly, recording, registers);
		if (quickly.n != closely.n || quickly.end != closely.end ||
		    memcmp(quickly.frames, closely.frames, sizeof(quickly.frames[0]) * WALK_WORDS) != 0) {
			fprintf(stderr, "walk_recorded: the stack of pc %llx is another when it is walked quickly\n",
				(unsigned long long)registers[UNWIND_RIP]);
			return -1;
		}
	}
	print(&quickly);
	return 0;
}

static int walk_stacks(struct recording *recording, unsigned char *bytes)
{
	__u64 head[UNWIND_REGISTERS + 2];
	unsigned long n = 0;
	while (fread(head, sizeof(head), 1, stdin) == 1) {
		recording->start = head[UNWIND_REGISTERS];
		recording->n = head[UNWIND_REGISTERS + 1];
		recording->bytes = bytes;
		if (recording->n > MAX_STACK_BYTES || fread(bytes, 1, recording->n, stdin) != recording->n) {
			fprintf(stderr, "walk_recorded: a stack is cut short, or larger than %d bytes\n",
				MAX_STACK_BYTES);
			return 1;
		}
		if (walk_both_ways(recording, head) < 0)
			return 1;
		n++;
	}
	if (n >= MANY_STACKS && !quick_frames) {
		fprintf(stderr, "walk_recorded: of %lu stacks no frame was walked quickly\n", n);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct recording recording = {0};
	unsigned line = 0;
	FILE *mappings = argc == 2 ? fopen(argv[1], "re") : NULL;
	if (!mappings) {
		fprintf(stderr, "usage: walk_recorded MAPPINGS < STACKS, with a file MAPPINGS that can be read\n");
		return 2;
	}
	int r = recording_read(&recording, mappings, &line);
	(void)fclose(mappings);
	unsigned char *bytes = malloc(MAX_STACK_BYTES);
	if (r < 0)
		fprintf(stderr, "walk_recorded: %s:%u: %s\n", argv[1], line, strerror(-r));
	else
		r = bytes ? walk_stacks(&recording, bytes) : 1;
	free(bytes);
	recording_free(&recording);
	return r != 0;
}
