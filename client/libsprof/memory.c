/* The memory of a table. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "internal.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* Linux 6.3 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

static int memfd_open(void)
{
	int fd = memfd_create(SPROF_TABLE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(SPROF_TABLE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

static int set_size(int fd, size_t bytes)
{
	struct rlimit limit;
	/* Beyond this limit ftruncate kills the program with SIGXFSZ. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < bytes)
		return -EFBIG;
	if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return 0;
}

static int map_shared(size_t bytes, void **ret_memory)
{
	int fd = memfd_open();
	if (fd < 0)
		return fd;
	int r = set_size(fd, bytes);
	if (r == 0) {
		void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (memory == MAP_FAILED) {
			r = -errno;
		} else if (madvise(memory, bytes, MADV_DONTFORK) < 0) {
			r = -errno;
			munmap(memory, bytes);
		} else {
			*ret_memory = memory;
		}
	}
	close(fd);
	return r;
}

void *table_map(size_t bytes, bool private, int *ret_publish_error)
{
	void *memory = NULL;
	int r = private ? -ECANCELED : map_shared(bytes, &memory);
	*ret_publish_error = r;
	if (r == 0)
		return memory;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

void table_unmap(void *memory, size_t bytes)
{
	if (memory)
		munmap(memory, bytes);
}

int table_lock_pages(void *memory, size_t bytes)
{
	if (mlock(memory, bytes) == 0)
		return 0;
	int r = -errno;
	madvise(memory, bytes, MADV_POPULATE_WRITE);
	return r;
}
