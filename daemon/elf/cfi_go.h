/* What .gopclntab says of where Go's functions have their return addresses: there even in programs without any other unwind information, and
 * right at every instruction, prologues and assembly included. Go's compilers keep no register for the caller but rbp. */
#pragma once
#include "elf/cfi_go_code.h"
#include "elf/cfi_go_runtime.h"
#include "elf/cfi_program.h"
#include "elf/go_pclntab.h"

struct cfi_go {
	struct go_pclntab table;
	struct cfi_go_code code;
	struct cfi_go_offsets offsets;
	uint32_t
		n_systemstacks; /* that were read to find them; an honest program has one, and perhaps a wrapper of it */
};

/* Adds Go's functions, each as an FDE whose program is the place of its record in section number `section`. 0; -EFBIG; -ENOMEM. */
int cfi_go_read(struct cfi_go *go, struct cfi_frames *frames, const struct cfi_sections *sections, uint32_t section);
/* Adds the rows of fde in [start, end), file offsets within it. 0; -EFBIG: too many rows, or CFI_STEPS_MAX; -ENOMEM. */
int cfi_go_run(struct cfi_go *go, struct cfi_output *output, const struct cfi_fde *fde, uint64_t start, uint64_t end);
void cfi_go_free(struct cfi_go *go);
