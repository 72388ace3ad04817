/* Pointers as .eh_frame encodes them (LSB Core, 10.5.1: DW_EH_PE_*): a format in the low four bits, what it is relative to above. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "elf/dwarf_cursor.h"

enum { CFI_POINTER_ABSOLUTE = 0x00, CFI_POINTER_FORMAT = 0x0f, CFI_POINTER_OMIT = 0xff };

/* What pointers are relative to. */
struct cfi_bases {
	const uint8_t *section; /* its first byte, which is at section_address */
	uint64_t section_address;
	uint64_t text_address, data_address, function_address;
};

/* The pointer, followed by nothing. False: it does not fit what is left, is omitted, indirect (its value is in the process), or its
 * encoding is unknown. A raw 0 stays 0, whatever it would be relative to, as the C++ runtime reads it. */
bool cfi_pointer_read(struct cursor *in, uint8_t encoding, const struct cfi_bases *bases, uint64_t *ret);
/* The same for one whose value does not matter: it may be indirect or omitted. */
bool cfi_pointer_skip(struct cursor *in, uint8_t encoding, const struct cfi_bases *bases);
