#include "collect/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/cleanup.h"

enum { PF_EXITING_FLAG = 0x00000004, PF_KTHREAD_FLAG = 0x00200000 }; /* include/linux/sched.h */

/* Reads a small /proc file whole; NUL-terminated. Bytes read, or -errno. */
static ssize_t read_small(pid_t pid, const char *name, char *to, size_t bytes)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	size_t n = 0;
	while (n < bytes - 1) {
		ssize_t got = read(fd, to + n, bytes - 1 - n);
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	to[n] = '\0';
	return (ssize_t)n;
}

int process_parse_stat(const char *text, struct process *ret)
{
	struct process process = {0};
	const char *open = strchr(text, '('), *close = strrchr(text, ')'); /* the name itself may hold both */
	if (!open || !close || close < open || close[1] != ' ')
		return -EINVAL;
	size_t length = (size_t)(close - open - 1);
	if (length >= sizeof(process.comm))
		length = sizeof(process.comm) - 1;
	memcpy(process.comm, open + 1, length);
	unsigned flags;
	/* proc(5): 3 state, 9 flags, 20 num_threads, 22 starttime */
	if (sscanf(text, "%d", &process.pid) != 1 ||
	    sscanf(close + 2,
		   "%c %*d %*d %*d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %" SCNu32 " %*d %" SCNu64,
		   &process.state, &flags, &process.threads, &process.start_ticks) != 4)
		return -EINVAL;
	process.is_kernel_thread = flags & PF_KTHREAD_FLAG;
	process.is_exiting = flags & PF_EXITING_FLAG;
	*ret = process;
	return 0;
}

/* The number after "Key:" at a line's start in /proc/PID/status; index counts the numbers of the line from 0. */
static int status_number(const char *status, const char *key, int index, int base, uint64_t *ret)
{
	size_t length = strlen(key);
	for (const char *line = status; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, length) != 0 || line[length] != ':')
			continue;
		const char *at = line + length + 1;
		char *end = NULL;
		for (int i = 0; i <= index; i++, at = end) {
			at += strspn(at, " \t");
			errno = 0;
			*ret = strtoull(at, &end, base);
			if (end == at || errno)
				return -EINVAL;
		}
		return 0;
	}
	return -EINVAL;
}

int process_read(pid_t pid, struct process *ret)
{
	char stat[2048] = "", status[8192] = "";
	ssize_t n = read_small(pid, "stat", stat, sizeof(stat));
	if (n < 0)
		return (int)n;
	struct process process;
	uint64_t tgid;
	if (process_parse_stat(stat, &process) < 0)
		return -EINVAL;
	n = read_small(pid, "status", status, sizeof(status));
	if (n < 0)
		return (int)n;
	if (status_number(status, "Tgid", 0, 10, &tgid) < 0)
		return -EINVAL;
	process.tgid = (pid_t)tgid;
	*ret = process;
	return 0;
}

uint64_t process_start_stack(pid_t tid)
{
	enum { FIELDS_BETWEEN = 28 - 3 }; /* proc(5): 3 state, 28 startstack */
	char stat[2048] = "";
	if (read_small(tid, "stat", stat, sizeof(stat)) <= 0)
		return 0;
	const char *at = strrchr(stat, ')');
	at = at && at[1] == ' ' ? at + 2 : NULL;
	for (int i = 0; at && i < FIELDS_BETWEEN; i++) {
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	return at ? strtoull(at, NULL, 10) : 0;
}

static int judge(pid_t pid, const struct process *process, struct error *err)
{
	if (process->is_kernel_thread)
		return error_set(
			err, EOPNOTSUPP,
			"process %d (%s) is a kernel thread: it has no user stacks; use perf to profile the kernel",
			pid, process->comm);
	if (process->tgid != pid)
		return error_set(err, EINVAL, "%d is a thread of process %d: attach %d, all its threads are sampled",
				 pid, process->tgid, process->tgid);
	return 0;
}

static int gone(pid_t pid, struct error *err)
{
	return error_set(err, ESRCH, "no process %d: see `ps -e` for those that run", pid);
}

int process_open(pid_t pid, int *ret_pidfd, struct process *ret, struct error *err)
{
	struct process process, again;
	int r = process_read(pid, &process);
	if (r < 0)
		return r == -ESRCH ? gone(pid, err) : error_set(err, -r, "cannot read /proc/%d: %s", pid, strerror(-r));
	r = judge(pid, &process, err);
	if (r < 0)
		return r;
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return errno == ESRCH ? gone(pid, err)
				      : error_set(err, errno, "cannot open process %d: %s", pid, strerror(errno));
	/* It may go while we look, and the number may be another's by now. A leader in state Z whose threads go on has not exited. */
	if (process_read(pid, &again) < 0 || again.start_ticks != process.start_ticks)
		return gone(pid, err);
	if (process_has_exited(pidfd))
		return error_set(err, ESRCH, "process %d (%s) has exited already (%s): nothing is left to sample", pid,
				 again.comm, again.state == 'Z' ? "it is a zombie" : "just now");
	*ret = again;
	*ret_pidfd = TAKE_FD(pidfd);
	return 0;
}

uint64_t process_cpu_ns(pid_t pid)
{
	clockid_t clock;
	struct timespec now;
	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &now) < 0)
		return 0;
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool process_has_exited(int pidfd)
{
	struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
	return poll(&poll_fd, 1, 0) > 0;
}

