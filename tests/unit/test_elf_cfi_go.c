/* Unwind tables from Go's own table of functions: its versions, frames, the runtime's functions that change stacks, damage; and a walk from a thread's
 * stack to its goroutine's. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "check_main.h"
#include "elf/cfi_build.h"
#include "elf/go_pclntab.h"
#include "go_maker.h"
#include "unwind_memory.h"

#define CODE(...) .code = {__VA_ARGS__}, .n_code = sizeof((const uint8_t[]){__VA_ARGS__})

static struct maker maker;
static struct cfi_bytes table_bytes, eh;
static struct cfi_table table;

static int build_file(void)
{
	cfi_table_free(&table);
	int fd = maker_memfd(maker.bytes, maker.n);
	ck_assert_int_ge(fd, 0);
	int r = cfi_build(fd, &table);
	close(fd);
	if (r == 0)
		ck_assert(cfi_table_check(table.bytes, table.n));
	return r;
}

static void build(enum go_version version, const struct go_made *functions, size_t n)
{
	go_make_table(&table_bytes, version, functions, n);
	go_make_file(&maker, eh.n ? &eh : NULL, &table_bytes, functions, n);
	ck_assert_int_eq(build_file(), 0);
}

static void expect(uint32_t at, const char *text)
{
	const char *is = cfi_rule_text(table.bytes, at);
	ck_assert_msg(strcmp(is, text) == 0, "at %#x: %s, not %s", at, is, text);
}

/* sub $24, %rsp; mov %rbp, 16(%rsp); ... add $24, %rsp; ret */
#define FRAME 0x48, 0x83, 0xec, 24, 0x48, 0x89, 0x6c, 0x24, 16

START_TEST(versions)
{
	static const struct go_made functions[] = {
		{.name = "main.main", .start = 0x10, .bytes = 0x20, CODE(FRAME), .spans = {{0, 4}, {24, 23}, {0, 5}}},
		{.name = "runtime.goexit", .start = 0x30, .bytes = 0x10, .spans = {{0, 16}}},
		{.name = "main.other", .start = 0x40, .bytes = 0x10, .spans = {{0, 16}}},
	};
	for (enum go_version version = 0; version < GO_VERSIONS; version++) {
		build(version, functions, 3);
		expect(0x0f, "none");
		expect(0x10, "r7+8 pc=[-8]");
		expect(0x13, "r7+8 pc=[-8]");
		expect(0x14, "r7+32 pc=[-8]"); /* rbp is not saved yet */
		expect(0x18, "r7+32 pc=[-8]");
		expect(0x19, "r7+32 pc=[-8] rbp=[-16]");
		expect(0x2a, "r7+32 pc=[-8] rbp=[-16]");
		expect(0x2b, "r7+8 pc=[-8]");
		expect(0x30, "end");
		expect(0x3f, "end");
		expect(0x40, "r7+8 pc=[-8]");
		expect(0x50, "none");
		ck_assert_uint_eq(table.stats.n_malformed, 0);
	}
}
END_TEST

