/* Looks an accepted unwind table up all over, under AddressSanitizer, and runs its expressions: nothing may leave its bounds. */
#pragma once
#include <linux/types.h>
#include <stdint.h>
#include <string.h>

#include "model/cfi_check.h"
#include "model/cfi_ops.h"

enum { CFI_LOOKUPS_MAX = 4096 };

static inline void cfi_run_expression(const uint8_t *table, int32_t offset, unsigned depth)
{
	const struct cfi_table_header *header = (const void *)table;
	const uint8_t *at = table + header->off_code + offset, *page = at;
	struct cfi_op_effect effect;
	for (unsigned i = 0;; i++) {
		if (i == CFI_MAX_OPS || !cfi_op_effect(*at, &effect) || depth < effect.pops)
			__builtin_trap();
		volatile uint8_t last = at[effect.operand_bytes];
		(void)last;
		if (((uintptr_t)(page - table) ^ (uintptr_t)(at + effect.operand_bytes - table)) / CFI_PAGE_BYTES)
			__builtin_trap();
		if (*at == CFI_OP_REGISTER && at[1] >= CFI_REGISTERS)
			__builtin_trap();
		if (*at == CFI_OP_END)
			return;
		depth += effect.pushes - effect.pops;
		if (depth > CFI_STACK_DEPTH)
			__builtin_trap();
		at += 1 + effect.operand_bytes;
	}
}

static inline void cfi_run_where(const uint8_t *table, uint8_t where, int16_t value)
{
	if (where > CFI_UNDEFINED || (where == CFI_REGISTER && (value < 0 || value >= CFI_REGISTERS)))
		__builtin_trap();
	if (where == CFI_AT_EXPRESSION || where == CFI_VALUE_EXPRESSION)
		cfi_run_expression(table, value, 1);
}

static inline void cfi_run_rule(const uint8_t *table, uint32_t number)
{
	struct cfi_rule rule = *cfi_table_rule(table, number);
	if (number <= CFI_RULE_END)
		return;
	if (rule.cfa == CFI_CFA_EXPRESSION)
		cfi_run_expression(table, rule.cfa_offset, 0);
	if (rule.cfa > CFI_CFA_EXPRESSION || rule.cfa_register >= CFI_REGISTERS || rule.ra_where == CFI_SAME)
		__builtin_trap();
	cfi_run_where(table, rule.ra_where, rule.ra_value);
	cfi_run_where(table, rule.sp_where, rule.sp_value);
	for (int i = 0; i < CFI_SAVED; i++)
		cfi_run_where(table, rule.where[i], rule.value[i]);
}

static inline void cfi_look_everywhere(const uint8_t *table)
{
	const struct cfi_table_header *header = (const void *)table;
	uint64_t bytes = header->text_end - header->text_start, step = bytes / CFI_LOOKUPS_MAX + 1;
	for (uint64_t at = 0; at < bytes; at += step)
		cfi_run_rule(table, cfi_table_rule_at(table, header->text_start + at));
	cfi_run_rule(table, cfi_table_rule_at(table, header->text_end - 1));
	for (uint32_t i = 0; i < header->n_rules && i < CFI_LOOKUPS_MAX; i++)
		cfi_run_rule(table, i);
	if (cfi_table_rule_at(table, header->text_start - 1) != CFI_RULE_NONE ||
	    cfi_table_rule_at(table, header->text_end) != CFI_RULE_NONE)
		__builtin_trap();
}
