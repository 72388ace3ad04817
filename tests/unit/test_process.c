#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check_main.h"
#include "collect/process.h"

static const char plain[] = "1234 (name) S 1 1234 1234 0 -1 4194560 500 0 0 0 77 23 0 0 20 0 9 0 987654 1000 20 "
			    "18446744073709551615 1 2 3\n";

static void with_name(char *text, size_t bytes, const char *name)
{
	snprintf(text, bytes, "1234 (%s)%s", name, strchr(plain, ')') + 1);
}

START_TEST(a_plain_line)
{
	struct process process;
	ck_assert_int_eq(process_parse_stat(plain, &process), 0);
	ck_assert_int_eq(process.pid, 1234);
	ck_assert_int_eq(process.tgid, 0);
	ck_assert_str_eq(process.comm, "name");
	ck_assert_int_eq(process.state, 'S');
	ck_assert(!process.is_kernel_thread);
	ck_assert(!process.is_exiting);
	ck_assert_uint_eq(process.threads, 9);
	ck_assert_uint_eq(process.start_ticks, 987654);
}
END_TEST

START_TEST(names_are_chosen_by_the_hostile)
{
	static const char *const names[] = {
		"",     ")",    "(",  ") R 1 2 3", "a) Z 0 0 0 0 -1 2097152 0 0 0 0 9 9 0 0 20 0 1 0 1",
		"((((", "))))", "\n", "a\nb) S",   "\xff\xfe",
		"%s%n"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char text[512];
		struct process process;
		with_name(text, sizeof(text), names[i]);
		ck_assert_int_eq(process_parse_stat(text, &process), 0);
		ck_assert_str_eq(process.comm, names[i]);
		ck_assert_int_eq(process.state, 'S');
		ck_assert(!process.is_kernel_thread);
		ck_assert_uint_eq(process.start_ticks, 987654);
	}
}
END_TEST

START_TEST(long_names_are_cut)
{
	char name[300], text[600];
	struct process process;
	memset(name, 'k', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	with_name(text, sizeof(text), name);
	ck_assert_int_eq(process_parse_stat(text, &process), 0);
	ck_assert_uint_eq(strlen(process.comm), PROCESS_COMM_BYTES - 1);
}
END_TEST

START_TEST(kernel_threads_are_known_by_their_flag)
{
	struct process process;
	ck_assert_int_eq(
		process_parse_stat("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 6 0 0 20 0 1 0 2 0 0\n", &process), 0);
	ck_assert(process.is_kernel_thread);
}
END_TEST

START_TEST(what_is_no_stat_line)
{
	static const char *const texts[] = {"",
					    "1234",
					    "1234 name S 1 2 3",
					    "1234 (name S 1",
					    ")(",
					    "1234 (name)",
					    "1234 (name)S 1 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 9",
					    "x (name) S 1 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 9",
					    "1234 (name) S 1 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0",
					    "1234 (name) S 1 1 1 0 -1 x 0 0 0 0 1 1 0 0 20 0 1 0 9"};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct process process;
		memset(&process, 0x5a, sizeof(process));
		if (process_parse_stat(texts[i], &process) != -EINVAL || process.pid != 0x5a5a5a5a ||
		    process.comm[0] != 0x5a)
			ck_abort_msg("\"%s\"", texts[i]);
	}
}
END_TEST

START_TEST(every_cut_of_a_line)
{
	struct process process;
	size_t needed = (size_t)(strstr(plain, "987654") - plain) + 1; /* one digit of the last field that is read */
	for (size_t n = 0; n < sizeof(plain); n++) {
		char *text = strndup(plain, n);
		if ((process_parse_stat(text, &process) == 0) != (n >= needed))
			ck_abort_msg("%zu bytes", n);
		free(text);
	}
}
END_TEST

/* --- real processes --- */

struct child {
	pid_t pid;
	int release; /* closing it ends the child */
};

/* A child that runs prepare, then (unless it says otherwise) a program that waits for the end of its input. */
static struct child start(int (*prepare)(void), bool execute)
{
	int in[2], ready[2];
	char byte;
	ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(in[1]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (prepare && prepare() != 0)
			_exit(99);
		if (execute) {
			dup2(in[0], STDIN_FILENO);
			execl("/bin/cat", "cat", (char *)NULL); /* closes ready, too */
			_exit(98);
		}
		close(ready[0]);
		close(ready[1]);
		ssize_t got = read(in[0], &byte, 1);
		_exit(got != 0);
	}
	close(in[0]);
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 0);
	close(ready[0]);
	return (struct child){.pid = pid, .release = in[1]};
}

