/* A compact unwind table of a real file, made from what libdw says of each address: slow, and written with nothing of the builder's that it is
 * held against. Expressions but the PLT's and register + offset are left out (CFI_RULE_NONE). */
#pragma once
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gelf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/cfi_table.h"

enum { LIBDW_MAX_ROWS = 1 << 20, LIBDW_MAX_RULES = 4096, LIBDW_BUCKET_SHIFT = 8 };

struct libdw_maker {
	__u64 text_start, text_end, bias; /* offset = address - bias */
	__u32 *rows;                      /* low 16 bits, rule */
	__u64 *offsets;
	size_t n_rows, n_rules;
	struct cfi_rule rules[LIBDW_MAX_RULES];
	__u8 code[CFI_PAGE_BYTES - sizeof(struct cfi_table_header)];
	size_t n_code;
};

static inline bool libdw_breg(const Dwarf_Op *op, __u8 *ret_register, __s64 *ret_offset)
{
	if (op->atom >= DW_OP_breg0 && op->atom <= DW_OP_breg31) {
		*ret_register = (__u8)(op->atom - DW_OP_breg0);
		*ret_offset = (__s64)op->number;
		return true;
	}
	if (op->atom != DW_OP_bregx)
		return false;
	*ret_register = (__u8)op->number;
	*ret_offset = (__s64)op->number2;
	return true;
}

static inline bool libdw_is_plt(const Dwarf_Op *ops, size_t n)
{
	static const __u8 atoms[] = {DW_OP_breg7, DW_OP_breg16, DW_OP_lit15, DW_OP_and, DW_OP_lit11,
				     DW_OP_ge,    DW_OP_lit3,   DW_OP_shl,   DW_OP_plus};
	for (size_t i = 0; i < sizeof(atoms) && n == sizeof(atoms); i++)
		if (ops[i].atom != atoms[i] && !(i == 4 && ops[i].atom == DW_OP_lit10))
			return false;
	return n == sizeof(atoms);
}

/* false: not one of the forms that are told. */
static inline bool libdw_cfa(Dwarf_Frame *frame, struct cfi_rule *rule)
{
	Dwarf_Op *ops;
	size_t n;
	__s64 offset = 0;
	if (dwarf_frame_cfa(frame, &ops, &n) != 0 || n == 0)
		return false;
	if (libdw_is_plt(ops, n)) {
		rule->cfa = CFI_CFA_PLT;
		rule->cfa_register = 7;
		rule->cfa_offset = (__s32)ops[0].number;
		return true;
	}
	if (!libdw_breg(&ops[0], &rule->cfa_register, &offset) || n > 2 || (n == 2 && ops[1].atom != DW_OP_deref))
		return false;
	rule->cfa = n == 2 ? CFI_CFA_DEREF : CFI_CFA_REGISTER;
	rule->cfa_offset = (__s32)offset;
	return true;
}

static inline __s16 libdw_code(struct libdw_maker *maker, __u8 number, __s32 offset)
{
	__u8 code[] = {CFI_OP_REGISTER, number, 0, 0, 0, 0, CFI_OP_END};
	memcpy(code + 2, &offset, 4);
	for (size_t i = 0; i < maker->n_code; i += sizeof(code))
		if (!memcmp(maker->code + i, code, sizeof(code)))
			return (__s16)i;
	memcpy(maker->code + maker->n_code, code, sizeof(code));
	maker->n_code += sizeof(code);
	return (__s16)(maker->n_code - sizeof(code));
}

