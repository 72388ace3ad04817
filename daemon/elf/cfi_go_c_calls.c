/* Functions of Go's runtime that call C, or are called by it. */
#include "elf/cfi_go_internal.h"

/* How the stack pointer of before is found behind a call of C: into rsi or rdx, then sp. */
static bool read_saved_sp(const struct cfi_go_function *function, size_t at, struct cfi_expression *ret)
{
	static const pattern g[] = {0x48, 0x8b, 0x7c, 0x24, ANY}, last_g[] = {0x48, 0x8b, 0x3c, 0x24};
	static const pattern high[] = {0x48, 0x8b, 0x77, ANY};
	static const pattern depth[] = {0x48, 0x2b, 0x74, 0x24, ANY}, last_depth[] = {0x48, 0x2b, 0x34, 0x24};
	static const pattern sp[] = {0x48, 0x8b, 0x74, 0x24, ANY}, sp_in_rdx[] = {0x48, 0x8b, 0x54, 0x24, ANY};
	static const pattern last_sp[] = {0x48, 0x8b, 0x34, 0x24};
	if (MATCHES(function, at, sp) || MATCHES(function, at, sp_in_rdx) || MATCHES(function, at, last_sp)) {
		int32_t offset = MATCHES(function, at, last_sp) ? 0 : signed_at(function, at + 4, 1);
		(void)cfi_expression_add(ret, CFI_OP_REGISTER, RSP, offset);
		op(ret, CFI_OP_DEREF);
		return true;
	}
	/* The stack may have moved meanwhile: so it is kept as the distance to its end, g.stack.hi. */
	bool is_last = MATCHES(function, at, last_g);
	if (!is_last && !MATCHES(function, at, g))
		return false;
	(void)cfi_expression_add(ret, CFI_OP_REGISTER, RSP, is_last ? 0 : signed_at(function, at + 4, 1));
	op(ret, CFI_OP_DEREF);
	at += is_last ? COUNT(last_g) : COUNT(g);
	if (!MATCHES(function, at, high))
		return false;
	word_at(ret, signed_at(function, at + 3, 1));
	at += COUNT(high);
	is_last = MATCHES(function, at, last_depth);
	if (!is_last && !MATCHES(function, at, depth))
		return false;
	(void)cfi_expression_add(ret, CFI_OP_REGISTER, RSP, is_last ? 0 : signed_at(function, at + 4, 1));
	op(ret, CFI_OP_DEREF);
	op(ret, CFI_OP_MINUS);
	return true;
}

/* A call of C, and what follows it. */
struct c_call {
	size_t start, end; /* of the code that runs on the other stack, or on an aligned sp */
	size_t called;     /* the call itself */
	struct cfi_expression sp;
};

/* The next call from `from` on; false: there is none that looks as expected. Between the two there may be a load of where g is. */
static bool find_c_call(const struct cfi_go_function *function, size_t from, struct c_call *ret)
{
	static const pattern align[] = {0x48, 0x83, 0xe4, 0xf0}, call[] = {0xff, 0xd0};
	static const pattern near_call[] = {0xe8, ANY, ANY, ANY, ANY}, load[] = {0x48, 0xc7, 0xc1, ANY, ANY, ANY, ANY};
	size_t aligned = FIND(function, from, align), switched = find_sp_write(function, from), at = aligned;
	*ret = (struct c_call){.start = switched <= aligned ? switched : aligned + COUNT(align)};
	while (at < function->n && !read_saved_sp(function, at, &ret->sp)) {
		ret->sp = (struct cfi_expression){};
		at++;
	}
	ret->end = find_sp_write(function, at);
	if (at >= function->n || ret->end >= function->n)
		return false;
	if (at >= COUNT(load) && MATCHES(function, at - COUNT(load), load))
		at -= COUNT(load);
	if (at >= aligned + COUNT(call) && MATCHES(function, at - COUNT(call), call))
		ret->called = at - COUNT(call);
	else if (at >= aligned + COUNT(near_call) && MATCHES(function, at - COUNT(near_call), near_call))
		ret->called = at - COUNT(near_call);
	return ret->called >= ret->start;
}

/* Behind a call the table still counts what was taken from sp before it, up to the return. */
static int add_way_out(const struct cfi_go_function *function, size_t start, int32_t delta, struct cfi_rules *rules,
		       struct cfi_go_regions *ret)
{
	enum { POP_RBP = 0x5d, RETURN = 0xc3 };
	struct cfi_rule rule = other_stack(delta);
	size_t end = start;
	while (end < function->n && function->code[end] != POP_RBP && function->code[end] != RETURN)
		end++;
	rule.flags = 0;
	rule.cfa_register = RSP;
	rule.cfa_offset = delta + WORD_BYTES;
	int r = add_region(function, start, end + 1, cfi_rules_add(rules, &rule), ret);
	rule = other_stack(0);
	rule.flags = 0;
	rule.cfa_register = RSP;
	rule.cfa_offset = WORD_BYTES;
	return r < 0 || end >= function->n || function->code[end] == RETURN
		       ? r
		       : add_region(function, end + 1, end + 2, cfi_rules_add(rules, &rule), ret);
}