START_TEST(frames)
{
	static const struct go_made functions[] = {
		/* Go 1.21 and later */
		{.name = "a",
		 .start = 0,
		 .bytes = 0x20,
		 CODE(0x55, 0x48, 0x89, 0xe5),
		 .spans = {{0, 1}, {8, 4}, {72, 27}}},
		/* assembly with a frame that does not save rbp there */
		{.name = "b",
		 .start = 0x20,
		 .bytes = 0x20,
		 CODE(0x48, 0x83, 0xec, 24, 0x48, 0x89, 0x6c, 0x24, 8),
		 .spans = {{0, 4}, {24, 28}}},
		/* a large one */
		{.name = "c",
		 .start = 0x40,
		 .bytes = 0x20,
		 CODE(0x48, 0x81, 0xec, 0x08, 1, 0, 0, 0x48, 0x89, 0xac, 0x24, 0, 1, 0, 0),
		 .spans = {{0, 7}, {264, 25}}},
		/* one that is only rbp's */
		{.name = "d",
		 .start = 0x60,
		 .bytes = 0x20,
		 CODE(0x48, 0x83, 0xec, 8, 0x48, 0x89, 0x2c, 0x24),
		 .spans = {{0, 4}, {8, 28}}},
		/* what makes no sense */
		{.name = "e", .start = 0x80, .bytes = 0x20, .spans = {{0, 4}, {-16, 4}, {INT32_MAX, 4}, {16, 4}}},
		/* not Go's: nothing is said */
		{.name = "f", .start = 0xa0, .bytes = 0x20},
	};
	build(GO_1_20, functions, 6);
	expect(0, "r7+8 pc=[-8]");
	expect(1, "r7+16 pc=[-8] rbp=[-16]");
	expect(5, "r7+80 pc=[-8] rbp=[-16]");
	expect(0x24, "r7+32 pc=[-8]");
	expect(0x3f, "r7+32 pc=[-8]");
	expect(0x47, "r7+272 pc=[-8]");
	expect(0x4f, "r7+272 pc=[-8] rbp=[-16]");
	expect(0x64, "r7+16 pc=[-8]");
	expect(0x68, "r7+16 pc=[-8] rbp=[-16]");
	expect(0x80, "r7+8 pc=[-8]");
	expect(0x84, "none");
	expect(0x88, "none");
	expect(0x8c, "r7+24 pc=[-8]");
	expect(0x90, "none"); /* behind its end: what is put between functions */
	expect(0xa0, "none");
	ck_assert_uint_eq(table.stats.n_malformed, 0);
	ck_assert_uint_eq(table.stats.n_unsupported, 2);
}
END_TEST

/* Go's own table is right about Go's code; what it has nothing to say of is for .eh_frame. */
START_TEST(beside_other_information)
{
	static const struct go_made functions[] = {
		{.name = "main.main", .start = 0x10, .bytes = 0x10, .spans = {{0, 16}}},
		{.name = "c", .start = 0x20, .bytes = 0x10},
	};
	static const uint8_t program[] = {DW_CFA_def_cfa_offset, 48};
	eh.n = 0;
	size_t cie = cfi_add_usual_cie(&eh);
	cfi_add_fde(&eh, cie, 0, 0x40, program, sizeof(program));
	build(GO_1_18, functions, 2);
	eh.n = 0;
	expect(0x0f, "r7+48 pc=[-8]");
	expect(0x10, "r7+8 pc=[-8]");
	expect(0x1f, "r7+8 pc=[-8]");
	expect(0x20, "r7+48 pc=[-8]");
	expect(0x3f, "r7+48 pc=[-8]");
}
END_TEST

/* The way back from the thread's stack: g by the thread pointer, g.m, m.curg, g.sched.sp. */
#define G_FROM_THREAD 0x64, 0x48, 0x8b, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff
#define WAY_BACK                                                                                                       \
	0x48, 0x8b, 0x58, 0x30, 0x48, 0x8b, 0x83, 0xc0, 0, 0, 0, 0x64, 0x48, 0x89, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff, \
		0x48, 0x8b, 0x60, 0x38
#define SWITCH_SP 0x48, 0x8b, 0x63, 0x38 /* mov 56(%rbx), %rsp */
#define CALL_RDI  0xff, 0xd7
#define CALL_RAX  0xff, 0xd0
#define ALIGN     0x48, 0x83, 0xe4, 0xf0
enum {
	SYSTEMSTACK,
	MORESTACK = 0x40,
	MCALL = 0x60,
	GOGO = 0x80,
	SIGRETURN = 0xa0,
	PREEMPT = 0xc0,
	SIGTRAMP = 0xe0,
	TOP = 0x100
};

