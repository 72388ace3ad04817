/* What surrounds a table: the process's mappings and threads, and how the kernel has the table's own mapping. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "collect/proc_maps.h"
#include "collect/process.h"
#include "collect/process_memory.h"
#include "collect/table_look_parts.h"
#include "collect/table_memory.h"

struct mappings_reader {
	struct table_look *look;
	bool device_known;
	uint32_t device_major, device_minor;
};

static bool is_memory(const struct mappings_reader *reader, const struct proc_maps_line *line)
{
	if (line->inode == 0) /* anonymous; but not a device, nor the kernel's own */
		return line->name[0] != '[' || !strncmp(line->name, "[anon", 5) || !strcmp(line->name, "[heap]") ||
		       !strcmp(line->name, "[stack]");
	return reader->device_known && line->device_major == reader->device_major &&
	       line->device_minor == reader->device_minor;
}

static int add_mapping(void *context, const struct proc_maps_line *line)
{
	struct mappings_reader *reader = context;
	struct table_look *look = reader->look;
	if (look->n_mappings == LOOK_MAX_MAPPINGS)
		return 0;
	if (look->n_mappings && line->start < look->mappings[look->n_mappings - 1].end)
		return 0; /* shown twice, or changed while it was shown */
	struct look_mapping *mappings = look_grow(look->mappings, look->n_mappings, sizeof(*mappings));
	if (!mappings)
		return -ENOMEM;
	look->mappings = mappings;
	struct look_mapping *mapping = &look->mappings[look->n_mappings++];
	*mapping = (struct look_mapping){
		.start = line->start,
		.end = line->end,
		.readable = line->protection[0] == 'r',
		.executable = line->protection[2] == 'x',
		.shared = line->protection[3] == 's',
		.is_memory = is_memory(reader, line),
		.has_name = line->deleted && !strcmp(line->name, "/memfd:" SPROF_TABLE_NAME),
	};
	mapping->is_named_as_table = mapping->is_memory && barrier_table_is_mapping(line);
	const char *last = strlen(line->name) < LOOK_NAME_BYTES ? NULL : strrchr(line->name, '/');
	snprintf(mapping->name, sizeof(mapping->name), "%s", last ? last + 1 : line->name);
	return 0;
}

int look_take_mappings(struct table_look *look, pid_t tid)
{
	struct mappings_reader reader = {.look = look};
	reader.device_known = table_memory_device(&reader.device_major, &reader.device_minor) == 0;
	int r = proc_maps_for_each(tid, add_mapping, &reader);
	for (size_t i = 0; r == 0 && i < look->n_mappings; i++) {
		struct look_mapping *mapping = &look->mappings[i];
		uint64_t word = 0;
		if (mapping->readable && mapping->is_memory && !mapping->is_named_as_table &&
		    process_memory_read(tid, mapping->start, &word, sizeof(word)) == 0)
			mapping->has_magic = word == SPROF_TABLE_MAGIC;
	}
	return r;
}

static int add_task(struct table_look *look, pid_t pid, pid_t tid)
{
	struct look_task task = {.tid = tid};
	struct process process;
	/* One that ends meanwhile is none. */
	if (process_read_thread(pid, tid, &process) < 0 || process_inner_tid(pid, tid, &task.inner_tid) < 0)
		return 0;
	task.start_ticks = process.start_ticks;
	snprintf(task.comm, sizeof(task.comm), "%s", process.comm);
	struct look_task *tasks = look_grow(look->tasks, look->n_tasks, sizeof(*tasks));
	if (!tasks)
		return -ENOMEM;
	look->tasks = tasks;
	look->tasks[look->n_tasks++] = task;
	return 0;
}

static int by_inner_tid(const void *a, const void *b)
{
	const struct look_task *one = a, *other = b;
	return one->inner_tid < other->inner_tid ? -1 : one->inner_tid > other->inner_tid;
}

int look_take_tasks(struct table_look *look, pid_t pid)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	_cleanup_closedir_ DIR *directory = opendir(path);
	if (!directory)
		return errno == ENOENT ? -ESRCH : -errno;
	struct dirent *entry;
	int r = 0;
	while (r == 0 && look->n_tasks < LOOK_MAX_TASKS && (entry = readdir(directory))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (tid > 0)
			r = add_task(look, pid, tid);
	}
	if (look->n_tasks)
		qsort(look->tasks, look->n_tasks, sizeof(look->tasks[0]), by_inner_tid);
	return r;
}

static void take_seals(struct table_look *look)
{
	int seals = fcntl(look->table_fd, F_GET_SEALS);
	look->memory.seals_known = seals >= 0;
	look->memory.seals = seals < 0 ? 0 : (unsigned)seals;
}

/* proc(5): each mapping of smaps begins with its line of maps and ends with VmFlags, words of two letters. */
static void take_flags(struct table_look *look)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)look->table.tid);
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	size_t room = 0;
	bool there = false;
	while (file && getline(&line, &room, file) > 0) {
		struct proc_maps_line parsed;
		if (!strncmp(line, "VmFlags:", 8) && there) {
			look->memory.flags_known = true;
			look->memory.locked = strstr(line, " lo") != NULL;
			look->memory.dont_fork = strstr(line, " dc") != NULL;
			return;
		}
		if (proc_maps_parse_line(line, &parsed) == 0)
			there = parsed.start == look->table.start;
	}
}

/* Documentation/admin-guide/mm/pagemap.rst: a word a page, bit 63: it is present. */
static void take_pages(struct table_look *look)
{
	enum { WORDS = 512 };
	char path[64];
	uint64_t words[WORDS], page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct look_memory *memory = &look->memory;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)look->table.tid);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	memory->pages = (look->table.end - look->table.start) / page;
	for (uint64_t first = 0; fd >= 0 && first < memory->pages; first += WORDS) {
		size_t n = memory->pages - first < WORDS ? memory->pages - first : WORDS;
		off_t at = (off_t)((look->table.start / page + first) * sizeof(words[0]));
		if (pread(fd, words, n * sizeof(words[0]), at) != (ssize_t)(n * sizeof(words[0])))
			return;
		for (size_t i = 0; i < n; i++)
			memory->resident_pages += words[i] >> 63;
	}
	memory->pages_known = fd >= 0;
}

void look_take_memory(struct table_look *look)
{
	take_pages(look); /* before anything else that may make a page resident */
	take_flags(look);
	take_seals(look);
}
