/* Compact unwind tables: what sprofd-elf makes of a file's .eh_frame, .debug_frame or .gopclntab, sprofd checks and loads into BPF maps, and the walk reads.
 * Shared by BPF and userspace; SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 * The including file provides the fixed-width __u8 .. __u64 and __s16, __s32.
 *
 * One table covers the executable bytes of one file, addressed by their offset in the file, so that nobody needs to know where it is loaded:
 * offset = pc - mapping.start + mapping.file_offset. Little-endian. The table is one piece of memory:
 *
 *     header | code: bytes | index: __u32[n_buckets + 1] | rows: __u32[n_rows] | rules: struct cfi_rule[n_rules]
 *
 * The header says where each part is; they do not overlap, but only the header's place is fixed.
 *
 * - A row holds from its address up to the next row's: bits 0 to 15 are the low 16 bits of its offset, bits 16 to 31 the number of its rule.
 *   Rows ascend by offset, row 0 is at text_start. Gaps between functions are rows of rule CFI_RULE_NONE; what is not within
 *   [text_start, text_end) has no rule.
 * - index[b] is the first row whose offset is not below that of bucket b, which is text_start + (b << bucket_shift); index[n_buckets] = n_rows.
 *   So the row of an offset in bucket b is the last of [index[b], index[b + 1]) that is not above it, or else row index[b] - 1, which
 *   is there: bucket 0 begins with row 0. n_buckets is (text_end - text_start) >> bucket_shift, rounded up.
 *   text_start is a multiple of 1 << bucket_shift, and bucket_shift at most 16, so that low bits compare within a bucket.
 * - Rules are shared by all rows of the file. CFI_RULE_NONE and CFI_RULE_END are the first two of every table, and no other has an
 *   undefined return address.
 * - Expressions are byte code in `code`: see enum cfi_op. None lies across CFI_PAGE_BYTES of the table.
 * Rows, index entries and rules do not lie across CFI_PAGE_BYTES: the offsets below are multiples of their size. */
#pragma once

enum {
	CFI_TABLE_MAGIC = 0x31494643, /* "CFI1" */
	CFI_PAGE_BYTES = 4096,        /* the unit in which a table is loaded */
	CFI_MAX_BUCKET_SHIFT = 16,
	CFI_MAX_ROWS = 1 << 24,
	CFI_MAX_RULES = 1 << 16,
	CFI_MAX_CODE_BYTES =
		1 << 15, /* expressions of a file: their offsets fit the 16 bits of a rule's values, never negative */
	CFI_MAX_TABLE_BYTES = 128 << 20,
	CFI_MAX_OPS = 32,    /* of one expression */
	CFI_STACK_DEPTH = 8, /* of its evaluation */
	CFI_REGISTERS =
		17, /* DWARF numbers of x86-64 (psABI 3.6.2): rax rdx rcx rbx rsi rdi rbp rsp r8 .. r15, return address */
	CFI_SAVED = 6, /* callee-saved: rbx rbp r12 r13 r14 r15 */
};

#define CFI_MAX_TEXT_BYTES (1ULL << 32) /* text_end - text_start */

enum cfi_well_known_rule {
	CFI_RULE_NONE = 0, /* no CFI here: frame pointers are what is left */
	CFI_RULE_END = 1,  /* the return address is undefined: the outermost frame */
};

struct cfi_table_header {
	__u32 magic;
	__u32 total_bytes;
	__u64 text_start, text_end; /* file offsets */
	__u32 n_buckets, bucket_shift;
	__u32 n_rows, n_rules, n_code_bytes;
	__u32 off_index, off_rows, off_rules, off_code; /* from the start of the table */
	__u32 reserved;
};

/* How the canonical frame address is found: the stack pointer before the call, i.e. of the caller after the return. */
enum cfi_cfa {
	CFI_CFA_REGISTER,   /* register + offset */
	CFI_CFA_DEREF,      /* *(register + offset): DRAP, realigned stacks */
	CFI_CFA_PLT,        /* register + offset + ((pc & 15) >= 11 ? 8 : 0): the lazy PLT of binutils */
	CFI_CFA_EXPRESSION, /* the value of the expression at cfa_offset of the code */
};