static const struct go_made runtime[] = {
	{.name = "runtime.systemstack",
	 .start = SYSTEMSTACK,
	 .bytes = 0x40,
	 .flags = GO_FUNCTION_WRITES_SP,
	 CODE(SWITCH_SP, CALL_RDI, G_FROM_THREAD, WAY_BACK, 0xc3),
	 .spans = {{0, 0x40}}},
	{.name = "runtime.morestack", .start = MORESTACK, .bytes = 0x20, CODE(SWITCH_SP), .spans = {{0, 0x20}}},
	{.name = "runtime.mcall",
	 .start = MCALL,
	 .bytes = 0x20,
	 CODE(0x49, 0x8b, 0x66, 0x38, 0x50),
	 .spans = {{0, 5}, {8, 0x1b}}},
	{.name = "gogo",
	 .start = GOGO,
	 .bytes = 0x20,
	 CODE(0x90, 0x48, 0x8b, 0x23, 0x90, 0x48, 0x8b, 0x5b, 8, 0xff, 0xe3),
	 .spans = {{0, 0x20}}},
	{.name = "runtime.sigreturn__sigaction", .start = SIGRETURN, .bytes = 0x20, .spans = {{0, 0x20}}},
	{.name = "runtime.asyncPreempt", .start = PREEMPT, .bytes = 0x20, .spans = {{0, 0x20}}},
	{.name = "runtime.sigtramp", .start = SIGTRAMP, .bytes = 0x20, .flags = GO_FUNCTION_TOP, .spans = {{0, 0x20}}},
	{.name = "main.top", .start = TOP, .bytes = 0x20, .flags = GO_FUNCTION_TOP, .spans = {{0, 0x20}}},
};
enum { RUNTIME = sizeof(runtime) / sizeof(runtime[0]) };

START_TEST(the_runtime)
{
	build(GO_1_20, runtime, RUNTIME);
	expect(SYSTEMSTACK + 3, "r7+8 pc=[-8]");
	for (uint32_t at = 4; at < 6 + 9 + 24; at++)
		expect(SYSTEMSTACK + at,
		       "other {thread-8 deref 48 plus deref 192 plus deref 56 plus deref 8 plus} pc=[-8]");
	expect(SYSTEMSTACK + 39, "r7+8 pc=[-8]");
	expect(MORESTACK + 3, "r7+8 pc=[-8]");
	expect(MORESTACK + 4,
	       "other {thread-8 deref 48 plus deref 192 plus deref dup 0 eq r7-56 mul plus 56 plus deref} "
	       "pc={thread-8 deref 48 plus deref 192 plus deref dup 0 ne swap dup 0 eq r7-64 mul plus 64 plus deref "
	       "mul} rbp=?");
	expect(MCALL + 3, "r7+8 pc=[-8]");
	expect(MCALL + 4, "end");
	expect(MCALL + 0x1f, "end");
	expect(GOGO + 3, "r7+8 pc=[-8]");
	expect(GOGO + 4, "signal r7+0 pc=[{r3+8}]");
	expect(GOGO + 9, "signal r7+0 pc=r3");
	expect(SIGRETURN, "signal sigcontext r7+0 pc=[+0]");
	expect(SIGRETURN + 9, "signal sigcontext r7+0 pc=[+0]");
	expect(PREEMPT, "signal r7+8 pc=[-8]");
	expect(SIGTRAMP, "signal r7+8 pc=[-8]");
	expect(TOP, "end");
}
END_TEST

/* Code that is not what is expected has no rule where its stack is another: nothing is guessed. */
START_TEST(another_runtime)
{
	struct go_made functions[RUNTIME];
	uint8_t *code = functions[0].code;
	memcpy(functions, runtime, sizeof(functions));
	code[4 + 2 + 9 + 3] = 0; /* g.m at 0 */
	build(GO_1_20, functions, RUNTIME);
	expect(SYSTEMSTACK + 4, "none");
	expect(MORESTACK + 4, "none");
	code[4 + 2 + 9 + 3] = 0x30;
	code[4 + 2 + 9 + 24 - 2] = 0x68; /* into rbp, not sp */
	build(GO_1_20, functions, RUNTIME);
	expect(SYSTEMSTACK + 4, "none");
	expect(MORESTACK + 4, "none");
	expect(MCALL + 4, "end");
}
END_TEST