void process_cgroup(pid_t pid, char *ret, size_t bytes)
{
	char text[8192];
	ret[0] = '\0';
	if (read_small(pid, "cgroup", text, sizeof(text)) <= 0)
		return;
	char *rest = text, *line;
	while ((line = strsep(&rest, "\n"))) { /* hierarchy:controllers:path; version 2 is "0::path" */
		char *path = strchr(line, ':');
		path = path ? strchr(path + 1, ':') : NULL;
		if (!path)
			continue;
		bool unified = !strncmp(line, "0::", 3);
		if (unified || !ret[0])
			snprintf(ret, bytes, "%s", path + 1);
		if (unified && strcmp(path + 1, "/") != 0)
			return;
	}
}

/* Whether it is in the namespace of this kind that we are in; false when that cannot be seen. */
static bool same_namespace(pid_t pid, const char *kind)
{
	char path[64], own[64];
	struct stat theirs, ours;
	snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kind);
	snprintf(own, sizeof(own), "/proc/self/ns/%s", kind);
	return stat(path, &theirs) == 0 && stat(own, &ours) == 0 && theirs.st_ino == ours.st_ino &&
	       theirs.st_dev == ours.st_dev;
}

bool process_shares_time(pid_t pid)
{
	return access("/proc/self/ns/time", F_OK) < 0 ||
	       same_namespace(pid, "time"); /* a kernel without them has one time */
}

pid_t process_living_thread(pid_t pid)
{
	struct process process;
	char path[64];
	if (process_read(pid, &process) < 0 || process.state != 'Z')
		return pid;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	_cleanup_closedir_ DIR *directory = opendir(path);
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (tid > 0 && process_read_thread(pid, tid, &process) == 0 && process.state != 'Z')
			return tid;
	}
	return pid;
}

int process_read_thread(pid_t pid, pid_t tid, struct process *ret)
{
	char name[64], stat[2048] = "";
	struct process process;
	snprintf(name, sizeof(name), "task/%d/stat", (int)tid);
	ssize_t n = read_small(pid, name, stat, sizeof(stat));
	if (n < 0)
		return (int)n;
	if (process_parse_stat(stat, &process) < 0)
		return -EINVAL;
	process.tgid = pid;
	*ret = process;
	return 0;
}

int process_inner_tid(pid_t pid, pid_t tid, uint32_t *ret)
{
	char name[64], status[8192] = "";
	uint64_t number = 0, next;
	snprintf(name, sizeof(name), "task/%d/status", (int)tid);
	ssize_t n = read_small(pid, name, status, sizeof(status));
	if (n < 0)
		return (int)n;
	int level = 0; /* the outermost namespace first: fs/proc/array.c, task_state */
	for (; status_number(status, "NSpid", level, 10, &next) == 0; level++)
		number = next;
	if (level == 0 || number == 0 || number > UINT32_MAX)
		return -EINVAL;
	*ret = (uint32_t)number;
	return 0;
}

bool process_is_wholly_own(pid_t pid, uid_t uid, gid_t gid)
{
	char status[8192] = "", path[64];
	if (read_small(pid, "status", status, sizeof(status)) < 0)
		return false;
	for (int i = 0; i < 3; i++) { /* real, effective, saved: kernel/ptrace.c, __ptrace_may_access */
		uint64_t their_uid, their_gid;
		if (status_number(status, "Uid", i, 10, &their_uid) < 0 || their_uid != uid ||
		    status_number(status, "Gid", i, 10, &their_gid) < 0 || their_gid != gid)
			return false;
	}
	uint64_t capabilities;
	if (status_number(status, "CapPrm", 0, 16, &capabilities) < 0 || capabilities != 0)
		return false;
	/* fs/proc/base.c, task_dump_owner: the files of a process that is not dumpable belong to root. */
	struct stat st;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	return stat(path, &st) == 0 && st.st_uid == uid && st.st_gid == gid && same_namespace(pid, "user");
}

bool process_whole_owner(pid_t pid, uid_t *ret_uid, gid_t *ret_gid)
{
	char path[64];
	struct stat st;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	if (stat(path, &st) < 0 || !process_is_wholly_own(pid, st.st_uid, st.st_gid))
		return false;
	*ret_uid = st.st_uid;
	*ret_gid = st.st_gid;
	return true;
}
