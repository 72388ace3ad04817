/* From an address to the rule that holds there (cfi_table.h). Part of unwind.h. SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

enum {
	CFI_SEARCH_STEPS = 17, /* rows of a bucket: at most 1 << CFI_MAX_BUCKET_SHIFT */
	CFI_RULE_BYTES = 32,
	CFI_NO_ROW_FOUND = 1 << 16,
};

/* A word of a table whose place is a multiple of 4. */
static __attribute__((always_inline)) inline bool cfi_word(__u32 table, __u32 at, __u32 *ret, void *memory)
{
	const __u8 *page = unwind_table_page(table, at / CFI_PAGE_BYTES, memory);
	if (!page)
		return false;
	__u32 offset = at & (CFI_PAGE_BYTES - 4);
	UNWIND_OPAQUE(offset);
	*ret = *(const __u32 *)(page + (offset & (CFI_PAGE_BYTES - 4)));
	return true;
}

/* The rule of the last of rows [low, high) of a bucket that is not above offset, or else of the row before them, which holds from there on. */
static __attribute__((always_inline)) inline bool cfi_search(struct unwind_window *window, __u32 low, __u32 high,
							     __u32 offset, __u32 *ret_rule)
{
	const struct unwind_place *place = &window->place;
	struct unwind_search *search = &window->search;
	__u32 row = 0;
	search->low = low;
	search->high = high;
	search->found = CFI_NO_ROW_FOUND;
	for (int i = 0; i < CFI_SEARCH_STEPS && search->low < search->high; i++) {
		__u32 middle = (search->low + search->high) / 2;
		if (!cfi_word(place->table, place->off_rows + middle * 4, &row, unwind_memory(window)))
			return false;
		if ((row & 0xffff) <= offset) {
			search->low = middle + 1;
			search->found = row >> 16;
		} else {
			search->high = middle;
		}
	}
	if (search->found == CFI_NO_ROW_FOUND) {
		if (low == 0 || !cfi_word(place->table, place->off_rows + (low - 1) * 4, &row, unwind_memory(window)))
			return false;
		search->found = row >> 16;
	}
	*ret_rule = search->found;
	return true;
}

/* The number of the rule that holds at pc. */
static __attribute__((always_inline)) inline bool cfi_find(struct unwind_window *window, __u64 pc, __u32 *ret)
{
	const struct unwind_place *place = &window->place;
	void *memory = unwind_memory(window);
	__u64 offset = pc + place->bias;
	if (offset < place->text_start || offset >= place->text_end)
		return false;
	__u32 bucket = (__u32)((offset - place->text_start) >> (place->bucket_shift & 31));
	__u32 first = 0, last = 0;
	if (!cfi_word(place->table, place->off_index + bucket * 4, &first, memory) ||
	    !cfi_word(place->table, place->off_index + bucket * 4 + 4, &last, memory))
		return false;
	return cfi_search(window, first, last, (__u32)offset & 0xffff, ret);
}

static __attribute__((always_inline)) inline const struct cfi_rule *cfi_rule(const struct unwind_place *place,
									     __u32 number, void *memory)
{
	__u32 at = place->off_rules + number * CFI_RULE_BYTES;
	const __u8 *page = unwind_table_page(place->table, at / CFI_PAGE_BYTES, memory);
	if (!page)
		return (void *)0;
	__u32 offset = at & (CFI_PAGE_BYTES - CFI_RULE_BYTES);
	UNWIND_OPAQUE(offset);
	return (const struct cfi_rule *)(page + (offset & (CFI_PAGE_BYTES - CFI_RULE_BYTES)));
}
