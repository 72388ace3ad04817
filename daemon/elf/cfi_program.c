#include "elf/cfi_program.h"

#include <dwarf.h>
#include <errno.h>
#include <string.h>

#include "elf/cfi_registers.h"
#include "elf/dwarf_cursor.h"

enum {
	REMEMBERED_MAX = 32,        /* GCC and clang nest one deep */
	DW_CFA_ADVANCE_LOC8 = 0x1d, /* MIPS's name for what GNU as writes on any machine */
};

/* A program that is being run. Failed: it contradicts itself. */
struct run {
	struct cfi_output *output;
	const struct cfi_cie *cie;
	struct cursor in;
	struct cfi_state state, initial;
	unsigned n_remembered;
	bool in_cie; /* there are no locations yet */
	bool failed;
	bool lost; /* a register's rule could not be expressed */
	int error; /* of the output: the end of everything */
	uint64_t address;
	/* Where rows may go, by address, and what to add for a file offset. */
	uint64_t start, end, to_file;
	struct cfi_state remembered[REMEMBERED_MAX]; /* last: not worth clearing */
};

static int number_of_rule(struct run *run)
{
	struct cfi_output *output = run->output;
	const struct cfi_state *state = &run->state;
	enum { ALL = (1U << CFI_REGISTERS) - 1, SIGCONTEXT_SP = 160 };
	if (!(state->lacks & CFI_NO_RETURN_ADDRESS) &&
	    (state->rule.ra_where == CFI_SAME || state->rule.ra_where == CFI_UNDEFINED))
		return CFI_RULE_END;
	output->n_registers_lost += run->lost;
	unsigned needed = CFI_NO_RETURN_ADDRESS |
			  (state->has_expression ? CFI_NO_CFA_EXPRESSION : CFI_NO_CFA_REGISTER | CFI_NO_CFA_OFFSET);
	if (state->lacks & needed) {
		output->n_unsupported++;
		return CFI_RULE_NONE;
	}
	const struct cfi_rule *rule =
		&state->rule; /* not a copy: the processor would wait for its last bytes to be stored */
	struct cfi_rule flagged;
	if (run->cie->is_signal_frame || (state->sigcontext | 1U << CFI_REGISTER_SP) == ALL) {
		flagged = *rule;
		if (run->cie->is_signal_frame)
			flagged.flags |= CFI_SIGNAL_FRAME;
		if ((state->sigcontext | 1U << CFI_REGISTER_SP) == ALL && rule->cfa == CFI_CFA_DEREF &&
		    rule->cfa_register == CFI_REGISTER_SP && rule->cfa_offset == SIGCONTEXT_SP)
			flagged.flags |= CFI_SIGCONTEXT;
		rule = &flagged;
	}
	int number = cfi_rules_add(&output->rules, rule);
	if (number == -ENOSPC) {
		output->n_unsupported++;
		return CFI_RULE_NONE;
	}
	return number;
}

/* What is known holds from the location up to `to`. */
static void finish_row(struct run *run, uint64_t to)
{
	uint64_t from = run->address > run->start ? run->address : run->start;
	if (from >= (to < run->end ? to : run->end))
		return;
	int rule = number_of_rule(run);
	if (rule < 0)
		run->error = rule;
	else
		run->error = cfi_rows_add(&run->output->rows, from + run->to_file, (uint32_t)rule);
}

static void advance_to(struct run *run, uint64_t address)
{
	if (run->in_cie || address < run->address) {
		run->failed = true;
		return;
	}
	if (address > run->address)
		finish_row(run, address);
	run->address = address;
}

static void advance(struct run *run, uint64_t delta)
{
	uint64_t bytes = 0, address = 0;
	if (__builtin_mul_overflow(delta, run->cie->code_factor, &bytes) ||
	    __builtin_add_overflow(run->address, bytes, &address))
		run->failed = true;
	else
		advance_to(run, address);
}

static void set_loc(struct run *run)
{
	uint64_t address = 0;
	if (cfi_pointer_read(&run->in, run->cie->pointer_encoding, &run->output->bases, &address))
		advance_to(run, address);
	else
		run->failed = true;
}

static int64_t factored(const struct run *run, int64_t value)
{
	return (int64_t)((uint64_t)value * (uint64_t)run->cie->data_factor);
}

/* Whichever was said last, as far as it can be. */
static void use_register_and_offset(struct cfi_state *state)
{
	state->has_expression = false;
	state->rule.cfa = CFI_CFA_REGISTER;
	state->rule.cfa_register = state->cfa_register;
	state->rule.cfa_offset = state->cfa_offset;
}

static void set_cfa_register(struct run *run, uint64_t number)
{
	struct cfi_state *state = &run->state;
	state->lacks &= (uint8_t)~CFI_NO_CFA_REGISTER;
	if (number < CFI_REGISTERS)
		state->cfa_register = (uint8_t)number;
	else
		state->lacks |= CFI_NO_CFA_REGISTER;
	use_register_and_offset(state);
}