static inline bool libdw_register(struct libdw_maker *maker, Dwarf_Frame *frame, int number, __u8 *ret_where,
				  __s16 *ret_value)
{
	Dwarf_Op space[3], *ops;
	size_t n;
	__u8 base;
	__s64 offset = 0;
	if (dwarf_frame_register(frame, number, space, &ops, &n) != 0)
		return false;
	*ret_value = 0;
	if (n == 0) {
		/* Unspecified, which libdw tells as undefined: callees keep the registers that we ask for. */
		*ret_where = ops == space && number == 16 ? CFI_UNDEFINED : CFI_SAME;
		return true;
	}
	bool value = ops[n - 1].atom == DW_OP_stack_value;
	n -= value;
	if (ops[0].atom == DW_OP_call_frame_cfa && n <= 2 && (n == 1 || ops[1].atom == DW_OP_plus_uconst)) {
		*ret_where = value ? CFI_VALUE_CFA : CFI_AT_CFA;
		*ret_value = n == 2 ? (__s16)ops[1].number : 0;
		return true;
	}
	if (n == 1 && ops[0].atom == DW_OP_regx && !value) {
		*ret_where = CFI_REGISTER;
		*ret_value = (__s16)ops[0].number;
		return true;
	}
	size_t first = ops[0].atom == DW_OP_call_frame_cfa;
	if (n != first + 1 || !libdw_breg(&ops[first], &base, &offset) || maker->n_code + 8 > sizeof(maker->code))
		return false;
	*ret_where = value ? CFI_VALUE_EXPRESSION : CFI_AT_EXPRESSION;
	*ret_value = libdw_code(maker, base, (__s32)offset);
	return true;
}

static inline bool libdw_rule(struct libdw_maker *maker, Dwarf_Frame *frame, bool signal, struct cfi_rule *rule)
{
	static const int numbers[CFI_SAVED] = {3, 6, 12, 13, 14, 15};
	if (!libdw_cfa(frame, rule) || !libdw_register(maker, frame, 16, &rule->ra_where, &rule->ra_value))
		return false;
	for (int i = 0; i < CFI_SAVED; i++)
		if (!libdw_register(maker, frame, numbers[i], &rule->where[i], &rule->value[i]))
			return false;
	if (signal && !libdw_register(maker, frame, 7, &rule->sp_where, &rule->sp_value))
		return false;
	if (signal && rule->sp_where == CFI_VALUE_CFA && rule->sp_value == 0)
		rule->sp_where = CFI_SAME;
	rule->flags = signal ? CFI_SIGNAL_FRAME : 0;
	return true;
}

static inline __u32 libdw_number(struct libdw_maker *maker, const struct cfi_rule *rule)
{
	if (rule->ra_where == CFI_UNDEFINED || rule->ra_where == CFI_SAME)
		return CFI_RULE_END;
	for (size_t i = 2; i < maker->n_rules; i++)
		if (!memcmp(&maker->rules[i], rule, sizeof(*rule)))
			return (__u32)i;
	if (maker->n_rules == LIBDW_MAX_RULES)
		return CFI_RULE_NONE;
	maker->rules[maker->n_rules++] = *rule;
	return (__u32)maker->n_rules - 1;
}

static inline void libdw_add(struct libdw_maker *maker, __u64 address, __u32 rule)
{
	__u64 offset = address - maker->bias;
	if ((maker->n_rows && maker->rows[maker->n_rows - 1] >> 16 == rule) || maker->n_rows == LIBDW_MAX_ROWS)
		return;
	maker->offsets[maker->n_rows] = offset;
	maker->rows[maker->n_rows++] = (__u32)(offset & 0xffff) | rule << 16;
}

/* All that libdw knows of [start, end), addresses as in the file. */
static inline void libdw_range(struct libdw_maker *maker, Dwarf_CFI *cfi, __u64 start, __u64 end)
{
	for (__u64 address = start; address < end;) {
		Dwarf_Frame *frame = NULL;
		Dwarf_Addr from = 0, to = 0;
		bool signal = false;
		struct cfi_rule rule = {0};
		if (dwarf_cfi_addrframe(cfi, address, &frame) != 0) {
			libdw_add(maker, address++, CFI_RULE_NONE);
			continue;
		}
		dwarf_frame_info(frame, &from, &to, &signal);
		__u32 number =
			libdw_rule(maker, frame, signal, &rule) ? libdw_number(maker, &rule) : (__u32)CFI_RULE_NONE;
		libdw_add(maker, address, number);
		address = to > address && to < end ? to : to > address ? end : address + 1;
		free(frame);
	}
}

