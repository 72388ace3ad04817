/* Where functions without a name begin, by the index of .eh_frame (LSB Core, 10.6.2), which stripped files have too: so that what was sampled in one of them is
 * one entry of a profile, and not as many as it has instructions. The bytes are anybody's: whatever is not there reads as nothing. */
#pragma once
#include "elf/dwarf_sections.h"

struct function_starts {
	struct dwarf_sections sections; /* of which DWARF_FRAME_INDEX alone is used */
	uint64_t address;               /* of the index, as linked */
};

/* Finds the index of a file of file_bytes in fd, which stays the caller's. False: there is none, and there is nothing to close. */
bool function_starts_open(Elf *elf, int fd, uint64_t file_bytes, struct function_starts *ret);
void function_starts_close(struct function_starts *starts);

/* The first address of the function that holds address; both as linked. False: none is known. */
bool function_starts_find(struct function_starts *starts, uint64_t address, uint64_t *ret);
