/* Unwind tables from hostile files. Input that begins as an ELF file is one; other input is the content of .eh_frame (its length in the first
 * two bytes) and of .debug_frame of a file that is well-formed otherwise, so that the fuzzer does not have to find one. What is built must
 * be sound, and the same when built again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cfi_lookups.h"
#include "elf/cfi_build.h"
#include "unit/cfi_maker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of_sections(const uint8_t *data, size_t size)
{
	static struct maker maker;
	static struct cfi_bytes eh, debug;
	if (size < 2)
		return -1;
	size_t n_eh = data[0] | (size_t)data[1] << 8;
	data += 2;
	size -= 2;
	if (n_eh > size)
		n_eh = size;
	if (n_eh > CFI_FRAME_MAX_BYTES || size - n_eh > CFI_FRAME_MAX_BYTES)
		return -1;
	eh.n = debug.n = 0;
	cfi_put_bytes(&eh, data, n_eh);
	cfi_put_bytes(&debug, data + n_eh, size - n_eh);
	cfi_make_file(&maker, eh.n ? &eh : NULL, debug.n ? &debug : NULL);
	return maker_memfd(maker.bytes, maker.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct scratch scratch, other; /* kept, as sprofd-elf keeps its own */
	struct cfi_table table, again;
	int fd = size >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0 ? maker_memfd(data, size)
								       : file_of_sections(data, size);
	if (fd < 0)
		return 0;
	if (cfi_build_in(&scratch, fd, &table) == 0) {
		if (!cfi_table_check(table.bytes, table.n))
			__builtin_trap();
		cfi_look_everywhere(table.bytes);
		if (cfi_build_in(&other, fd, &again) != 0 || again.n != table.n ||
		    memcmp(again.bytes, table.bytes, table.n) != 0)
			__builtin_trap();
	}
	close(fd);
	return 0;
}
