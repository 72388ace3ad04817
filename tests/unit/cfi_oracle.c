#include "cfi_oracle.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "elf/cfi_build.h"
#include "model/cfi_check.h"
#include "model/cfi_ops.h"

enum { STACK = 32, SEEDS = 2, PRINTED_MAX = 20, RSP = 7, PC = 16, FAR_GAP_BYTES = 1 << 16 };

/* One made-up machine: registers of no meaning, and a word of no meaning at every address. */
struct machine {
	uint64_t registers[CFI_REGISTERS], seed;
};

/* What both sides say of a frame. */
struct answer {
	bool known, is_end;
	bool is_refused; /* by libdw: it does not accept what was done to the CFA */
	bool is_signal;
	uint64_t cfa, pc, sp;
	bool saved_known[CFI_SAVED];
	uint64_t saved[CFI_SAVED];
};

static const uint8_t saved_numbers[CFI_SAVED] = {3, 6, 12, 13, 14, 15};

static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 31) * UINT64_C(0x7fb5d329728ea185);
	value = (value ^ value >> 27) * UINT64_C(0x81dadef4bc2dd44d);
	return value ^ value >> 33;
}

static uint64_t word_at(const struct machine *machine, uint64_t address)
{
	return mix(address ^ machine->seed);
}

static struct machine machine_of(uint64_t seed, uint64_t pc)
{
	struct machine machine = {.seed = mix(seed + 1)};
	for (unsigned i = 0; i < CFI_REGISTERS; i++)
		machine.registers[i] = mix(seed * CFI_REGISTERS + i) & ~15ULL;
	machine.registers[PC] = pc;
	return machine;
}

/* --- our side: the rule, by the words of bpf/cfi_table.h --- */

static uint64_t binary(uint8_t op, uint64_t a, uint64_t b)
{
	switch (op) {
	case CFI_OP_PLUS:
		return a + b;
	case CFI_OP_MINUS:
		return a - b;
	case CFI_OP_AND:
		return a & b;
	case CFI_OP_OR:
		return a | b;
	case CFI_OP_XOR:
		return a ^ b;
	case CFI_OP_SHL:
		return b < 64 ? a << b : 0;
	case CFI_OP_SHR:
		return b < 64 ? a >> b : 0;
	case CFI_OP_MUL:
		return a * b;
	case CFI_OP_GE:
		return (int64_t)a >= (int64_t)b;
	case CFI_OP_GT:
		return (int64_t)a > (int64_t)b;
	case CFI_OP_LE:
		return (int64_t)a <= (int64_t)b;
	case CFI_OP_LT:
		return (int64_t)a < (int64_t)b;
	case CFI_OP_EQ:
		return a == b;
	default: /* CFI_OP_NE */
		return a != b;
	}
}

static uint64_t evaluate(const void *table, int32_t offset, const struct machine *machine, const uint64_t *cfa)
{
	const struct cfi_table_header *header = table;
	const uint8_t *at = (const uint8_t *)table + header->off_code + offset;
	uint64_t stack[CFI_STACK_DEPTH + 1] = {}, *top = stack - 1;
	struct cfi_op_effect effect;
	if (cfa)
		*++top = *cfa;
	for (; *at != CFI_OP_END; at += 1 + effect.operand_bytes) {
		uint64_t operand = 0;
		int32_t displacement = 0;
		if (!cfi_op_effect(*at, &effect))
			return 0;
		switch (*at) {
		case CFI_OP_CONST:
			memcpy(&operand, at + 1, sizeof(operand));
			*++top = operand;
			break;
		case CFI_OP_REGISTER:
			memcpy(&displacement, at + 2, sizeof(displacement));
			*++top = machine->registers[at[1]] + (uint64_t)(int64_t)displacement;
			break;
		case CFI_OP_DEREF:
			*top = word_at(machine, *top);
			break;
		case CFI_OP_NEG:
			*top = -*top;
			break;
		case CFI_OP_NOT:
			*top = ~*top;
			break;
		case CFI_OP_DUP:
			top[1] = top[0];
			top++;
			break;
		case CFI_OP_OVER:
			top[1] = top[-1];
			top++;
			break;
		case CFI_OP_SWAP:
			operand = top[0];
			top[0] = top[-1];
			top[-1] = operand;
			break;
		case CFI_OP_DROP:
			top--;
			break;
		default:
			top--;
			*top = binary(*at, top[0], top[1]);
		}
	}
	return *top;
}

