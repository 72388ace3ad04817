#include "elf/cfi_pointer.h"

#include <dwarf.h>

enum { RELATIVE = 0x70, INDIRECT = 0x80, ADDRESS_BYTES = 8 };

static uint64_t address_at(const struct cursor *in, const struct cfi_bases *bases)
{
	return bases->section_address + (uint64_t)(in->at - bases->section);
}

/* An aligned pointer is a plain one at the next multiple of its size. */
static bool read_aligned(struct cursor *in, const struct cfi_bases *bases, uint64_t *ret)
{
	cursor_skip(in, -address_at(in, bases) % ADDRESS_BYTES);
	*ret = cursor_uint(in, ADDRESS_BYTES);
	return !in->failed;
}

static bool read_format(struct cursor *in, uint8_t encoding, uint64_t *ret)
{
	switch (encoding & CFI_POINTER_FORMAT) {
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
	case DW_EH_PE_signed:
	case DW_EH_PE_sdata8:
		*ret = cursor_uint(in, 8);
		break;
	case DW_EH_PE_uleb128:
		*ret = cursor_uleb(in);
		break;
	case DW_EH_PE_sleb128:
		*ret = (uint64_t)cursor_sleb(in);
		break;
	case DW_EH_PE_udata2:
		*ret = cursor_uint(in, 2);
		break;
	case DW_EH_PE_sdata2:
		*ret = (uint64_t)(int64_t)(int16_t)cursor_uint(in, 2);
		break;
	case DW_EH_PE_udata4:
		*ret = cursor_uint(in, 4);
		break;
	case DW_EH_PE_sdata4:
		*ret = (uint64_t)(int64_t)(int32_t)cursor_uint(in, 4);
		break;
	default:
		return false;
	}
	return !in->failed;
}

static bool base_of(uint8_t encoding, uint64_t here, const struct cfi_bases *bases, uint64_t *ret)
{
	switch (encoding & RELATIVE) {
	case DW_EH_PE_absptr:
		*ret = 0;
		return true;
	case DW_EH_PE_pcrel:
		*ret = here;
		return true;
	case DW_EH_PE_textrel:
		*ret = bases->text_address;
		return true;
	case DW_EH_PE_datarel:
		*ret = bases->data_address;
		return true;
	case DW_EH_PE_funcrel:
		*ret = bases->function_address;
		return true;
	default:
		return false;
	}
}

bool cfi_pointer_read(struct cursor *in, uint8_t encoding, const struct cfi_bases *bases, uint64_t *ret)
{
	uint64_t value = 0, base = 0;
	if (encoding & INDIRECT)
		return false;
	if (encoding == DW_EH_PE_aligned)
		return read_aligned(in, bases, ret);
	if (!base_of(encoding, address_at(in, bases), bases, &base) || !read_format(in, encoding, &value))
		return false;
	*ret = value ? base + value : 0;
	return true;
}

bool cfi_pointer_skip(struct cursor *in, uint8_t encoding, const struct cfi_bases *bases)
{
	uint64_t value = 0;
	if (encoding == CFI_POINTER_OMIT)
		return true;
	encoding &= (uint8_t)~INDIRECT;
	return encoding == DW_EH_PE_aligned ? read_aligned(in, bases, &value) : read_format(in, encoding, &value);
}
