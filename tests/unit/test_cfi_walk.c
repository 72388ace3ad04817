/* The walk by unwind tables: rules of each kind, made by hand; and this program's own stack by tables that libdw tells, held against what the
 * compiler's run-time library says (backtrace). Built without frame pointers. */
#include <check.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

#include "check_main.h"
#include "recorded_code.h"

#include "bpf/record.h"

/* --- rules by hand --- */

enum {
	STACK_WORDS = 1024,
	TEXT = 0x400000, /* mapped from offset 0 of the file */
	TEXT_BYTES = 0x40000,
	CALLER = TEXT + 0x20000, /* code of rule CFI_RULE_END */
	MAX_FRAMES = 2048,
};
static const __u64 base = 0x7ffd00000000;

struct by_hand {
	__u64 stack[STACK_WORDS];
	struct unwind_list_page list[2];
	__u8 *table;
	size_t n;
	struct recorded_table tables[1];
	struct recorded_memory memory;
	__u64 frames[MAX_FRAMES];
	size_t n_frames;
};

static __u32 row(__u32 offset, __u32 rule)
{
	return (offset & 0xffff) | rule << 16;
}

/* [0, 0x10000) has the rule, up to 0x20000 there is none, the rest is outermost. */
static void set_up(struct by_hand *hand, const struct cfi_rule *rule, const void *code, size_t n_code)
{
	const __u32 index[] = {0, 1, 2, 3, 3};
	const __u32 rows[] = {row(0, 2), row(0x10000, CFI_RULE_NONE), row(0x20000, CFI_RULE_END)};
	struct cfi_table_header header = {
		.magic = CFI_TABLE_MAGIC,
		.total_bytes = 2 * CFI_PAGE_BYTES,
		.text_end = TEXT_BYTES,
		.n_buckets = 4,
		.bucket_shift = 16,
		.n_rows = 3,
		.n_rules = 3,
		.n_code_bytes = (__u32)n_code,
		.off_code = sizeof(header),
		.off_index = 2048,
		.off_rows = 2048 + sizeof(index),
		.off_rules = CFI_PAGE_BYTES,
	};
	memset(hand, 0, sizeof(*hand));
	hand->n = header.total_bytes;
	hand->table = calloc(1, hand->n);
	memcpy(hand->table, &header, sizeof(header));
	if (n_code)
		memcpy(hand->table + header.off_code, code, n_code);
	memcpy(hand->table + header.off_index, index, sizeof(index));
	memcpy(hand->table + header.off_rows, rows, sizeof(rows));
	memcpy(hand->table + header.off_rules + 2 * sizeof(*rule), rule, sizeof(*rule));
	const struct unwind_list_header list = {.n_entries = 1, .n_pages = 1, .first = {TEXT}};
	memcpy(hand->list, &list, sizeof(list));
	hand->list[1].entries[0] = (struct unwind_list_entry){
		.start = TEXT, .end = TEXT + TEXT_BYTES, .bias = -(__u64)TEXT, .kind = UNWIND_CODE_TABLE};
	hand->tables[0] = (struct recorded_table){.bytes = hand->table, .n = hand->n};
	hand->memory = (struct recorded_memory){
		.start = base,
		.n = sizeof(hand->stack),
		.bytes = (void *)hand->stack,
		.list = hand->list,
		.list_pages = 2,
		.tables = hand->tables,
		.n_tables = 1,
	};
}

static struct unwind_registers leaf(__u64 offset)
{
	struct unwind_registers registers = unwind_leaf(TEXT + offset, base, base + 256);
	registers.rbx = 0xb0b, registers.r10 = base + 800, registers.r12 = 0xc12, registers.r13 = 0xd13;
	registers.r14 = 0xe14, registers.r15 = 0xf15, registers.rdi = CALLER + 4;
	return registers;
}

static int step(struct by_hand *hand, struct unwind_registers *registers, __u64 *ret_slot)
{
	const struct unwind_tables tables = {
		.ready = 1, .stack_lo = hand->memory.stack_lo, .stack_hi = hand->memory.stack_hi};
	struct unwind_window window;
	unwind_window_reset(&window);
	return unwind_step(registers, &window, &tables, &hand->memory, ret_slot);
}

