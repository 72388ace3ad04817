#include "elf/dwarf_abbrev.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

/* How many bytes a value of form takes; -1: that depends on the value. */
static int size_of_form(unsigned form, unsigned offset_bytes, unsigned address_bytes)
{
	switch (form) {
	case DW_FORM_flag_present:
	case DW_FORM_implicit_const:
		return 0;
	case DW_FORM_data1:
	case DW_FORM_ref1:
	case DW_FORM_flag:
	case DW_FORM_strx1:
	case DW_FORM_addrx1:
		return 1;
	case DW_FORM_data2:
	case DW_FORM_ref2:
	case DW_FORM_strx2:
	case DW_FORM_addrx2:
		return 2;
	case DW_FORM_strx3:
	case DW_FORM_addrx3:
		return 3;
	case DW_FORM_data4:
	case DW_FORM_ref4:
	case DW_FORM_ref_sup4:
	case DW_FORM_strx4:
	case DW_FORM_addrx4:
		return 4;
	case DW_FORM_data8:
	case DW_FORM_ref8:
	case DW_FORM_ref_sup8:
	case DW_FORM_ref_sig8:
		return 8;
	case DW_FORM_data16:
		return 16;
	case DW_FORM_addr:
		return address_bytes ? (int)address_bytes : -1;
	case DW_FORM_strp:
	case DW_FORM_line_strp:
	case DW_FORM_strp_sup:
	case DW_FORM_sec_offset:
	case DW_FORM_ref_addr:
	case DW_FORM_GNU_ref_alt:
	case DW_FORM_GNU_strp_alt:
		return offset_bytes ? (int)offset_bytes : -1;
	default:
		return -1;
	}
}

/* The next attribute; false at the end of the abbreviation's list. */
static bool read_attribute(struct cursor *in, struct abbrev_attribute *ret)
{
	uint64_t name = cursor_uleb(in), form = cursor_uleb(in);
	*ret = (struct abbrev_attribute){.name = (uint16_t)(name <= UINT16_MAX ? name : UINT16_MAX),
					 .form = (uint16_t)(form <= UINT16_MAX ? form : UINT16_MAX)};
	if (form == DW_FORM_implicit_const)
		ret->implicit = cursor_sleb(in);
	return (name || form) && !in->failed;
}

static bool read_head(struct cursor *in, struct abbrev *ret)
{
	*ret = (struct abbrev){.code = cursor_uleb(in)};
	if (ret->code == 0 || in->failed)
		return false;
	uint64_t tag = cursor_uleb(in);
	ret->tag = (uint16_t)(tag <= UINT16_MAX ? tag : UINT16_MAX);
	ret->has_children = cursor_u8(in) != 0;
	return !in->failed;
}

bool abbrevs_read_one(struct cursor in, uint64_t code, struct abbrev *ret, struct abbrev_attribute *attributes,
		      size_t max, struct work *work)
{
	struct abbrev_attribute attribute;
	for (unsigned i = 0; i < ABBREVS_MAX && read_head(&in, ret); i++) {
		while (read_attribute(&in, &attribute)) {
			if (work_spent(work, 1))
				return false;
			if (ret->code != code)
				continue;
			if (ret->n >= max)
				return false;
			attributes[ret->n++] = attribute;
		}
		if (ret->code == code)
			return !in.failed;
	}
	return false;
}

struct builder {
	struct abbrevs out;
	size_t allocated, n_attributes, attributes_allocated;
	unsigned offset_bytes, address_bytes;
};

static int grow(void **array, size_t n, size_t *allocated, size_t max, size_t element_bytes)
{
	if (n < *allocated)
		return 0;
	if (n >= max)
		return -EFBIG;
	size_t wanted = *allocated ? *allocated * 2 : 128;
	void *grown = reallocarray(*array, wanted, element_bytes);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*allocated = wanted;
	return 0;
}

static int add_attributes(struct builder *builder, struct cursor *in, struct abbrev *abbrev)
{
	struct abbrev_attribute attribute;
	while (read_attribute(in, &attribute)) {
		int r = grow((void **)&builder->out.attributes, builder->n_attributes, &builder->attributes_allocated,
			     ABBREV_ATTRIBUTES_MAX, sizeof(attribute));
		if (r < 0)
			return r;
		builder->out.attributes[builder->n_attributes++] = attribute;
		abbrev->n++;
		abbrev->has_sibling |= attribute.name == DW_AT_sibling;
		int bytes = size_of_form(attribute.form, builder->offset_bytes, builder->address_bytes);
		abbrev->fixed_bytes = bytes < 0 || abbrev->fixed_bytes < 0 ? -1 : abbrev->fixed_bytes + bytes;
	}
	return 0;
}

static int read_all(struct builder *builder, struct cursor *in)
{
	struct abbrev abbrev;
	builder->out.dense = true;
	while (read_head(in, &abbrev)) {
		int r = grow((void **)&builder->out.entries, builder->out.n, &builder->allocated, ABBREVS_MAX,
			     sizeof(abbrev));
		if (r < 0)
			return r;
		abbrev.first = (uint32_t)builder->n_attributes;
		r = add_attributes(builder, in, &abbrev);
		if (r < 0)
			return r;
		builder->out.dense &= abbrev.code == builder->out.n + 1;
		builder->out.entries[builder->out.n++] = abbrev;
	}
	return in->failed ? -EBADMSG : 0;
}

static int compare(const void *left, const void *right)
{
	const struct abbrev *a = left, *b = right;
	return (a->code > b->code) - (a->code < b->code);
}

int abbrevs_read(struct cursor in, unsigned offset_bytes, unsigned address_bytes, struct abbrevs *ret)
{
	struct builder builder = {.offset_bytes = offset_bytes, .address_bytes = address_bytes};
	int r = in.failed ? -EBADMSG : read_all(&builder, &in);
	if (r < 0) {
		abbrevs_free(&builder.out);
		return r;
	}
	if (!builder.out.dense)
		qsort(builder.out.entries, builder.out.n, sizeof(builder.out.entries[0]), compare);
	*ret = builder.out;
	return 0;
}

void abbrevs_free(struct abbrevs *abbrevs)
{
	free(abbrevs->entries);
	free(abbrevs->attributes);
	*abbrevs = (struct abbrevs){};
}

const struct abbrev *abbrevs_search(const struct abbrevs *abbrevs, uint64_t code)
{
	struct abbrev key = {.code = code};
	return bsearch(&key, abbrevs->entries, abbrevs->n, sizeof(key), compare);
}
