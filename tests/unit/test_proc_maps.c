#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_main.h"
#include "collect/proc_maps.h"

static int parse(const char *text, struct proc_maps_line *ret, char **ret_line)
{
	*ret_line = strdup(text); /* of its very size */
	return proc_maps_parse_line(*ret_line, ret);
}

struct expectation {
	const char *text;
	uint64_t start, end, offset, inode;
	const char *protection, *name;
};

START_TEST(lines_of_the_kernel)
{
	static const struct expectation lines[] = {
		{"559cbf6a3000-559cbf6a5000 r-xp 00002000 fe:01 1835                       /usr/bin/cat",
		 0x559cbf6a3000, 0x559cbf6a5000, 0x2000, 1835, "r-xp", "/usr/bin/cat"},
		{"7ffd1000-7ffd2000 r-xp 00000000 00:00 0                  [vdso]", 0x7ffd1000, 0x7ffd2000, 0, 0,
		 "r-xp", "[vdso]"},
		{"7ffd1000-7ffd2000 rwxs 00000000 00:00 0 ", 0x7ffd1000, 0x7ffd2000, 0, 0, "rwxs", ""},
		{"7ffd1000-7ffd2000 rwxs 00000000 00:00 0", 0x7ffd1000, 0x7ffd2000, 0, 0, "rwxs", ""},
		{"1000-2000 r-xp 00000000 00:01 7 /memfd:jit (deleted)", 0x1000, 0x2000, 0, 7, "r-xp", "/memfd:jit"},
		{"1000-2000 r-xp 00000000 00:01 7 /a b  c (deleted) (deleted)", 0x1000, 0x2000, 0, 7, "r-xp",
		 "/a b  c (deleted)"},
		{"1000-2000 r-xp 00000000 00:01 7 /new\\012line", 0x1000, 0x2000, 0, 7, "r-xp", "/new\nline"},
		{"1000-2000 r-xp 00000000 00:01 7 /back\\slash\\01", 0x1000, 0x2000, 0, 7, "r-xp", "/back\\slash\\01"},
		{"1000-2000 r-xp 00000000 00:01 7 \\012\\012", 0x1000, 0x2000, 0, 7, "r-xp", "\n\n"},
		{"1000-2000 r-xp 00000000 00:01 7 /\xff\xfe", 0x1000, 0x2000, 0, 7, "r-xp", "/\xff\xfe"},
		{"1000-2000 r-xp 00000000 00:01 0 name (deleted)", 0x1000, 0x2000, 0, 0, "r-xp", "name (deleted)"},
		{"1000-2000 r-xp 00000000 00:01 7  (deleted)", 0x1000, 0x2000, 0, 7, "r-xp", "(deleted)"},
		{"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
		 0xffffffffff600000, 0xffffffffff601000, 0, 0, "--xp", "[vsyscall]"},
	};
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct proc_maps_line line;
		char *text;
		ck_assert_int_eq(parse(lines[i].text, &line, &text), 0);
		ck_assert_uint_eq(line.start, lines[i].start);
		ck_assert_uint_eq(line.end, lines[i].end);
		ck_assert_uint_eq(line.offset, lines[i].offset);
		ck_assert_uint_eq(line.inode, lines[i].inode);
		ck_assert_str_eq(line.protection, lines[i].protection);
		ck_assert_str_eq(line.name, lines[i].name);
		free(text);
	}
}
END_TEST

START_TEST(lines_of_nobody)
{
	static const char *const lines[] = {"",
					    " ",
					    "x",
					    "1000",
					    "1000-",
					    "1000-2000",
					    "1000-2000 r-xp",
					    "1000-2000 r-xp 0",
					    "1000-2000 r-xp 0 00:00",
					    "1000-2000 r-x 0 00:00 0",
					    "1000-2000 r-xpq 0 00:00 0",
					    "2000-1000 r-xp 0 00:00 0",
					    "1000-1000 r-xp 0 00:00 0",
					    "1000 2000 r-xp 0 00:00 0",
					    "1000-2000 r-xp 0 00:00 0/name",
					    "1000-2000 r-xp 0 0000 0",
					    "-1000 r-xp 0 00:00 0"};
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct proc_maps_line line;
		char *text;
		memset(&line, 0x5a, sizeof(line));
		if (parse(lines[i], &line, &text) != -EINVAL || line.start != 0x5a5a5a5a5a5a5a5a ||
		    line.protection[0] != 0x5a)
			ck_abort_msg("\"%s\"", lines[i]);
		free(text);
	}
}
END_TEST

static const struct mapping *mapping_of(const struct maps *maps, const void *address)
{
	return maps_find(maps, (uint64_t)(uintptr_t)address);
}