static const struct cfi_rule common = {
	.cfa_register = UNWIND_RSP,
	.cfa_offset = 64,
	.ra_where = CFI_AT_CFA,
	.ra_value = -8,
	.where = {CFI_AT_CFA, CFI_AT_CFA, CFI_AT_CFA, CFI_SAME, CFI_SAME, CFI_AT_CFA},
	.value = {-56, -16, -40, 0, 0, -24},
};

START_TEST(a_common_rule)
{
	struct by_hand hand;
	struct unwind_registers registers = leaf(0x123);
	__u64 slot;
	set_up(&hand, &common, NULL, 0);
	for (int i = 0; i < 8; i++)
		hand.stack[i] = 0x1000 + (__u64)i;
	hand.stack[7] = CALLER + 4;
	ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
	ck_assert_uint_eq(slot, base + 56);
	ck_assert_uint_eq(registers.pc, CALLER + 4);
	ck_assert_uint_eq(registers.sp, base + 64);
	ck_assert_uint_eq(registers.rbx, 0x1001);
	ck_assert_uint_eq(registers.fp, 0x1006);
	ck_assert_uint_eq(registers.r12, 0x1003);
	ck_assert_uint_eq(registers.r13, 0xd13);
	ck_assert_uint_eq(registers.r14, 0xe14);
	ck_assert_uint_eq(registers.r15, 0x1005);
	ck_assert_uint_eq(registers.known, UNWIND_KNOWN_PRESERVED);
	ck_assert(!registers.pc_is_exact);
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_OUTERMOST);
	ck_assert_uint_eq(registers.pc, CALLER + 4); /* as it was */
	free(hand.table);
}
END_TEST

static int step_by_memory(struct by_hand *hand, struct unwind_window *window, __u64 serial, __u64 *ret_sp)
{
	const struct unwind_tables tables = {.ready = 1, .serial = serial};
	struct unwind_registers registers = leaf(0x123);
	__u64 slot = 0;
	unwind_window_reset(window); /* another walk */
	int end = unwind_step(&registers, window, &tables, &hand->memory, &slot);
	*ret_sp = registers.sp;
	return end;
}

/* A rule is remembered from walk to walk under the list's serial, and no longer. */
START_TEST(rules_are_remembered_as_long_as_the_list_is_the_same)
{
	struct by_hand hand;
	struct cfi_rule wider = common;
	static struct unwind_window window;
	__u64 sp = 0;
	wider.cfa_offset = 128;
	set_up(&hand, &common, NULL, 0);
	hand.stack[7] = CALLER + 4;
	hand.stack[15] = CALLER + 8;
	ck_assert_int_eq(step_by_memory(&hand, &window, 7, &sp), UNWIND_GOES_ON);
	ck_assert_uint_eq(sp, base + 64);
	/* Nobody changes a table: but so it is seen which of them is gone by. */
	__u8 *rule = hand.table + CFI_PAGE_BYTES + 2 * sizeof(wider);
	memcpy(rule, &wider, sizeof(wider));
	ck_assert_int_eq(step_by_memory(&hand, &window, 7, &sp), UNWIND_GOES_ON);
	ck_assert_uint_eq(sp, base + 64);
	ck_assert_int_eq(step_by_memory(&hand, &window, 0, &sp), UNWIND_GOES_ON); /* a list that has none */
	ck_assert_uint_eq(sp, base + 128);
	ck_assert_int_eq(step_by_memory(&hand, &window, 0, &sp), UNWIND_GOES_ON);
	memcpy(rule, &common, sizeof(common));
	ck_assert_int_eq(step_by_memory(&hand, &window, 0, &sp), UNWIND_GOES_ON);
	ck_assert_uint_eq(sp, base + 64); /* nothing is remembered under 0 */
	memcpy(rule, &wider, sizeof(wider));
	ck_assert_int_eq(step_by_memory(&hand, &window, 8, &sp), UNWIND_GOES_ON);
	ck_assert_uint_eq(sp, base + 128);
	free(hand.table);
}
END_TEST

