/* The CIEs and FDEs of .eh_frame (LSB Core, 10.6.1) and .debug_frame (DWARF 5, 6.4.1): which code has which program. Programs are not
 * looked into here. Go's functions (cfi_go.h) are kept as if they were FDEs. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/cfi_sections.h"
#include "elf/cfi_state.h"

enum { CFI_CIES_MAX = 1 << 18, CFI_FDES_MAX = 1 << 22 };

struct cfi_cie {
	uint64_t offset; /* in its section */
	uint32_t section;
	uint8_t pointer_encoding;
	bool is_usable; /* false: we do not understand it, nor the FDEs that refer to it */
	bool has_augmentation_bytes, is_signal_frame;
	uint8_t return_register;
	uint64_t code_factor;
	int64_t data_factor;
	const uint8_t *program;
	size_t n_program;
	/* What its program makes, once it was run; kept by cfi_program. */
	enum { CFI_CIE_NOT_RUN, CFI_CIE_FINE, CFI_CIE_MALFORMED } outcome;
	struct cfi_state state;
};

/* Small: a large file has a hundred thousand. */
struct cfi_fde {
	uint64_t start;   /* of its code, file offset */
	uint64_t address; /* of the code at start */
	uint32_t bytes;   /* of code; what is longer is cut */
	uint32_t program; /* offset in the section of its CIE; of a function of Go's, its record */
	uint32_t n_program;
	uint32_t cie; /* index */
};

struct cfi_frames {
	struct scratch *scratch; /* where fdes are */
	struct cfi_cie *cies;    /* ascending by (section, offset) */
	size_t n_cies, cies_allocated;
	struct cfi_fde *fdes;
	size_t n_fdes, fdes_allocated;
	size_t n_malformed; /* entries left out: they contradict themselves, or are of a kind that we do not know */
};

/* Adds the entries of section number `section`, in the order of the section; code that is in no executable segment is left out.
 * An entry that reaches beyond the section ends it. 0; -EFBIG: more entries than we would hold; -ENOMEM. */
int cfi_frames_read(struct cfi_frames *frames, const struct cfi_sections *sections, uint32_t section);
/* One more of either. 0; -EFBIG; -ENOMEM. An FDE of no bytes is not kept. */
int cfi_frames_add_cie(struct cfi_frames *frames, const struct cfi_cie *cie);
int cfi_frames_add_fde(struct cfi_frames *frames, const struct cfi_fde *fde);
void cfi_frames_free(struct cfi_frames *frames);
