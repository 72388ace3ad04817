#include "symbolize/vdso.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { VDSO_MAX_BYTES = 1 << 20, LINE_BYTES = 512 };

/* The mapping that begins at start, as /proc/self/maps has it: "start-end perms offset dev inode name". */
static int mapping_bytes(uintptr_t start, size_t *ret)
{
	_cleanup_fclose_ FILE *maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return -errno;
	char line[LINE_BYTES];
	while (fgets(line, sizeof(line), maps)) {
		uint64_t from = 0, to = 0;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64, &from, &to) != 2 || from != start) // NOLINT(cert-err34-c)
			continue;
		if (to <= from || to - from > VDSO_MAX_BYTES || !strstr(line, "[vdso]"))
			return -ENOENT;
		*ret = to - from;
		return 0;
	}
	return -ENOENT;
}

int vdso_copy(int *ret_fd, size_t *ret_bytes)
{
	uintptr_t start = getauxval(AT_SYSINFO_EHDR);
	size_t bytes = 0;
	int r = start ? mapping_bytes(start, &bytes) : -ENOENT;
	if (r < 0)
		return r;
	_cleanup_close_ int fd = memfd_create("sprofd-vdso", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	ssize_t written = write(fd, (const void *)start, bytes); // NOLINT(performance-no-int-to-ptr)
	if (written != (ssize_t)bytes)
		return written < 0 ? -errno : -EIO;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	*ret_bytes = bytes;
	return 0;
}
