#include "elf/cfi_go_internal.h"

enum {
	OFFSET_MAX = 4096, /* within Go's structs */
	THREAD_MIN = -(1 << 20),
	SCHED_PC = WORD_BYTES, /* behind sched.sp, which Go says never changes */
};

/* systemstack: between the load of sp before the call and the one behind it. */
struct switch_code {
	size_t start, end;
	struct cfi_go_offsets offsets;
};

/* Behind the call: g into rax, its m into rbx, curg into rax and back to where g is, its sched.sp into sp. */
static bool read_way_back(const struct cfi_go_function *function, size_t at, struct switch_code *ret)
{
	static const pattern g_at[] = {0x64, 0x48, 0x8b, 0x04, 0x25, ANY, ANY, ANY, ANY};
	static const pattern g_by_register[] = {0x48, 0xc7, 0xc1, ANY, ANY, ANY, ANY, 0x64, 0x48, 0x8b, 0x01};
	static const pattern m[] = {0x48, 0x8b, 0x58, ANY};
	static const pattern near_goroutine[] = {0x48, 0x8b, 0x43, ANY};
	static const pattern far_goroutine[] = {0x48, 0x8b, 0x83, ANY, ANY, ANY, ANY};
	static const pattern to_g[] = {0x64, 0x48, 0x89, 0x04, 0x25, ANY, ANY, ANY, ANY};
	static const pattern to_g_by_register[] = {0x64, 0x48, 0x89, 0x01};
	static const pattern sp[] = {0x48, 0x8b, 0x60, ANY};
	struct cfi_go_offsets *offsets = &ret->offsets;
	if (MATCHES(function, at, g_at)) {
		offsets->thread = signed_at(function, at + 5, 4);
		at += COUNT(g_at);
	} else if (MATCHES(function, at, g_by_register)) {
		offsets->thread = signed_at(function, at + 3, 4);
		at += COUNT(g_by_register);
	} else {
		return false;
	}
	if (!MATCHES(function, at, m))
		return false;
	offsets->m = signed_at(function, at + 3, 1);
	at += COUNT(m);
	bool is_near = MATCHES(function, at, near_goroutine);
	if (!is_near && !MATCHES(function, at, far_goroutine))
		return false;
	offsets->curg = signed_at(function, at + 3, is_near ? 1 : 4);
	at += is_near ? COUNT(near_goroutine) : COUNT(far_goroutine);
	if (MATCHES(function, at, to_g))
		at += COUNT(to_g);
	else if (MATCHES(function, at, to_g_by_register))
		at += COUNT(to_g_by_register);
	if (!MATCHES(function, at, sp))
		return false;
	offsets->sp = signed_at(function, at + 3, 1);
	ret->end = at + COUNT(sp);
	return true;
}

static bool is_offset(int32_t offset)
{
	return offset > 0 && offset < OFFSET_MAX;
}

static bool read_switch(const struct cfi_go_function *function, struct switch_code *ret)
{
	static const pattern call[] = {0xff, 0xd7}; /* of rdi */
	size_t at = FIND(function, 0, call);
	*ret = (struct switch_code){.start = function->n, .end = function->n};
	for (size_t next = find_sp_write(function, 0); next <= at && next < function->n;
	     next = find_sp_write(function, next))
		ret->start = next;
	if (!read_way_back(function, at + COUNT(call), ret))
		return false;
	struct cfi_go_offsets *offsets = &ret->offsets;
	offsets->known = offsets->thread < 0 && offsets->thread >= THREAD_MIN && is_offset(offsets->m) &&
			 is_offset(offsets->curg) && is_offset(offsets->sp);
	return offsets->known;
}

void cfi_go_offsets_find(const struct cfi_go_function *systemstack, struct cfi_go_offsets *ret)
{
	struct switch_code code;
	if (read_switch(systemstack, &code))
		*ret = code.offsets;
}

/* What systemstack leaves in curg.sched.sp is its own sp of before the switch. */
static int find_systemstack(const struct cfi_go_function *function, struct cfi_rules *rules, struct cfi_go_regions *ret)
{
	struct switch_code code;
	struct cfi_expression cfa = {};
	bool is_known = read_switch(function, &code);
	if (!is_known || !has_depth(function, code.start))
		return add_region(function, code.start, function->n, CFI_RULE_NONE, ret);
	int32_t delta = function->deltas[code.start];
	push_goroutine(&cfa, &code.offsets);
	word_at(&cfa, code.offsets.sp);
	plus(&cfa, delta + WORD_BYTES);
	return add_region(function, code.start, code.end, add_other_stack(rules, &cfa, delta), ret);
}

