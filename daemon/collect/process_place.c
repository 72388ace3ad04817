#include "collect/process_place.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { PATH_BYTES = 64 };

/* /proc tells ticks since boot. */
static uint64_t started_unix_ns(const struct process *process)
{
	struct timespec boot = {0};
	long ticks_per_s = sysconf(_SC_CLK_TCK);
	if (clock_gettime(CLOCK_BOOTTIME, &boot) < 0 || ticks_per_s <= 0)
		return 0;
	uint64_t up_ns = (uint64_t)boot.tv_sec * NS_PER_S + (uint64_t)boot.tv_nsec;
	uint64_t born_ns = process->start_ticks * (NS_PER_S / (uint64_t)ticks_per_s), now_ns = clock_realtime_ns();
	return born_ns <= up_ns && up_ns - born_ns < now_ns ? now_ns - (up_ns - born_ns) : 0;
}

void process_place_read(const struct process *process, struct process_place *ret)
{
	char path[PATH_BYTES];
	struct stat st;
	*ret = PROCESS_PLACE_UNKNOWN;
	snprintf(path, sizeof(path), "/proc/%d/root", (int)process->pid);
	ret->root_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d", (int)process->pid);
	if (stat(path, &st) == 0)
		ret->user = st.st_uid;
	(void)process_inner_tid(process->pid, process->pid, &ret->inner_pid);
	ret->started_unix_ns = started_unix_ns(process);
}