/* An expression stays. */
static void set_cfa_offset(struct run *run, int64_t offset)
{
	struct cfi_state *state = &run->state;
	state->lacks &= (uint8_t)~CFI_NO_CFA_OFFSET;
	if (offset >= INT32_MIN && offset <= INT32_MAX)
		state->cfa_offset = (int32_t)offset;
	else
		state->lacks |= CFI_NO_CFA_OFFSET;
	if (!state->has_expression)
		use_register_and_offset(state);
}

static void def_cfa(struct run *run, bool is_factored)
{
	set_cfa_register(run, cursor_uleb(&run->in));
	set_cfa_offset(run, is_factored ? factored(run, cursor_sleb(&run->in)) : (int64_t)cursor_uleb(&run->in));
}

/* The bytes of an expression, as a cursor of their own. */
static struct cursor take_block(struct run *run)
{
	uint64_t n = cursor_uleb(&run->in);
	struct cursor block = {.at = run->in.at, .end = run->in.at};
	cursor_skip(&run->in, n);
	if (!run->in.failed)
		block.end = run->in.at;
	run->output->steps += cursor_left(&block);
	return block;
}

static void def_cfa_expression(struct run *run)
{
	struct cfi_state *state = &run->state;
	struct cfi_rule *rule = &state->rule;
	struct cfi_expression expression;
	uint8_t number = 0;
	int32_t offset = -1;
	rule->cfa = CFI_CFA_EXPRESSION;
	if (cfi_expression_translate(take_block(run), 0, &expression)) {
		if (cfi_expression_is_register(&expression, &number, &offset))
			rule->cfa = CFI_CFA_REGISTER;
		else if (cfi_expression_is_deref(&expression, &number, &offset))
			rule->cfa = CFI_CFA_DEREF;
		else if (cfi_expression_is_plt(&expression, &number, &offset))
			rule->cfa = CFI_CFA_PLT;
		else
			offset = cfi_rules_add_expression(&run->output->rules, &expression);
	}
	state->has_expression = true;
	state->lacks &= (uint8_t)~CFI_NO_CFA_EXPRESSION;
	if (rule->cfa == CFI_CFA_EXPRESSION && offset < 0)
		state->lacks |= CFI_NO_CFA_EXPRESSION;
	rule->cfa_register = number;
	rule->cfa_offset = offset;
}

static void set(struct run *run, uint64_t number, enum cfi_where where, int64_t value)
{
	run->lost |=
		!cfi_registers_set(&run->state, &run->output->rules, run->cie->return_register, number, where, value);
}

static void set_expression(struct run *run, enum cfi_where where)
{
	struct cfi_expression expression;
	uint64_t number = cursor_uleb(&run->in);
	bool known = cfi_expression_translate(take_block(run), 1, &expression);
	run->lost |= !cfi_registers_set_expression(&run->state, &run->output->rules, run->cie->return_register, number,
						   where, known ? &expression : NULL);
}

static void restore(struct run *run, uint64_t number)
{
	if (run->in_cie)
		run->failed = true;
	else
		cfi_registers_restore(&run->state, &run->initial, run->cie->return_register, number);
}

static void remember(struct run *run)
{
	if (run->n_remembered == REMEMBERED_MAX)
		run->failed = true;
	else
		run->remembered[run->n_remembered++] = run->state;
}

static void recall(struct run *run)
{
	if (run->n_remembered == 0)
		run->failed = true;
	else
		run->state = run->remembered[--run->n_remembered];
}

/* Ops that say where a register is. False: op is none of them. */
static bool run_register_op(struct run *run, uint8_t op)
{
	struct cursor *in = &run->in;
	uint64_t number = 0;
	switch (op) {
	case DW_CFA_expression:
		set_expression(run, CFI_AT_EXPRESSION);
		return true;
	case DW_CFA_val_expression:
		set_expression(run, CFI_VALUE_EXPRESSION);
		return true;
	case DW_CFA_offset_extended:
	case DW_CFA_offset_extended_sf:
	case DW_CFA_GNU_negative_offset_extended:
	case DW_CFA_val_offset:
	case DW_CFA_val_offset_sf:
	case DW_CFA_undefined:
	case DW_CFA_same_value:
	case DW_CFA_register:
	case DW_CFA_restore_extended:
		number = cursor_uleb(in);
		break;
	default:
		return false;
	}
	switch (op) {
	case DW_CFA_offset_extended:
		set(run, number, CFI_AT_CFA, factored(run, (int64_t)cursor_uleb(in)));
		break;
	case DW_CFA_offset_extended_sf:
		set(run, number, CFI_AT_CFA, factored(run, cursor_sleb(in)));
		break;
	case DW_CFA_GNU_negative_offset_extended:
		set(run, number, CFI_AT_CFA, factored(run, (int64_t)-cursor_uleb(in)));
		break;
	case DW_CFA_val_offset:
		set(run, number, CFI_VALUE_CFA, factored(run, (int64_t)cursor_uleb(in)));
		break;
	case DW_CFA_val_offset_sf:
		set(run, number, CFI_VALUE_CFA, factored(run, cursor_sleb(in)));
		break;
	case DW_CFA_undefined:
		set(run, number, CFI_UNDEFINED, 0);
		break;
	case DW_CFA_same_value:
		set(run, number, CFI_SAME, 0);
		break;
	case DW_CFA_register: {
		uint64_t other = cursor_uleb(in);
		set(run, number, CFI_REGISTER, other < CFI_REGISTERS ? (int64_t)other : -1);
		break;
	}
	default: /* DW_CFA_restore_extended */
		restore(run, number);
	}
	return true;
}

