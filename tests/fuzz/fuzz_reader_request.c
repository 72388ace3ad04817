/* Requests to the reader, one after the other: each begins with two bytes of length, and the bits of a third say whether an fd (of
 * some program, or of no ELF file) and a memfd for a table come along. Each must be answered, by a reply that can be read. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "elf/requests.h"
#include "proto/reader_limits.h"
#include "reader.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int fd_of(uint8_t kind)
{
	if (!(kind & 1))
		return -1;
	return open(kind & 2 ? "/etc/hostname" : "/bin/true", O_RDONLY | O_CLOEXEC);
}

/* A memfd of some size for a table, with the third bit. */
static int table_fd_of(uint8_t kind)
{
	int fd = kind & 4 ? memfd_create("table", MFD_CLOEXEC) : -1;
	if (fd >= 0 && ftruncate(fd, kind & 8 ? 1 << 20 : 64) < 0)
		__builtin_trap();
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t reply[READER_MESSAGE_MAX_BYTES];
	struct requests *requests = requests_new();
	while (requests && size >= 3) {
		size_t bytes = data[0] | (size_t)data[1] << 8;
		if (bytes > size - 3)
			bytes = size - 3;
		size_t n = requests_handle(requests, data + 3, bytes,
					   (const int[READER_FDS_MAX]){fd_of(data[2]), table_fd_of(data[2])}, reply);
		Sprof__Reader__Reply *answer =
			n > 0 && n <= sizeof(reply) ? sprof__reader__reply__unpack(NULL, n, reply) : NULL;
		if (!answer)
			__builtin_trap();
		sprof__reader__reply__free_unpacked(answer, NULL);
		data += 3 + bytes;
		size -= 3 + bytes;
	}
	requests_free(requests);
	return 0;
}