/* Its exit status. */
static int finish(struct child child)
{
	int status;
	close(child.release);
	ck_assert_int_eq(waitpid(child.pid, &status, 0), child.pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

START_TEST(reads_itself)
{
	struct process process;
	ck_assert_int_eq(process_read(getpid(), &process), 0);
	ck_assert_int_eq(process.pid, getpid());
	ck_assert_int_eq(process.tgid, getpid());
	ck_assert_int_eq(process.state, 'R');
	char comm[17] = "";
	prctl(PR_SET_NAME, "odd ) (\nname");
	prctl(PR_GET_NAME, comm);
	ck_assert_int_eq(process_read(getpid(), &process), 0);
	ck_assert_str_eq(process.comm, comm);
	ck_assert_int_eq(process_read(0x3fffffff, &process), -ESRCH);
}
END_TEST

START_TEST(reads_its_own_thread)
{
	struct process process;
	uint32_t tid = 0;
	ck_assert_int_eq(process_read_thread(getpid(), getpid(), &process), 0);
	ck_assert_int_eq(process.pid, getpid());
	ck_assert_int_eq(process.tgid, getpid());
	ck_assert_uint_gt(process.start_ticks, 0);
	ck_assert_int_eq(process_inner_tid(getpid(), getpid(), &tid), 0);
	ck_assert_uint_eq(tid, (uint32_t)getpid());
	ck_assert_int_eq(process_read_thread(getpid(), 1, &process), -ESRCH); /* of another process */
	ck_assert_int_eq(process_inner_tid(getpid(), 1, &tid), -ESRCH);
	ck_assert_int_eq(process_living_thread(getpid()), getpid());
	ck_assert(process_shares_time(getpid()));
}
END_TEST

START_TEST(opens_the_living_alone)
{
	struct process process;
	struct error err;
	int pidfd = -1;
	struct child child = start(NULL, true);
	ck_assert_int_eq(process_open(child.pid, &pidfd, &process, &err), 0);
	ck_assert_str_eq(process.comm, "cat");
	ck_assert_int_ge(pidfd, 0);
	ck_assert(!process_has_exited(pidfd));
	kill(child.pid, SIGKILL);
	siginfo_t info;
	waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOWAIT);
	ck_assert(process_has_exited(pidfd));
	close(pidfd);
	pidfd = -1;
	ck_assert_int_eq(process_open(child.pid, &pidfd, &process, &err), -ESRCH); /* a zombie */
	ck_assert_ptr_nonnull(strstr(err.text, "exited"));
	finish(child);
	ck_assert_int_eq(process_open(child.pid, &pidfd, &process, &err), -ESRCH);
	ck_assert_ptr_nonnull(strstr(err.text, "no process"));
	ck_assert_int_eq(pidfd, -1);
}
END_TEST

START_TEST(refuses_kernel_threads)
{
	struct process process;
	struct error err;
	int pidfd = -1;
	if (process_read(2, &process) < 0 || !process.is_kernel_thread) {
		puts("skipped: process 2 is no kernel thread here (a container)");
		return;
	}
	ck_assert_int_eq(process_open(2, &pidfd, &process, &err), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(err.text, "kernel thread"));
}
END_TEST

static _Atomic pid_t other_tid;
static int until_closed[2];

static void *wait_for_end(void *unused)
{
	char byte;
	other_tid = (pid_t)syscall(SYS_gettid);
	while (read(until_closed[0], &byte, 1) > 0)
		;
	return unused;
}

START_TEST(refuses_threads_and_names_their_process)
{
	struct process process;
	struct error err;
	int pidfd = -1;
	pthread_t thread;
	char number[16];
	ck_assert_int_eq(pipe(until_closed), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, wait_for_end, NULL), 0);
	while (!other_tid)
		usleep(1000);
	ck_assert_int_eq(process_open(other_tid, &pidfd, &process, &err), -EINVAL);
	snprintf(number, sizeof(number), "attach %d", (int)getpid());
	ck_assert_ptr_nonnull(strstr(err.text, number));
	close(until_closed[1]);
	pthread_join(thread, NULL);
}
END_TEST

START_TEST(who_exits_is_known_by_a_flag)
{
	struct process process;
	ck_assert_int_eq(process_parse_stat("1 (x) R 1 1 1 0 -1 4194564 0 0 0 0 0 0 0 0 20 0 1 0 5", &process), 0);
	ck_assert(process.is_exiting);
}
END_TEST

