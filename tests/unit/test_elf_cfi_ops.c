/* Each op of call frame programs and of their expressions, by itself, in a hand-made .eh_frame. */
#include <stdlib.h>
#include <unistd.h>

#include "cfi_maker.h"
#include "check_main.h"
#include "elf/cfi_build.h"

enum { FUNCTION_BYTES = 0x100, EDGE = 4 };

static struct maker maker;
static struct cfi_bytes frame;
static struct cfi_table table;

static void build(void)
{
	cfi_table_free(&table);
	cfi_make_file(&maker, &frame, NULL);
	int fd = maker_memfd(maker.bytes, maker.n);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(cfi_build(fd, &table), 0);
	close(fd);
	ck_assert(cfi_table_check(table.bytes, table.n));
}

/* A function with that program, which begins with an advance of EDGE bytes. */
static void run(const uint8_t *program, size_t n)
{
	uint8_t whole[256] = {DW_CFA_advance_loc | EDGE};
	memcpy(whole + 1, program, n);
	frame.n = 0;
	size_t cie = cfi_add_usual_cie(&frame);
	cfi_add_fde(&frame, cie, 0, FUNCTION_BYTES, whole, n + 1);
	build();
}

static void expect(uint32_t at, const char *text)
{
	ck_assert_str_eq(cfi_rule_text(table.bytes, at), text);
}

#define START "r7+8 pc=[-8]"
/* Whether a program makes the rule from EDGE on. */
#define EXPECT(text, ...)                                   \
	do {                                                \
		static const uint8_t ops[] = {__VA_ARGS__}; \
		run(ops, sizeof(ops));                      \
		expect(0, START);                           \
		expect(EDGE - 1, START);                    \
		expect(EDGE, text);                         \
		expect(FUNCTION_BYTES - 1, text);           \
		expect(FUNCTION_BYTES, "none");             \
	} while (0)
/* Whether it is refused: the whole function has no rule. */
#define MALFORMED(...)                                         \
	do {                                                   \
		static const uint8_t ops[] = {__VA_ARGS__};    \
		run(ops, sizeof(ops));                         \
		expect(0, "none");                             \
		expect(EDGE, "none");                          \
		ck_assert_uint_eq(table.stats.n_malformed, 1); \
	} while (0)
/* One that the table cannot say: no rule from EDGE on, but before. */
#define UNSUPPORTED(...)                                         \
	do {                                                     \
		EXPECT("none", __VA_ARGS__);                     \
		ck_assert_uint_eq(table.stats.n_malformed, 0);   \
		ck_assert_uint_eq(table.stats.n_unsupported, 1); \
	} while (0)

START_TEST(cfa)
{
	EXPECT("r6+16 pc=[-8]", DW_CFA_def_cfa, 6, 16);
	EXPECT("r6-16 pc=[-8]", DW_CFA_def_cfa_sf, 6, 2);
	EXPECT("r6+8 pc=[-8]", DW_CFA_def_cfa_register, 6);
	EXPECT("r7+300 pc=[-8]", DW_CFA_def_cfa_offset, 0xac, 0x02);
	EXPECT("r7+64 pc=[-8]", DW_CFA_def_cfa_offset_sf, 0x78);
	EXPECT("r7-64 pc=[-8]", DW_CFA_def_cfa_offset_sf, 8);
	EXPECT("r7+2147483647 pc=[-8]", DW_CFA_def_cfa_offset, 0xff, 0xff, 0xff, 0xff, 0x07);
	UNSUPPORTED(DW_CFA_def_cfa_offset, 0x80, 0x80, 0x80, 0x80, 0x08);
	UNSUPPORTED(DW_CFA_def_cfa, 17, 8);
	UNSUPPORTED(DW_CFA_def_cfa_register, 0x80, 0x01);
	/* What cannot be said is said again by what can. */
	EXPECT("r6+24 pc=[-8]", DW_CFA_def_cfa_register, 99, DW_CFA_def_cfa_offset, 24, DW_CFA_def_cfa_register, 6);
}
END_TEST

