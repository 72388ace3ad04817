#include "elf/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bpf/cfi_table.h"
#include "proto/reader_limits.h"

enum { NOBODY = 65534, FDS_MAX = 256, MEMORY_MAX_MIB = 2048, ADDRESS_SPACE_MAX_MIB = 32768 };

_Static_assert(READER_SOCKET_FD + 1 == 4 && (FDS_MAX & (FDS_MAX - 1)) == 0, "see allow_but_on_stderr");

/* Root's files are readable without any capability. In a container the other ids may not exist, or root may not be able to become them. */
static int leave_root(struct error *err)
{
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 && errno != EPERM && errno != EINVAL)
		return error_set(err, errno, "cannot drop groups: %s", strerror(errno));
	if (setresgid(NOBODY, NOBODY, NOBODY) < 0 && errno != EPERM && errno != EINVAL)
		return error_set(err, errno, "cannot change group: %s", strerror(errno));
	if (setresuid(NOBODY, NOBODY, NOBODY) < 0 && errno != EPERM && errno != EINVAL)
		return error_set(err, errno, "cannot change user: %s", strerror(errno));
	return 0;
}

/* Before leave_root, which takes CAP_SETPCAP. Without that capability the set stays; no_new_privs makes it worthless. */
static void drop_bounding_set(void)
{
	for (unsigned long capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++)
		;
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static int drop_capabilities(struct error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
	if (syscall(SYS_capset, &header, none) < 0)
		return error_set(err, errno, "cannot drop capabilities: %s", strerror(errno));
	return 0;
}

/* What sprofd was given less of stays so: limits are only ever lowered here. */
static int set_limit(__rlimit_resource_t resource, rlim_t value, struct error *err)
{
	struct rlimit limit;
	if (getrlimit(resource, &limit) == 0 && limit.rlim_max < value)
		value = limit.rlim_max;
	limit = (struct rlimit){.rlim_cur = value, .rlim_max = value};
	if (setrlimit(resource, &limit) < 0)
		return error_set(err, errno, "cannot set a resource limit: %s", strerror(errno));
	return 0;
}

static int set_limits(struct error *err)
{
	int r = set_limit(RLIMIT_CORE, 0, err);
	if (r == 0)
		r = set_limit(RLIMIT_NPROC, 0, err);
	if (r == 0)
		r = set_limit(RLIMIT_NOFILE, FDS_MAX, err);
#ifndef SPROF_SANITIZE /* the shadow takes terabytes of addresses; a report is written to stderr, which may be a file */
	if (r == 0)
		r = set_limit(RLIMIT_FSIZE, CFI_MAX_TABLE_BYTES, err);
	/* Files are mapped: addresses cost nothing, writable memory does. */
	if (r == 0)
		r = set_limit(RLIMIT_DATA, (rlim_t)MEMORY_MAX_MIB << 20, err);
	if (r == 0)
		r = set_limit(RLIMIT_AS, (rlim_t)ADDRESS_SPACE_MAX_MIB << 20, err);
#endif
	return r;
}

static int allow_all(scmp_filter_ctx filter, const int *calls, size_t n)
{
	int r = 0;
	for (size_t i = 0; i < n && r == 0; i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
	return r;
}

/* mmap and mprotect, but never of code, and no mapping through which a file is written. */
static int allow_memory(scmp_filter_ctx filter)
{
#ifdef SPROF_SANITIZE
	static const int calls[] = {SCMP_SYS(mmap), SCMP_SYS(mprotect)};
	return allow_all(filter, calls, sizeof(calls) / sizeof(calls[0]));
#else
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
				 SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_TYPE, MAP_PRIVATE));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return r;
#endif
}

/* A call on any fd but stderr, whose log may be a file, and the socket. Not by SCMP_CMP_NE: that looks at 64 bits, the kernel at the low 32, and
 * 2^32 + 2 would pass. So the fds are 0 and 1, and those from a power of two up to the next, from 4 on. */
