#include "collect/process_place.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "collect/process.h"

enum { PATH_BYTES = 64 };

void process_place_read(pid_t pid, struct process_place *ret)
{
	char path[PATH_BYTES];
	struct stat st;
	*ret = PROCESS_PLACE_UNKNOWN;
	snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
	ret->root_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) == 0)
		ret->user = st.st_uid;
	(void)process_inner_tid(pid, pid, &ret->inner_pid);
}
