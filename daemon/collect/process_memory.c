#include "collect/process_memory.h"

#include <errno.h>
#include <sys/uio.h>

int process_memory_read(pid_t tid, uint64_t address, void *ret, size_t bytes)
{
	struct iovec local = {.iov_base = ret, .iov_len = bytes};
	struct iovec remote = {.iov_base = (void *)(uintptr_t)address, // NOLINT(performance-no-int-to-ptr)
			       .iov_len = bytes};
	ssize_t n = process_vm_readv(tid, &local, 1, &remote, 1, 0);
	if (n < 0)
		return -errno;
	return (size_t)n == bytes ? 0 : -EFAULT;
}
