#include "elf/cfi_registers.h"

#include <stddef.h>

/* A register's place in a rule. */
struct slot {
	__u8 *where;
	__s16 *value;
};

/* NULLs: the table does not keep it. The return address may be in a column of another name; then that register is not kept itself. */
static struct slot slot_of(struct cfi_rule *rule, uint8_t return_register, uint64_t number)
{
	static const int8_t saved[CFI_REGISTERS] = {[3] = 1, [6] = 2, [12] = 3, [13] = 4, [14] = 5, [15] = 6};
	if (number == return_register)
		return (struct slot){&rule->ra_where, &rule->ra_value};
	if (number == CFI_REGISTER_SP)
		return (struct slot){&rule->sp_where, &rule->sp_value};
	if (number >= CFI_REGISTERS || !saved[number])
		return (struct slot){};
	return (struct slot){&rule->where[saved[number] - 1], &rule->value[saved[number] - 1]};
}

static void set_slot(struct cfi_state *state, const struct slot *slot, enum cfi_where where, int64_t value)
{
	*slot->where = (__u8)where;
	*slot->value = (__s16)value;
	if (slot->where == &state->rule.ra_where)
		state->lacks &= (uint8_t)~CFI_NO_RETURN_ADDRESS;
}

static bool lose(struct cfi_state *state, const struct slot *slot)
{
	*slot->where = CFI_UNDEFINED;
	*slot->value = 0;
	if (slot->where == &state->rule.ra_where)
		state->lacks |= CFI_NO_RETURN_ADDRESS;
	return false;
}

bool cfi_registers_set(struct cfi_state *state, struct cfi_rules *rules, uint8_t return_register, uint64_t number,
		       enum cfi_where where, int64_t value)
{
	struct slot slot = slot_of(&state->rule, return_register, number);
	if (number < CFI_REGISTERS)
		state->sigcontext &= ~(1U << number);
	if (!slot.where)
		return true;
	if (where == CFI_SAME && number == CFI_REGISTER_SP) { /* the rule's CFI_SAME is the CFA */
		where = CFI_REGISTER;
		value = CFI_REGISTER_SP;
	}
	if (where == CFI_REGISTER && (value < 0 || value >= CFI_REGISTERS))
		return lose(state, &slot);
	if (value >= INT16_MIN && value <= INT16_MAX) {
		set_slot(state, &slot, where, value);
		return true;
	}
	struct cfi_expression expression;
	cfi_expression_from_cfa(value, &expression);
	return cfi_registers_set_expression(state, rules, return_register, number,
					    where == CFI_AT_CFA ? CFI_AT_EXPRESSION : CFI_VALUE_EXPRESSION,
					    &expression);
}

/* Where in the kernel's signal frame each register is, from sp (arch/x86/include/uapi/asm/sigcontext.h, behind the return address, uc_flags,
 * uc_link and uc_stack). */
static bool is_of_sigcontext(uint64_t number, const struct cfi_expression *expression)
{
	static const uint8_t offsets[CFI_REGISTERS] = {144, 136, 152, 128, 112, 104, 120, 160, 40,
						       48,  56,  64,  72,  80,  88,  96,  168};
	uint8_t base = 0;
	int32_t offset = 0;
	return number < CFI_REGISTERS && cfi_expression_is_register(expression, &base, &offset) &&
	       base == CFI_REGISTER_SP && offset == offsets[number];
}

bool cfi_registers_set_expression(struct cfi_state *state, struct cfi_rules *rules, uint8_t return_register,
				  uint64_t number, enum cfi_where where, const struct cfi_expression *expression)
{
	struct slot slot = slot_of(&state->rule, return_register, number);
	if (number < CFI_REGISTERS)
		state->sigcontext &= ~(1U << number);
	if (expression && where == CFI_AT_EXPRESSION && is_of_sigcontext(number, expression))
		state->sigcontext |= 1U << number;
	if (!slot.where)
		return true;
	int offset = expression ? cfi_rules_add_expression(rules, expression) : -1;
	if (offset < 0)
		return lose(state, &slot);
	set_slot(state, &slot, where, offset);
	return true;
}

void cfi_registers_restore(struct cfi_state *state, const struct cfi_state *initial, uint8_t return_register,
			   uint64_t number)
{
	struct cfi_rule from = initial->rule;
	struct slot slot = slot_of(&state->rule, return_register, number),
		    source = slot_of(&from, return_register, number);
	if (number < CFI_REGISTERS)
		state->sigcontext = (state->sigcontext & ~(1U << number)) | (initial->sigcontext & 1U << number);
	if (!slot.where || !source.where)
		return;
	*slot.where = *source.where;
	*slot.value = *source.value;
	if (slot.where == &state->rule.ra_where)
		state->lacks =
			(uint8_t)((state->lacks & ~CFI_NO_RETURN_ADDRESS) | (initial->lacks & CFI_NO_RETURN_ADDRESS));
}
