/* Code of a file, as linked, a few bytes at a time: what Go's tables do not say is in it. Whoever asks goes up through the file, more or less. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "elf/cfi_sections.h"

enum { CFI_GO_CODE_MAX_BYTES = 1024, CFI_GO_CODE_WINDOW_BYTES = 1 << 16, CFI_GO_CODE_BEFORE_BYTES = 64 };

struct cfi_go_code {
	const struct cfi_sections *sections;
	uint64_t address; /* of bytes[0] */
	size_t n;         /* 0: nothing was read yet */
	uint8_t *bytes;   /* CFI_GO_CODE_WINDOW_BYTES; cfi_go_code_free gives them back */
};

/* The n bytes at address, at most CFI_GO_CODE_MAX_BYTES, until the next call; NULL: there are not as many, or no memory. */
const uint8_t *cfi_go_code_at(struct cfi_go_code *code, uint64_t address, size_t n);
void cfi_go_code_free(struct cfi_go_code *code);
