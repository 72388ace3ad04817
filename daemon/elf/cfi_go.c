#include "elf/cfi_go.h"

#include <errno.h>
#include <string.h>

enum {
	WORD_BYTES = 8,
	RSP = 7,
	RBP_SAVED = 1 /* in cfi_rule.where */,
	NAME_MAX_BYTES = 64,
	STEPS_PER_CODE_BYTE = 16,
	SYSTEMSTACKS_MAX = 8
};

struct run {
	struct cfi_go *go;
	struct cfi_output *output;
	struct go_function function;
	enum cfi_go_kind kind;
	uint64_t start, end; /* addresses: what rows are wanted for */
	uint64_t to_file;
	struct cfi_go_regions regions;
	bool has_frame; /* the prologue was met */
	bool saves_fp;  /* and rbp is saved at the frame's top */
};

static enum cfi_go_kind kind_of(const struct go_pclntab *table, const struct go_function *function)
{
	return cfi_go_kind_of(go_pclntab_text(table, table->names, function->name, NAME_MAX_BYTES), function->flags);
}

/* --- the functions --- */

/* The code of a function whose own bytes matter, and what the table says for each byte. */
static bool read_code(struct cfi_go *go, const struct go_function *function, uint64_t bytes,
		      int32_t deltas[CFI_GO_CODE_MAX_BYTES], struct cfi_go_function *ret)
{
	size_t n = bytes < CFI_GO_CODE_MAX_BYTES ? bytes : CFI_GO_CODE_MAX_BYTES, at = 0;
	const uint8_t *code = cfi_go_code_at(&go->code, function->start, n);
	struct go_values values = go_pclntab_values(&go->table, function->stack_values, function->start);
	if (!code || n == 0)
		return false;
	for (size_t spans = 0; at < n && spans < n && go_values_next(&values); spans++) {
		bool is_sound = values.value >= 0 && values.value <= INT32_MAX;
		for (; at < n && function->start + at < values.end; at++)
			deltas[at] = is_sound ? (int32_t)values.value : -1;
	}
	while (at < n)
		deltas[at++] = -1;
	*ret = (struct cfi_go_function){.code = code, .n = n, .address = function->start, .deltas = deltas};
	return true;
}

static int add_function(struct cfi_go *go, struct cfi_frames *frames, uint32_t cie, uint64_t i)
{
	static int32_t deltas[CFI_GO_CODE_MAX_BYTES]; /* there is one thread */
	uint64_t start = go_pclntab_start(&go->table, i), end = go_pclntab_start(&go->table, i + 1), room = 0;
	uint64_t record = go_pclntab_record(&go->table, i);
	struct go_function function;
	struct cfi_go_function code;
	struct cfi_fde fde = {.address = start, .program = (uint32_t)record, .cie = cie};
	if (end <= start || record == 0 || start == 0)
		return 0;
	go_pclntab_function(&go->table, record, &function);
	enum cfi_go_kind kind = kind_of(&go->table, &function);
	if (function.start != start || function.stack_values == 0) /* not Go's own code: assembly of others */
		return 0;
	if (kind == CFI_GO_SYSTEMSTACK && !go->offsets.known && go->n_systemstacks++ < SYSTEMSTACKS_MAX &&
	    read_code(go, &function, end - start, deltas, &code))
		cfi_go_offsets_find(&code, &go->offsets);
	if (!cfi_sections_locate(go->code.sections, start, &fde.start, &room))
		return 0;
	uint64_t bytes = end - start < room ? end - start : room;
	fde.bytes = bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
	return cfi_frames_add_fde(frames, &fde);
}