/* What is remembered of one address says nothing of another that has the same place. */
START_TEST(addresses_that_share_a_place_are_told_apart)
{
	enum { STRIDE = 64, CALLS = 0x8000 / STRIDE };
	struct by_hand hand;
	static struct unwind_window window;
	const struct unwind_tables tables = {.ready = 1, .serial = 9};
	set_up(&hand, &common, NULL, 0);
	hand.stack[7] = CALLER + 4;
	for (int round = 0; round < 2; round++)
		for (__u64 i = 0; i < CALLS; i++) {
			struct unwind_registers common_one = leaf(i * STRIDE);
			struct unwind_registers outermost = leaf(CALLER - TEXT + i * STRIDE);
			struct unwind_registers without = leaf(0x10000 + i * STRIDE);
			__u64 slot = 0;
			unwind_window_reset(&window);
			ck_assert_int_eq(unwind_step(&common_one, &window, &tables, &hand.memory, &slot),
					 UNWIND_GOES_ON);
			ck_assert_uint_eq(common_one.pc, CALLER + 4);
			ck_assert_int_eq(unwind_step(&outermost, &window, &tables, &hand.memory, &slot),
					 STACK_END_OUTERMOST);
			ck_assert_int_ne(unwind_step(&without, &window, &tables, &hand.memory, &slot),
					 STACK_END_OUTERMOST);
		}
	free(hand.table);
}
END_TEST

/* A call that is a function's last instruction returns to where the next function begins. */
START_TEST(a_return_address_belongs_to_the_call_before_it)
{
	struct by_hand hand;
	struct unwind_registers registers = leaf(0x123);
	__u64 slot;
	set_up(&hand, &common, NULL, 0);
	hand.stack[7] = CALLER; /* the call was in what has no rule */
	hand.stack[6] = 0;
	ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_ROOT); /* by frame pointer */
	registers.pc_is_exact = 1;
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_OUTERMOST);
	free(hand.table);
}
END_TEST

/* Without unwind information. A JIT's code need not keep frame pointers, nor need code whose table is not there: then a zero in rbp is any zero. */
START_TEST(a_frame_pointer_of_zero_is_a_root_in_a_file_alone)
{
	static const struct {
		__u32 kind;
		int end;
	} cases[] = {{UNWIND_CODE_PLAIN, STACK_END_ROOT},
		     {UNWIND_CODE_JIT, STACK_END_NO_UNWIND_INFO},
		     {UNWIND_CODE_PENDING, STACK_END_TABLES_NOT_READY},
		     {UNWIND_CODE_REFUSED, STACK_END_TABLE_REFUSED}};
	struct by_hand hand;
	__u64 slot;
	set_up(&hand, &common, NULL, 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		hand.list[1].entries[0].kind = cases[i].kind;
		struct unwind_registers registers = leaf(0x123);
		registers.fp = 0;
		ck_assert_int_eq(step(&hand, &registers, &slot), cases[i].end);
		registers = leaf(0x123);
		registers.fp = base + 48;
		hand.stack[6] = base + 128;
		hand.stack[7] = CALLER;
		ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON); /* it is followed all the same */
		ck_assert_uint_eq(registers.pc, CALLER);
	}
	free(hand.table);
}
END_TEST

/* As _init often is, which is without unwind information. It has just been called: its text need not be in memory yet. */
START_TEST(the_first_instruction_of_a_file)
{
	enum { START = 0x10000 }; /* where there is no rule */
	struct by_hand hand;
	__u64 slot;
	set_up(&hand, &common, NULL, 0);
	hand.list[1].entries[0].start = ((struct unwind_list_header *)hand.list)->first[0] = TEXT + START;
	hand.stack[0] = CALLER + 4;
	struct unwind_registers registers = leaf(START);
	registers.fp = 0x1234; /* its caller's, whatever that is */
	ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
	ck_assert_uint_eq(slot, base);
	ck_assert_uint_eq(registers.pc, CALLER + 4);
	ck_assert_uint_eq(registers.sp, base + 8);
	ck_assert_uint_eq(registers.fp, 0x1234);
	registers = leaf(START + 1); /* what it has pushed by then nobody knows */
	registers.fp = 0x1234;
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_NO_UNWIND_INFO);
	registers = leaf(START);
	registers.fp = 0x1234;
	registers.pc_is_exact = 0; /* a return address, as it seems, and nothing can return there */
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_BAD_RETURN_ADDRESS);
	hand.stack[0] = 0x1000; /* no code */
	registers = leaf(START);
	registers.fp = 0x1234;
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_NO_UNWIND_INFO);
	hand.stack[0] = CALLER + 4;
	hand.list[1].entries[0].kind = UNWIND_CODE_JIT; /* whose memory may begin in the middle of a function */
	registers = leaf(START);
	registers.fp = 0x1234;
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_NO_UNWIND_INFO);
	free(hand.table);
}
END_TEST

