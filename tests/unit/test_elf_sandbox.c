/* That the sandbox holds: each child enters it, tries one thing, and must be killed for it by SIGSYS, or live. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bpf/cfi_table.h"
#include "elf/sandbox.h"
#include "proto/reader_limits.h"

static int file_fd, socket_fd, memory_fd, growing_fd;

/* The status of a child that enters the sandbox and then does action, whose result is its exit code. */
static int run(int (*action)(void))
{
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		struct error err;
		if (sandbox_enter(&err) < 0) {
			fprintf(stderr, "%s\n", err.text);
			_exit(99);
		}
		_exit(action());
	}
	int status = 0;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void expect_killed(int (*action)(void), const char *what)
{
	int status = run(action);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s: status 0x%x", what, status);
}
#define KILLED(action) expect_killed(action, #action)

static void expect_fine(int (*action)(void), const char *what)
{
	int status = run(action);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status 0x%x", what, status);
}
#define FINE(action) expect_fine(action, #action)

static int nothing(void)
{
	return 0;
}

static int read_file(void)
{
	char byte = 0;
	struct stat st;
	if (pread(file_fd, &byte, 1, 0) != 1 || fstat(file_fd, &st) != 0 || byte != 0x7f)
		return 1;
	return lseek(file_fd, 0, SEEK_END) != st.st_size;
}

static int use_memory(void)
{
	volatile char *large = malloc(64 << 20);
	if (!large)
		return 1;
	for (size_t i = 0; i < 64 << 20; i += 4096)
		large[i] = 1;
	free((char *)large);
	return 0;
}

static int compare_ints(const void *left, const void *right)
{
	const int *a = left, *b = right;
	return (*a > *b) - (*a < *b);
}

static int sort_much(void)
{
	static int numbers[100000];
	for (int i = 0; i < 100000; i++)
		numbers[i] = i * 7919 % 100003;
	qsort(numbers, 100000, sizeof(numbers[0]), compare_ints);
	return numbers[0] > numbers[99999];
}

static int exchange(void)
{
	char byte = 'x';
	struct iovec data = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	return sendmsg(socket_fd, &message, MSG_NOSIGNAL) != 1;
}

/* How an unwind table is handed over. */
static int write_memory(void)
{
	return pwrite(memory_fd, "y", 1, 8190) != 1;
}

static int write_beyond_memory(void)
{
	return pwrite(memory_fd, "y", 1, 8192) >= 0 || errno != EPERM;
}

START_TEST(what_it_needs)
{
	FINE(nothing);
	FINE(read_file);
	FINE(use_memory);
	FINE(exchange);
	FINE(sort_much);
	FINE(write_memory);
	FINE(write_beyond_memory);
	char byte = 0;
	ck_assert_int_eq(pread(memory_fd, &byte, 1, 8190), 1);
	ck_assert_int_eq(byte, 'y');
	ck_assert_int_eq(pread(memory_fd, &byte, 1, 8191), 1);
	ck_assert_int_eq(byte, 0);
}
END_TEST

static int run_program(void)
{
	char *arguments[] = {"true", NULL};
	return execve("/bin/true", arguments, NULL);
}

static int open_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0) < 0;
}

static int trace_parent(void)
{
	return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) < 0;
}

static int signal_parent(void)
{
	return kill(1, 0) < 0;
}

static int become_root(void)
{
	return setuid(0) < 0;
}

static int make_memfd(void)
{
	return memfd_create("x", 0) < 0;
}

static int read_other_memory(void)
{
	return syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0) < 0;
}

static int start_ring(void)
{
	return syscall(SYS_io_uring_setup, 1, NULL) < 0;
}

static int write_file(void)
{
	return write(file_fd, "x", 1) < 0;
}

/* The log may be a file. */
static int write_into_log(void)
{
	return pwrite(STDERR_FILENO, "x", 1, 0) < 0;
}

/* The kernel looks at the low 32 bits of the fd alone. */
static int write_into_log_by_another_number(void)
{
	return syscall(SYS_pwrite64, (1L << 32) + STDERR_FILENO, "x", 1L, 0L) < 0;
}

/* So that what is logged next, by sprofd too, is written over what was logged before. */
static int rewind_log(void)
{
	return lseek(STDERR_FILENO, 0, SEEK_SET) < 0;
}

static int rewind_log_by_another_number(void)
{
	return syscall(SYS_lseek, (1L << 32) + STDERR_FILENO, 0L, (long)SEEK_SET) < 0;
}

static int resize_memory(void)
{
	return ftruncate(memory_fd, 4096) < 0;
}

static int seal_memory(void)
{
	return fcntl(memory_fd, F_ADD_SEALS, F_SEAL_WRITE) < 0;
}