int cfi_go_read(struct cfi_go *go, struct cfi_frames *frames, const struct cfi_sections *sections, uint32_t section)
{
	const struct cfi_section *from = &sections->list[section];
	const struct cfi_cie cie = {.section = section};
	if (go->table.bytes) /* there is one in a program */
		return 0;
	size_t at = go_pclntab_find(from->bytes, from->n);
	uint64_t text = at < from->n ? cfi_sections_relocated(sections, from->address + at + GO_PCLNTAB_TEXT_FIELD) : 0;
	text = text ? text : sections->text_address;
	if (at == from->n || !go_pclntab_open(from->bytes + at, from->n - at, text, &go->table)) {
		frames->n_malformed++;
		return 0;
	}
	go->code.sections = sections;
	uint32_t number = (uint32_t)frames->n_cies;
	int r = cfi_frames_add_cie(frames, &cie);
	for (uint64_t i = 0; r == 0 && i < go->table.n_functions; i++)
		r = add_function(go, frames, number, i);
	return r;
}

/* --- rows --- */

static int add_row(struct run *run, uint64_t address, uint32_t rule)
{
	return cfi_rows_add(&run->output->rows, address + run->to_file, rule);
}

/* Rows for [start, end), as far as they are wanted and no region has another rule. */
static int add_rows(struct run *run, uint64_t start, uint64_t end, uint32_t rule)
{
	const struct cfi_go_regions *regions = &run->regions;
	uint64_t at = start > run->start ? start : run->start;
	int r = 0;
	end = end < run->end ? end : run->end;
	for (size_t i = 0; r == 0 && i < regions->n && at < end; i++) {
		const struct cfi_go_region *region = &regions->list[i];
		if (region->end <= at || region->start >= end)
			continue;
		if (at < region->start)
			r = add_row(run, at, rule);
		if (r == 0)
			r = add_row(run, at < region->start ? region->start : at, region->rule);
		at = region->end;
	}
	return r == 0 && at < end ? add_row(run, at, rule) : r;
}

/* The number of the rule that has the return address delta above sp. -ENOMEM. */
static int rule_of(struct run *run, int64_t delta, bool saves_fp)
{
	if (delta < 0 || delta > INT32_MAX - WORD_BYTES) {
		run->output->n_unsupported++;
		return CFI_RULE_NONE;
	}
	struct cfi_rule rule = {.cfa = CFI_CFA_REGISTER,
				.cfa_register = RSP,
				.flags = run->kind == CFI_GO_INJECTED ? CFI_SIGNAL_FRAME : 0,
				.cfa_offset = (int32_t)delta + WORD_BYTES,
				.ra_where = CFI_AT_CFA,
				.ra_value = -WORD_BYTES};
	if (saves_fp && delta >= WORD_BYTES) {
		rule.where[RBP_SAVED] = CFI_AT_CFA;
		rule.value[RBP_SAVED] = -2 * WORD_BYTES;
	}
	int number = cfi_rules_add(&run->output->rules, &rule);
	if (number != -ENOSPC)
		return number;
	run->output->n_unsupported++;
	return CFI_RULE_NONE;
}

/* Whether the code behind a prologue's change of sp says that rbp is saved just below the return address: after how many more bytes it is (mov %rbp,
 * delta - 8(%rsp)), 0 when it was pushed; -1: it is not. Assembly that saves it elsewhere, or not at all, does not change it as a rule. */
static int fp_saved_after(struct run *run, uint64_t address, int64_t delta)
{
	enum { PUSH_RBP = 0x55, LONGEST = 8 };
	static const uint8_t move[] = {0x48, 0x89}, sp[] = {0x2c, 0x24}, sp_near[] = {0x6c, 0x24},
			     sp_far[] = {0xac, 0x24};
	const uint8_t *code = cfi_go_code_at(&run->go->code, address - 1, 1 + LONGEST);
	int32_t wanted = (int32_t)delta - WORD_BYTES;
	if (!code)
		return -1;
	if (delta == WORD_BYTES && code[0] == PUSH_RBP)
		return 0;
	if (memcmp(code + 1, move, sizeof(move)) != 0)
		return -1;
	code += 1 + sizeof(move);
	if (memcmp(code, sp, sizeof(sp)) == 0)
		return wanted == 0 ? 4 : -1;
	if (memcmp(code, sp_near, sizeof(sp_near)) == 0)
		return (int8_t)code[2] == wanted ? 5 : -1;
	return memcmp(code, sp_far, sizeof(sp_far)) == 0 && memcmp(code + 2, &wanted, sizeof(wanted)) == 0 ? 8 : -1;
}

