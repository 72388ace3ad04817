/* ELF files with call frame information made by hand: code at CFI_CODE (file offset CFI_CODE_OFFSET), and whatever bytes a test wants in
 * .eh_frame and .debug_frame. And rules in words, so that a test can say what it expects. */
#pragma once
#include <dwarf.h>
#include <elf.h>
#include <inttypes.h>
#include <linux/types.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "elf_maker.h"
#include "model/cfi_check.h"
#include "model/cfi_ops.h"

enum {
	CFI_CODE_OFFSET = 0x1000,
	CFI_CODE_BYTES = 0x1000,
	CFI_EH_OFFSET = 0x2000,
	CFI_DEBUG_OFFSET = 0x8000,
	CFI_FRAME_MAX_BYTES = 0x6000,
	CFI_BASE = 0x400000, /* addresses are file offsets above it */
	CFI_CODE = CFI_BASE + CFI_CODE_OFFSET,
	CFI_EH = CFI_BASE + CFI_EH_OFFSET,
	CFI_GOT = 0x409000,
};

/* The content of one section. */
struct cfi_bytes {
	uint8_t bytes[CFI_FRAME_MAX_BYTES];
	size_t n;
	size_t entry; /* where the length of the entry at hand is */
	bool is_64;   /* of it: the 64-bit format */
};

static inline void cfi_put(struct cfi_bytes *out, uint64_t value, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out->bytes[out->n++] = (uint8_t)(value >> (8 * i));
}

static inline void cfi_put_bytes(struct cfi_bytes *out, const void *bytes, size_t n)
{
	if (n)
		memcpy(out->bytes + out->n, bytes, n);
	out->n += n;
}

static inline void cfi_begin(struct cfi_bytes *out, bool is_64)
{
	out->entry = out->n;
	out->is_64 = is_64;
	cfi_put(out, is_64 ? UINT32_MAX : 0, 4);
	cfi_put(out, 0, is_64 ? 8 : 0);
}

static inline void cfi_end(struct cfi_bytes *out)
{
	while (out->n % 8)
		cfi_put(out, DW_CFA_nop, 1);
	size_t length_at = out->entry + (out->is_64 ? 4 : 0), bytes = out->is_64 ? 8 : 4;
	uint64_t length = out->n - length_at - bytes;
	memcpy(out->bytes + length_at, &length, bytes);
}

struct cfi_cie_made {
	const char *augmentation;
	const uint8_t *augmentation_bytes; /* with 'z', without their length */
	uint8_t n_augmentation_bytes;
	uint8_t version;         /* 0: 1 */
	uint8_t code_factor;     /* 0: 1 */
	uint8_t return_register; /* 0: 16 */
	const uint8_t *program;  /* NULL: CFA = rsp + 8, return address at CFA - 8 */
	uint8_t n_program;
};

/* Its offset. In .eh_frame the id is 0 and has 4 bytes. */
static inline size_t cfi_add_cie(struct cfi_bytes *out, bool is_debug, bool is_64, const struct cfi_cie_made *cie)
{
	static const uint8_t usual[] = {DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1};
	cfi_begin(out, is_64);
	cfi_put(out, is_debug ? UINT64_MAX : 0, is_debug && is_64 ? 8 : 4);
	cfi_put(out, cie->version ? cie->version : 1, 1);
	cfi_put_bytes(out, cie->augmentation, strlen(cie->augmentation) + 1);
	if (cie->version == 4)
		cfi_put(out, 8, 2); /* address_size, no segments */
	if (strncmp(cie->augmentation, "eh", 2) == 0)
		cfi_put(out, 0x1234, 8);
	cfi_put(out, cie->code_factor ? cie->code_factor : 1, 1);
	cfi_put(out, 0x78, 1); /* -8 */
	cfi_put(out, cie->return_register ? cie->return_register : 16, 1);
	if (cie->augmentation[0] == 'z') {
		cfi_put(out, cie->n_augmentation_bytes, 1);
		cfi_put_bytes(out, cie->augmentation_bytes, cie->n_augmentation_bytes);
	}
	cfi_put_bytes(out, cie->program ? cie->program : usual, cie->program ? cie->n_program : sizeof(usual));
	cfi_end(out);
	return out->entry;
}

/* The CIE of GCC: "zR", 4 bytes relative to where they are. */
static inline size_t cfi_add_usual_cie(struct cfi_bytes *out)
{
	static const uint8_t encoding[] = {DW_EH_PE_pcrel | DW_EH_PE_sdata4};
	const struct cfi_cie_made cie = {
		.augmentation = "zR", .augmentation_bytes = encoding, .n_augmentation_bytes = 1};
	return cfi_add_cie(out, false, false, &cie);
}

