#include "elf/cfi_frames.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "elf/cfi_pointer.h"
#include "elf/dwarf_cursor.h"

enum { ADDRESS_BYTES = 8, FIRST_CIES = 64, FIRST_FDES = 1024 };

/* Going through one section. */
struct walk {
	struct cfi_frames *frames;
	const struct cfi_sections *sections;
	const struct cfi_section *section;
	uint32_t number;
	struct cursor in;
	struct cfi_bases bases;
	size_t first_cie; /* of this section */
	size_t last_cie;  /* the one that an FDE referred to last: the next one most likely does too */
};

struct entry {
	uint64_t offset; /* in the section */
	uint64_t id, id_offset;
	bool is_cie;
	struct cursor body; /* behind the id */
};

/* False: the end. In .eh_frame the id has 4 bytes whatever the length has; .debug_frame's is as long as the format says. */
static bool next_entry(struct walk *walk, struct entry *ret)
{
	const struct cfi_section *section = walk->section;
	while (cursor_left(&walk->in) > 0) {
		ret->offset = (uint64_t)(walk->in.at - section->bytes);
		uint8_t offset_bytes = 4;
		uint64_t length = cursor_initial_length(&walk->in, &offset_bytes);
		if (walk->in.failed || length > cursor_left(&walk->in)) {
			walk->frames->n_malformed++;
			return false;
		}
		if (length == 0) {
			if (section->ends_at_zero)
				return false;
			continue; /* a terminator in the middle: there was one at the end of what was linked together */
		}
		ret->body = (struct cursor){.at = walk->in.at, .end = walk->in.at + length};
		cursor_skip(&walk->in, length);
		unsigned id_bytes = section->kind == CFI_DEBUG_FRAME ? offset_bytes : 4;
		ret->id_offset = (uint64_t)(ret->body.at - section->bytes);
		ret->id = cursor_uint(&ret->body, id_bytes);
		if (section->kind != CFI_DEBUG_FRAME)
			ret->is_cie = ret->id == 0;
		else
			ret->is_cie = ret->id == (id_bytes == 8 ? UINT64_MAX : UINT32_MAX);
		if (!ret->body.failed)
			return true;
		walk->frames->n_malformed++;
	}
	return false;
}

/* What an augmentation that begins with 'z' says (LSB Core, 10.6.1.1.1). B and G are other machines' and have no data. */
static bool read_augmentation(const struct walk *walk, struct dwarf_text letters, struct cursor data,
			      struct cfi_cie *cie)
{
	for (size_t i = 1; i < letters.n; i++) {
		switch (letters.at[i]) {
		case 'R':
			cie->pointer_encoding = cursor_u8(&data);
			break;
		case 'P':
			if (!cfi_pointer_skip(&data, cursor_u8(&data), &walk->bases))
				return false;
			break;
		case 'L':
			(void)cursor_u8(&data);
			break;
		case 'S':
			cie->is_signal_frame = true;
			break;
		case 'B':
		case 'G':
			break;
		default:
			return !data.failed; /* the length says where the rest ends */
		}
	}
	return !data.failed;
}

static bool read_cie(const struct walk *walk, struct cursor in, struct cfi_cie *cie)
{
	uint8_t version = cursor_u8(&in);
	struct dwarf_text augmentation = cursor_text(&in);
	if (version != 1 && version != 3 && version != 4)
		return false;
	if (version == 4) {
		uint8_t address_bytes = cursor_u8(&in), segment_bytes = cursor_u8(&in);
		if (address_bytes != ADDRESS_BYTES || segment_bytes != 0)
			return false;
	}
	if (augmentation.n >= 2 && memcmp(augmentation.at, "eh", 2) == 0) {
		cursor_skip(&in, ADDRESS_BYTES); /* GCC 2's */
		augmentation.at += 2;
		augmentation.n -= 2;
	}
	cie->code_factor = cursor_uleb(&in);
	cie->data_factor = cursor_sleb(&in);
	uint64_t return_register = version == 1 ? cursor_u8(&in) : cursor_uleb(&in);
	if (return_register >= CFI_REGISTERS)
		return false;
	cie->return_register = (uint8_t)return_register;
	cie->pointer_encoding = CFI_POINTER_ABSOLUTE;
	if (augmentation.n > 0) {
		uint64_t bytes = cursor_uleb(&in);
		if (augmentation.at[0] != 'z' || bytes > cursor_left(&in))
			return false;
		struct cursor data = {.at = in.at, .end = in.at + bytes};
		cie->has_augmentation_bytes = true;
		if (!read_augmentation(walk, augmentation, data, cie))
			return false;
		cursor_skip(&in, bytes);
	}
	cie->program = in.at;
	cie->n_program = cursor_left(&in);
	return !in.failed;
}