static int allow_but_on_stderr(scmp_filter_ctx filter, int call)
{
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_MASKED_EQ, ~UINT64_C(1), 0));
	for (uint64_t first = READER_SOCKET_FD + 1; first < FDS_MAX && r == 0; first *= 2)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A0(SCMP_CMP_MASKED_EQ, ~(first - 1), first));
	return r;
}

static int allow_files(scmp_filter_ctx filter)
{
	/* glibc's fstat is newfstatat(fd, "", ..., AT_EMPTY_PATH). The string cannot be checked here: what is left is to learn the
	 * metadata of paths, not to open them. */
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
				 SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH, 0));
	if (r == 0) /* libelf asks whether its fd is open */
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, F_GETFD, 0));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, F_GETFL, 0));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(write), 1,
				     SCMP_A0(SCMP_CMP_EQ, STDERR_FILENO, 0));
	if (r == 0) /* an unwind table, into sprofd's memfd: of the other fds only stderr's may be writable */
		r = allow_but_on_stderr(filter, SCMP_SYS(pwrite64));
	if (r == 0) /* where the log goes on is sprofd's matter too */
		r = allow_but_on_stderr(filter, SCMP_SYS(lseek));
	return r;
}

static int allow_sanitizer(scmp_filter_ctx filter)
{
#ifdef SPROF_SANITIZE
	static const int calls[] = {SCMP_SYS(sigaltstack), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
				    SCMP_SYS(sched_yield), SCMP_SYS(gettid),       SCMP_SYS(getpid),
				    SCMP_SYS(getrlimit),   SCMP_SYS(prlimit64),    SCMP_SYS(read),
				    SCMP_SYS(getrusage),   SCMP_SYS(tgkill),       SCMP_SYS(sched_getaffinity)};
	/* A report looks for /proc/self/maps and a symbolizer: it does without. */
	static const int refused[] = {SCMP_SYS(open),  SCMP_SYS(openat), SCMP_SYS(readlink), SCMP_SYS(pipe),
				      SCMP_SYS(clone), SCMP_SYS(fork),   SCMP_SYS(stat)};
	int r = allow_all(filter, calls, sizeof(calls) / sizeof(calls[0]));
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]) && r == 0; i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
	return r;
#else
	(void)filter;
	return 0;
#endif
}

static void release_filter(scmp_filter_ctx *filter)
{
	seccomp_release(*filter);
}

static int filter_calls(struct error *err)
{
	/* sysinfo: glibc's qsort asks how much memory there is. */
	static const int calls[] = {
		SCMP_SYS(recvmsg),       SCMP_SYS(sendmsg),         SCMP_SYS(munmap),  SCMP_SYS(mremap),
		SCMP_SYS(brk),           SCMP_SYS(madvise),         SCMP_SYS(pread64), SCMP_SYS(fstat),
		SCMP_SYS(close),         SCMP_SYS(alarm),           SCMP_SYS(exit),    SCMP_SYS(exit_group),
		SCMP_SYS(rt_sigreturn),  SCMP_SYS(restart_syscall), SCMP_SYS(futex),   SCMP_SYS(getrandom),
		SCMP_SYS(clock_gettime), SCMP_SYS(sysinfo),
	};
	_cleanup_(release_filter) scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!filter)
		return error_set(err, ENOMEM, "cannot prepare the seccomp filter: out of memory");
	int r = allow_all(filter, calls, sizeof(calls) / sizeof(calls[0]));
	if (r == 0)
		r = allow_memory(filter);
	if (r == 0)
		r = allow_files(filter);
	if (r == 0)
		r = allow_sanitizer(filter);
	if (r == 0)
		r = seccomp_load(filter);
	return r == 0 ? 0 : error_set(err, -r, "cannot load the seccomp filter: %s", strerror(-r));
}

int sandbox_enter(struct error *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_set(err, errno, "cannot set no_new_privs: %s", strerror(errno));
	drop_bounding_set();
	int r = leave_root(err);
	if (r == 0)
		r = drop_capabilities(err);
	/* After the change of user, which resets it. */
	if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = error_set(err, errno, "cannot become undumpable: %s", strerror(errno));
	if (r == 0)
		r = set_limits(err);
	return r < 0 ? r : filter_calls(err);
}
