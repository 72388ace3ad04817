#include "collect/proc_maps.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "collect/process.h"

enum {
	PAGE_BYTES = 4096,
	MAX_EXECUTABLE_MAPPINGS = 65536,
	MAX_FULL_NAMES_BYTES = 1024 * 1024, /* then files go by the last part of their names */
};

/* fs/proc/task_mmu.c escapes newlines in names as "\012" (and nothing else). */
static void undo_escapes(char *name)
{
	char *to = name;
	for (const char *from = name; *from; to++) {
		if (!strncmp(from, "\\012", 4)) {
			*to = '\n';
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

static bool cut_deleted(char *name)
{
	static const char suffix[] = " (deleted)";
	size_t length = strlen(name), suffix_length = sizeof(suffix) - 1;
	bool deleted = length > suffix_length && !strcmp(name + length - suffix_length, suffix);
	if (deleted)
		name[length - suffix_length] = '\0';
	return deleted;
}

int proc_maps_parse_line(char *line, struct proc_maps_line *ret)
{
	struct proc_maps_line parsed = {.name = ""};
	int name_at = 0;
	/* fs/proc/task_mmu.c, show_map_vma: start-end perms offset major:minor inode   name */
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %" SCNx32 ":%" SCNx32 " %" SCNu64 "%n", &parsed.start,
		   &parsed.end, parsed.protection, &parsed.offset, &parsed.device_major, &parsed.device_minor,
		   &parsed.inode, &name_at) != 7 ||
	    name_at == 0 || strlen(parsed.protection) != 4 || parsed.end <= parsed.start)
		return -EINVAL;
	char *name = line + name_at;
	if (*name && *name != ' ')
		return -EINVAL;
	name += strspn(name, " ");
	undo_escapes(name);
	if (parsed.inode)
		parsed.deleted = cut_deleted(name);
	parsed.name = name;
	*ret = parsed;
	return 0;
}

/* A file that is no regular one (a device that is mapped executable) is not kept. */
static struct file *intern_path(const char *path, struct file_registry *files)
{
	/* O_NONBLOCK: a target may map anything, and an open must never wait. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct file *file;
	return fd >= 0 && file_registry_intern(files, fd, &file) == 0 ? file : NULL;
}

static struct file *open_mapped(pid_t pid, const struct proc_maps_line *line, struct file_registry *files)
{
	char path[128 + PATH_MAX];
	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid, line->start, line->end);
	struct file *file = intern_path(path, files);
	if (file)
		return file;
	/* Without CAP_CHECKPOINT_RESTORE map_files cannot be opened. The path may be another file by now: compare inodes. */
	struct stat st;
	snprintf(path, sizeof(path), "/proc/%d/root/%s", (int)pid, line->name);
	if (stat(path, &st) < 0 || st.st_ino != line->inode || !S_ISREG(st.st_mode))
		return NULL;
	return intern_path(path, files);
}

static enum mapping_kind kind_of(const struct proc_maps_line *line)
{
	if (line->inode)
		return MAPPING_FILE;
	if (!strcmp(line->name, "[vdso]"))
		return MAPPING_VDSO;
	if (line->name[0] == '[' && strncmp(line->name, "[anon", 5) != 0 && strcmp(line->name, "[heap]") != 0 &&
	    strcmp(line->name, "[stack]") != 0)
		return MAPPING_SPECIAL;
	return MAPPING_ANONYMOUS;
}

struct collection {
	pid_t pid; /* whose /proc is read */
	struct file_registry *files;
	struct mapping *mappings;
	size_t n, room;
	size_t names_bytes;
	uint64_t program; /* mm->start_stack */
	uint32_t map_count, exec_pages;
};

static void release(struct collection *collection)
{
	for (size_t i = 0; i < collection->n; i++) {
		file_unref(collection->mappings[i].file);
		free((char *)collection->mappings[i].name);
	}
	free(collection->mappings);
}

static int add_line(struct collection *collection, const struct proc_maps_line *line)
{
	if (line->protection[2] != 'x' || collection->n == MAX_EXECUTABLE_MAPPINGS)
		return 0;
	if (collection->n == collection->room) {
		size_t room = collection->room ? collection->room * 2 : 16;
		struct mapping *grown = reallocarray(collection->mappings, room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		collection->mappings = grown;
		collection->room = room;
	}
	const char *name = line->name[0] ? line->name : "//anon";
	if (line->inode && collection->names_bytes > MAX_FULL_NAMES_BYTES && strrchr(name, '/'))
		name = strrchr(name, '/') + 1;
	collection->names_bytes += strlen(name) + 1;
	struct mapping mapping = {
		.start = line->start,
		.end = line->end,
		.file_offset = line->inode ? line->offset : 0,
		.kind = kind_of(line),
		.name = strdup(name),
	};
	if (!mapping.name)
		return -ENOMEM;
	if (mapping.kind == MAPPING_FILE)
		mapping.file = open_mapped(collection->pid, line, collection->files);
	collection->mappings[collection->n++] = mapping;
	return 0;
}

/* mm/mmap.c, vm_stat_account; the page of vsyscalls is the kernel's, and not counted. */
static void count_line(struct collection *collection, const struct proc_maps_line *line)
{
	if (strcmp(line->name, "[vsyscall]") == 0)
		return;
	collection->map_count++;
	if (line->protection[2] == 'x' && line->protection[1] != 'w')
		collection->exec_pages += (uint32_t)((line->end - line->start) / PAGE_BYTES);
}

static int collect_line(void *context, const struct proc_maps_line *line)
{
	struct collection *collection = context;
	count_line(collection, line);
	if (collection->n && line->start < collection->mappings[collection->n - 1].end)
		return 0;
	return add_line(collection, line);
}

int proc_maps_for_each(pid_t tid, proc_maps_line_fn call, void *context)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)tid);
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	if (!file)
		return errno == ENOENT ? -ESRCH : -errno;
	_cleanup_free_ char *line = NULL;
	size_t room = 0;
	ssize_t length;
	while (errno = 0, (length = getline(&line, &room, file)) > 0) {
		if (line[length - 1] == '\n')
			line[length - 1] = '\0';
		struct proc_maps_line parsed;
		int r = proc_maps_parse_line(line, &parsed) < 0 ? 0 : call(context, &parsed);
		if (r != 0)
			return r;
	}
	return errno ? -errno : 0;
}