/* An FDE of that CIE in .eh_frame, for code at CFI_CODE + start. */
static inline void cfi_add_fde(struct cfi_bytes *out, size_t cie, uint32_t start, uint32_t bytes,
			       const uint8_t *program, size_t n_program)
{
	cfi_begin(out, false);
	cfi_put(out, out->n - cie, 4);
	cfi_put(out, (uint32_t)(CFI_CODE + start - (CFI_EH + (uint32_t)out->n)), 4);
	cfi_put(out, bytes, 4);
	cfi_put(out, 0, 1); /* no augmentation bytes */
	cfi_put_bytes(out, program, n_program);
	cfi_end(out);
}

/* One in .debug_frame, of a CIE without augmentation. */
static inline void cfi_add_debug_fde(struct cfi_bytes *out, bool is_64, size_t cie, uint64_t start, uint64_t bytes,
				     const uint8_t *program, size_t n_program)
{
	cfi_begin(out, is_64);
	cfi_put(out, cie, is_64 ? 8 : 4);
	cfi_put(out, CFI_CODE + start, 8);
	cfi_put(out, bytes, 8);
	cfi_put_bytes(out, program, n_program);
	cfi_end(out);
}

/* The whole file; eh or debug may be NULL. */
static inline void cfi_make_file(struct maker *maker, const struct cfi_bytes *eh, const struct cfi_bytes *debug)
{
	static const char names[] = "\0.text\0.eh_frame\0.debug_frame\0.got.plt\0.shstrtab";
	enum { TEXT = 1, EH = 7, DEBUG = 17, GOT = 30, STRINGS = 39, SECTIONS = 6 };
	memset(maker->bytes, 0, 0x10000);
	Elf64_Ehdr *header = maker_header(maker);
	*header = (Elf64_Ehdr){
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1,
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = SECTIONS,
		.e_shstrndx = SECTIONS - 1,
		.e_shoff = 0xf000,
	};
	maker_segments(maker)[0] = (Elf64_Phdr){.p_type = PT_LOAD,
						.p_flags = PF_R | PF_X,
						.p_offset = CFI_CODE_OFFSET,
						.p_vaddr = CFI_CODE,
						.p_filesz = CFI_CODE_BYTES,
						.p_memsz = CFI_CODE_BYTES,
						.p_align = 4096};
	if (eh)
		memcpy(maker->bytes + CFI_EH_OFFSET, eh->bytes, eh->n);
	if (debug)
		memcpy(maker->bytes + CFI_DEBUG_OFFSET, debug->bytes, debug->n);
	memcpy(maker->bytes + 0xe000, names, sizeof(names));
	Elf64_Shdr *sections = maker_sections(maker);
	sections[1] = (Elf64_Shdr){.sh_name = TEXT,
				   .sh_type = SHT_PROGBITS,
				   .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
				   .sh_addr = CFI_CODE,
				   .sh_offset = CFI_CODE_OFFSET,
				   .sh_size = CFI_CODE_BYTES};
	sections[2] = (Elf64_Shdr){.sh_name = EH,
				   .sh_type = eh ? SHT_PROGBITS : SHT_NOBITS,
				   .sh_flags = SHF_ALLOC,
				   .sh_addr = CFI_EH,
				   .sh_offset = CFI_EH_OFFSET,
				   .sh_size = eh ? eh->n : 0};
	sections[3] = (Elf64_Shdr){.sh_name = DEBUG,
				   .sh_type = debug ? SHT_PROGBITS : SHT_NOBITS,
				   .sh_offset = CFI_DEBUG_OFFSET,
				   .sh_size = debug ? debug->n : 0};
	sections[4] = (Elf64_Shdr){.sh_name = GOT, .sh_type = SHT_NOBITS, .sh_flags = SHF_ALLOC, .sh_addr = CFI_GOT};
	sections[5] =
		(Elf64_Shdr){.sh_name = STRINGS, .sh_type = SHT_STRTAB, .sh_offset = 0xe000, .sh_size = sizeof(names)};
	maker->n = header->e_shoff + SECTIONS * sizeof(Elf64_Shdr);
}

/* --- rules in words --- */

struct cfi_text {
	char text[512];
	size_t n;
};

__attribute__((format(printf, 2, 3))) static inline void cfi_say(struct cfi_text *out, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int n = vsnprintf(out->text + out->n, sizeof(out->text) - out->n, format, arguments);
	va_end(arguments);
	if (n > 0)
		out->n += (size_t)n < sizeof(out->text) - out->n ? (size_t)n : 0;
}

