#include "app/privileges.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "app/access.h"

enum { HIGHEST_PARANOID_FOR_PERFMON = 2 };

static const int needed[] = {
	CAP_BPF,                /* load the program */
	CAP_PERFMON,            /* perf events on others, reading kernel memory in BPF */
	CAP_SYS_PTRACE,         /* /proc/PID/maps and the like */
	CAP_DAC_READ_SEARCH,    /* the targets' files */
	CAP_CHECKPOINT_RESTORE, /* /proc/PID/map_files */
	CAP_SYSLOG,             /* addresses in /proc/kallsyms */
};

static void set_bit(struct __user_cap_data_struct data[2], int capability)
{
	data[CAP_TO_INDEX(capability)].permitted |= CAP_TO_MASK(capability);
}

/* A directory of root's own needs no override. */
static int directory_is_ours(const char *socket_path)
{
	char copy[PATH_MAX];
	struct stat st;
	snprintf(copy, sizeof(copy), "%s", socket_path);
	return stat(dirname(copy), &st) == 0 && st.st_uid == geteuid();
}

void privileges_drop(const char *socket_path)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct had[2] = {0}, keep[2] = {0};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (syscall(SYS_capget, &header, had) < 0)
		return;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		set_bit(keep, needed[i]);
	if (!directory_is_ours(socket_path))
		set_bit(keep, CAP_DAC_OVERRIDE);
	/* Above 2, Debian's kernels open perf events for CAP_SYS_ADMIN alone, not for CAP_PERFMON. */
	if (access_perf_event_paranoid() > HIGHEST_PARANOID_FOR_PERFMON)
		set_bit(keep, CAP_SYS_ADMIN);
	for (int i = 0; i < 2; i++) {
		keep[i].permitted &= had[i].permitted;
		keep[i].effective = keep[i].permitted;
	}
	/* When this fails we have what we had, and everything works. */
	syscall(SYS_capset, &header, keep);
}