/* The main program is the file behind /proc/PID/exe. */
static size_t main_index(const struct collection *collection)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)collection->pid);
	struct file *exe = intern_path(path, collection->files);
	size_t i = 0;
	while (i < collection->n && (!exe || collection->mappings[i].file != exe))
		i++;
	file_unref(exe);
	return i;
}

/* Reads the mappings by one thread's /proc. */
static int read_thread(pid_t tid, struct collection *collection)
{
	collection->pid = tid;
	collection->map_count = collection->exec_pages = 0;
	uint64_t program = process_start_stack(tid);
	int r = proc_maps_for_each(tid, collect_line, collection);
	/* An exec meanwhile: whose they are, nobody knows. */
	collection->program = process_start_stack(tid) == program ? program : 0;
	return r;
}

/* A leader that has ended before its threads has no mappings to show any more: its threads do. */
static int read_other_threads(pid_t pid, struct collection *collection)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	_cleanup_closedir_ DIR *directory = opendir(path);
	if (!directory)
		return -ESRCH;
	struct dirent *entry;
	int r = 0;
	while (r == 0 && collection->n == 0 && (entry = readdir(directory))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (tid <= 0 || tid == pid)
			continue;
		r = read_thread(tid, collection);
		if (r == -ESRCH)
			r = 0;
	}
	return r;
}

int proc_maps_read(pid_t pid, struct file_registry *files, struct maps **ret)
{
	struct collection collection = {.files = files};
	struct maps *maps = NULL;
	int r = read_thread(pid, &collection);
	if (r == 0 && collection.n == 0)
		r = read_other_threads(pid, &collection);
	if (r == 0)
		r = maps_new(collection.mappings, collection.n, main_index(&collection), &maps);
	if (r == 0) /* the references are the snapshot's now; the names were copied */
		for (size_t i = 0; i < collection.n; i++)
			collection.mappings[i].file = NULL;
	release(&collection);
	if (r == 0) {
		maps->program = collection.program;
		maps->map_count = collection.map_count;
		maps->exec_pages = collection.exec_pages;
		*ret = maps;
	}
	return r;
}
