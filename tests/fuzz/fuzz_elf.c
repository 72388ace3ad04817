/* The reader's handling of a file's bytes, without its sandbox: open it, then name offsets all over it. libelf is not instrumented.
 * The same bytes are its debug file too, and dwz's, and those of its split DWARF. */
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

static void find_everywhere(struct image *image, size_t size)
{
	static struct image_name name;
	static struct image_frame frames[READER_FRAMES_MAX];
	size_t step = size / 256 ? size / 256 : 1;
	for (size_t offset = 0; offset < size + 2 * step; offset += step) {
		size_t n = image_find_frames(image, offset, frames);
		if (n > READER_FRAMES_MAX)
			__builtin_trap();
		for (size_t i = 0; i < n; i++) {
			check_text(frames[i].name);
			check_text(frames[i].system_name);
			if (frames[i].filename[0])
				check_text(frames[i].filename);
		}
		if (!image_find(image, offset, &name))
			continue;
		check_text(name.name);
		check_text(name.system_name);
	}
	(void)image_find(image, UINT64_MAX, &name);
}

static void attach(struct image *image, enum image_attachment kind, const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd >= 0 && write(fd, data, size) == (ssize_t)size)
		(void)image_attach(image, kind, fd);
	else if (fd >= 0)
		close(fd);
}

/* Gives it all that it wants, which must end. */
static void attach_split(struct image *image, const uint8_t *data, size_t size)
{
	static struct dwarf_wanted wanted[READER_SPLITS_MAX];
	uint64_t offsets[256];
	bool package = false;
	size_t n = 0, step = size / 256 ? size / 256 : 1;
	for (size_t i = 0; i < 256; i++)
		offsets[i] = i * step;
	for (int round = 0; round < 256 * 4 + 2; round++) {
		n = image_want(image, offsets, 256, wanted, READER_SPLITS_MAX, &package);
		if (n == 0 && !package)
			return;
		for (size_t i = 0; i < n; i++)
			check_text(wanted[i].path);
		attach(image, package ? ATTACH_PACKAGE : ATTACH_SPLIT, data, size);
	}
	__builtin_trap();
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
		for (enum image_attachment kind = ATTACH_DEBUG; kind <= ATTACH_ALT; kind++)
			attach(image, kind, data, size);
		find_everywhere(image, size);
		attach_split(image, data, size);
		find_everywhere(image, size);
		image_free(image);
	}
	return 0;
}
