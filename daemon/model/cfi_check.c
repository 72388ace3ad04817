#include "model/cfi_check.h"

#include <string.h>

#include "model/cfi_ops.h"

/* The parts of a table; within it, once check_header said so. */
struct parts {
	const struct cfi_table_header *header;
	const uint8_t *code;
	const __u32 *index, *rows;
	const struct cfi_rule *rules;
};

static struct parts parts_of(const void *table)
{
	const struct cfi_table_header *header = table;
	const uint8_t *bytes = table;
	return (struct parts){
		.header = header,
		.code = bytes + header->off_code,
		.index = (const __u32 *)(bytes + header->off_index),
		.rows = (const __u32 *)(bytes + header->off_rows),
		.rules = (const struct cfi_rule *)(bytes + header->off_rules),
	};
}

/* Whether a part of n elements is behind the header, aligned, and within the table. */
static bool is_within(const struct cfi_table_header *header, uint32_t offset, uint64_t n, size_t element_bytes)
{
	return offset >= sizeof(*header) && offset % element_bytes == 0 && offset <= header->total_bytes &&
	       n <= (header->total_bytes - offset) / element_bytes;
}

static bool check_numbers(const struct cfi_table_header *header)
{
	if (header->text_start >= header->text_end || header->text_end - header->text_start > CFI_MAX_TEXT_BYTES ||
	    header->bucket_shift > CFI_MAX_BUCKET_SHIFT || header->reserved != 0)
		return false;
	uint64_t bucket_bytes = 1ULL << header->bucket_shift;
	uint64_t n_buckets = (header->text_end - header->text_start + bucket_bytes - 1) >> header->bucket_shift;
	return header->text_start % bucket_bytes == 0 && header->n_buckets == n_buckets && header->n_rows >= 1 &&
	       header->n_rows <= CFI_MAX_ROWS && header->n_rules > CFI_RULE_END && header->n_rules <= CFI_MAX_RULES &&
	       header->n_code_bytes <= CFI_MAX_CODE_BYTES;
}

static bool check_header(const void *table, size_t n)
{
	const struct cfi_table_header *header = table;
	if (n < sizeof(*header) || n > CFI_MAX_TABLE_BYTES || header->magic != CFI_TABLE_MAGIC ||
	    header->total_bytes != n || !check_numbers(header))
		return false;
	return is_within(header, header->off_code, header->n_code_bytes, 1) &&
	       is_within(header, header->off_index, (uint64_t)header->n_buckets + 1, sizeof(__u32)) &&
	       is_within(header, header->off_rows, header->n_rows, sizeof(__u32)) &&
	       is_within(header, header->off_rules, header->n_rules, sizeof(struct cfi_rule));
}

/* Index entries ascend and cover all rows; the rows of a bucket ascend, and lie in it. */
static bool check_rows(const struct parts *parts)
{
	const struct cfi_table_header *header = parts->header;
	const __u32 *index = parts->index;
	uint32_t bucket_bytes = 1U << header->bucket_shift;
	if (index[0] != 0 || index[header->n_buckets] != header->n_rows)
		return false;
	if ((parts->rows[0] & UINT16_MAX) != (header->text_start & UINT16_MAX))
		return false;
	for (uint32_t bucket = 0; bucket < header->n_buckets; bucket++) {
		uint32_t start =
			(uint32_t)(header->text_start + ((uint64_t)bucket << header->bucket_shift)) & UINT16_MAX;
		uint32_t first = index[bucket], end = index[bucket + 1];
		if (first > end || end > header->n_rows)
			return false;
		for (uint32_t i = first; i < end; i++) {
			uint32_t low = parts->rows[i] & UINT16_MAX, rule = parts->rows[i] >> 16;
			if (low < start || low - start >= bucket_bytes || rule >= header->n_rules ||
			    (i > first && low <= (parts->rows[i - 1] & UINT16_MAX)))
				return false;
		}
	}
	return index[1] > 0; /* row 0 is in bucket 0 */
}

