#include "collect/watch.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

int watch_open(pid_t tid, struct watch *ret)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_DUMMY,
		.disabled = 1,
		.inherit = 1, /* so that it ends with the last of the threads, and their events are swapped as before */
		.inherit_thread = 1,
	};
	/* Only an event with a buffer is polled to some purpose, and one that is inherited gets a buffer for one CPU alone
	   (kernel/events/core.c, perf_poll and perf_mmap). Nothing is ever written to it: its first page is enough. */
	_cleanup_close_ int fd = (int)syscall(SYS_perf_event_open, &attr, tid, 0, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return -errno;
	void *page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	*ret = (struct watch){.fd = TAKE_FD(fd), .page = page};
	return 0;
}

void watch_close(struct watch *watch)
{
	if (watch->fd < 0)
		return;
	munmap(watch->page, (size_t)sysconf(_SC_PAGESIZE));
	close(watch->fd);
	*watch = WATCH_NONE;
}
