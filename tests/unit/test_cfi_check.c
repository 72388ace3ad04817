/* Unwind tables are hostile input: a sound one is accepted, and every way to spoil it refused. */
#include <stdlib.h>
#include <string.h>

#include "check_main.h"
#include "model/cfi_check.h"

/* A table of four buckets of 256 bytes at file offset 0x12300, six rows, four rules, two expressions. */
enum { BUCKETS = 4, ROWS = 6, RULES = 4, CODE = 16, FIRST_CODE = 0, SECOND_CODE = 7, START = 0x12300 };
struct whole {
	struct cfi_table_header header;
	uint8_t code[CODE];
	__u32 index[BUCKETS + 1];
	__u32 rows[ROWS];
	__u32 padding;
	struct cfi_rule rules[RULES];
};
_Static_assert(offsetof(struct whole, rules) % sizeof(struct cfi_rule) == 0, "rules");

static struct whole good;

static void setup(void)
{
	good = (struct whole){
		.header = {.magic = CFI_TABLE_MAGIC,
			   .total_bytes = sizeof(good),
			   .text_start = START,
			   .text_end = START + 0x3f0,
			   .n_buckets = BUCKETS,
			   .bucket_shift = 8,
			   .n_rows = ROWS,
			   .n_rules = RULES,
			   .n_code_bytes = CODE,
			   .off_index = offsetof(struct whole, index),
			   .off_rows = offsetof(struct whole, rows),
			   .off_rules = offsetof(struct whole, rules),
			   .off_code = offsetof(struct whole, code)},
		.code = {CFI_OP_REGISTER, 7, 8, 0, 0, 0, CFI_OP_END, CFI_OP_DUP, CFI_OP_PLUS, CFI_OP_DEREF, CFI_OP_END},
		/* The third bucket has no row of its own. */
		.index = {0, 3, 5, 5, ROWS},
		.rows = {0x2300 | 2 << 16, 0x2310 | 3 << 16, 0x23ff, 0x2400 | 1 << 16, 0x2401 | 2 << 16,
			 0x2680 | 3U << 16},
		.rules = {[CFI_RULE_END] = {.flags = CFI_END},
			  [2] = {.cfa_register = 7, .cfa_offset = 8, .ra_where = CFI_AT_CFA, .ra_value = -8},
			  [3] = {.cfa = CFI_CFA_EXPRESSION,
				 .cfa_offset = FIRST_CODE,
				 .flags = CFI_SIGNAL_FRAME | CFI_SIGCONTEXT,
				 .ra_where = CFI_REGISTER,
				 .ra_value = 16,
				 .where = {CFI_AT_EXPRESSION, CFI_VALUE_EXPRESSION, CFI_UNDEFINED, CFI_VALUE_CFA},
				 .value = {SECOND_CODE, SECOND_CODE}}},
	};
}

static bool check(void)
{
	/* From the heap, so that AddressSanitizer guards its end. */
	size_t n = good.header.total_bytes < sizeof(good) ? good.header.total_bytes : sizeof(good);
	void *copy = malloc(sizeof(good));
	memcpy(copy, &good, sizeof(good));
	bool ok = cfi_table_check(copy, n);
	free(copy);
	return ok;
}

START_TEST(sound)
{
	setup();
	ck_assert(check());
	static const struct {
		uint64_t offset;
		uint32_t rule;
	} expected[] = {{0, 0},
			{START - 1, 0},
			{START, 2},
			{START + 0xf, 2},
			{START + 0x10, 3},
			{START + 0xfe, 3},
			{START + 0xff, 0},
			{START + 0x100, 1},
			{START + 0x101, 2},
			{START + 0x1ff, 2},
			{START + 0x200, 2},
			{START + 0x37f, 2},
			{START + 0x380, 3},
			{START + 0x3ef, 3},
			{START + 0x3f0, 0},
			{UINT64_MAX, 0}};
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		ck_assert_msg(cfi_table_rule_at(&good, expected[i].offset) == expected[i].rule, "at %#llx",
			      (unsigned long long)expected[i].offset);
	ck_assert_ptr_eq(cfi_table_rule(&good, 3), &good.rules[3]);
}
END_TEST