/* With a goroutine at the top: what is at offset in it, or, where there is none, the word at sp, which is there. */
static void word_of_goroutine(struct cfi_expression *expression, int64_t offset)
{
	op(expression, CFI_OP_DUP);
	(void)cfi_expression_add(expression, CFI_OP_CONST, 0, 0);
	op(expression, CFI_OP_EQ);
	(void)cfi_expression_add(expression, CFI_OP_REGISTER, RSP, -offset);
	op(expression, CFI_OP_MUL);
	op(expression, CFI_OP_PLUS);
	word_at(expression, offset);
}

/* morestack leaves in curg.sched where its caller goes on, until the goroutine is preempted: then there is no curg, and nothing above. */
static int add_morestack(struct cfi_rules *rules, const struct cfi_go_offsets *offsets)
{
	struct cfi_expression cfa = {}, pc = {.depth = 1}; /* the CFA */
	push_goroutine(&cfa, offsets);
	word_of_goroutine(&cfa, offsets->sp);
	push_goroutine(&pc, offsets);
	op(&pc, CFI_OP_DUP);
	(void)cfi_expression_add(&pc, CFI_OP_CONST, 0, 0);
	op(&pc, CFI_OP_NE);
	op(&pc, CFI_OP_SWAP);
	word_of_goroutine(&pc, offsets->sp + SCHED_PC);
	op(&pc, CFI_OP_MUL);
	int cfa_code = cfi_rules_add_expression(rules, &cfa), pc_code = cfi_rules_add_expression(rules, &pc);
	struct cfi_rule rule = other_stack(0);
	rule.cfa = CFI_CFA_EXPRESSION;
	rule.cfa_offset = cfa_code;
	rule.ra_where = CFI_VALUE_EXPRESSION;
	rule.ra_value = (int16_t)pc_code;
	rule.where[RBP_SAVED] = CFI_UNDEFINED; /* of no use in Go's own frames, nor the same in all versions */
	if (!is_number(cfa_code) || !is_number(pc_code))
		return is_number(cfa_code) ? pc_code : cfa_code;
	return cfi_rules_add(rules, &rule);
}

static int find_morestack(const struct cfi_go_function *function, const struct cfi_go_offsets *offsets,
			  struct cfi_rules *rules, struct cfi_go_regions *ret)
{
	int rule = offsets->known ? add_morestack(rules, offsets) : CFI_RULE_NONE;
	return add_region(function, find_sp_write(function, 0), function->n, rule, ret);
}

/* From where it has the goroutine's sp, that goes on at what rbx, a struct gobuf, says, and then at rbx itself. */
static int find_gogo(const struct cfi_go_function *function, struct cfi_rules *rules, struct cfi_go_regions *ret)
{
	static const pattern load_pc[] = {0x48, 0x8b, 0x5b, ANY};
	size_t start = find_sp_write(function, 0), load = FIND(function, start, load_pc);
	struct cfi_rule rule = {.cfa = CFI_CFA_REGISTER, .cfa_register = RSP, .flags = CFI_SIGNAL_FRAME};
	if (load >= function->n)
		return add_region(function, start, function->n, CFI_RULE_NONE, ret);
	struct cfi_expression pc = {.depth = 1};
	(void)cfi_expression_add(&pc, CFI_OP_REGISTER, RBX, signed_at(function, load + 3, 1));
	int code = cfi_rules_add_expression(rules, &pc);
	rule.ra_where = CFI_AT_EXPRESSION;
	rule.ra_value = (int16_t)code;
	int before = is_number(code) ? cfi_rules_add(rules, &rule) : code;
	rule.ra_where = CFI_REGISTER;
	rule.ra_value = RBX;
	size_t end = load + COUNT(load_pc);
	int r = add_region(function, start, end, before, ret);
	return r < 0 ? r : add_region(function, end, function->n, cfi_rules_add(rules, &rule), ret);
}

int cfi_go_regions_find(const struct cfi_go_function *function, enum cfi_go_kind kind,
			const struct cfi_go_offsets *offsets, struct cfi_rules *rules, struct cfi_go_regions *ret)
{
	*ret = (struct cfi_go_regions){.corrected_from = UINT64_MAX};
	switch (kind) {
	case CFI_GO_TOP:
		return add_region(function, 0, function->n, CFI_RULE_END, ret);
	case CFI_GO_MCALL:
		return add_region(function, find_sp_write(function, 0), function->n, CFI_RULE_END, ret);
	case CFI_GO_SYSTEMSTACK:
		return find_systemstack(function, rules, ret);
	case CFI_GO_MORESTACK:
		return find_morestack(function, offsets, rules, ret);
	case CFI_GO_GOGO:
		return find_gogo(function, rules, ret);
	case CFI_GO_ASMCGOCALL:
		return cfi_go_asmcgocall(function, rules, ret);
	case CFI_GO_CGOCALLBACK:
		return cfi_go_cgocallback(function, rules, ret);
	case CFI_GO_SAVES_SP:
		return cfi_go_saving(function, rules, ret);
	default:
		return 0;
	}
}