START_TEST(damaged_stacks)
{
	struct by_hand hand;
	__u64 slot;
	struct cfi_rule rule = common;
	struct unwind_registers registers = leaf(0);
	set_up(&hand, &rule, NULL, 0);
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_ROOT); /* no return address */
	ck_assert_uint_eq(registers.sp, base);
	hand.stack[7] = CALLER;
	hand.memory.stack_lo = base;
	hand.memory.stack_hi = base + 63; /* the frame would end beyond */
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_BAD_FRAME);
	hand.memory.stack_hi = base + 64;
	ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
	registers = leaf(0);
	registers.sp = base + sizeof(hand.stack) - 56; /* the return address is not there */
	hand.memory.stack_hi = 0;
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_UNREADABLE);
	free(hand.table);
	for (__s32 offset = -64; offset <= 0; offset += 64) { /* a frame of no size, or less */
		rule.cfa_offset = offset;
		set_up(&hand, &rule, NULL, 0);
		hand.stack[7] = CALLER;
		registers = leaf(0);
		ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_BAD_FRAME);
		free(hand.table);
	}
	rule.cfa_register = 10; /* lost by calls */
	set_up(&hand, &rule, NULL, 0);
	registers = leaf(0);
	registers.known = UNWIND_KNOWN_PRESERVED;
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_REGISTER_LOST);
	free(hand.table);
}
END_TEST

START_TEST(lazy_plt)
{
	struct by_hand hand;
	const struct cfi_rule rule = {.cfa = CFI_CFA_PLT,
				      .cfa_register = UNWIND_RSP,
				      .cfa_offset = 8,
				      .ra_where = CFI_AT_CFA,
				      .ra_value = -8};
	set_up(&hand, &rule, NULL, 0);
	hand.stack[0] = CALLER + 1;
	hand.stack[1] = CALLER + 2;
	for (__u64 pc = 0x40; pc < 0x50; pc++) {
		struct unwind_registers registers = leaf(pc);
		__u64 slot;
		ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
		ck_assert_uint_eq(registers.pc, (pc & 15) >= 11 ? CALLER + 2 : CALLER + 1);
		ck_assert_uint_eq(slot, (pc & 15) >= 11 ? base + 8 : base);
	}
	free(hand.table);
}
END_TEST

START_TEST(realigned_stack)
{
	struct by_hand hand;
	struct unwind_registers registers = leaf(0);
	__u64 slot;
	const struct cfi_rule rule = {.cfa = CFI_CFA_DEREF,
				      .cfa_register = UNWIND_RBP,
				      .cfa_offset = -8,
				      .ra_where = CFI_AT_CFA,
				      .ra_value = -8,
				      .where = {[1] = CFI_AT_EXPRESSION},
				      .value = {[1] = 0}};
	const __u8 code[] = {CFI_OP_REGISTER, UNWIND_RBP, 0, 0, 0, 0, CFI_OP_END};
	set_up(&hand, &rule, code, sizeof(code));
	hand.stack[256 / 8 - 1] = base + 512;
	hand.stack[256 / 8] = 0xabc;
	hand.stack[512 / 8 - 1] = CALLER + 9;
	ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
	ck_assert_uint_eq(registers.pc, CALLER + 9);
	ck_assert_uint_eq(registers.sp, base + 512);
	ck_assert_uint_eq(registers.fp, 0xabc);
	ck_assert_uint_eq(slot, base + 504);
	free(hand.table);
}
END_TEST

/* glibc's vfork keeps its return address in rdi. */
START_TEST(return_address_in_a_register)
{
	struct by_hand hand;
	struct unwind_registers registers = leaf(0);
	__u64 slot;
	const struct cfi_rule rule = {.cfa_register = UNWIND_RSP,
				      .cfa_offset = 8,
				      .ra_where = CFI_REGISTER,
				      .ra_value = 5,
				      .where = {CFI_UNDEFINED, CFI_VALUE_CFA, CFI_REGISTER},
				      .value = {0, 24, 10}};
	set_up(&hand, &rule, NULL, 0);
	ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
	ck_assert_uint_eq(registers.pc, CALLER + 4);
	ck_assert_uint_eq(slot, 0); /* in no memory */
	ck_assert_uint_eq(registers.fp, base + 8 + 24);
	ck_assert_uint_eq(registers.r12, base + 800);
	ck_assert_uint_eq(registers.known, UNWIND_KNOWN_PRESERVED & ~UNWIND_KNOWN(UNWIND_RBX));
	registers = leaf(0);
	registers.known = UNWIND_KNOWN_PRESERVED;
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_REGISTER_LOST);
	free(hand.table);
}
END_TEST