START_TEST(registers)
{
	EXPECT(START " rbx=[-16]", DW_CFA_offset | 3, 2);
	EXPECT(START " rbp=[-16] r12=[-24] r13=[-32] r14=[-40] r15=[-48]", DW_CFA_offset | 6, 2, DW_CFA_offset | 12, 3,
	       DW_CFA_offset | 13, 4, DW_CFA_offset | 14, 5, DW_CFA_offset | 15, 6);
	EXPECT(START, DW_CFA_offset | 0, 2, DW_CFA_offset | 1, 3, DW_CFA_offset | 33, 4); /* not kept */
	EXPECT(START " r12=[-24]", DW_CFA_offset_extended, 12, 3);
	EXPECT(START " r12=[+24]", DW_CFA_offset_extended_sf, 12, 0x7d);
	EXPECT(START " r12=[-24]", DW_CFA_offset_extended_sf, 12, 3);
	EXPECT(START " r12=[+24]", DW_CFA_GNU_negative_offset_extended, 12, 3);
	EXPECT(START " r12=-24", DW_CFA_val_offset, 12, 3);
	EXPECT(START " r12=+24", DW_CFA_val_offset_sf, 12, 0x7d);
	EXPECT(START " r12=r3", DW_CFA_register, 12, 3);
	EXPECT("r7+8 pc=r2", DW_CFA_register, 16, 2);
	EXPECT(START " r12=?", DW_CFA_undefined, 12);
	EXPECT(START, DW_CFA_offset | 12, 3, DW_CFA_same_value, 12);
	EXPECT(START " sp=-8", DW_CFA_val_offset, 7, 1);
	EXPECT(START " sp=[-16]", DW_CFA_offset | 7, 2);
	EXPECT(START " sp=r7", DW_CFA_same_value, 7);
	EXPECT("end", DW_CFA_undefined, 16);
	EXPECT("end", DW_CFA_same_value, 16);
	/* Beyond 16 bits: by an expression, which starts from the CFA. */
	EXPECT(START " rbx=[{-40000 plus}]", DW_CFA_offset | 3, 0x88, 0x27);
	EXPECT(START " rbx={-40000 plus}", DW_CFA_val_offset, 3, 0x88, 0x27);
	EXPECT(START " rbx=[-32768] r12=[{32768 plus}]", DW_CFA_offset | 3, 0x80, 0x20, DW_CFA_offset_extended_sf, 12,
	       0x80, 0x60);
	EXPECT(START " r12=?", DW_CFA_register, 12, 40);
	ck_assert_uint_eq(table.stats.n_registers_lost, 1);
	UNSUPPORTED(DW_CFA_register, 16, 40);
}
END_TEST

START_TEST(restoring)
{
	EXPECT(START, DW_CFA_offset | 3, 2, DW_CFA_restore | 3);
	EXPECT(START, DW_CFA_offset | 12, 2, DW_CFA_restore_extended, 12);
	EXPECT(START, DW_CFA_undefined, 16, DW_CFA_restore | 16);
	EXPECT(START, DW_CFA_register, 16, 40, DW_CFA_restore | 16);
	EXPECT(START, DW_CFA_restore | 33);
	static const uint8_t nested[] = {DW_CFA_offset | 3,
					 2,
					 DW_CFA_remember_state,
					 DW_CFA_def_cfa_offset,
					 16,
					 DW_CFA_offset | 6,
					 3,
					 DW_CFA_remember_state,
					 DW_CFA_def_cfa,
					 6,
					 24,
					 DW_CFA_undefined,
					 16,
					 DW_CFA_advance_loc | 4,
					 DW_CFA_restore_state,
					 DW_CFA_advance_loc | 4,
					 DW_CFA_restore_state};
	run(nested, sizeof(nested));
	expect(EDGE, "end");
	expect(EDGE + 4, "r7+16 pc=[-8] rbx=[-16] rbp=[-24]");
	expect(EDGE + 8, "r7+8 pc=[-8] rbx=[-16]");
	MALFORMED(DW_CFA_restore_state);
	uint8_t deep[60];
	memset(deep, DW_CFA_remember_state, sizeof(deep));
	run(deep, 32);
	expect(EDGE, START);
	run(deep, 33);
	expect(EDGE, "none");
}
END_TEST