/* One range of addresses in which sp is delta below the return address. */
static int run_span(struct run *run, uint64_t start, uint64_t end, int64_t delta)
{
	int saved_after = 0;
	if (delta >= WORD_BYTES && !run->has_frame && delta <= INT32_MAX) {
		run->has_frame = true;
		saved_after = fp_saved_after(run, start, delta);
		run->saves_fp = saved_after >= 0;
	}
	uint64_t saved = saved_after > 0 && (uint64_t)saved_after < end - start ? start + (uint64_t)saved_after : start;
	int rule = saved > start ? rule_of(run, delta, false) : 0;
	int r = saved > start && rule >= 0 ? add_rows(run, start, saved, (uint32_t)rule) : rule;
	if (r < 0)
		return r;
	rule = rule_of(run, delta, run->saves_fp);
	return rule < 0 ? rule : add_rows(run, saved, end, (uint32_t)rule);
}

static int run_spans(struct run *run)
{
	struct go_values values = go_pclntab_values(&run->go->table, run->function.stack_values, run->function.start);
	uint64_t corrected_from = run->regions.corrected_from;
	int r = 0;
	while (r == 0 && values.end < run->end && go_values_next(&values)) {
		if (++run->output->steps > CFI_STEPS_MAX)
			return -EFBIG;
		if (values.start == values.end)
			continue;
		if (values.start < corrected_from && values.end > corrected_from) {
			r = run_span(run, values.start, corrected_from, values.value);
			values.start = corrected_from;
		}
		int64_t correction = values.start >= corrected_from ? run->regions.correction : 0;
		if (r == 0)
			r = run_span(run, values.start, values.end,
				     values.value >= correction ? values.value - correction : -1);
	}
	if (r < 0 || values.end >= run->end)
		return r;
	run->output->n_malformed += values.in.failed; /* else it is what fills the gap to the next function */
	return add_rows(run, values.end, run->end, CFI_RULE_NONE);
}

static int find_regions(struct run *run)
{
	static int32_t deltas[CFI_GO_CODE_MAX_BYTES]; /* there is one thread */
	struct cfi_go_function code;
	run->regions = (struct cfi_go_regions){.corrected_from = UINT64_MAX};
	if (run->kind == CFI_GO_PLAIN || run->kind == CFI_GO_INJECTED || run->end <= run->function.start)
		return 0;
	if (!read_code(run->go, &run->function, run->end - run->function.start, deltas, &code))
		return 0;
	run->output->steps += code.n * STEPS_PER_CODE_BYTE;
	return cfi_go_regions_find(&code, run->kind, &run->go->offsets, &run->output->rules, &run->regions);
}

static int run_sigreturn(struct run *run)
{
	const struct cfi_rule rule = {.cfa = CFI_CFA_REGISTER,
				      .cfa_register = RSP,
				      .flags = CFI_SIGNAL_FRAME | CFI_SIGCONTEXT,
				      .ra_where = CFI_AT_CFA};
	int number = cfi_rules_add(&run->output->rules, &rule);
	return number < 0 ? number : add_row(run, run->start, (uint32_t)number);
}

int cfi_go_run(struct cfi_go *go, struct cfi_output *output, const struct cfi_fde *fde, uint64_t start, uint64_t end)
{
	struct run run = {.go = go, .output = output, .to_file = fde->start - fde->address};
	run.start = start - run.to_file;
	run.end = end - run.to_file;
	go_pclntab_function(&go->table, fde->program, &run.function);
	run.kind = kind_of(&go->table, &run.function);
	if (run.kind == CFI_GO_SIGRETURN)
		return run_sigreturn(&run);
	int r = find_regions(&run);
	if (r == 0 && output->steps > CFI_STEPS_MAX)
		r = -EFBIG;
	return r < 0 ? r : run_spans(&run);
}

void cfi_go_free(struct cfi_go *go)
{
	cfi_go_code_free(&go->code);
}