/* A signal frame: everything by expressions, to a stack below, and the address is exact. */
START_TEST(signal_frame)
{
	struct by_hand hand;
	struct unwind_registers registers = leaf(0);
	__u64 slot;
	const __u8 code[] = {CFI_OP_REGISTER, UNWIND_RSP, 160, 0, 0, 0, CFI_OP_DEREF, CFI_OP_END, /* 0: the CFA */
			     CFI_OP_REGISTER, UNWIND_RSP, 168, 0, 0, 0, CFI_OP_END,               /* 8: the address */
			     CFI_OP_REGISTER, UNWIND_RSP, 120, 0, 0, 0, CFI_OP_END};              /* 15: rbp */
	const struct cfi_rule rule = {.cfa = CFI_CFA_EXPRESSION,
				      .flags = CFI_SIGNAL_FRAME,
				      .ra_where = CFI_AT_EXPRESSION,
				      .ra_value = 8,
				      .where = {[1] = CFI_AT_EXPRESSION},
				      .value = {[1] = 15}};
	set_up(&hand, &rule, code, sizeof(code));
	registers.sp = base + 512;
	hand.stack[(512 + 160) / 8] = base + 64;
	hand.stack[(512 + 168) / 8] = CALLER;
	hand.stack[(512 + 120) / 8] = 0x777;
	ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
	ck_assert_uint_eq(registers.pc, CALLER);
	ck_assert_uint_eq(registers.sp, base + 64);
	ck_assert_uint_eq(registers.fp, 0x777);
	ck_assert_uint_eq(slot, base + 512 + 168);
	ck_assert(registers.pc_is_exact);
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_OUTERMOST);
	free(hand.table);
}
END_TEST

START_TEST(signal_frame_of_the_kernel)
{
	struct by_hand hand;
	struct unwind_registers registers = leaf(0);
	__u64 slot;
	const struct cfi_rule rule = {
		.cfa_register = UNWIND_RSP, .flags = CFI_SIGNAL_FRAME | CFI_SIGCONTEXT, .ra_where = CFI_AT_CFA};
	static const int order[] = {8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16};
	set_up(&hand, &rule, NULL, 0);
	for (size_t i = 0; i < 17; i++)
		hand.stack[5 + i] = 0x100 + i;
	ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
	for (size_t i = 0; i < 17; i++)
		ck_assert_uint_eq(registers.by_number[order[i]], 0x100 + i);
	ck_assert_uint_eq(registers.known, UNWIND_KNOWN_ALL);
	ck_assert(registers.pc_is_exact);
	ck_assert_uint_eq(slot, base + 40 + 128);
	registers = leaf(0);
	registers.sp = base + sizeof(hand.stack) - 100;
	ck_assert_int_eq(step(&hand, &registers, &slot), STACK_END_UNREADABLE);
	free(hand.table);
}
END_TEST