START_TEST(calls_of_c)
{
	enum { ASMCGOCALL = 0, NANOTIME = 0x60, CGOCALLBACK = 0xa0 };
	static const struct go_made functions[] = {
		{.name = "runtime.asmcgocall",
		 .start = ASMCGOCALL,
		 .bytes = 0x60,
		 CODE(0x48, 0x89, 0xe2, SWITCH_SP, 0x48, 0x83, 0xec, 64, ALIGN,
		      CALL_RAX, /* keep sp, go to the thread's stack, call */
		      0x48, 0x8b, 0x7c, 0x24, 48, 0x48, 0x8b, 0x77, 8, 0x48, 0x2b, 0x74, 0x24,
		      40,                     /* g, its stack's end, less the depth */
		      0x48, 0x89, 0xf4, 0xc3, /* into sp */
		      0x48, 0x83, 0xec, 64, ALIGN, CALL_RAX, 0x48, 0x8b, 0x74, 0x24, 40, 0x48, 0x89, 0xf4,
		      0xc3), /* it is there already */
		 .spans = {{0, 11}, {64, 24}, {0, 4}, {64, 0x39}}},
		{.name = "runtime.nanotime1",
		 .start = NANOTIME,
		 .bytes = 0x40,
		 .flags = GO_FUNCTION_WRITES_SP,
		 CODE(FRAME, 0x49, 0x89, 0xe4, 0x48, 0x83, 0xec, 16, 0xff, 0xd0, 0x4c, 0x89, 0xe4, 0x48, 0x83, 0xc4, 24,
		      0xc3, 0x90),
		 .spans = {{0, 4}, {24, 12}, {40, 9}, {16, 1}, {40, 38}}},
		{.name = "runtime.cgocallback",
		 .start = CGOCALLBACK,
		 .bytes = 0x20,
		 CODE(FRAME, 0x48, 0x89, 0xfc, 0x90, 0x48, 0x8b, 0x66, 0x38),
		 .spans = {{0, 4}, {24, 28}}},
	};
	build(GO_1_18, functions, 3);
	expect(6, "r7+8 pc=[-8]");
	expect(7, "other r1+8 pc=[-8]");
	expect(14, "other r1+8 pc=[-8]");
	expect(15, "other {r7+48 deref 8 plus deref r7+40 deref minus 8 plus} pc=[-8]");
	expect(33, "other {r7+48 deref 8 plus deref r7+40 deref minus 8 plus} pc=[-8]");
	expect(34, "r7+8 pc=[-8]"); /* the table says 72 */
	expect(35, "r7+8 pc=[-8]");
	expect(38, "r7+8 pc=[-8]");
	expect(43, "other {r7+40 deref 8 plus} pc=[-8]");
	expect(52, "other {r7+40 deref 8 plus} pc=[-8]");
	expect(53, "r7+8 pc=[-8]");
	expect(NANOTIME + 11, "r7+32 pc=[-8] rbp=[-16]");
	expect(NANOTIME + 12, "other r12+32 pc=[-8] rbp=[-16]");
	expect(NANOTIME + 20, "other r12+32 pc=[-8] rbp=[-16]");
	expect(NANOTIME + 21, "r7+32 pc=[-8] rbp=[-16]"); /* the table says 48 */
	expect(NANOTIME + 25, "r7+8 pc=[-8]");
	expect(NANOTIME + 26, "other r12+32 pc=[-8] rbp=[-16]");
	expect(CGOCALLBACK + 11, "r7+32 pc=[-8] rbp=[-16]");
	expect(CGOCALLBACK + 12, "signal r7+32 pc=[-8] rbp=[-16]");
	expect(CGOCALLBACK + 17, "r7+32 pc=[-8] rbp=[-16]");
}
END_TEST

/* Depths that cannot be reckoned with, where code says that sp is kept in r12 meanwhile. */
START_TEST(depths_out_of_bounds_beside_calls)
{
	static const struct go_made functions[] = {
		{.name = "runtime.nanotime1",
		 .start = 0,
		 .bytes = 0x40,
		 .flags = GO_FUNCTION_WRITES_SP,
		 CODE(FRAME, 0x49, 0x89, 0xe4, 0x48, 0x83, 0xec, 16, 0xff, 0xd0, 0x4c, 0x89, 0xe4, 0xc3),
		 .spans = {{0, 4}, {24, 12}, {40, 9}, {INT64_MIN, 8}, {40, 31}}},
		{.name = "runtime.walltime",
		 .start = 0x40,
		 .bytes = 0x40,
		 .flags = GO_FUNCTION_WRITES_SP,
		 CODE(FRAME, 0x49, 0x89, 0xe4, 0x48, 0x83, 0xec, 16, 0xff, 0xd0, 0x4c, 0x89, 0xe4, 0xc3),
		 .spans = {{0, 4}, {-1, 12}, {INT32_MAX, 48}}},
	};
	build(GO_1_18, functions, 2);
	expect(20, "other r12+32 pc=[-8] rbp=[-16]");
	expect(21, "r7+32 pc=[-8] rbp=[-16]");
	expect(25, "none");
	expect(33, "r7+32 pc=[-8] rbp=[-16]");
	expect(0x40 + 12, "none");
	expect(0x40 + 21, "none");
}
END_TEST