/* False: not known. */
static bool place(const void *table, const struct machine *machine, uint8_t where, int16_t value, uint64_t same,
		  uint64_t cfa, uint64_t *ret)
{
	switch (where) {
	case CFI_SAME:
		*ret = same;
		return true;
	case CFI_AT_CFA:
		*ret = word_at(machine, cfa + (uint64_t)(int64_t)value);
		return true;
	case CFI_VALUE_CFA:
		*ret = cfa + (uint64_t)(int64_t)value;
		return true;
	case CFI_REGISTER:
		*ret = machine->registers[value];
		return true;
	case CFI_AT_EXPRESSION:
		*ret = word_at(machine, evaluate(table, value, machine, &cfa));
		return true;
	case CFI_VALUE_EXPRESSION:
		*ret = evaluate(table, value, machine, &cfa);
		return true;
	default:
		return false;
	}
}

static void ask_table(const void *table, uint32_t number, const struct machine *machine, struct answer *ret)
{
	const struct cfi_rule *rule = cfi_table_rule(table, number);
	*ret = (struct answer){.known = number != CFI_RULE_NONE, .is_end = number == CFI_RULE_END};
	if (!ret->known || ret->is_end)
		return;
	uint64_t base = machine->registers[rule->cfa_register] + (uint64_t)(int64_t)rule->cfa_offset;
	ret->is_signal = rule->flags & CFI_SIGNAL_FRAME;
	if (rule->cfa == CFI_CFA_REGISTER)
		ret->cfa = base;
	else if (rule->cfa == CFI_CFA_DEREF)
		ret->cfa = word_at(machine, base);
	else if (rule->cfa == CFI_CFA_PLT)
		ret->cfa = base + ((machine->registers[PC] & 15) >= 11 ? 8 : 0);
	else
		ret->cfa = evaluate(table, rule->cfa_offset, machine, NULL);
	(void)place(table, machine, rule->ra_where, rule->ra_value, 0, ret->cfa, &ret->pc);
	(void)place(table, machine, rule->sp_where, rule->sp_value, ret->cfa, ret->cfa, &ret->sp);
	for (int i = 0; i < CFI_SAVED; i++)
		ret->saved_known[i] = place(table, machine, rule->where[i], rule->value[i],
					    machine->registers[saved_numbers[i]], ret->cfa, &ret->saved[i]);
}

/* --- libdw's side --- */

