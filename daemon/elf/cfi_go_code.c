#include "elf/cfi_go_code.h"

#include <stdlib.h>
#include <unistd.h>

/* A window that begins somewhat before address, where that is code of the same segment. */
static void read_window(struct cfi_go_code *code, uint64_t address)
{
	uint64_t offset = 0, room = 0, before = address - CFI_GO_CODE_BEFORE_BYTES;
	code->n = 0;
	if (before > address || !cfi_sections_locate(code->sections, before, &offset, &room) ||
	    room <= CFI_GO_CODE_BEFORE_BYTES) {
		before = address;
		if (!cfi_sections_locate(code->sections, before, &offset, &room))
			return;
	}
	size_t wanted = room < CFI_GO_CODE_WINDOW_BYTES ? room : CFI_GO_CODE_WINDOW_BYTES;
	ssize_t got = pread(code->sections->fd, code->bytes, wanted, (off_t)offset);
	code->address = before;
	code->n = got > 0 ? (size_t)got : 0;
}

static bool has(const struct cfi_go_code *code, uint64_t address, size_t n)
{
	return address >= code->address && address - code->address <= code->n &&
	       n <= code->n - (address - code->address);
}

const uint8_t *cfi_go_code_at(struct cfi_go_code *code, uint64_t address, size_t n)
{
	if (!code->bytes)
		code->bytes = malloc(CFI_GO_CODE_WINDOW_BYTES);
	if (!code->bytes || n > CFI_GO_CODE_MAX_BYTES)
		return NULL;
	if (!has(code, address, n))
		read_window(code, address);
	return has(code, address, n) ? code->bytes + (address - code->address) : NULL;
}

void cfi_go_code_free(struct cfi_go_code *code)
{
	free(code->bytes);
	*code = (struct cfi_go_code){};
}