/* After the change to the good table it is refused; the change is undone. */
#define REFUSED(change)                                 \
	do {                                            \
		setup();                                \
		change;                                 \
		ck_assert_msg(!check(), "%s", #change); \
	} while (0)
#define ACCEPTED(change)                               \
	do {                                           \
		setup();                               \
		change;                                \
		ck_assert_msg(check(), "%s", #change); \
	} while (0)

START_TEST(lengths)
{
	setup();
	for (size_t n = 0; n < sizeof(good); n++) {
		void *copy = malloc(n ? n : 1);
		memcpy(copy, &good, n);
		ck_assert(!cfi_table_check(copy, n));
		free(copy);
	}
	struct cfi_table_header *header = &good.header;
	REFUSED(header->magic++);
	REFUSED(header->total_bytes--);
	REFUSED(header->total_bytes++);
	REFUSED(header->reserved = 1);
	REFUSED(header->n_rules++);
	REFUSED(header->n_rules = 1);
	REFUSED(header->n_rules = UINT32_MAX);
	REFUSED(header->n_rows = 0);
	REFUSED(header->n_rows--);
	REFUSED(header->n_rows = UINT32_MAX);
	REFUSED(header->n_code_bytes = CFI_MAX_CODE_BYTES + 1);
	REFUSED(header->n_code_bytes = 0);
	REFUSED(header->n_buckets--);
	REFUSED(header->n_buckets++);
	REFUSED(header->off_index += 2);
	REFUSED(header->off_rows += 2);
	REFUSED(header->off_rules -= 4);
	REFUSED(header->off_rules += sizeof(struct cfi_rule));
	REFUSED(header->off_code = sizeof(good) - CODE + 1);
	REFUSED(header->off_code = UINT32_MAX);
	REFUSED(header->off_index = 0);
	REFUSED(header->off_rows = sizeof(good) + 4);
}
END_TEST

START_TEST(texts)
{
	struct cfi_table_header *header = &good.header;
	REFUSED(header->text_start++);
	REFUSED(header->text_start += 0x100);
	REFUSED(header->text_end = header->text_start);
	REFUSED(header->text_end = 0);
	REFUSED(header->text_end = header->text_start + CFI_MAX_TEXT_BYTES + 1);
	REFUSED(header->text_end = UINT64_MAX);
	REFUSED(header->text_end += 0x11); /* another bucket */
	ACCEPTED(header->text_end += 0x10);
	REFUSED(header->bucket_shift = 9);
	REFUSED(header->bucket_shift = 17);
	REFUSED(header->bucket_shift = UINT32_MAX);
}
END_TEST

START_TEST(rows_and_index)
{
	REFUSED(good.index[0] = 1);
	REFUSED(good.index[BUCKETS] = ROWS - 1);
	REFUSED(good.index[BUCKETS] = ROWS + 1);
	REFUSED(good.index[1] = 0);
	REFUSED(good.index[1] = 2);
	REFUSED(good.index[1] = 4);
	REFUSED(good.index[2] = 6);
	REFUSED(good.index[2] = UINT32_MAX);
	REFUSED(good.index[3] = 4);
	REFUSED(good.rows[0] += 1); /* row 0 is at text_start */
	REFUSED(good.rows[0] -= 1);
	REFUSED(good.rows[1] = good.rows[0]);
	REFUSED(good.rows[2] -= 0xf0);
	REFUSED(good.rows[2] += 1);
	REFUSED(good.rows[3] -= 1);
	REFUSED(good.rows[5] = 0x2580 | 3U << 16);
	REFUSED(good.rows[5] = 0x2700 | 3U << 16);
	REFUSED(good.rows[5] = 0x2680 | (__u32)RULES << 16);
	REFUSED(good.rows[5] |= 0xffff0000);
	ACCEPTED(good.rows[2] -= 1);
}
END_TEST

START_TEST(rules)
{
	struct cfi_rule *rule = &good.rules[2];
	REFUSED(good.rules[CFI_RULE_NONE].cfa_offset = 1);
	REFUSED(good.rules[CFI_RULE_END].flags = 0);
	REFUSED(good.rules[CFI_RULE_END].ra_where = CFI_AT_CFA);
	REFUSED(rule->cfa = CFI_CFA_EXPRESSION + 1);
	REFUSED(rule->cfa_register = CFI_REGISTERS);
	REFUSED(rule->flags = CFI_END);
	REFUSED(rule->flags = 16);
	ACCEPTED(rule->flags = CFI_OTHER_STACK);
	REFUSED(rule->reserved = 1);
	REFUSED(rule->ra_where = CFI_SAME);
	REFUSED(rule->ra_where = CFI_UNDEFINED);
	REFUSED(rule->ra_where = CFI_UNDEFINED + 1);
	REFUSED((rule->ra_where = CFI_REGISTER, rule->ra_value = CFI_REGISTERS));
	REFUSED((rule->ra_where = CFI_REGISTER, rule->ra_value = -1));
	REFUSED(rule->sp_where = CFI_UNDEFINED + 1);
	REFUSED((rule->sp_where = CFI_AT_EXPRESSION, rule->sp_value = -1));
	REFUSED((rule->sp_where = CFI_VALUE_EXPRESSION, rule->sp_value = CODE));
	for (int i = 0; i < CFI_SAVED; i++) {
		REFUSED(rule->where[i] = UINT8_MAX);
		REFUSED((rule->where[i] = CFI_REGISTER, rule->value[i] = CFI_REGISTERS));
		REFUSED((rule->where[i] = CFI_AT_EXPRESSION, rule->value[i] = INT16_MAX));
		ACCEPTED((rule->where[i] = CFI_AT_CFA, rule->value[i] = INT16_MIN));
		ACCEPTED((rule->where[i] = CFI_AT_EXPRESSION, rule->value[i] = SECOND_CODE));
	}
	ACCEPTED((rule->cfa = CFI_CFA_DEREF, rule->cfa_offset = INT32_MIN));
	ACCEPTED(rule->cfa = CFI_CFA_PLT);
}
END_TEST

START_TEST(expressions)
{
	struct cfi_rule *rule = &good.rules[3];
	REFUSED(rule->cfa_offset = SECOND_CODE); /* it takes what is not there: the CFA */
	REFUSED(rule->cfa_offset = -1);
	REFUSED(rule->cfa_offset = CODE);
	REFUSED(rule->cfa_offset = INT32_MAX);
	REFUSED(good.code[0] = CFI_OPS);
	REFUSED(good.code[0] = UINT8_MAX);
	REFUSED(good.code[0] = CFI_OP_PLUS);
	REFUSED(good.code[0] = CFI_OP_END);
	REFUSED(good.code[1] = CFI_REGISTERS);
	REFUSED(good.code[SECOND_CODE] = CFI_OP_DROP);
	REFUSED(good.code[SECOND_CODE + 1] = CFI_OPS);
	ACCEPTED(good.code[0] = CFI_OP_THREAD);
	REFUSED((rule->value[0] = CODE - 5, good.code[CODE - 5] = CFI_OP_THREAD));
	/* Without end: the code's last byte is an op. */
	REFUSED(memset(good.code + SECOND_CODE, CFI_OP_NEG, CODE - SECOND_CODE));
	ACCEPTED((memset(good.code + SECOND_CODE, CFI_OP_NEG, CODE - SECOND_CODE), good.code[CODE - 1] = CFI_OP_END));
	/* A constant that is longer than what is left, and one that leaves nothing for the end. */
	REFUSED((rule->value[0] = CODE - 9, good.code[CODE - 9] = CFI_OP_CONST));
	REFUSED((rule->value[0] = CODE - 8, good.code[CODE - 8] = CFI_OP_CONST));
	REFUSED((rule->value[0] = CODE - 1, good.code[CODE - 1] = CFI_OP_REGISTER));
	/* The stack's depth: 1 and 7 more fit, 8 do not. */
	ACCEPTED((memset(good.code + SECOND_CODE, CFI_OP_DUP, 7), good.code[SECOND_CODE + 7] = CFI_OP_END));
	REFUSED((memset(good.code + SECOND_CODE, CFI_OP_DUP, 8), good.code[SECOND_CODE + 8] = CFI_OP_END));
}
END_TEST

/* A table with much code: the longest expression, and one across a page. */
START_TEST(long_code)
{
	enum { LONG = 2 * CFI_PAGE_BYTES };
	static struct {
		struct cfi_table_header header;
		uint8_t code[LONG];
		__u32 index[8], rows[8];
		struct cfi_rule rules[3];
	} table;
	_Static_assert(offsetof(__typeof__(table), rules) % sizeof(struct cfi_rule) == 0, "rules");
	setup();
	table.header = good.header;
	table.header.total_bytes = sizeof(table);
	table.header.n_code_bytes = LONG;
	table.header.n_rows = 1;
	table.header.n_buckets = 1;
	table.header.text_end = START + 1;
	table.header.n_rules = 3;
	table.header.off_index = offsetof(__typeof__(table), index);
	table.header.off_rows = offsetof(__typeof__(table), rows);
	table.header.off_rules = offsetof(__typeof__(table), rules);
	table.header.off_code = offsetof(__typeof__(table), code);
	table.index[1] = 1;
	table.rows[0] = (START & UINT16_MAX) | 2 << 16;
	table.rules[1] = good.rules[1];
	table.rules[2] = good.rules[2];
	ck_assert(cfi_table_check(&table, sizeof(table)));
	table.rules[2].where[0] = CFI_AT_EXPRESSION;
	memset(table.code, CFI_OP_NEG, LONG);
	table.code[CFI_MAX_OPS - 1] = CFI_OP_END;
	ck_assert(cfi_table_check(&table, sizeof(table)));
	table.code[CFI_MAX_OPS - 1] = CFI_OP_NEG;
	table.code[CFI_MAX_OPS] = CFI_OP_END;
	ck_assert(!cfi_table_check(&table, sizeof(table)));
	enum { PAGE_END = CFI_PAGE_BYTES - sizeof(struct cfi_table_header) };
	table.rules[2].value[0] = PAGE_END - 2;
	table.code[PAGE_END - 1] = CFI_OP_END;
	ck_assert(cfi_table_check(&table, sizeof(table)));
	table.code[PAGE_END - 1] = CFI_OP_NEG;
	table.code[PAGE_END] = CFI_OP_END;
	ck_assert(!cfi_table_check(&table, sizeof(table)));
}
END_TEST

CHECK_MAIN("cfi_check", 30, sound, lengths, texts, rows_and_index, rules, expressions, long_code)
