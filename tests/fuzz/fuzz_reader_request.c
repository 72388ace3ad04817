/* Requests to the reader, one after the other: each begins with two bytes of length, and the lowest bit of a third says whether an fd (of
 * this fuzzer's own program, or of no ELF file) comes along. Each must be answered, by a reply that can be read. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t reply[READER_MESSAGE_MAX_BYTES];
	struct requests *requests = requests_new();
	while (requests && size >= 3) {
		size_t bytes = data[0] | (size_t)data[1] << 8;
		if (bytes > size - 3)
			bytes = size - 3;
		size_t n = requests_handle(requests, data + 3, bytes, fd_of(data[2]), reply);
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