/* That the expression at offset ends within its page of the table and CFI_MAX_OPS, and its stack in its bounds. */
static bool check_expression(const struct parts *parts, int64_t offset, unsigned depth)
{
	const struct cfi_table_header *header = parts->header;
	if (offset < 0 || offset >= header->n_code_bytes)
		return false;
	uint64_t in_table = header->off_code + (uint64_t)offset;
	uint64_t left = CFI_PAGE_BYTES - in_table % CFI_PAGE_BYTES;
	if (left > header->n_code_bytes - (uint64_t)offset)
		left = header->n_code_bytes - (uint64_t)offset;
	const uint8_t *at = parts->code + offset;
	for (unsigned i = 0; i < CFI_MAX_OPS; i++) {
		struct cfi_op_effect effect;
		if (left == 0 || !cfi_op_effect(*at, &effect) || effect.operand_bytes >= left || depth < effect.pops)
			return false;
		if (*at == CFI_OP_END)
			return true;
		if (*at == CFI_OP_REGISTER && at[1] >= CFI_REGISTERS)
			return false;
		depth += effect.pushes - effect.pops;
		if (depth > CFI_STACK_DEPTH)
			return false;
		at += 1 + effect.operand_bytes;
		left -= 1 + effect.operand_bytes;
	}
	return false;
}

static bool check_where(const struct parts *parts, uint8_t where, int16_t value)
{
	switch (where) {
	case CFI_SAME:
	case CFI_AT_CFA:
	case CFI_VALUE_CFA:
	case CFI_UNDEFINED:
		return true;
	case CFI_REGISTER:
		return value >= 0 && value < CFI_REGISTERS;
	case CFI_AT_EXPRESSION:
	case CFI_VALUE_EXPRESSION:
		return check_expression(parts, value, 1);
	default:
		return false;
	}
}

static bool check_rule(const struct parts *parts, const struct cfi_rule *rule)
{
	enum { FLAGS = CFI_SIGNAL_FRAME | CFI_SIGCONTEXT | CFI_OTHER_STACK };
	if (rule->cfa > CFI_CFA_EXPRESSION || rule->cfa_register >= CFI_REGISTERS || rule->flags & ~FLAGS ||
	    rule->reserved != 0 || rule->ra_where == CFI_SAME || rule->ra_where == CFI_UNDEFINED ||
	    !check_where(parts, rule->ra_where, rule->ra_value) || !check_where(parts, rule->sp_where, rule->sp_value))
		return false;
	if (rule->cfa == CFI_CFA_EXPRESSION && !check_expression(parts, rule->cfa_offset, 0))
		return false;
	for (size_t i = 0; i < CFI_SAVED; i++) {
		if (!check_where(parts, rule->where[i], rule->value[i]))
			return false;
	}
	return true;
}

static bool check_rules(const struct parts *parts)
{
	static const struct cfi_rule none, end = {.flags = CFI_END};
	if (memcmp(&parts->rules[CFI_RULE_NONE], &none, sizeof(none)) != 0 ||
	    memcmp(&parts->rules[CFI_RULE_END], &end, sizeof(end)) != 0)
		return false;
	for (uint32_t i = CFI_RULE_END + 1; i < parts->header->n_rules; i++) {
		if (!check_rule(parts, &parts->rules[i]))
			return false;
	}
	return true;
}

bool cfi_table_check(const void *table, size_t n)
{
	if (!check_header(table, n))
		return false;
	struct parts parts = parts_of(table);
	return check_rows(&parts) && check_rules(&parts);
}

uint32_t cfi_table_rule_at(const void *table, uint64_t file_offset)
{
	struct parts parts = parts_of(table);
	const struct cfi_table_header *header = parts.header;
	if (file_offset < header->text_start || file_offset >= header->text_end)
		return CFI_RULE_NONE;
	uint32_t bucket = (uint32_t)((file_offset - header->text_start) >> header->bucket_shift);
	uint32_t low = parts.index[bucket], high = parts.index[bucket + 1]; /* the first row above file_offset */
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if ((parts.rows[middle] & UINT16_MAX) <= (file_offset & UINT16_MAX))
			low = middle + 1;
		else
			high = middle;
	}
	return parts.rows[low - 1] >> 16;
}

const struct cfi_rule *cfi_table_rule(const void *table, uint32_t number)
{
	return &parts_of(table).rules[number];
}