/* Two ways lead to a call of C: by the thread's stack, or, where that is in use already, by an aligned sp. Up to the call rdx has the old sp. */
int cfi_go_asmcgocall(const struct cfi_go_function *function, struct cfi_rules *rules, struct cfi_go_regions *ret)
{
	static const pattern keep[] = {0x48, 0x89, 0xe2};
	size_t at = FIND(function, 0, keep);
	struct c_call call;
	int r = 0;
	if (!has_depth(function, at))
		return 0;
	int32_t delta = function->deltas[at];
	while (r == 0 && find_c_call(function, at, &call)) {
		plus(&call.sp, delta + WORD_BYTES);
		r = add_region(function, call.start, call.called, add_other_stack_by_register(rules, RDX, delta), ret);
		if (r == 0)
			r = add_region(function, call.called, call.end, add_other_stack(rules, &call.sp, delta), ret);
		if (r == 0)
			r = add_way_out(function, call.end, delta, rules, ret);
		at = call.end;
	}
	return r;
}

/* On the goroutine's stack its return address is the start of runtime.systemstack_switch, which nobody called: so that Go's own tracebacks go on at
 * the call of C. The frames of C are on the other stack. */
int cfi_go_cgocallback(const struct cfi_go_function *function, struct cfi_rules *rules, struct cfi_go_regions *ret)
{
	size_t start = find_sp_write(function, 0), end = find_sp_write(function, start);
	if (!has_depth(function, start))
		return 0;
	struct cfi_rule rule = other_stack(function->deltas[start]);
	rule.flags = CFI_SIGNAL_FRAME;
	rule.cfa_register = RSP;
	rule.cfa_offset = function->deltas[start] + WORD_BYTES;
	return add_region(function, start, end, cfi_rules_add(rules, &rule), ret);
}

/* Those that C leaves alone: their numbers, and the two instructions. */
static const struct saving {
	uint8_t number, n_restore;
	pattern save[3], restore[4];
} savings[] = {
	{12, 3, {0x49, 0x89, 0xe4}, {0x4c, 0x89, 0xe4}},        {13, 3, {0x49, 0x89, 0xe5}, {0x4c, 0x89, 0xec}},
	{15, 3, {0x49, 0x89, 0xe7}, {0x4c, 0x89, 0xfc}},        {RBX, 3, {0x48, 0x89, 0xe3}, {0x48, 0x89, 0xdc}},
	{RBX, 4, {0x48, 0x89, 0xe3}, {0x48, 0x8b, 0x24, 0x24}}, /* it put a copy at sp */
	{RBP, 3, {0x48, 0x89, 0xe5}, {0x48, 0x89, 0xec}},
};

/* sp is kept in a register from `start` to `end`; behind it the table still counts what was taken from sp between them, up to the return. What
 * follows that is code of the part between, put out of the way. */
static int add_saving(const struct cfi_go_function *function, const struct saving *saving, size_t start, size_t end,
		      struct cfi_rules *rules, struct cfi_go_regions *ret)
{
	int32_t delta = function->deltas[start], after = function->deltas[end];
	if (!has_depth(function, start) || after < delta)
		return 0;
	int32_t extra = after - delta;
	int rule = add_other_stack_by_register(rules, saving->number, delta);
	int r = add_region(function, start, end, rule, ret);
	size_t at = end;
	while (at < function->n && function->deltas[at] != extra)
		at++;
	while (at < function->n && function->deltas[at] == extra)
		at++;
	ret->corrected_from = function->address + end;
	ret->correction = extra;
	return r < 0 || delta == 0 ? r : add_region(function, at, function->n, rule, ret);
}

int cfi_go_saving(const struct cfi_go_function *function, struct cfi_rules *rules, struct cfi_go_regions *ret)
{
	for (size_t i = 0; i < COUNT(savings); i++) {
		size_t start = FIND(function, 0, savings[i].save), end = function->n;
		for (size_t at = start; at < function->n; at++) {
			if (matches(function, at, savings[i].restore, savings[i].n_restore))
				end = at + savings[i].n_restore;
		}
		if (start < end && end < function->n)
			return add_saving(function, &savings[i], start + COUNT(savings[i].save), end, rules, ret);
	}
	return 0;
}
