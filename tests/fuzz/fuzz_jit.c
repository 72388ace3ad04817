/* What JITs write: the first byte says in which format. */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/utf8.h"
#include "elf/jit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
	size_t length = strlen(text);
	if (length > READER_NAME_MAX_BYTES)
		__builtin_trap();
	for (size_t at = 0, n = 0; at < length; at += n) {
		n = utf8_printable(text + at, length - at);
		if (n == 0)
			__builtin_trap();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct jit *jit = NULL;
	struct image_frame frame;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0)
		return 0;
	if (size == 0 || write(fd, data + 1, size - 1) != (ssize_t)size - 1) {
		close(fd);
		return 0;
	}
	if (jit_open(fd, data[0] & 1 ? JIT_DUMP : JIT_PERF_MAP, &jit) < 0)
		return 0;
	for (uint64_t address = 0; address < 0x8000; address += 0x80) {
		uint64_t until_ns = UINT64_MAX, place = jit_place_at(jit, address, address, &until_ns);
		if (until_ns <= address || (place && !jit_find_place(jit, place, &frame)))
			__builtin_trap();
		if (jit_find(jit, address, &frame)) {
			if (!frame.name[0])
				__builtin_trap();
			check_text(frame.name);
			check_text(frame.system_name);
			check_text(frame.filename);
		}
	}
	jit_free(jit);
	return 0;
}