/* Where a register's value in the caller is. */
enum cfi_where {
	CFI_SAME,             /* not changed; for the return address: undefined, the end */
	CFI_AT_CFA,           /* *(CFA + value) */
	CFI_VALUE_CFA,        /* CFA + value */
	CFI_REGISTER,         /* in the register of that number; sp in register 7: not changed */
	CFI_AT_EXPRESSION,    /* *(expression at `value` of the code), the CFA is pushed first */
	CFI_VALUE_EXPRESSION, /* the value of that expression */
	CFI_UNDEFINED,        /* not known in the caller */
};

enum cfi_rule_flag {
	CFI_SIGNAL_FRAME = 1, /* the caller was interrupted, not calling: its pc is exact */
	CFI_END = 2,          /* outermost frame: CFI_RULE_END alone */
	/* The kernel's signal frame: besides what the rule says, every register is in the sigcontext, 17 words from sp + 40, in the order
	 * r8 .. r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip (the rule says the same of those that it has). */
	CFI_SIGCONTEXT = 4,
	/* The caller is on another stack: its stack pointer may be anywhere. At most UNWIND_MAX_SWITCHES of a walk. */
	CFI_OTHER_STACK = 8,
};

struct cfi_rule {
	__u8 cfa; /* enum cfi_cfa */
	__u8 cfa_register;
	__u8 flags;
	__u8 ra_where; /* enum cfi_where of the return address */
	__s32 cfa_offset;
	__s16 ra_value;
	__s16 sp_value; /* of sp_where; otherwise the caller's sp is the CFA */
	__u8 sp_where;  /* CFI_SAME: the CFA (as everywhere but in signal frames and hand-written code) */
	__u8 reserved;
	__u8 where[CFI_SAVED]; /* enum cfi_where of rbx rbp r12 r13 r14 r15 */
	__s16 value[CFI_SAVED];
};

/* Expressions: a stack machine of 64-bit words, made of DWARF's by the builder. Operands follow the op, little-endian. Straight-line: the depth
 * of the stack at each op is known beforehand, and checked with the table: it never goes below 0 or above CFI_STACK_DEPTH, and is
 * at least 1 at CFI_OP_END, whose result is the top. Binary ops pop the right operand first: "a b MINUS" is a - b. Shifts by 64 and more
 * give 0. A file whose expression needs more gets CFI_RULE_NONE for those rows (a callee-saved register: CFI_UNDEFINED), counted by the builder. */
enum cfi_op {
	CFI_OP_END,
	CFI_OP_CONST,    /* __s64 */
	CFI_OP_REGISTER, /* __u8 number, __s32 offset: push register + offset */
	CFI_OP_DEREF,    /* pop address, push the word there */
	CFI_OP_PLUS,
	CFI_OP_MINUS,
	CFI_OP_AND,
	CFI_OP_OR,
	CFI_OP_SHL,
	CFI_OP_SHR,
	CFI_OP_MUL,
	CFI_OP_GE, /* signed: push 1 or 0 */
	CFI_OP_GT,
	CFI_OP_LE,
	CFI_OP_LT,
	CFI_OP_EQ,
	CFI_OP_NE,
	CFI_OP_DUP,
	CFI_OP_DROP,
	CFI_OP_SWAP,
	CFI_OP_OVER,
	CFI_OP_NEG,
	CFI_OP_NOT,
	CFI_OP_XOR,
	CFI_OP_THREAD, /* __s32 offset: push the thread pointer (fs base) + offset */
	CFI_OPS
};

#ifndef __bpf__
_Static_assert(sizeof(struct cfi_table_header) == 64, "cfi_table_header");
_Static_assert(sizeof(struct cfi_rule) == 32, "cfi_rule: a page holds a whole number");
#endif