START_TEST(reads_this_very_process)
{
	struct file_registry *files = file_registry_new(100);
	struct maps *maps;
	struct stat st;
	ck_assert_int_eq(proc_maps_read(getpid(), files, &maps), 0);
	ck_assert_uint_lt(maps->main_index, maps->n);
	const struct mapping *main_program = mapping_of(maps, (void *)mapping_of);
	ck_assert_ptr_eq(main_program, &maps->mappings[maps->main_index]);
	ck_assert_int_eq((int)main_program->kind, MAPPING_FILE);
	ck_assert_int_eq(stat("/proc/self/exe", &st), 0);
	ck_assert_uint_eq(main_program->file->identity.inode, st.st_ino);
	ck_assert_ptr_null(maps_find(maps, (uint64_t)(uintptr_t)&st)); /* the stack is not executable */
	unsigned vdso = 0;
	for (size_t i = 0; i < maps->n; i++)
		if (maps->mappings[i].kind == MAPPING_VDSO) {
			vdso++;
			ck_assert_str_eq(maps->mappings[i].name, "[vdso]");
			ck_assert_ptr_null(maps->mappings[i].file);
		}
	ck_assert_uint_eq(vdso, 1);
	maps_unref(maps);
	ck_assert_uint_eq(file_registry_count(files), 0);
	file_registry_free(files);
}
END_TEST

START_TEST(kinds_of_memory)
{
	enum { PAGE = 4096 };
	char path[] = "/tmp/sprof-test-maps-XXXXXX";
	int fd = mkstemp(path);
	ck_assert_int_eq(ftruncate(fd, PAGE), 0);
	void *deleted = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	unlink(path);
	int memfd = memfd_create("jit", 0);
	ck_assert_int_eq(ftruncate(memfd, 2 * PAGE), 0);
	void *jit = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, memfd, PAGE);
	void *anonymous = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *data = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct file_registry *files = file_registry_new(100);
	struct maps *maps;
	ck_assert_int_eq(proc_maps_read(getpid(), files, &maps), 0);

	struct stat st;
	fstat(fd, &st);
	const struct mapping *mapping = mapping_of(maps, deleted);
	ck_assert_int_eq((int)mapping->kind, MAPPING_FILE);
	ck_assert_str_eq(mapping->name, path);
	if (geteuid() == 0) { /* through map_files */
		ck_assert_ptr_nonnull(mapping->file);
		ck_assert_uint_eq(mapping->file->identity.inode, st.st_ino);
	}
	mapping = mapping_of(maps, jit);
	ck_assert_int_eq((int)mapping->kind, MAPPING_FILE);
	ck_assert_str_eq(mapping->name, "/memfd:jit");
	ck_assert_uint_eq(mapping->file_offset, PAGE);
	mapping = mapping_of(maps, anonymous);
	ck_assert_int_eq((int)mapping->kind, MAPPING_ANONYMOUS);
	ck_assert_ptr_null(mapping->file);
	ck_assert_uint_eq(mapping->file_offset, 0);
	ck_assert_ptr_null(mapping_of(maps, data));
	maps_unref(maps);
	file_registry_free(files);
	munmap(deleted, PAGE);
	munmap(jit, PAGE);
	munmap(anonymous, PAGE);
	munmap(data, PAGE);
	close(fd);
	close(memfd);
}
END_TEST

START_TEST(a_file_that_took_the_path_is_not_taken)
{
	enum { PAGE = 4096 };
	char path[] = "/tmp/sprof-test-maps-XXXXXX";
	int fd = mkstemp(path);
	ck_assert_int_eq(ftruncate(fd, PAGE), 0);
	struct stat mapped;
	fstat(fd, &mapped);
	void *code = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	unlink(path);
	int usurper = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
	struct file_registry *files = file_registry_new(100);
	struct maps *maps;
	ck_assert_int_eq(proc_maps_read(getpid(), files, &maps), 0);
	const struct mapping *mapping = mapping_of(maps, code);
	if (mapping->file)
		ck_assert_uint_eq(mapping->file->identity.inode, mapped.st_ino);
	maps_unref(maps);
	file_registry_free(files);
	munmap(code, PAGE);
	unlink(path);
	close(usurper);
	close(fd);
}
END_TEST

START_TEST(who_is_gone)
{
	struct file_registry *files = file_registry_new(100);
	struct maps *maps = NULL;
	ck_assert_int_eq(proc_maps_read(0x3fffffff, files, &maps), -ESRCH);
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	siginfo_t info;
	waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
	int r = proc_maps_read(child, files, &maps); /* a zombie has no memory */
	if (r == 0)
		ck_assert_uint_eq(maps->n, 0);
	else
		ck_assert_int_eq(r, -ESRCH);
	maps_unref(maps);
	waitpid(child, NULL, 0);
	ck_assert_uint_eq(file_registry_count(files), 0);
	file_registry_free(files);
}
END_TEST

START_TEST(the_budget_of_fds_leaves_mappings_whole)
{
	struct file_registry *files = file_registry_new(1);
	struct maps *maps;
	ck_assert_int_eq(proc_maps_read(getpid(), files, &maps), 0);
	unsigned with_fd = 0, with_file = 0;
	for (size_t i = 0; i < maps->n; i++) {
		with_file += maps->mappings[i].file != NULL;
		with_fd += maps->mappings[i].file && maps->mappings[i].file->fd >= 0;
	}
	ck_assert_uint_ge(with_file, 2);
	ck_assert_uint_eq(with_fd, 1);
	maps_unref(maps);
	file_registry_free(files);
}
END_TEST

CHECK_MAIN("proc_maps", 30, lines_of_the_kernel, lines_of_nobody, reads_this_very_process, kinds_of_memory,
	   a_file_that_took_the_path_is_not_taken, who_is_gone, the_budget_of_fds_leaves_mappings_whole)