START_TEST(advancing)
{
	static const uint8_t program[] = {DW_CFA_def_cfa_offset,
					  16,
					  DW_CFA_advance_loc1,
					  0x10,
					  DW_CFA_def_cfa_offset,
					  24,
					  DW_CFA_advance_loc2,
					  0x20,
					  0,
					  DW_CFA_def_cfa_offset,
					  32,
					  DW_CFA_advance_loc4,
					  0x40,
					  0,
					  0,
					  0,
					  DW_CFA_def_cfa_offset,
					  40,
					  0x1d,
					  8,
					  0,
					  0,
					  0,
					  0,
					  0,
					  0,
					  0,
					  DW_CFA_def_cfa_offset,
					  48,
					  DW_CFA_advance_loc | 0,
					  DW_CFA_def_cfa_offset,
					  56};
	run(program, sizeof(program));
	expect(EDGE, "r7+16 pc=[-8]");
	expect(EDGE + 0x10, "r7+24 pc=[-8]");
	expect(EDGE + 0x30, "r7+32 pc=[-8]");
	expect(EDGE + 0x70, "r7+40 pc=[-8]");
	expect(EDGE + 0x77, "r7+40 pc=[-8]");
	expect(EDGE + 0x78, "r7+56 pc=[-8]");
	/* What comes after the function's end is not read. */
	EXPECT("r7+16 pc=[-8]", DW_CFA_def_cfa_offset, 16, DW_CFA_advance_loc2, 0, 2, DW_CFA_restore_state);
	/* set_loc is encoded as the FDE's own address: here relative to where it is. */
	frame.n = 0;
	size_t cie = cfi_add_usual_cie(&frame);
	uint8_t set[16] = {DW_CFA_def_cfa_offset, 16, DW_CFA_set_loc, 0, 0, 0, 0, DW_CFA_def_cfa_offset, 24};
	uint32_t at = CFI_EH + (uint32_t)frame.n + 4 + 4 + 4 + 4 + 1 + 3, delta = CFI_CODE + 0x20 - at;
	memcpy(set + 3, &delta, sizeof(delta));
	cfi_add_fde(&frame, cie, 0, FUNCTION_BYTES, set, 9);
	build();
	expect(0x1f, "r7+16 pc=[-8]");
	expect(0x20, "r7+24 pc=[-8]");
	MALFORMED(DW_CFA_set_loc, 0, 0xe0, 0xff, 0xff); /* back */
	MALFORMED(DW_CFA_set_loc, 0, 0);                /* cut */
}
END_TEST

START_TEST(nothing_and_nonsense)
{
	EXPECT("r7+16 pc=[-8]", DW_CFA_nop, DW_CFA_GNU_args_size, 0x90, 0x01, DW_CFA_def_cfa_offset, 16);
	MALFORMED(DW_CFA_GNU_window_save);
	MALFORMED(0x17);
	MALFORMED(0x3f);
	MALFORMED(DW_CFA_def_cfa_expression, 200, DW_OP_breg7, 8);
}
END_TEST

/* A CFA by an expression, of n bytes. */
#define CFA(text, n, ...) EXPECT("{" text "} pc=[-8]", DW_CFA_def_cfa_expression, n, __VA_ARGS__)

START_TEST(expressions_of_the_cfa)
{
	EXPECT("r7+8 pc=[-8]", DW_CFA_def_cfa_expression, 2, DW_OP_breg7, 8);
	EXPECT("*(r6-8) pc=[-8]", DW_CFA_def_cfa_expression, 3, DW_OP_breg6, 0x78, DW_OP_deref);
	EXPECT("r6+24 pc=[-8]", DW_CFA_def_cfa_expression, 4, DW_OP_breg6, 8, DW_OP_plus_uconst, 16);
	EXPECT("plt(r7+8) pc=[-8]", DW_CFA_def_cfa_expression, 11, DW_OP_breg7, 8, DW_OP_breg16, 0, DW_OP_lit15,
	       DW_OP_and, DW_OP_lit11, DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus);
	CFA("r7+8 r16+0 15 and 9 ge 3 shl plus", 11, DW_OP_breg7, 8, DW_OP_breg16, 0, DW_OP_lit15, DW_OP_and,
	    DW_OP_lit9, DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus);                              /* IBT's */
	CFA("r7+152 deref 8 plus", 6, DW_OP_breg7, 0x98, 0x01, DW_OP_deref, DW_OP_plus_uconst, 8); /* OpenSSL's */
	CFA("1 -1 plus", 5, DW_OP_const1u, 1, DW_OP_const1s, 0xff, DW_OP_plus);
	CFA("65535 -1 plus", 7, DW_OP_const2u, 0xff, 0xff, DW_OP_const2s, 0xff, 0xff, DW_OP_plus);
	CFA("4294967295 -1 minus", 11, DW_OP_const4u, 0xff, 0xff, 0xff, 0xff, DW_OP_const4s, 0xff, 0xff, 0xff, 0xff,
	    DW_OP_minus);
	CFA("1 -1 xor", 19, DW_OP_const8u, 1, 0, 0, 0, 0, 0, 0, 0, DW_OP_const8s, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	    0xff, 0xff, DW_OP_xor);
	CFA("200 -2 or", 6, DW_OP_constu, 0xc8, 0x01, DW_OP_consts, 0x7e, DW_OP_or);
	CFA("r16+3 neg not", 5, DW_OP_bregx, 16, 3, DW_OP_neg, DW_OP_not);
	CFA("r0+0 dup over swap drop mul", 8, DW_OP_breg0, 0, DW_OP_dup, DW_OP_over, DW_OP_swap, DW_OP_drop, DW_OP_mul,
	    DW_OP_nop);
	CFA("r0+0 dup r1+0 over mul shr", 10, DW_OP_breg0, 0, DW_OP_pick, 0, DW_OP_breg1, 0, DW_OP_pick, 1, DW_OP_mul,
	    DW_OP_shr);
	CFA("1 2 eq 3 ne 4 gt 5 le 6 lt", 11, DW_OP_lit1, DW_OP_lit2, DW_OP_eq, DW_OP_lit3, DW_OP_ne, DW_OP_lit4,
	    DW_OP_gt, DW_OP_lit5, DW_OP_le, DW_OP_lit6, DW_OP_lt);
}
END_TEST