/* There is one systemstack in a program, and a wrapper of it at times: with a thousand of the name it is not worth reading them all. */
START_TEST(many_of_one_name)
{
	enum { MANY = 12 };
	for (int right = 0; right < MANY - 1; right++) {
		struct go_made functions[MANY];
		for (uint32_t i = 0; i < MANY; i++) {
			functions[i] = runtime[i == MANY - 1 ? 1 : 0];
			functions[i].start = i * 0x40;
			functions[i].code[6] = (int)i == right ? functions[i].code[6] : 0x90;
		}
		build(GO_1_20, functions, MANY);
		const char *rule = cfi_rule_text(table.bytes, (MANY - 1) * 0x40 + 4);
		ck_assert_msg((strcmp(rule, "none") != 0) == (right < 8), "%d: %s", right, rule);
	}
}
END_TEST

/* Whatever is wrong with the section, what comes of it is sound, or nothing. */
START_TEST(damage)
{
	static struct maker whole;
	go_make_table(&table_bytes, GO_1_20, runtime, RUNTIME);
	go_make_file(&whole, NULL, &table_bytes, runtime, RUNTIME);
	for (size_t i = 0; i < table_bytes.n; i++) {
		static const uint8_t wrong[] = {0, 1, 0x7f, 0x80, 0xff};
		for (size_t k = 0; k < sizeof(wrong); k++) {
			memcpy(maker.bytes, whole.bytes, whole.n);
			maker.n = whole.n;
			maker.bytes[CFI_DEBUG_OFFSET + i] = wrong[k];
			int r = build_file();
			ck_assert(r == 0 || r == -ENODATA || r == -EFBIG);
		}
		maker.bytes[CFI_DEBUG_OFFSET + i] = whole.bytes[CFI_DEBUG_OFFSET + i];
		maker_sections(&maker)[3].sh_size = i; /* cut short */
		int r = build_file();
		ck_assert(r == 0 || r == -ENODATA || r == -EFBIG);
	}
}
END_TEST

/* --- a walk --- */

enum {
	STACK = 0x10000,
	G = 0x100,
	M = 0x200,
	THREAD = 0x300,
	GOROUTINE = 0x400,
	GOROUTINE_STACK = 0x600,
	THREAD_STACK = 0x800,
	BYTES = 0x1000
};

static uint64_t stack[BYTES / 8];
static uint8_t pages[CFI_PAGE_BYTES * 4] __attribute__((aligned(CFI_PAGE_BYTES)));
static struct unwind_list_page mappings[2];
static struct recorded_table recorded;

static void put_word(uint64_t at, uint64_t value)
{
	stack[at / 8] = value;
}

static struct recorded_memory goroutine_memory(void)
{
	ck_assert_uint_le(table.n, sizeof(pages));
	memset(stack, 0, sizeof(stack));
	memcpy(pages, table.bytes, table.n);
	recorded = (struct recorded_table){.bytes = pages, .n = sizeof(pages)};
	struct unwind_list_header *header = (struct unwind_list_header *)mappings;
	*header = (struct unwind_list_header){.n_entries = 1, .n_pages = 1, .first = {CFI_CODE}};
	mappings[1].entries[0] = (struct unwind_list_entry){.start = CFI_CODE,
							    .end = CFI_CODE + CFI_CODE_BYTES,
							    .bias = -(uint64_t)CFI_BASE,
							    .kind = UNWIND_CODE_TABLE};
	put_word(THREAD - 8, STACK + G);
	put_word(G + 0x30, STACK + M);
	put_word(M + 0xc0, STACK + GOROUTINE);
	put_word(GOROUTINE + 0x38, STACK + GOROUTINE_STACK); /* sched.sp */
	put_word(GOROUTINE + 0x40, CFI_CODE + TOP + 8);      /* sched.pc */
	put_word(GOROUTINE_STACK, CFI_CODE + TOP + 4);
	return (struct recorded_memory){.start = STACK,
					.n = sizeof(stack),
					.bytes = (void *)stack,
					.list = mappings,
					.list_pages = 2,
					.tables = &recorded,
					.n_tables = 1,
					.thread_pointer = STACK + THREAD};
}