/* One operation each, on 12 and 5 (of which 12 is pushed first, as the CFA). */
START_TEST(operations)
{
	static const struct {
		__u8 op;
		__u64 expected;
	} cases[] = {
		{CFI_OP_PLUS, 17}, {CFI_OP_MINUS, 7}, {CFI_OP_AND, 4},   {CFI_OP_OR, 13},     {CFI_OP_XOR, 9},
		{CFI_OP_SHL, 384}, {CFI_OP_SHR, 0},   {CFI_OP_MUL, 60},  {CFI_OP_GE, 1},      {CFI_OP_GT, 1},
		{CFI_OP_LE, 0},    {CFI_OP_LT, 0},    {CFI_OP_EQ, 0},    {CFI_OP_NE, 1},      {CFI_OP_DUP, 5},
		{CFI_OP_DROP, 12}, {CFI_OP_SWAP, 12}, {CFI_OP_OVER, 12}, {CFI_OP_NEG, -5ull}, {CFI_OP_NOT, ~5ull},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct by_hand hand;
		struct unwind_registers registers = leaf(0);
		__u64 slot;
		const __u8 code[] = {CFI_OP_DROP, CFI_OP_CONST, 12,        0, 0, 0, 0, 0, 0,
				     0,           CFI_OP_CONST, 5,         0, 0, 0, 0, 0, 0,
				     0,           cases[i].op,  CFI_OP_END};
		const struct cfi_rule rule = {.cfa_register = UNWIND_RSP,
					      .cfa_offset = 8,
					      .ra_where = CFI_AT_CFA,
					      .ra_value = -8,
					      .where = {CFI_VALUE_EXPRESSION},
					      .value = {0}};
		set_up(&hand, &rule, code, sizeof(code));
		hand.stack[0] = CALLER;
		ck_assert_int_eq(step(&hand, &registers, &slot), UNWIND_GOES_ON);
		ck_assert_msg(registers.rbx == cases[i].expected, "operation %u: %lld", cases[i].op,
			      (long long)registers.rbx);
		free(hand.table);
	}
}
END_TEST

/* What the checker would not let through does no harm either. */
START_TEST(bad_expressions)
{
	static const __u8 empty[] = {CFI_OP_DROP, CFI_OP_DROP},
			  deep[] = {CFI_OP_DUP, CFI_OP_DUP, CFI_OP_DUP, CFI_OP_DUP, CFI_OP_DUP,
				    CFI_OP_DUP, CFI_OP_DUP, CFI_OP_DUP, CFI_OP_END},
			  unknown[] = {200, CFI_OP_END}, unreadable[] = {CFI_OP_NOT, CFI_OP_DEREF, CFI_OP_END};
	static const struct {
		const __u8 *code;
		size_t n;
		int end;
	} cases[] = {{empty, sizeof(empty), STACK_END_BAD_FRAME},
		     {deep, sizeof(deep), STACK_END_BAD_FRAME},
		     {unknown, sizeof(unknown), STACK_END_BAD_FRAME},
		     {unreadable, sizeof(unreadable), STACK_END_UNREADABLE}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct by_hand hand;
		struct unwind_registers registers = leaf(0);
		__u64 slot;
		const struct cfi_rule rule = {.cfa_register = UNWIND_RSP,
					      .cfa_offset = 8,
					      .ra_where = CFI_AT_CFA,
					      .ra_value = -8,
					      .where = {CFI_VALUE_EXPRESSION}};
		set_up(&hand, &rule, cases[i].code, cases[i].n);
		hand.stack[0] = CALLER;
		ck_assert_int_eq(step(&hand, &registers, &slot), cases[i].end);
		ck_assert_uint_eq(registers.sp, base); /* as it was */
		free(hand.table);
	}
}
END_TEST

/* --- this program's own stack --- */

struct capture {
	void *expected[256]; /* by the run-time library; [0] is in take() itself */
	int n_expected;
	struct unwind_registers registers;
	unsigned char *bytes;
	__u64 start;
	size_t n;
};

static struct capture capture;

static __u64 stack_top(void)
{
	pthread_attr_t attributes;
	void *low;
	size_t size;
	pthread_getattr_np(pthread_self(), &attributes);
	pthread_attr_getstack(&attributes, &low, &size);
	pthread_attr_destroy(&attributes);
	return (__u64)(uintptr_t)low + size;
}

static void take_registers(const ucontext_t *context, struct unwind_registers *to)
{
	const greg_t *g = context->uc_mcontext.gregs;
	*to = (struct unwind_registers){
		.pc = (__u64)g[REG_RIP],
		.sp = (__u64)g[REG_RSP],
		.fp = (__u64)g[REG_RBP],
		.rbx = (__u64)g[REG_RBX],
		.r12 = (__u64)g[REG_R12],
		.r13 = (__u64)g[REG_R13],
		.r14 = (__u64)g[REG_R14],
		.r15 = (__u64)g[REG_R15],
		.known = UNWIND_KNOWN_PRESERVED,
		.pc_is_exact = 1,
	};
}