/* A location: the value there, or its own value when it ends in DW_OP_stack_value. False: an op that no frame of ours has. */
static bool run_dwarf(const struct machine *machine, const Dwarf_Op *ops, size_t n, const uint64_t *cfa,
		      bool is_location, uint64_t *ret)
{
	uint64_t stack[STACK] = {}, *top = stack;
	if (cfa)
		*++top = *cfa;
	for (size_t i = 0; i < n; i++) {
		const Dwarf_Op *op = &ops[i];
		if (top < stack || top >= stack + STACK - 1)
			return false;
		if (op->atom >= DW_OP_lit0 && op->atom <= DW_OP_lit31) {
			*++top = op->atom - DW_OP_lit0;
			continue;
		}
		if (op->atom >= DW_OP_breg0 && op->atom <= DW_OP_breg16) {
			*++top = machine->registers[op->atom - DW_OP_breg0] + op->number;
			continue;
		}
		if (op->atom >= DW_OP_reg0 && op->atom <= DW_OP_reg16) {
			*ret = machine->registers[op->atom - DW_OP_reg0];
			return true;
		}
		switch (op->atom) {
		case DW_OP_regx:
			*ret = machine->registers[op->number % CFI_REGISTERS];
			return true;
		case DW_OP_bregx:
			*++top = machine->registers[op->number % CFI_REGISTERS] + op->number2;
			break;
		case DW_OP_call_frame_cfa:
			if (!cfa)
				return false;
			*++top = *cfa;
			break;
		case DW_OP_const1u:
		case DW_OP_const1s:
		case DW_OP_const2u:
		case DW_OP_const2s:
		case DW_OP_const4u:
		case DW_OP_const4s:
		case DW_OP_const8u:
		case DW_OP_const8s:
		case DW_OP_constu:
		case DW_OP_consts:
			*++top = op->number;
			break;
		case DW_OP_plus_uconst:
			*top += op->number;
			break;
		case DW_OP_deref:
			*top = word_at(machine, *top);
			break;
		case DW_OP_neg:
			*top = -*top;
			break;
		case DW_OP_not:
			*top = ~*top;
			break;
		case DW_OP_dup:
			top[1] = top[0];
			top++;
			break;
		case DW_OP_drop:
			top--;
			break;
		case DW_OP_nop:
			break;
		case DW_OP_stack_value:
			*ret = *top;
			return true;
		case DW_OP_plus:
			top--;
			*top = top[0] + top[1];
			break;
		case DW_OP_minus:
			top--;
			*top = top[0] - top[1];
			break;
		case DW_OP_and:
			top--;
			*top = top[0] & top[1];
			break;
		case DW_OP_ge:
			top--;
			*top = (int64_t)top[0] >= (int64_t)top[1];
			break;
		case DW_OP_shl:
			top--;
			*top = top[0] << top[1];
			break;
		case DW_OP_mul:
			top--;
			*top = top[0] * top[1];
			break;
		default:
			fprintf(stderr, "cfi_oracle: op %#x is not known here\n", op->atom);
			return false;
		}
	}
	*ret = is_location ? word_at(machine, *top) : *top;
	return true;
}

/* 1: *ret; 0: undefined; -1: cannot say. */
static int dwarf_value(Dwarf_Frame *frame, int number, const struct machine *machine, uint64_t cfa, uint64_t *ret)
{
	Dwarf_Op memory[3], *ops = NULL;
	size_t n = 0;
	if (dwarf_frame_register(frame, number, memory, &ops, &n) != 0)
		return -1;
	if (n == 0) {
		if (ops)
			return 0;
		*ret = machine->registers[number];
		return 1;
	}
	return run_dwarf(machine, ops, n, &cfa, true, ret) ? 1 : -1;
}

/* False: libdw says something that this cannot evaluate. */
static bool ask_dwarf(Dwarf_Frame *frame, const struct machine *machine, struct answer *ret)
{
	Dwarf_Op *ops = NULL;
	size_t n = 0;
	bool is_signal = false;
	*ret = (struct answer){.known = true};
	int ra = dwarf_frame_info(frame, NULL, NULL, &is_signal);
	if (dwarf_frame_cfa(frame, &ops, &n) != 0)
		return ret->is_refused = true;
	if (n && !run_dwarf(machine, ops, n, NULL, false, &ret->cfa))
		return false;
	int r = dwarf_value(frame, ra, machine, ret->cfa, &ret->pc);
	if (r <= 0) {
		*ret = (struct answer){.known = true, .is_end = true};
		return r == 0;
	}
	ret->is_signal = is_signal;
	if (dwarf_value(frame, RSP, machine, ret->cfa, &ret->sp) < 0)
		return false;
	for (int i = 0; i < CFI_SAVED; i++) {
		r = dwarf_value(frame, saved_numbers[i], machine, ret->cfa, &ret->saved[i]);
		if (r < 0)
			return false;
		ret->saved_known[i] = r > 0;
	}
	return true;
}

/* --- both --- */

/* The one disagreement that is libdw's: where nothing is said of a callee-saved register it is unchanged (psABI 3.2.1), but libdw's list of
 * these names register 0, rax, "rbx" (backends/x86_64_cfi.c), so that rbx, 3, is undefined. */
static void mend_rbx(const struct machine *machine, const struct answer *ours, struct answer *theirs)
{
	enum { RBX = 3 };
	if (!theirs->saved_known[0] && ours->saved_known[0] && ours->saved[0] == machine->registers[RBX]) {
		theirs->saved_known[0] = true;
		theirs->saved[0] = machine->registers[RBX];
	}
}