int cfi_frames_add_cie(struct cfi_frames *frames, const struct cfi_cie *cie)
{
	if (frames->n_cies == frames->cies_allocated) {
		size_t wanted = frames->cies_allocated ? 2 * frames->cies_allocated : FIRST_CIES;
		if (frames->n_cies >= CFI_CIES_MAX)
			return -EFBIG;
		struct cfi_cie *grown = reallocarray(frames->cies, wanted, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		frames->cies = grown;
		frames->cies_allocated = wanted;
	}
	frames->cies[frames->n_cies++] = *cie;
	return 0;
}

static int add_cie(struct walk *walk, const struct entry *entry)
{
	struct cfi_cie cie = {.offset = entry->offset, .section = walk->number};
	cie.is_usable = read_cie(walk, entry->body, &cie);
	if (!cie.is_usable)
		walk->frames->n_malformed++;
	return cfi_frames_add_cie(walk->frames, &cie);
}

static struct cfi_cie *find_cie(struct walk *walk, uint64_t offset)
{
	struct cfi_cie *cies = walk->frames->cies;
	if (walk->last_cie < walk->frames->n_cies && cies[walk->last_cie].offset == offset)
		return &cies[walk->last_cie];
	size_t low = walk->first_cie, high = walk->frames->n_cies;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (cies[middle].offset < offset)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == walk->frames->n_cies || cies[low].offset != offset)
		return NULL;
	walk->last_cie = low;
	return &cies[low];
}

/* False: malformed. An FDE of no code, or of code that the linker threw away (address 0), has no bytes. */
static bool read_fde(struct walk *walk, const struct entry *entry, struct cfi_fde *ret)
{
	struct cursor in = entry->body;
	uint64_t address = 0, bytes = 0, room = 0;
	const struct cfi_cie *cie =
		find_cie(walk, walk->section->kind == CFI_DEBUG_FRAME ? entry->id : entry->id_offset - entry->id);
	if (!cie || !cie->is_usable || !cfi_pointer_read(&in, cie->pointer_encoding, &walk->bases, &address) ||
	    !cfi_pointer_read(&in, cie->pointer_encoding & CFI_POINTER_FORMAT, &walk->bases, &bytes))
		return false;
	if (cie->has_augmentation_bytes)
		cursor_skip(&in, cursor_uleb(&in));
	if (in.failed)
		return false;
	*ret = (struct cfi_fde){.address = address,
				.program = (uint32_t)(in.at - walk->section->bytes),
				.n_program = (uint32_t)cursor_left(&in),
				.cie = (uint32_t)(cie - walk->frames->cies)};
	if (address == 0 || !cfi_sections_locate(walk->sections, address, &ret->start, &room))
		return true;
	/* Its last instruction is the system call that leaves it; while that runs, the pc is behind it. */
	if (cie->is_signal_frame && bytes < room)
		bytes++;
	if (bytes > room)
		bytes = room;
	ret->bytes = bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
	return true;
}

static int grow_fdes(struct cfi_frames *frames)
{
	size_t wanted = frames->fdes_allocated ? 2 * frames->fdes_allocated : FIRST_FDES;
	if (frames->n_fdes >= CFI_FDES_MAX)
		return -EFBIG;
	struct cfi_fde *grown = scratch_resize(frames->scratch, frames->fdes, frames->fdes_allocated * sizeof(*grown),
					       wanted * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	frames->fdes = grown;
	frames->fdes_allocated = wanted;
	return 0;
}

int cfi_frames_add_fde(struct cfi_frames *frames, const struct cfi_fde *fde)
{
	if (fde->bytes == 0)
		return 0;
	int r = frames->n_fdes == frames->fdes_allocated ? grow_fdes(frames) : 0;
	if (r == 0)
		frames->fdes[frames->n_fdes++] = *fde;
	return r;
}

static int add_fde(struct walk *walk, const struct entry *entry)
{
	struct cfi_frames *frames = walk->frames;
	struct cfi_fde fde = {};
	if (!read_fde(walk, entry, &fde)) {
		frames->n_malformed++;
		return 0;
	}
	return cfi_frames_add_fde(frames, &fde);
}

/* In .debug_frame an FDE may refer to a CIE that comes later: so all CIEs first. */
static int read_cies(struct walk *walk)
{
	struct entry entry;
	size_t n_malformed = walk->frames->n_malformed;
	int r = 0;
	while (r == 0 && next_entry(walk, &entry))
		r = entry.is_cie ? add_cie(walk, &entry) : 0;
	walk->frames->n_malformed = n_malformed; /* what is malformed is met again */
	walk->in = cursor_at(walk->section->bytes, walk->section->n, 0, walk->section->n);
	return r;
}

int cfi_frames_read(struct cfi_frames *frames, const struct cfi_sections *sections, uint32_t section)
{
	const struct cfi_section *from = &sections->list[section];
	struct walk walk = {
		.frames = frames,
		.sections = sections,
		.section = from,
		.number = section,
		.bases = {.section = from->bytes,
			  .section_address = from->address,
			  .text_address = sections->text_address,
			  .data_address = sections->data_address},
		.first_cie = frames->n_cies,
		.last_cie = SIZE_MAX,
	};
	struct entry entry;
	walk.in = cursor_at(from->bytes, from->n, 0, from->n);
	int r = from->kind == CFI_DEBUG_FRAME ? read_cies(&walk) : 0;
	while (r == 0 && next_entry(&walk, &entry)) {
		if (!entry.is_cie)
			r = add_fde(&walk, &entry);
		else if (from->kind != CFI_DEBUG_FRAME)
			r = add_cie(&walk, &entry);
	}
	return r;
}

void cfi_frames_free(struct cfi_frames *frames)
{
	free(frames->cies);
	*frames = (struct cfi_frames){};
}