START_TEST(cpu_time_is_that_of_the_process)
{
	uint64_t before_ns = process_cpu_ns(getpid()), own_ns = 0;
	while (own_ns < before_ns + 20000000) {
		struct timespec now;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
		own_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	}
	uint64_t after_ns = process_cpu_ns(getpid());
	ck_assert_uint_gt(before_ns, 0);
	ck_assert_uint_ge(after_ns, own_ns);
	ck_assert_uint_lt(after_ns, own_ns + 100000000);
	ck_assert_uint_eq(process_cpu_ns(0x3ffffff), 0);
}
END_TEST

START_TEST(the_cgroup_is_a_path)
{
	char text[256], tiny[2];
	memset(text, 'x', sizeof(text));
	process_cgroup(getpid(), text, sizeof(text));
	ck_assert(text[0] == '/' || text[0] == '\0');
	process_cgroup(getpid(), tiny, sizeof(tiny));
	ck_assert_uint_le(strlen(tiny), 1);
	process_cgroup(0x3fffffff, text, sizeof(text));
	ck_assert_str_eq(text, "");
}
END_TEST

/* --- whose it is --- */

enum { NOBODY = 65534, SOMEBODY = 65533 };

static int become(uid_t real, uid_t effective, uid_t saved, gid_t group)
{
	return setresgid(group, group, group) || setresuid(real, effective, saved);
}
static int become_nobody(void)
{
	return become(NOBODY, NOBODY, NOBODY, NOBODY);
}
static int keep_saved_root(void)
{
	return become(NOBODY, NOBODY, 0, NOBODY);
}
static int be_effectively_another(void)
{
	return become(NOBODY, SOMEBODY, NOBODY, NOBODY);
}
static int be_of_another_group(void)
{
	return become(NOBODY, NOBODY, NOBODY, SOMEBODY);
}
static int hold_a_capability(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}, {0}};
	data[0].permitted = data[0].effective = data[0].inheritable = CAP_TO_MASK(CAP_NET_RAW);
	return prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || become_nobody() || syscall(SYS_capset, &header, data) ||
	       prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0);
}
static int be_not_dumpable(void)
{
	return become_nobody() || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
static int live_in_a_user_namespace(void)
{
	return become_nobody() || unshare(CLONE_NEWUSER) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static bool is_nobodys(int (*prepare)(void), bool execute)
{
	struct child child = start(prepare, execute);
	bool own = process_is_wholly_own(child.pid, NOBODY, NOBODY);
	bool other = process_is_wholly_own(child.pid, SOMEBODY, SOMEBODY);
	ck_assert_int_eq(finish(child), 0); /* it was what it was to be */
	ck_assert(!other);
	return own;
}

START_TEST(wholly_own_by_the_rule_of_ptrace)
{
	if (geteuid() != 0) {
		puts("skipped: needs root to change ids");
		return;
	}
	ck_assert(is_nobodys(become_nobody, true));
	ck_assert(!is_nobodys(NULL, true)); /* root's */
	ck_assert(!is_nobodys(keep_saved_root, false));
	ck_assert(!is_nobodys(be_effectively_another, true));
	ck_assert(!is_nobodys(be_of_another_group, true));
	ck_assert(!is_nobodys(hold_a_capability, true));
	ck_assert(!is_nobodys(be_not_dumpable, false));
	/* It gave its rights up, but has not executed since: it may still hold root's secrets. */
	ck_assert(!is_nobodys(become_nobody, false));
	ck_assert(!process_is_wholly_own(0x3fffffff, NOBODY, NOBODY));
}
END_TEST

START_TEST(not_in_another_user_namespace)
{
	if (geteuid() != 0) {
		puts("skipped: needs root to change ids");
		return;
	}
	pid_t probe = fork();
	if (probe == 0)
		_exit(live_in_a_user_namespace());
	int status;
	waitpid(probe, &status, 0);
	if (status != 0) {
		puts("skipped: no user namespaces here");
		return;
	}
	ck_assert(!is_nobodys(live_in_a_user_namespace, false));
}
END_TEST

CHECK_MAIN("process", 60, a_plain_line, names_are_chosen_by_the_hostile, long_names_are_cut,
	   kernel_threads_are_known_by_their_flag, what_is_no_stat_line, every_cut_of_a_line, reads_itself,
	   reads_its_own_thread, opens_the_living_alone, refuses_kernel_threads,
	   refuses_threads_and_names_their_process, who_exits_is_known_by_a_flag, cpu_time_is_that_of_the_process,
	   the_cgroup_is_a_path, wholly_own_by_the_rule_of_ptrace, not_in_another_user_namespace)
