#include "elf/go_pclntab.h"

#define MAGIC_1_16 0xfffffffaU
#define MAGIC_1_18 0xfffffff0U
#define MAGIC_1_20 0xfffffff1U

enum { WORD_BYTES = 8, STEPS_MAX = 1 << 20 /* through values, of one go_pclntab_open */ };

static uint64_t read_number(const struct go_pclntab *table, uint64_t offset, unsigned bytes)
{
	struct cursor in = cursor_at(table->bytes, table->n, offset, table->n);
	return cursor_uint(&in, bytes);
}

bool go_pclntab_open(const uint8_t *bytes, size_t n, uint64_t text_address, struct go_pclntab *ret)
{
	struct cursor in = cursor_at(bytes, n, 0, n);
	uint64_t magic = cursor_uint(&in, 4);
	*ret = (struct go_pclntab){.bytes = bytes, .n = n};
	if (magic != MAGIC_1_16 && magic != MAGIC_1_18 && magic != MAGIC_1_20)
		return false;
	ret->before_1_18 = magic == MAGIC_1_16;
	ret->has_start_line = magic == MAGIC_1_20;
	cursor_skip(&in, 2);
	ret->quantum = cursor_u8(&in);
	if (cursor_u8(&in) != WORD_BYTES)
		return false;
	ret->n_functions = cursor_uint(&in, WORD_BYTES);
	cursor_skip(&in, WORD_BYTES); /* number of files */
	if (!ret->before_1_18) {
		ret->text = cursor_uint(&in, WORD_BYTES);
		ret->text = ret->text ? ret->text : text_address;
	}
	ret->names = cursor_uint(&in, WORD_BYTES);
	ret->units = cursor_uint(&in, WORD_BYTES);
	ret->files = cursor_uint(&in, WORD_BYTES);
	ret->values = cursor_uint(&in, WORD_BYTES);
	ret->functions = cursor_uint(&in, WORD_BYTES);
	return !in.failed && ret->functions < ret->n && ret->n_functions < (ret->n - ret->functions) / 8;
}

size_t go_pclntab_find(const uint8_t *bytes, size_t n)
{
	enum { ALIGNMENT = 32, CODE_UNIT = 1 /* of x86-64 */ };
	struct go_pclntab table;
	for (size_t at = 0; at < n; at += ALIGNMENT) {
		if (go_pclntab_open(bytes + at, n - at, 0, &table) && table.quantum == CODE_UNIT && table.n_functions)
			return at;
	}
	return n;
}

uint64_t go_pclntab_start(const struct go_pclntab *table, uint64_t i)
{
	if (table->before_1_18)
		return read_number(table, table->functions + i * 2 * WORD_BYTES, WORD_BYTES);
	return table->text + read_number(table, table->functions + i * 8, 4);
}

uint64_t go_pclntab_record(const struct go_pclntab *table, uint64_t i)
{
	uint64_t entry = table->functions + i * (table->before_1_18 ? 2 * WORD_BYTES : 8);
	uint64_t offset = table->before_1_18 ? read_number(table, entry + WORD_BYTES, WORD_BYTES)
					     : read_number(table, entry + 4, 4);
	return offset < table->n - table->functions ? table->functions + offset : 0;
}

/* entry, nameoff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset, startLine: 4 bytes each, but for the entry before 1.18; then
 * funcID and flag, a byte each. */
void go_pclntab_function(const struct go_pclntab *table, uint64_t record, struct go_function *ret)
{
	uint64_t at = record + (table->before_1_18 ? WORD_BYTES : 4);
	*ret = (struct go_function){
		.start = table->before_1_18 ? read_number(table, record, WORD_BYTES)
					    : table->text + read_number(table, record, 4),
		.name = read_number(table, at, 4),
		.stack_values = read_number(table, at + 12, 4),
		.file_values = read_number(table, at + 16, 4),
		.line_values = read_number(table, at + 20, 4),
		.unit = read_number(table, at + 28, 4),
		.start_line = table->has_start_line ? read_number(table, at + 32, 4) : 0,
		.flags = (uint8_t)read_number(table, at + (table->has_start_line ? 36 : 32) + 1, 1),
	};
}

struct dwarf_text go_pclntab_text(const struct go_pclntab *table, uint64_t base, uint64_t offset, size_t max)
{
	if (base > table->n || offset > table->n - base)
		return (struct dwarf_text){};
	struct cursor in = cursor_at(table->bytes, table->n, base + offset, table->n);
	size_t left = cursor_left(&in);
	if (left == 0)
		return (struct dwarf_text){};
	const char *text = (const char *)in.at;
	return (struct dwarf_text){.at = text, .n = strnlen(text, left < max ? left : max)};
}

struct go_values go_pclntab_values(const struct go_pclntab *table, uint64_t offset, uint64_t function_start)
{
	struct go_values values = {.quantum = table->quantum, .end = function_start, .value = -1};
	if (offset == 0 || offset > table->n || table->values > table->n - offset)
		values.in.failed = true;
	else
		values.in = cursor_at(table->bytes, table->n, table->values + offset, table->n);
	return values;
}

bool go_values_next(struct go_values *values)
{
	if (values->in.failed)
		return false;
	uint64_t delta = cursor_uleb(&values->in);
	if (delta == 0 && values->begun)
		return false;
	values->begun = true;
	uint64_t bytes = cursor_uleb(&values->in) * values->quantum;
	if (bytes > UINT64_MAX - values->end)
		cursor_fail(&values->in);
	if (values->in.failed)
		return false;
	values->value = (int64_t)((uint64_t)values->value + ((delta >> 1) ^ -(delta & 1)));
	values->start = values->end;
	values->end += bytes;
	return true;
}

int64_t go_pclntab_value_at(struct go_pclntab *table, uint64_t offset, uint64_t function_start, uint64_t address)
{
	struct go_values values = go_pclntab_values(table, offset, function_start);
	while (table->steps++ < STEPS_MAX && go_values_next(&values)) {
		if (address < values.end)
			return values.value;
	}
	return -1;
}