struct comparison {
	const char *path;
	const struct cfi_table *table;
	Dwarf_CFI *cfi[2]; /* .eh_frame, .debug_frame; NULL: none */
	GElf_Addr bias[2];
	uint64_t printed;
	bool quiet;
	struct cfi_oracle_result *result;
};

static bool is_same_saved(const struct answer *a, const struct answer *b, int i)
{
	return a->saved_known[i] == b->saved_known[i] && (!a->saved_known[i] || a->saved[i] == b->saved[i]);
}

static bool is_same(const struct answer *a, const struct answer *b)
{
	if (a->known != b->known || a->is_end != b->is_end || a->is_signal != b->is_signal || a->cfa != b->cfa ||
	    a->pc != b->pc || a->sp != b->sp)
		return false;
	for (int i = 0; i < CFI_SAVED; i++) {
		if (!is_same_saved(a, b, i))
			return false;
	}
	return true;
}

static const char *name_of(const struct answer *answer)
{
	return answer->is_end ? "end" : answer->known ? "rule" : "none";
}

static void report(struct comparison *comparison, uint64_t address, const struct answer *ours,
		   const struct answer *theirs)
{
	comparison->result->n_different++;
	if (comparison->quiet || comparison->printed++ >= PRINTED_MAX)
		return;
	fprintf(stderr, "%s at %#" PRIx64 ": table %s, libdw %s; they differ in", comparison->path, address,
		name_of(ours), name_of(theirs));
	if (ours->is_signal != theirs->is_signal)
		fprintf(stderr, " signal");
	if (ours->cfa != theirs->cfa)
		fprintf(stderr, " cfa");
	if (ours->pc != theirs->pc)
		fprintf(stderr, " pc");
	if (ours->sp != theirs->sp)
		fprintf(stderr, " sp");
	for (int i = 0; i < CFI_SAVED; i++) {
		if (!is_same_saved(ours, theirs, i))
			fprintf(stderr, " r%d (%d %d)", saved_numbers[i], ours->saved_known[i], theirs->saved_known[i]);
	}
	fprintf(stderr, "\n");
}

static void count(struct cfi_oracle_result *result, const void *table, uint32_t number)
{
	const struct cfi_rule *rule = cfi_table_rule(table, number);
	result->n_compared++;
	result->n_signal_frames += (rule->flags & CFI_SIGNAL_FRAME) != 0;
	result->n_ends += number == CFI_RULE_END;
	result->n_expressions += rule->cfa == CFI_CFA_EXPRESSION || rule->ra_where == CFI_AT_EXPRESSION ||
				 rule->ra_where == CFI_VALUE_EXPRESSION || rule->cfa == CFI_CFA_PLT ||
				 rule->cfa == CFI_CFA_DEREF;
}

/* The end of the stretch from address for which libdw says one thing; 0: it has nothing for it. */
static uint64_t frame_at(const struct comparison *comparison, uint64_t address, Dwarf_Frame **ret)
{
	for (int i = 0; i < 2; i++) {
		Dwarf_Addr start = 0, end = 0;
		if (!comparison->cfi[i] ||
		    dwarf_cfi_addrframe(comparison->cfi[i], address - comparison->bias[i], ret) != 0)
			continue;
		(void)dwarf_frame_info(*ret, &start, &end, NULL);
		return end + comparison->bias[i] > address ? end + comparison->bias[i] : address + 1;
	}
	*ret = NULL;
	return 0;
}

static void compare_at(struct comparison *comparison, uint64_t address, uint32_t number, Dwarf_Frame *frame)
{
	/* A signal frame's rule holds behind its last instruction too, a system call. */
	bool is_signal_frame = cfi_table_rule(comparison->table->bytes, number)->flags & CFI_SIGNAL_FRAME;
	if (!frame && (number == CFI_RULE_NONE || is_signal_frame)) {
		comparison->result->n_uncovered++;
		return;
	}
	if (!frame) {
		comparison->result->n_only_ours++;
		return;
	}
	count(comparison->result, comparison->table->bytes, number);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct machine machine = machine_of(seed, address);
		struct answer ours, theirs = {};
		ask_table(comparison->table->bytes, number, &machine, &ours);
		bool can_say = ask_dwarf(frame, &machine, &theirs);
		if (theirs.is_refused && ours.known) {
			comparison->result->n_refused++;
			return;
		}
		if (can_say && !theirs.is_end)
			mend_rbx(&machine, &ours, &theirs);
		if (!can_say || !is_same(&ours, &theirs)) {
			report(comparison, address, &ours, &theirs);
			return;
		}
	}
}