/* The registers first and the stack last: so nothing that is copied has changed since. */
__attribute__((noinline, no_sanitize_address)) static void take(void)
{
	ucontext_t context;
	capture.n_expected = backtrace(capture.expected, 256);
	getcontext(&context);
	take_registers(&context, &capture.registers);
	capture.start = capture.registers.sp;
	capture.n = stack_top() - capture.start;
	capture.bytes = malloc(capture.n);
	const unsigned char *from =
		(const unsigned char *)(uintptr_t)capture.start; // NOLINT(performance-no-int-to-ptr)
	for (size_t i = 0; i < capture.n; i++)
		capture.bytes[i] = from[i];
}

static void expect_as_captured(void)
{
	static __u64 frames[MAX_FRAMES];
	struct recorded_code code = {0};
	struct recorded_memory memory = {.start = capture.start, .n = capture.n, .bytes = capture.bytes};
	size_t n;
	recorded_read(&code, getpid());
	recorded_use(&code, &memory);
	enum stack_end end = unwind_walk(capture.registers, &memory, frames, MAX_FRAMES, &n);
	ck_assert_int_eq(end, STACK_END_OUTERMOST);
	/* AddressSanitizer's backtrace() has itself as a frame in front. */
	size_t more = (size_t)capture.n_expected - n;
	ck_assert_uint_le(more, capture.expected[0] == (void *)(uintptr_t)capture.registers.pc
					? 0
					: 1); // NOLINT(performance-no-int-to-ptr)
	for (size_t i = 1; i < n; i++)
		if (frames[i] != (__u64)(uintptr_t)capture.expected[i + more])
			ck_abort_msg("frame %zu of %zu is %llx, not %p", i, n, (unsigned long long)frames[i],
				     capture.expected[i + more]);
	recorded_free(&code);
	free(capture.bytes);
}

static int compare(const void *a, const void *b)
{
	if (!capture.n_expected)
		take();
	return *(const int *)a - *(const int *)b;
}

__attribute__((noinline)) static int sort(void)
{
	int numbers[64];
	capture.n_expected = 0;
	for (int i = 0; i < 64; i++)
		numbers[i] = i * 37 % 64;
	qsort(numbers, 64, sizeof(numbers[0]), compare); // NOLINT(bugprone-signal-handler)
	return numbers[0];
}

START_TEST(through_the_c_library)
{
	ck_assert_int_eq(sort(), 0);
	expect_as_captured();
}
END_TEST

static void on_signal(int number)
{
	(void)number;
	(void)sort();
}

START_TEST(through_a_signal)
{
	signal(SIGUSR1, on_signal);
	raise(SIGUSR1);
	ck_assert_int_gt(capture.n_expected, 6);
	expect_as_captured();
}
END_TEST

static void *thread(void *argument)
{
	(void)sort();
	expect_as_captured();
	return argument;
}

START_TEST(to_the_beginning_of_a_thread)
{
	pthread_t id;
	ck_assert_int_eq(pthread_create(&id, NULL, thread, NULL), 0);
	pthread_join(id, NULL);
}
END_TEST

/* A frame whose size the compiler does not know, and one that is realigned. */
__attribute__((noinline)) static int odd_frames(size_t n)
{
	volatile char *room = __builtin_alloca(n);
	_Alignas(128) volatile char aligned[128];
	room[0] = aligned[0] = 1;
	return sort() + room[0] + aligned[0];
}

START_TEST(odd_sizes)
{
	for (size_t n = 1; n < 20000; n = n * 5 + 3) {
		ck_assert_int_eq(odd_frames(n), 2);
		expect_as_captured();
	}
}
END_TEST

__attribute__((noinline)) static int deep(int left)
{
	volatile char room[40];
	room[0] = 0;
	return (left ? deep(left - 1) : sort()) + room[0];
}

START_TEST(many_frames)
{
	ck_assert_int_eq(deep(200), 0);
	expect_as_captured();
}
END_TEST

CHECK_MAIN("cfi_walk", 60, a_common_rule, rules_are_remembered_as_long_as_the_list_is_the_same,
	   addresses_that_share_a_place_are_told_apart, a_return_address_belongs_to_the_call_before_it,
	   a_frame_pointer_of_zero_is_a_root_in_a_file_alone, the_first_instruction_of_a_file, damaged_stacks, lazy_plt,
	   realigned_stack, return_address_in_a_register, signal_frame, signal_frame_of_the_kernel, operations,
	   bad_expressions, through_the_c_library, through_a_signal, to_the_beginning_of_a_thread, odd_sizes,
	   many_frames)
