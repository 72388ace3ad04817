/* What was recorded of a process: its executable mappings, with unwind tables made by sprofd-elf's own code, and a piece of memory at a time. The memory of
 * a walk in user mode: bpf/unwind.h says what the functions are for. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bpf/cfi_table.h"
#include "bpf/mapping_list.h"

union recorded_page {
	struct unwind_list_header header;
	struct unwind_list_entry entries[UNWIND_PAGE_ENTRIES];
};

/* A file, or what was saved of memory that has none. */
struct recorded_file {
	char *name;
	int fd;               /* -1: there is none */
	unsigned char *bytes; /* its table, in whole pages; NULL: it has none */
	size_t n;
};

struct recording {
	union recorded_page *list; /* page 0 is the header */
	size_t n_entries, room;
	struct recorded_file *files;
	uint32_t *file_of; /* of each entry */
	uint32_t n_files;
	/* the memory at hand */
	uint64_t start;
	size_t n;
	const unsigned char *bytes;
};

/* Reads mappings, a line each, ascending: START END OFFSET in hexadecimal and PATH, which is "-" of code that is in no file. Returns 0, or -EBADMSG and the number of the
 * line in *ret_line; -ENOMEM. Free it in either case. A file that cannot be read is code without unwind information. */
int recording_read(struct recording *recording, FILE *mappings, unsigned *ret_line);
void recording_free(struct recording *recording);

long unwind_read(void *to, __u32 bytes, __u64 address, void *memory);
const void *unwind_list_page(__u32 list, __u32 page, void *memory);
void *unwind_table_open(__u32 table, void *memory);
const void *unwind_table_page(void *table, __u32 page);
