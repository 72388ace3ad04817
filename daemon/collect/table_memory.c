#include "collect/table_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

int table_memory_device(uint32_t *ret_major, uint32_t *ret_minor)
{
	struct stat st;
	_cleanup_close_ int fd = memfd_create("sprofd", MFD_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	*ret_major = major(st.st_dev);
	*ret_minor = minor(st.st_dev);
	return 0;
}

/* Told by what the kernel knows itself: a file system in user space might never answer. 0; -EAGAIN: it is no memfd. */
static int check_memfd(int place)
{
	struct statx found;
	uint32_t device_major = 0, device_minor = 0;
	int r = table_memory_device(&device_major, &device_minor);
	if (r < 0)
		return r;
	if (statx(place, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &found) < 0)
		return -errno;
	bool is_memfd =
		S_ISREG(found.stx_mode) && found.stx_dev_major == device_major && found.stx_dev_minor == device_minor;
	return is_memfd ? 0 : -EAGAIN;
}

static int not_mapped(pid_t tid)
{
	char path[32];
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)tid);
	return access(path, F_OK) < 0 ? -ESRCH : -EAGAIN;
}

int table_memory_open(pid_t tid, uint64_t start, uint64_t end, int *ret_fd)
{
	char path[128];
	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)tid, start, end);
	_cleanup_close_ int place = open(path, O_PATH | O_CLOEXEC);
	if (place < 0)
		return errno == ENOENT ? not_mapped(tid) : -errno;
	int r = check_memfd(place);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int table_memory_read(int fd, uint64_t offset, void *ret, size_t bytes)
{
	size_t done = 0;
	while (done < bytes) {
		ssize_t n = pread(fd, (char *)ret + done, bytes - done, (off_t)(offset + done));
		if (n == 0)
			return -EFAULT;
		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}