/* Not what the standard allows, but what libgcrypt's and others' assembly does, and how the C++ runtime reads it. */
START_TEST(from_an_expression_to_a_register)
{
	EXPECT("r7+56 pc=[-8]", DW_CFA_def_cfa, 0, 56, DW_CFA_def_cfa_expression, 3, DW_OP_breg6, 0x78, DW_OP_deref,
	       DW_CFA_def_cfa_register, 7);
	EXPECT("*(r6-8) pc=[-8]", DW_CFA_def_cfa_expression, 3, DW_OP_breg6, 0x78, DW_OP_deref, DW_CFA_def_cfa_offset,
	       16);
	EXPECT("r6+16 pc=[-8]", DW_CFA_def_cfa_expression, 3, DW_OP_breg6, 0x78, DW_OP_deref, DW_CFA_def_cfa_offset, 16,
	       DW_CFA_def_cfa_register, 6);
	EXPECT("r6+24 pc=[-8]", DW_CFA_def_cfa_expression, 1, DW_OP_skip, DW_CFA_def_cfa, 6, 24);
	UNSUPPORTED(DW_CFA_def_cfa_expression, 1, DW_OP_skip, DW_CFA_def_cfa_offset, 24);
}
END_TEST

START_TEST(expressions_of_registers)
{
	EXPECT(START " rbx=[{r6-8}]", DW_CFA_expression, 3, 2, DW_OP_breg6, 0x78);
	EXPECT(START " rbx={r6-8}", DW_CFA_val_expression, 3, 2, DW_OP_breg6, 0x78);
	EXPECT(START " rbx=[{8 plus}]", DW_CFA_expression, 3, 2, DW_OP_plus_uconst,
	       8); /* from the CFA, which is there */
	EXPECT("r7+8 pc={r16+5}", DW_CFA_val_expression, 16, 2, DW_OP_breg16, 5);
	EXPECT("r7+8 pc=[{}]", DW_CFA_expression, 16, 0);
	EXPECT(START " sp={r7+8}", DW_CFA_val_expression, 7, 2, DW_OP_breg7, 8);
	EXPECT(START, DW_CFA_expression, 0, 2, DW_OP_breg7, 8);
	EXPECT(START " rbx=?", DW_CFA_expression, 3, 1, DW_OP_abs);
	ck_assert_uint_eq(table.stats.n_registers_lost, 1);
	UNSUPPORTED(DW_CFA_val_expression, 16, 1, DW_OP_call_frame_cfa);
}
END_TEST