/* Ops about the location and the CFA. False: op is none of them. */
static bool run_frame_op(struct run *run, uint8_t op)
{
	struct cursor *in = &run->in;
	switch (op) {
	case DW_CFA_nop:
		break;
	case DW_CFA_GNU_args_size: /* of interest to exceptions alone */
		cursor_skip_leb(in);
		break;
	case DW_CFA_set_loc:
		set_loc(run);
		break;
	case DW_CFA_advance_loc1:
		advance(run, cursor_u8(in));
		break;
	case DW_CFA_advance_loc2:
		advance(run, cursor_uint(in, 2));
		break;
	case DW_CFA_advance_loc4:
		advance(run, cursor_uint(in, 4));
		break;
	case DW_CFA_ADVANCE_LOC8:
		advance(run, cursor_uint(in, 8));
		break;
	case DW_CFA_def_cfa:
		def_cfa(run, false);
		break;
	case DW_CFA_def_cfa_sf:
		def_cfa(run, true);
		break;
	case DW_CFA_def_cfa_register:
		set_cfa_register(run, cursor_uleb(in));
		break;
	case DW_CFA_def_cfa_offset:
		set_cfa_offset(run, (int64_t)cursor_uleb(in));
		break;
	case DW_CFA_def_cfa_offset_sf:
		set_cfa_offset(run, factored(run, cursor_sleb(in)));
		break;
	case DW_CFA_def_cfa_expression:
		def_cfa_expression(run);
		break;
	case DW_CFA_remember_state:
		remember(run);
		break;
	case DW_CFA_restore_state:
		recall(run);
		break;
	default:
		return false;
	}
	return true;
}

static void run_op(struct run *run)
{
	enum { HIGH = 0xc0, LOW = 0x3f };
	uint8_t op = cursor_u8(&run->in);
	switch (op & HIGH) {
	case DW_CFA_advance_loc:
		advance(run, op & LOW);
		break;
	case DW_CFA_offset:
		set(run, op & LOW, CFI_AT_CFA, factored(run, (int64_t)cursor_uleb(&run->in)));
		break;
	case DW_CFA_restore:
		restore(run, op & LOW);
		break;
	default:
		if (!run_frame_op(run, op) && !run_register_op(run, op))
			run->failed = true;
	}
}

/* Up to the end, or to where no more rows are wanted. */
static void run_all(struct run *run)
{
	while (cursor_left(&run->in) > 0 && !run->failed && !run->error && (run->in_cie || run->address < run->end)) {
		if (++run->output->steps > CFI_STEPS_MAX)
			run->error = -EFBIG;
		else
			run_op(run);
	}
	run->failed |= run->in.failed;
}

static int run_cie(struct cfi_output *output, struct cfi_cie *cie)
{
	struct run run = {
		.output = output,
		.cie = cie,
		.in = {.at = cie->program, .end = cie->program + cie->n_program},
		.state.lacks = CFI_NO_CFA_REGISTER | CFI_NO_CFA_OFFSET,
		.in_cie = true,
	};
	run_all(&run);
	cie->state = run.state;
	cie->outcome = run.failed ? CFI_CIE_MALFORMED : CFI_CIE_FINE;
	return run.error;
}

int cfi_program_run(struct cfi_output *output, struct cfi_cie *cie, const struct cfi_fde *fde, uint64_t start,
		    uint64_t end)
{
	int r = cie->outcome == CFI_CIE_NOT_RUN ? run_cie(output, cie) : 0;
	if (r < 0)
		return r;
	struct cfi_rows_mark mark = cfi_rows_mark(&output->rows);
	output->bases.function_address = fde->address;
	uint64_t to_file = fde->start - fde->address;
	struct run run;
	memset(&run, 0, offsetof(struct run, remembered));
	run.output = output;
	run.cie = cie;
	run.in.at = output->bases.section + fde->program;
	run.in.end = run.in.at + fde->n_program;
	run.state = run.initial = cie->state;
	run.failed = cie->outcome == CFI_CIE_MALFORMED;
	run.address = fde->address;
	run.start = start - to_file;
	run.end = end - to_file;
	run.to_file = to_file;
	run_all(&run);
	if (!run.failed && !run.error)
		finish_row(&run, run.end);
	if (run.failed && !run.error) {
		output->n_malformed++;
		cfi_rows_cut(&output->rows, mark);
		run.error = cfi_rows_add(&output->rows, start, CFI_RULE_NONE);
	}
	return run.error;
}
