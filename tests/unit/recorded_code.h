/* The code that a live process maps: its mapping list, and tables that libdw tells, for a walk in user mode. */
#pragma once
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "unwind_memory.h"

#include "cfi_by_libdw.h"

enum { RECORDED_MAX_FILES = 64 };

struct recorded_code {
	struct unwind_list_page *list; /* header and one page of entries */
	struct recorded_table tables[RECORDED_MAX_FILES];
	char names[RECORDED_MAX_FILES][512];
	__u32 n_tables, n_entries;
};

static inline void recorded_add_table(struct recorded_code *code, int fd, const char *name)
{
	size_t n = 0;
	void *bytes = libdw_table(fd, &n);
	size_t room = (n + CFI_PAGE_BYTES - 1) / CFI_PAGE_BYTES * CFI_PAGE_BYTES;
	if (bytes) {
		bytes = realloc(bytes, room);
		memset((char *)bytes + n, 0, room - n);
	}
	code->tables[code->n_tables] = (struct recorded_table){.bytes = bytes, .n = room};
	snprintf(code->names[code->n_tables++], sizeof(code->names[0]), "%s", name);
}

/* The [vdso] has no file: its bytes are taken out of the process. */
static inline int recorded_vdso(pid_t pid, __u64 start, __u64 end)
{
	int fd = memfd_create("vdso", MFD_CLOEXEC);
	static char bytes[1 << 16];
	struct iovec to = {bytes, end - start},
		     from = {(void *)(uintptr_t)start, end - start}; // NOLINT(performance-no-int-to-ptr)
	if (end - start > sizeof(bytes) || process_vm_readv(pid, &to, 1, &from, 1, 0) < 0 ||
	    write(fd, bytes, end - start) < 0)
		return -1;
	return fd;
}

static inline __u32 recorded_table_of(struct recorded_code *code, pid_t pid, const char *name, __u64 start, __u64 end)
{
	for (__u32 i = 0; i < code->n_tables; i++)
		if (!strcmp(code->names[i], name))
			return i;
	int fd = strcmp(name, "[vdso]") ? open(name, O_RDONLY | O_CLOEXEC) : recorded_vdso(pid, start, end);
	recorded_add_table(code, fd, name);
	close(fd);
	return code->n_tables - 1;
}

/* Reads the mappings anew; tables that were made before stay. */
static inline void recorded_read(struct recorded_code *code, pid_t pid)
{
	char path[64], line[1024], protection[5], name[512];
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	FILE *file = fopen(path, "re");
	if (!file) {
		perror(path);
		exit(2);
	}
	free(code->list);
	code->list = calloc(2, sizeof(*code->list));
	code->n_entries = 0;
	while (fgets(line, sizeof(line), file) && code->n_entries < UNWIND_PAGE_ENTRIES) {
		__u64 start, end, offset;
		name[0] = '\0';
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %*s %511s", (uint64_t *)&start,
			   (uint64_t *)&end, protection, (uint64_t *)&offset, name) < 4 ||
		    protection[2] != 'x')
			continue;
		struct unwind_list_entry *entry = &code->list[1].entries[code->n_entries++];
		*entry = (struct unwind_list_entry){.start = start, .end = end, .bias = offset - start};
		if (name[0] != '/' && strcmp(name, "[vdso]") != 0)
			continue;
		entry->table = recorded_table_of(code, pid, name, start, end);
		entry->kind = code->tables[entry->table].bytes ? UNWIND_CODE_TABLE : UNWIND_CODE_PLAIN;
	}
	fclose(file);
	struct unwind_list_header *header = (struct unwind_list_header *)code->list;
	header->n_entries = code->n_entries;
	header->n_pages = 1;
	header->first[0] = code->list[1].entries[0].start;
}

static inline void recorded_free(struct recorded_code *code)
{
	for (__u32 i = 0; i < code->n_tables; i++)
		free((void *)code->tables[i].bytes);
	free(code->list);
}

/* Has the memory be walked by this code. */
static inline void recorded_use(const struct recorded_code *code, struct recorded_memory *memory)
{
	memory->list = code->list;
	memory->list_pages = 2;
	memory->tables = code->tables;
	memory->n_tables = code->n_tables;
}