static inline void *libdw_assemble(const struct libdw_maker *maker, size_t *ret_bytes)
{
	__u32 n_buckets =
		(__u32)((maker->text_end - maker->text_start + (1u << LIBDW_BUCKET_SHIFT) - 1) >> LIBDW_BUCKET_SHIFT);
	struct cfi_table_header header = {.magic = CFI_TABLE_MAGIC,
					  .text_start = maker->text_start,
					  .text_end = maker->text_end,
					  .n_buckets = n_buckets,
					  .bucket_shift = LIBDW_BUCKET_SHIFT,
					  .n_rows = (__u32)maker->n_rows,
					  .n_rules = (__u32)maker->n_rules,
					  .n_code_bytes = (__u32)maker->n_code,
					  .off_code = sizeof(header),
					  .off_rules = CFI_PAGE_BYTES};
	header.off_rows = header.off_rules + header.n_rules * (__u32)sizeof(struct cfi_rule);
	header.off_index = header.off_rows + header.n_rows * 4;
	header.total_bytes = header.off_index + (n_buckets + 1) * 4;
	__u8 *table = calloc(1, header.total_bytes);
	memcpy(table, &header, sizeof(header));
	memcpy(table + header.off_code, maker->code, maker->n_code);
	memcpy(table + header.off_rules, maker->rules, maker->n_rules * sizeof(struct cfi_rule));
	memcpy(table + header.off_rows, maker->rows, maker->n_rows * 4);
	__u32 *index = (__u32 *)(table + header.off_index);
	size_t row = 0;
	for (__u32 b = 0; b <= n_buckets; b++) {
		while (b < n_buckets && row < maker->n_rows &&
		       maker->offsets[row] < maker->text_start + ((__u64)b << LIBDW_BUCKET_SHIFT))
			row++;
		index[b] = b < n_buckets ? (__u32)row : header.n_rows;
	}
	*ret_bytes = header.total_bytes;
	return table;
}

static inline void libdw_segments(struct libdw_maker *maker, Elf *elf, Dwarf_CFI *cfi)
{
	size_t n = 0;
	elf_getphdrnum(elf, &n);
	for (size_t i = 0; i < n; i++) {
		GElf_Phdr phdr;
		if (!gelf_getphdr(elf, (int)i, &phdr) || phdr.p_type != PT_LOAD || !(phdr.p_flags & PF_X) ||
		    maker->text_end)
			continue;
		maker->bias = phdr.p_vaddr - phdr.p_offset;
		maker->text_start = phdr.p_offset & ~((1ull << LIBDW_BUCKET_SHIFT) - 1);
		maker->text_end = phdr.p_offset + phdr.p_filesz;
		if (phdr.p_offset != maker->text_start)
			libdw_add(maker, maker->text_start + maker->bias, CFI_RULE_NONE);
		libdw_range(maker, cfi, phdr.p_vaddr, phdr.p_vaddr + phdr.p_filesz);
	}
}

/* malloc'ed; NULL when the file has no CFI. Its first executable segment is looked at. */
static inline void *libdw_table(int fd, size_t *ret_bytes)
{
	elf_version(EV_CURRENT);
	Elf *elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
	Dwarf_CFI *cfi = elf ? dwarf_getcfi_elf(elf) : NULL;
	struct libdw_maker *maker = calloc(1, sizeof(*maker));
	void *table = NULL;
	maker->rows = calloc(LIBDW_MAX_ROWS, sizeof(*maker->rows));
	maker->offsets = calloc(LIBDW_MAX_ROWS, sizeof(*maker->offsets));
	maker->n_rules = 2;
	if (cfi) {
		libdw_segments(maker, elf, cfi);
		table = maker->n_rows ? libdw_assemble(maker, ret_bytes) : NULL;
		dwarf_cfi_end(cfi);
	}
	elf_end(elf);
	free(maker->rows);
	free(maker->offsets);
	free(maker);
	return table;
}
