/* What sprofd-elf says of a file, without its sandbox: reads file offsets (hex, one a line), writes for each its frames, innermost
 * first, "name\tsystem name\tfile\tline\tstart line" a line, and a line with a dot. For comparing with other tools.
 *   elf_names FILE [DEBUG-FILE [SUPPLEMENTARY-FILE]] < OFFSETS */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "elf/dwarf_sections.h"
#include "elf/image.h"

/* Attaches what there is of split DWARF for offset, as sprofd would: the package beside the program, then the single files. */
static void attach_split(struct image *image, const char *path, uint64_t offset)
{
	static struct dwarf_wanted wanted[4];
	static char package[4096];
	bool wants_package = false;
	size_t n = image_want(image, &offset, 1, wanted, 4, &wants_package);
	while (n || wants_package) {
		snprintf(package, sizeof(package), "%s.dwp", path);
		int fd = wants_package ? open(package, O_RDONLY | O_CLOEXEC) : -1;
		if (fd >= 0 && image_attach(image, ATTACH_PACKAGE, fd) < 0)
			fprintf(stderr, "elf_names: %s is refused\n", package);
		for (size_t i = 0; i < n; i++) {
			fd = open(wanted[i].path, O_RDONLY | O_CLOEXEC);
			if (fd >= 0 && image_attach(image, ATTACH_SPLIT, fd) < 0)
				fprintf(stderr, "elf_names: %s is refused\n", wanted[i].path);
		}
		n = image_want(image, &offset, 1, wanted, 4, &wants_package);
	}
}

int main(int argc, char **argv)
{
	struct image *image = NULL;
	int fd = argc >= 2 && argc <= 4 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0 || image_open(fd, &image) < 0) {
		fprintf(stderr, "usage: elf_names FILE [DEBUG-FILE [SUPPLEMENTARY-FILE]] < OFFSETS\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		enum image_attachment kind = i == 2 ? ATTACH_DEBUG : ATTACH_ALT;
		int r = image_attach(image, kind, open(argv[i], O_RDONLY | O_CLOEXEC));
		if (r < 0) {
			fprintf(stderr, "elf_names: %s: %s\n", argv[i], strerror(-r));
			return 1;
		}
	}
	(void)dwarf_sections_survive_truncation();
	static struct image_frame frames[READER_FRAMES_MAX];
	char line[64];
	while (fgets(line, sizeof(line), stdin)) {
		uint64_t offset = strtoull(line, NULL, 16);
		attach_split(image, argv[1], offset);
		size_t n = image_find_frames(image, offset, frames);
		for (size_t i = 0; i < n; i++)
			printf("%s\t%s\t%s\t%u\t%u\n", frames[i].name, frames[i].system_name, frames[i].filename,
			       frames[i].line, frames[i].start_line);
		puts(".");
		fflush(stdout);
	}
	image_free(image);
	return 0;
}
