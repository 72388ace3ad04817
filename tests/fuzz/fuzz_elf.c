/* The reader's handling of a file's bytes, without its sandbox: open it, then name offsets all over it. libelf is not instrumented. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/utf8.h"
#include "elf/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
	size_t length = strlen(text);
	if (length == 0 || length > READER_NAME_MAX_BYTES)
		__builtin_trap();
	for (size_t at = 0, n = 0; at < length; at += n) {
		n = utf8_printable(text + at, length - at);
		if (n == 0)
			__builtin_trap();
	}
}

static void find_everywhere(const struct image *image, size_t size)
{
	static struct image_name name;
	size_t step = size / 256 ? size / 256 : 1;
	for (size_t offset = 0; offset < size + 2 * step; offset += step) {
		if (!image_find(image, offset, &name))
			continue;
		check_text(name.name);
		check_text(name.system_name);
	}
	(void)image_find(image, UINT64_MAX, &name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image *image = NULL;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0)
		return 0;
	if (write(fd, data, size) != (ssize_t)size) {
		close(fd);
		return 0;
	}
	if (image_open(fd, &image) == 0) {
		if (strlen(image_build_id(image)) > 2 * READER_BUILD_ID_MAX_BYTES)
			__builtin_trap();
		find_everywhere(image, size);
		image_free(image);
	}
	return 0;
}