/* Our rows' offsets, one after the other. */
static uint64_t row_offset(const struct cfi_table *table, uint32_t row)
{
	const struct cfi_table_header *header = (const void *)table->bytes;
	const __u32 *index = (const void *)(table->bytes + header->off_index);
	const __u32 *rows = (const void *)(table->bytes + header->off_rows);
	uint32_t low = 0, high = header->n_buckets; /* the last bucket that begins with row or before it */
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;
		if (index[middle] <= row)
			low = middle;
		else
			high = middle;
	}
	uint64_t start = header->text_start + ((uint64_t)low << header->bucket_shift);
	return (start & ~(uint64_t)UINT16_MAX) | (rows[row] & UINT16_MAX);
}

/* Between two of our rows libdw may say several things, or nothing. */
static void compare_row(struct comparison *comparison, uint64_t address, uint64_t end, uint32_t number)
{
	while (address < end) {
		Dwarf_Frame *frame = NULL;
		uint64_t frame_end = frame_at(comparison, address, &frame);
		compare_at(comparison, address, number, frame);
		free(frame);
		if (frame_end)
			address = frame_end;
		else
			address += number == CFI_RULE_NONE && end - address > FAR_GAP_BYTES ? 16 : 1;
	}
}

static int compare_all(struct comparison *comparison, Elf *elf, unsigned step)
{
	const struct cfi_table_header *header = (const void *)comparison->table->bytes;
	const __u32 *rows = (const void *)(comparison->table->bytes + header->off_rows);
	size_t n = 0;
	if (elf_getphdrnum(elf, &n) < 0)
		return -ENOEXEC;
	for (uint32_t i = 0; i < header->n_rows; i += step) {
		uint64_t start = row_offset(comparison->table, i);
		uint64_t end = i + 1 < header->n_rows ? row_offset(comparison->table, i + 1) : header->text_end;
		for (size_t p = 0; p < n; p++) {
			GElf_Phdr segment;
			if (!gelf_getphdr(elf, (int)p, &segment) || segment.p_type != PT_LOAD ||
			    !(segment.p_flags & PF_X) || start < segment.p_offset ||
			    start - segment.p_offset >= segment.p_filesz)
				continue;
			uint64_t to_address = segment.p_vaddr - segment.p_offset;
			compare_row(comparison, start + to_address, end + to_address, rows[i] >> 16);
			break;
		}
	}
	return 0;
}

static int compare_files(struct comparison *comparison, int fd, unsigned step)
{
	elf_version(EV_CURRENT);
	Elf *elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
	Dwarf *dwarf = elf ? dwarf_begin_elf(elf, DWARF_C_READ, NULL) : NULL;
	comparison->cfi[0] = elf ? dwarf_getcfi_elf(elf) : NULL;
	comparison->cfi[1] = dwarf ? dwarf_getcfi(dwarf) : NULL;
	int r = comparison->cfi[0] || comparison->cfi[1] ? compare_all(comparison, elf, step) : -ENODATA;
	if (comparison->cfi[0])
		dwarf_cfi_end(comparison->cfi[0]);
	dwarf_end(dwarf);
	elf_end(elf);
	return r;
}

int cfi_oracle_compare_table(const char *path, const struct cfi_table *table, unsigned step, bool quiet,
			     struct cfi_oracle_result *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!cfi_table_check(table->bytes, table->n))
		return -EBADMSG;
	*ret = (struct cfi_oracle_result){};
	struct comparison comparison = {.path = path, .table = table, .quiet = quiet, .result = ret};
	return compare_files(&comparison, fd, step);
}

int cfi_oracle_compare(const char *path, unsigned step, struct cfi_oracle_result *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_(cfi_table_free) struct cfi_table table = {};
	if (fd < 0)
		return -errno;
	int r = cfi_build(fd, &table);
	return r < 0 ? r : cfi_oracle_compare_table(path, &table, step, false, ret);
}