START_TEST(expressions_that_cannot_be)
{
	UNSUPPORTED(DW_CFA_def_cfa_expression, 0);                         /* nothing on the stack */
	UNSUPPORTED(DW_CFA_def_cfa_expression, 1, DW_OP_plus);             /* too little on it */
	UNSUPPORTED(DW_CFA_def_cfa_expression, 2, DW_OP_lit0, DW_OP_drop); /* nothing left */
	UNSUPPORTED(DW_CFA_def_cfa_expression, 9, DW_OP_lit0, DW_OP_lit1, DW_OP_lit2, DW_OP_lit3, DW_OP_lit4,
		    DW_OP_lit5, DW_OP_lit6, DW_OP_lit7, DW_OP_lit8); /* too much */
	UNSUPPORTED(DW_CFA_def_cfa_expression, 3, DW_OP_skip, 0, 0);
	UNSUPPORTED(DW_CFA_def_cfa_expression, 2, DW_OP_breg17, 0);
	UNSUPPORTED(DW_CFA_def_cfa_expression, 9, DW_OP_addr, 1, 2, 3, 4, 5, 6, 7, 8);
	UNSUPPORTED(DW_CFA_def_cfa_expression, 6, DW_OP_breg7, 0x80, 0x80, 0x80, 0x80,
		    0x08);                                      /* an offset of 32 bits at most */
	UNSUPPORTED(DW_CFA_def_cfa_expression, 1, DW_OP_breg7); /* its operand is the next op: not its own */
	UNSUPPORTED(DW_CFA_def_cfa_expression, 3, DW_OP_lit1, DW_OP_pick, 2);
	UNSUPPORTED(DW_CFA_def_cfa_expression, 3, DW_OP_lit1, DW_OP_deref_size, 9);
	static uint8_t longest[64] = {DW_CFA_def_cfa_expression, 31, DW_OP_lit0};
	memset(longest + 3, DW_OP_neg, 40);
	run(longest, 2 + 31); /* with its end, CFI_MAX_OPS */
	ck_assert_str_ne(cfi_rule_text(table.bytes, EDGE), "none");
	longest[1] = 32;
	run(longest, 2 + 32);
	expect(EDGE, "none");
}
END_TEST

START_TEST(smaller_words)
{
	CFA("r7+0 deref 4294967295 and", 4, DW_OP_breg7, 0, DW_OP_deref_size, 4);
	CFA("r7+0 deref 255 and", 4, DW_OP_breg7, 0, DW_OP_deref_size, 1);
	EXPECT("*(r7+0) pc=[-8]", DW_CFA_def_cfa_expression, 4, DW_OP_breg7, 0, DW_OP_deref_size, 8);
}
END_TEST

/* glibc's __restore_rt (sysdeps/unix/sysv/linux/x86_64/libc_sigaction.c), whole. */
START_TEST(signal_frame)
{
	static const uint8_t offsets[][2] = {{8, 40},  {9, 48},  {10, 56}, {11, 64}, {12, 72}, {13, 80},
					     {14, 88}, {15, 96}, {5, 104}, {4, 112}, {6, 120}, {3, 128},
					     {1, 136}, {0, 144}, {2, 152}, {7, 160}, {16, 168}};
	static const uint8_t encoding[] = {DW_EH_PE_pcrel | DW_EH_PE_sdata4};
	const struct cfi_cie_made made = {
		.augmentation = "zRS", .augmentation_bytes = encoding, .n_augmentation_bytes = sizeof(encoding)};
	const char *text = "signal sigcontext *(r7+160) pc=[{r7+168}] sp=[{r7+160}] rbx=[{r7+128}] rbp=[{r7+120}] "
			   "r12=[{r7+72}] r13=[{r7+80}] r14=[{r7+88}] r15=[{r7+96}]";
	for (int spoilt = -1; spoilt < 17; spoilt++) {
		uint8_t program[128] = {DW_CFA_def_cfa_expression, 4, DW_OP_breg7, 0xa0, 0x01, DW_OP_deref};
		size_t n = 6;
		for (int i = 0; i < 17; i++) {
			unsigned offset = offsets[i][1] + (i == spoilt ? 8U : 0);
			const uint8_t rule[] = {
				DW_CFA_expression,     offsets[i][0], 3, DW_OP_breg7, (uint8_t)(0x80 | (offset & 0x7f)),
				(uint8_t)(offset >> 7)};
			memcpy(program + n, rule, sizeof(rule));
			n += sizeof(rule);
		}
		frame.n = 0;
		size_t cie = cfi_add_cie(&frame, false, false, &made);
		cfi_add_fde(&frame, cie, 0, FUNCTION_BYTES, program, n);
		build();
		const char *is = cfi_rule_text(table.bytes, 0);
		ck_assert(strncmp(is, "signal ", 7) == 0);
		/* sp is said by the CFA already. */
		ck_assert_int_eq(strstr(is, "sigcontext") != NULL, spoilt == -1 || offsets[spoilt][0] == 7);
		if (spoilt == -1)
			ck_assert_str_eq(is, text);
	}
}
END_TEST

CHECK_MAIN("elf_cfi_ops", 60, cfa, registers, restoring, advancing, nothing_and_nonsense, expressions_of_the_cfa,
	   from_an_expression_to_a_register, expressions_of_registers, expressions_that_cannot_be, smaller_words,
	   signal_frame)