START_TEST(what_it_never_needs)
{
	KILLED(run_program);
	KILLED(open_socket);
	KILLED(trace_parent);
	KILLED(signal_parent);
	KILLED(become_root);
	KILLED(make_memfd);
	KILLED(read_other_memory);
	KILLED(start_ring);
	KILLED(write_file);
	KILLED(write_into_log);
	KILLED(write_into_log_by_another_number);
	KILLED(rewind_log);
	KILLED(rewind_log_by_another_number);
	KILLED(resize_memory);
	KILLED(seal_memory);
}
END_TEST

#ifndef SPROF_SANITIZE /* a sanitizer's report tries these: there they only fail */
static int open_path(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0;
}

static int open_path_directly(void)
{
	return syscall(SYS_open, "/etc/passwd", O_RDONLY) < 0;
}

static int fork_child(void)
{
	return fork() < 0;
}

static int map_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}

static int make_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0;
}

static int share_memory(void)
{
	return mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0) == MAP_FAILED;
}

static int write_far(void)
{
	return pwrite(growing_fd, "x", 1, CFI_MAX_TABLE_BYTES - 1) != 1;
}

static int write_too_far(void)
{
	return pwrite(growing_fd, "x", 1, CFI_MAX_TABLE_BYTES) < 0;
}

static int ask_for_too_much(void)
{
	return malloc((size_t)4 << 30) != NULL;
}

START_TEST(what_a_sanitizer_would_need)
{
	KILLED(open_path);
	KILLED(open_path_directly);
	KILLED(fork_child);
	KILLED(map_code);
	KILLED(make_code);
	KILLED(share_memory);
	FINE(ask_for_too_much);
	FINE(write_far);
	int status = run(write_too_far);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ, "status 0x%x", status);
}
END_TEST
#else
static int try_to_open(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0 || errno != EPERM;
}

START_TEST(what_a_sanitizer_would_need)
{
	FINE(try_to_open);
}
END_TEST
#endif

static int wait_for_end(void)
{
	exchange();
	char byte = 0;
	struct iovec data = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	return recvmsg(socket_fd, &message, 0) < 0;
}

static void read_status(pid_t pid, const char *key, char *out, size_t bytes)
{
	char path[64], line[256];
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	ck_assert_ptr_nonnull(file);
	out[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, key, strlen(key)) == 0)
			snprintf(out, bytes, "%s", line + strlen(key));
	}
}

START_TEST(state_of_the_process)
{
	int ends[2];
	char text[256], byte = 0;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(ends[0]);
		socket_fd = ends[1];
		if (sandbox_enter(NULL) < 0)
			_exit(99);
		_exit(wait_for_end());
	}
	close(ends[1]);
	ck_assert_int_eq(recv(ends[0], &byte, 1, 0), 1);
	read_status(pid, "NoNewPrivs:\t", text, sizeof(text));
	ck_assert_str_eq(text, "1");
	read_status(pid, "Seccomp:\t", text, sizeof(text));
	ck_assert_str_eq(text, "2");
	static const char *const sets[] = {"CapInh:\t", "CapPrm:\t", "CapEff:\t", "CapAmb:\t"};
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		read_status(pid, sets[i], text, sizeof(text));
		ck_assert_str_eq(text, "0000000000000000");
	}
	if (geteuid() == 0) { /* a container may have no such ids; then this is what tells us that we are in one */
		read_status(pid, "Uid:\t", text, sizeof(text));
		ck_assert_str_eq(text, "65534\t65534\t65534\t65534");
		read_status(pid, "Gid:\t", text, sizeof(text));
		ck_assert_str_eq(text, "65534\t65534\t65534\t65534");
		read_status(pid, "CapBnd:\t", text, sizeof(text));
		ck_assert_str_eq(text, "0000000000000000");
	}
	close(ends[0]);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

/* Where the sandbox does not take it for sprofd's socket. */
static int move_up(int fd)
{
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, READER_SOCKET_FD + 1);
	ck_assert_int_ge(moved, 0);
	close(fd);
	return moved;
}

static void setup(void)
{
	int ends[2];
	file_fd = move_up(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	socket_fd = ends[0];
	memory_fd = move_up(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	growing_fd = move_up(memfd_create("test", MFD_CLOEXEC));
	ck_assert_int_eq(ftruncate(memory_fd, 8192), 0);
	ck_assert_int_eq(fcntl(memory_fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK), 0);
}

int main(void)
{
	Suite *suite = suite_create("elf_sandbox");
	TCase *tests = tcase_create("sandbox");
	tcase_add_unchecked_fixture(tests, setup, NULL);
	tcase_add_test(tests, what_it_needs);
	tcase_add_test(tests, what_it_never_needs);
	tcase_add_test(tests, what_a_sanitizer_would_need);
	tcase_add_test(tests, state_of_the_process);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