static inline void cfi_say_expression(struct cfi_text *out, const void *table, int32_t offset)
{
	static const char *const names[CFI_OPS] = {
		[CFI_OP_DEREF] = "deref", [CFI_OP_PLUS] = "plus",    [CFI_OP_MINUS] = "minus", [CFI_OP_AND] = "and",
		[CFI_OP_OR] = "or",       [CFI_OP_SHL] = "shl",      [CFI_OP_SHR] = "shr",     [CFI_OP_MUL] = "mul",
		[CFI_OP_GE] = "ge",       [CFI_OP_GT] = "gt",        [CFI_OP_LE] = "le",       [CFI_OP_LT] = "lt",
		[CFI_OP_EQ] = "eq",       [CFI_OP_NE] = "ne",        [CFI_OP_DUP] = "dup",     [CFI_OP_DROP] = "drop",
		[CFI_OP_SWAP] = "swap",   [CFI_OP_OVER] = "over",    [CFI_OP_NEG] = "neg",     [CFI_OP_NOT] = "not",
		[CFI_OP_XOR] = "xor",     [CFI_OP_THREAD] = "thread"};
	const struct cfi_table_header *header = table;
	const uint8_t *at = (const uint8_t *)table + header->off_code + offset;
	struct cfi_op_effect effect;
	const char *space = "";
	for (; *at != CFI_OP_END && cfi_op_effect(*at, &effect); at += 1 + effect.operand_bytes, space = " ") {
		int64_t constant = 0;
		int32_t displacement = 0;
		if (*at == CFI_OP_CONST) {
			memcpy(&constant, at + 1, 8);
			cfi_say(out, "%s%" PRId64, space, constant);
		} else if (*at == CFI_OP_REGISTER) {
			memcpy(&displacement, at + 2, 4);
			cfi_say(out, "%sr%u%+d", space, at[1], displacement);
		} else if (*at == CFI_OP_THREAD) {
			memcpy(&displacement, at + 1, 4);
			cfi_say(out, "%s%s%+d", space, names[*at], displacement);
		} else {
			cfi_say(out, "%s%s", space, names[*at]);
		}
	}
}

static inline void cfi_say_where(struct cfi_text *out, const void *table, const char *name, uint8_t where,
				 int16_t value)
{
	if (where == CFI_SAME)
		return;
	cfi_say(out, " %s=", name);
	if (where == CFI_AT_CFA)
		cfi_say(out, "[%+d]", value);
	else if (where == CFI_VALUE_CFA)
		cfi_say(out, "%+d", value);
	else if (where == CFI_REGISTER)
		cfi_say(out, "r%d", value);
	else if (where == CFI_UNDEFINED)
		cfi_say(out, "?");
	else {
		cfi_say(out, where == CFI_AT_EXPRESSION ? "[{" : "{");
		cfi_say_expression(out, table, value);
		cfi_say(out, where == CFI_AT_EXPRESSION ? "}]" : "}");
	}
}

/* The rule at CFI_CODE + at: "none", "end", or such as "r7+16 pc=[-8] rbx=[-16]". The text is overwritten by the next call. */
static inline const char *cfi_rule_text(const void *table, uint32_t at)
{
	static struct cfi_text out;
	static const char *const saved[CFI_SAVED] = {"rbx", "rbp", "r12", "r13", "r14", "r15"};
	uint32_t number = cfi_table_rule_at(table, CFI_CODE_OFFSET + at);
	if (number <= CFI_RULE_END)
		return number == CFI_RULE_END ? "end" : "none";
	const struct cfi_rule *rule = cfi_table_rule(table, number);
	out.n = 0;
	if (rule->flags & CFI_SIGNAL_FRAME)
		cfi_say(&out, "signal ");
	if (rule->flags & CFI_OTHER_STACK)
		cfi_say(&out, "other ");
	if (rule->flags & CFI_SIGCONTEXT)
		cfi_say(&out, "sigcontext ");
	if (rule->cfa == CFI_CFA_EXPRESSION) {
		cfi_say(&out, "{");
		cfi_say_expression(&out, table, rule->cfa_offset);
		cfi_say(&out, "}");
	} else {
		static const char *const forms[] = {"", "*(", "plt("};
		cfi_say(&out, "%sr%u%+d%s", forms[rule->cfa], rule->cfa_register, rule->cfa_offset,
			rule->cfa == CFI_CFA_REGISTER ? "" : ")");
	}
	cfi_say_where(&out, table, "pc", rule->ra_where, rule->ra_value);
	cfi_say_where(&out, table, "sp", rule->sp_where, rule->sp_value);
	for (int i = 0; i < CFI_SAVED; i++)
		cfi_say_where(&out, table, saved[i], rule->where[i], rule->value[i]);
	return out.text;
}
