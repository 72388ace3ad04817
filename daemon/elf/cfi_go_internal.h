/* What cfi_go_runtime.c and cfi_go_c_calls.c share: patterns of instructions, and rules of frames on other stacks. */
#pragma once
#include <errno.h>
#include <string.h>

#include "elf/cfi_go_runtime.h"

enum {
	RDX = 1,
	RBX = 3,
	RBP = 6,
	RSP = 7,
	RBP_SAVED = 1, /* in cfi_rule.where */
	WORD_BYTES = 8,
};

/* A byte of a pattern that may be anything. */
#define ANY 0x100
typedef uint16_t pattern;
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline bool matches(const struct cfi_go_function *function, size_t at, const pattern *bytes, size_t n)
{
	if (at > function->n || n > function->n - at)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] != ANY && bytes[i] != function->code[at + i])
			return false;
	}
	return true;
}

/* Where a pattern is, from `from` on; function->n: nowhere. */
static inline size_t find(const struct cfi_go_function *function, size_t from, const pattern *bytes, size_t n)
{
	for (size_t at = from; at < function->n; at++) {
		if (matches(function, at, bytes, n))
			return at;
	}
	return function->n;
}
#define MATCHES(function, at, bytes) matches(function, at, bytes, COUNT(bytes))
#define FIND(function, from, bytes)  find(function, from, bytes, COUNT(bytes))

static inline int32_t signed_at(const struct cfi_go_function *function, size_t at, size_t n)
{
	int32_t value = 0;
	if (n == 1)
		return (int8_t)function->code[at];
	memcpy(&value, function->code + at, sizeof(value));
	return value;
}

/* Whether the instruction at `at` loads sp: from memory by a register and an offset, or from a register. Its length; 0: it does not. */
static inline size_t writes_sp(const struct cfi_go_function *function, size_t at)
{
	static const pattern load[] = {ANY, 0x8b, ANY}, move[] = {ANY, 0x89, ANY};
	enum { REX_W = 0x48, REX_WB = 0x49, REX_WR = 0x4c, NUMBER = 7, SP = 4, NEEDS_MORE = 4, NO_BASE = 5 };
	if (!MATCHES(function, at, load) && !MATCHES(function, at, move))
		return 0;
	uint8_t prefix = function->code[at], mode = function->code[at + 2] >> 6;
	uint8_t middle = function->code[at + 2] >> 3 & NUMBER, low = function->code[at + 2] & NUMBER;
	if (function->code[at + 1] == 0x89)
		return (prefix == REX_W || prefix == REX_WR) && mode == 3 && low == SP ? 3 : 0;
	if ((prefix != REX_W && prefix != REX_WB) || middle != SP || mode == 3 || low == NEEDS_MORE)
		return 0;
	if (mode == 0)
		return low == NO_BASE ? 0 : 3;
	return mode == 1 ? 4 : 7;
}

/* Where the next such instruction ends; function->n: there is none. */
static inline size_t find_sp_write(const struct cfi_go_function *function, size_t from)
{
	for (size_t at = from; at < function->n; at++) {
		size_t n = writes_sp(function, at);
		if (n && n <= function->n - at)
			return at + n;
	}
	return function->n;
}

static inline bool is_number(int n)
{
	return n >= 0;
}

/* A region with that rule, or with none where the rule cannot be had. */
static inline int add_region(const struct cfi_go_function *function, size_t start, size_t end, int rule,
			     struct cfi_go_regions *regions)
{
	if (rule == -ENOMEM)
		return rule;
	if (start < end && regions->n < CFI_GO_REGIONS_MAX)
		regions->list[regions->n++] =
			(struct cfi_go_region){.start = function->address + start,
					       .end = function->address + end,
					       .rule = is_number(rule) ? (uint32_t)rule : CFI_RULE_NONE};
	return 0;
}

/* A frame on another stack, that takes delta below its return address: where that is something, it begins with the caller's rbp. The CFA is for the
 * caller to say. */
static inline struct cfi_rule other_stack(int32_t delta)
{
	struct cfi_rule rule = {
		.cfa = CFI_CFA_REGISTER, .flags = CFI_OTHER_STACK, .ra_where = CFI_AT_CFA, .ra_value = -WORD_BYTES};
	if (delta > 0) {
		rule.where[RBP_SAVED] = CFI_AT_CFA;
		rule.value[RBP_SAVED] = -2 * WORD_BYTES;
	}
	return rule;
}

static inline int add_other_stack_by_register(struct cfi_rules *rules, uint8_t number, int32_t delta)
{
	struct cfi_rule rule = other_stack(delta);
	rule.cfa_register = number;
	rule.cfa_offset = delta + WORD_BYTES;
	return cfi_rules_add(rules, &rule);
}

static inline int add_other_stack(struct cfi_rules *rules, const struct cfi_expression *cfa, int32_t delta)
{
	int code = cfi_rules_add_expression(rules, cfa);
	struct cfi_rule rule = other_stack(delta);
	rule.cfa = CFI_CFA_EXPRESSION;
	rule.cfa_offset = code;
	return is_number(code) ? cfi_rules_add(rules, &rule) : code;
}

static inline void op(struct cfi_expression *expression, enum cfi_op op)
{
	(void)cfi_expression_add(expression, (uint8_t)op, 0, 0);
}

static inline void plus(struct cfi_expression *expression, int64_t value)
{
	(void)cfi_expression_add(expression, CFI_OP_CONST, 0, value);
	op(expression, CFI_OP_PLUS);
}

static inline void word_at(struct cfi_expression *expression, int64_t offset)
{
	plus(expression, offset);
	op(expression, CFI_OP_DEREF);
}

/* The thread's goroutine: g.m.curg. */
static inline void push_goroutine(struct cfi_expression *expression, const struct cfi_go_offsets *offsets)
{
	(void)cfi_expression_add(expression, CFI_OP_THREAD, 0, offsets->thread);
	op(expression, CFI_OP_DEREF);
	word_at(expression, offsets->m);
	word_at(expression, offsets->curg);
}

/* Whether a function's depth at `at` is one that a rule can have. */
static inline bool has_depth(const struct cfi_go_function *function, size_t at)
{
	return at < function->n && function->deltas[at] >= 0 && function->deltas[at] <= INT32_MAX - WORD_BYTES;
}

/* As cfi_go_regions_find. */
int cfi_go_asmcgocall(const struct cfi_go_function *function, struct cfi_rules *rules, struct cfi_go_regions *ret);
int cfi_go_cgocallback(const struct cfi_go_function *function, struct cfi_rules *rules, struct cfi_go_regions *ret);
int cfi_go_saving(const struct cfi_go_function *function, struct cfi_rules *rules, struct cfi_go_regions *ret);
