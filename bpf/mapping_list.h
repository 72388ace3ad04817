/* Where a target's code is mapped and what is known of it: made by the daemon from a snapshot of the mappings, read by the walk.
 * Shared by BPF and userspace; SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 * The including file provides the fixed-width __u8 .. __u64.
 *
 * A list is an array of pages. Page 0 is the header; page 1 + i holds entries [i * UNWIND_PAGE_ENTRIES, ...), which ascend by address over all pages
 * and do not overlap. A list is never changed: another one takes its place. */
#pragma once

enum {
	UNWIND_LIST_PAGE_BYTES = 4096,
	UNWIND_PAGE_ENTRIES = 128,
	UNWIND_LIST_MAX_PAGES = 504, /* of entries */
	UNWIND_LIST_MAX_ENTRIES = UNWIND_PAGE_ENTRIES * UNWIND_LIST_MAX_PAGES,
	UNWIND_MAX_TABLES = 16384,
};

struct unwind_list_header {
	__u64 program; /* mm->start_stack of the program whose mappings these are: another program has its stack elsewhere */
	__u32 n_entries; /* at least 1 */
	__u32 n_pages;   /* of entries */
	__u64 serial; /* no other list of this daemon has or had it; what was found by a list may be remembered under it. 0: may not */
	__u64 exec_pages; /* mm->exec_vm when they were read */
	__u64 reserved[4];
	__u64 first[UNWIND_LIST_MAX_PAGES]; /* start of the first entry of page 1 + i */
};

enum unwind_code_kind {
	UNWIND_CODE_PLAIN,   /* without unwind information: frame pointers are what is left */
	UNWIND_CODE_TABLE,   /* `table` describes it */
	UNWIND_CODE_REFUSED, /* there is a table, but no room for it */
	UNWIND_CODE_PENDING, /* its table is not there yet */
	UNWIND_CODE_JIT, /* in no ELF file: as plain, but a frame pointer of zero says nothing, since it may be any register */
};

struct unwind_list_entry {
	__u64 start, end; /* addresses */
	__u64 bias;       /* what is added to an address to make it an offset in the file */
	__u32 table;      /* of UNWIND_MAX_TABLES */
	__u32 kind;       /* enum unwind_code_kind */
};

#ifndef __bpf__
_Static_assert(sizeof(struct unwind_list_header) == UNWIND_LIST_PAGE_BYTES, "the header is a page");
_Static_assert(sizeof(struct unwind_list_entry) * UNWIND_PAGE_ENTRIES == UNWIND_LIST_PAGE_BYTES, "a page of entries");
#endif
