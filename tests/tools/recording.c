#include "recording.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf/cfi_build.h"
#include "model/cfi_check.h"

enum { MAX_LINE = 4096 };

/* A table that our own check would refuse is none: the walk is told of no other. */
static void take_table(struct recorded_file *file)
{
	struct cfi_table table;
	if (cfi_build(file->fd, &table) < 0)
		return;
	size_t room = (table.n + CFI_PAGE_BYTES - 1) / CFI_PAGE_BYTES * CFI_PAGE_BYTES;
	if (cfi_table_check(table.bytes, table.n) && (file->bytes = calloc(1, room))) {
		memcpy(file->bytes, table.bytes, table.n);
		file->n = room;
	}
	cfi_table_free(&table);
}

/* The number of a file, which is opened when it is new; -ENOMEM. */
static int find_file(struct recording *recording, const char *name, uint32_t *ret)
{
	for (*ret = 0; *ret < recording->n_files; ++*ret)
		if (!strcmp(recording->files[*ret].name, name))
			return 0;
	struct recorded_file *files = realloc(recording->files, (recording->n_files + 1) * sizeof(*files));
	if (!files)
		return -ENOMEM;
	recording->files = files;
	struct recorded_file file = {.name = strdup(name), .fd = open(name, O_RDONLY | O_CLOEXEC)};
	if (!file.name)
		return -ENOMEM;
	if (file.fd >= 0)
		take_table(&file);
	files[recording->n_files++] = file;
	return 0;
}

static int make_room(struct recording *recording)
{
	if (recording->n_entries < recording->room)
		return 0;
	size_t room = recording->room + UNWIND_PAGE_ENTRIES, pages = 1 + room / UNWIND_PAGE_ENTRIES;
	union recorded_page *list = realloc(recording->list, pages * sizeof(*list));
	if (!list)
		return -ENOMEM;
	memset(&list[pages - 1], 0, sizeof(*list));
	recording->list = list;
	uint32_t *file_of = realloc(recording->file_of, room * sizeof(*file_of));
	if (!file_of)
		return -ENOMEM;
	recording->file_of = file_of;
	recording->room = room;
	return 0;
}

static struct unwind_list_entry *entry_at(struct recording *recording, size_t i)
{
	return &recording->list[1 + i / UNWIND_PAGE_ENTRIES].entries[i % UNWIND_PAGE_ENTRIES];
}

static int add_mapping(struct recording *recording, uint64_t start, uint64_t end, uint64_t offset, const char *path)
{
	uint32_t file = 0;
	size_t i = recording->n_entries;
	if (start >= end || (i > 0 && start < entry_at(recording, i - 1)->end) || i >= UNWIND_LIST_MAX_ENTRIES)
		return -EBADMSG;
	if (make_room(recording) < 0 || find_file(recording, path, &file) < 0)
		return -ENOMEM;
	*entry_at(recording, i) = (struct unwind_list_entry){.start = start,
							     .end = end,
							     .bias = offset - start,
							     .table = file,
							     .kind = recording->files[file].bytes ? UNWIND_CODE_TABLE
												  : UNWIND_CODE_PLAIN};
	recording->file_of[i] = file;
	recording->n_entries++;
	return 0;
}

static int finish_list(struct recording *recording)
{
	size_t n_pages = (recording->n_entries + UNWIND_PAGE_ENTRIES - 1) / UNWIND_PAGE_ENTRIES;
	if (n_pages == 0)
		return -EBADMSG;
	struct unwind_list_header *header = &recording->list[0].header;
	*header = (struct unwind_list_header){
		.n_entries = (__u32)recording->n_entries, .n_pages = (__u32)n_pages, .serial = 1};
	for (size_t i = 0; i < n_pages; i++)
		header->first[i] = recording->list[1 + i].entries[0].start;
	return 0;
}

int recording_read(struct recording *recording, FILE *mappings, unsigned *ret_line)
{
	static char line[MAX_LINE], path[MAX_LINE];
	*recording = (struct recording){0};
	for (*ret_line = 1; fgets(line, sizeof(line), mappings); ++*ret_line) {
		uint64_t start, end, offset;
		if (sscanf(line, "%" SCNx64 " %" SCNx64 " %" SCNx64 " %4095[^\n]", &start, &end, &offset, path) != 4)
			return -EBADMSG;
		int r = add_mapping(recording, start, end, offset, path);
		if (r < 0)
			return r;
	}
	return finish_list(recording);
}

void recording_free(struct recording *recording)
{
	for (uint32_t i = 0; i < recording->n_files; i++) {
		if (recording->files[i].fd >= 0)
			close(recording->files[i].fd);
		free(recording->files[i].name);
		free(recording->files[i].bytes);
	}
	free(recording->files);
	free(recording->file_of);
	free(recording->list);
}

/* Code is as it is in its file. */
static long read_code(struct recording *recording, void *to, __u32 bytes, __u64 address)
{
	for (size_t i = 0; i < recording->n_entries; i++) {
		const struct unwind_list_entry *entry = entry_at(recording, i);
		int fd = recording->files[recording->file_of[i]].fd;
		if (address >= entry->start && address < entry->end && fd >= 0)
			return pread(fd, to, bytes, (off_t)(address + entry->bias)) == (ssize_t)bytes ? 0 : -EFAULT;
	}
	return -EFAULT;
}

long unwind_read(void *to, __u32 bytes, __u64 address, void *memory)
{
	struct recording *recording = memory;
	if (address < recording->start || address - recording->start > recording->n ||
	    recording->n - (address - recording->start) < bytes)
		return read_code(recording, to, bytes, address);
	memcpy(to, recording->bytes + (address - recording->start), bytes);
	return 0;
}

const void *unwind_list_page(__u32 list, __u32 page, void *memory)
{
	const struct recording *recording = memory;
	return list == 0 && page <= recording->list[0].header.n_pages ? &recording->list[page] : NULL;
}

void *unwind_table_open(__u32 table, void *memory)
{
	const struct recording *recording = memory;
	return table < recording->n_files && recording->files[table].bytes ? &recording->files[table] : NULL;
}

const void *unwind_table_page(void *table, __u32 page)
{
	const struct recorded_file *file = table;
	return (size_t)page * CFI_PAGE_BYTES < file->n ? file->bytes + (size_t)page * CFI_PAGE_BYTES : NULL;
}