static int step(struct recorded_memory *memory, struct unwind_registers *registers, struct unwind_window *window)
{
	const struct unwind_tables tables = {.ready = 1};
	__u64 slot;
	return unwind_step(registers, window, &tables, memory, &slot);
}

START_TEST(from_the_threads_stack_to_the_goroutines)
{
	build(GO_1_20, runtime, RUNTIME);
	struct recorded_memory memory = goroutine_memory();
	struct unwind_window window;
	struct unwind_registers registers = unwind_leaf(CFI_CODE + SYSTEMSTACK + 6, STACK + THREAD_STACK, 0);
	registers.pc_is_exact = 0;
	unwind_window_reset(&window);
	ck_assert_int_eq(step(&memory, &registers, &window), UNWIND_GOES_ON);
	ck_assert_uint_eq(registers.pc, CFI_CODE + TOP + 4);
	ck_assert_uint_eq(registers.sp, STACK + GOROUTINE_STACK + 8); /* below the thread's */
	ck_assert_int_eq(step(&memory, &registers, &window), STACK_END_OUTERMOST);
	memory.thread_pointer = 0; /* of a thread that is not Go's */
	registers = unwind_leaf(CFI_CODE + SYSTEMSTACK + 6, STACK + THREAD_STACK, 0);
	ck_assert_int_eq(step(&memory, &registers, &window), STACK_END_UNREADABLE);
}
END_TEST

START_TEST(morestack_goes_back_until_its_goroutine_is_preempted)
{
	build(GO_1_20, runtime, RUNTIME);
	struct recorded_memory memory = goroutine_memory();
	struct unwind_window window;
	struct unwind_registers registers = unwind_leaf(CFI_CODE + MORESTACK + 8, STACK + THREAD_STACK, 0);
	unwind_window_reset(&window);
	ck_assert_int_eq(step(&memory, &registers, &window), UNWIND_GOES_ON);
	ck_assert_uint_eq(registers.pc, CFI_CODE + TOP + 8);
	ck_assert_uint_eq(registers.sp, STACK + GOROUTINE_STACK);
	put_word(M + 0xc0, 0);
	registers = unwind_leaf(CFI_CODE + MORESTACK + 8, STACK + THREAD_STACK, 0);
	ck_assert_int_eq(step(&memory, &registers, &window), STACK_END_ROOT);
}
END_TEST

/* A stack on which systemstack calls itself, for ever. */
START_TEST(stacks_that_lead_to_one_another_end)
{
	build(GO_1_20, runtime, RUNTIME);
	struct recorded_memory memory = goroutine_memory();
	struct unwind_window window;
	struct unwind_registers registers = unwind_leaf(CFI_CODE + SYSTEMSTACK + 6, STACK + THREAD_STACK, 0);
	int r = UNWIND_GOES_ON, n = 0;
	put_word(GOROUTINE_STACK, CFI_CODE + SYSTEMSTACK + 6);
	unwind_window_reset(&window);
	for (; r == UNWIND_GOES_ON && n < 1000; n++)
		r = step(&memory, &registers, &window);
	ck_assert_int_eq(r, STACK_END_BAD_FRAME);
	ck_assert_int_eq(n, UNWIND_MAX_SWITCHES + 1);
}
END_TEST

CHECK_MAIN("elf_cfi_go", 60, versions, frames, beside_other_information, the_runtime, another_runtime, calls_of_c,
	   depths_out_of_bounds_beside_calls, many_of_one_name, damage, from_the_threads_stack_to_the_goroutines,
	   morestack_goes_back_until_its_goroutine_is_preempted, stacks_that_lead_to_one_another_end)
