#include "symbolize/unwind_memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "model/cfi_check.h"

int unwind_memfd_new(size_t bytes, int *ret_fd)
{
	_cleanup_close_ int fd = memfd_create("sprofd-unwind-table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int unwind_memfd_take(int fd, size_t n, struct scratch *scratch, struct unwind_table *ret)
{
	if (n < sizeof(struct cfi_table_header) || n > CFI_MAX_TABLE_BYTES)
		return -EBADMSG;
	scratch_reset(scratch);
	char *bytes = scratch_alloc(scratch, n);
	if (!bytes)
		return -ENOMEM;
	for (size_t done = 0; done < n;) {
		ssize_t got = pread(fd, bytes + done, n - done, (off_t)done);
		if (got < 0 && errno != EINTR)
			return -errno;
		if (got == 0)
			return -EBADMSG;
		done += got > 0 ? (size_t)got : 0;
	}
	if (!cfi_table_check(bytes, n))
		return -EBADMSG;
	*ret = (struct unwind_table){.bytes = bytes, .n_bytes = n};
	return 0;
}
