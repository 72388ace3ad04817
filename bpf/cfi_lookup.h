/* From an address to the rule that holds there (cfi_table.h). Part of unwind.h. SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

enum {
	CFI_SEARCH_STEPS = 17, /* rows of a bucket: at most 1 << CFI_MAX_BUCKET_SHIFT */
	CFI_RULE_BYTES = 32,
	CFI_NO_ROW_FOUND = 1 << 16,
};

/* The word at `at`, a multiple of 4, of the page that it is on. */
static __attribute__((always_inline)) inline __u32 cfi_word_of(const __u8 *page, __u32 at)
{
	at &= CFI_PAGE_BYTES - 4;
	UNWIND_OPAQUE(at);
	return *(const __u32 *)(page + (at & (CFI_PAGE_BYTES - 4)));
}

/* A word of a table whose place is a multiple of 4. */
static __attribute__((always_inline)) inline bool cfi_word(void *table, __u32 at, __u32 *ret)
{
	const __u8 *page = unwind_table_page(table, at / CFI_PAGE_BYTES);
	if (!page)
		return false;
	*ret = cfi_word_of(page, at);
	return true;
}

/* index[bucket] and the next: on one page, nearly always. */
static __attribute__((always_inline)) inline bool cfi_bucket(void *table, __u32 at, __u32 *ret_first, __u32 *ret_last)
{
	const __u8 *page = unwind_table_page(table, at / CFI_PAGE_BYTES);
	if (!page)
		return false;
	*ret_first = cfi_word_of(page, at);
	if (at / CFI_PAGE_BYTES != (at + 4) / CFI_PAGE_BYTES)
		return cfi_word(table, at + 4, ret_last);
	*ret_last = cfi_word_of(page, at + 4);
	return true;
}

/* Which half of what is left has the row. */
static __attribute__((always_inline)) inline void cfi_halve(struct unwind_search *search, __u32 middle, __u32 row,
							    __u32 offset)
{
	if ((row & 0xffff) <= offset) {
		search->low = middle + 1;
		search->found = row >> 16;
	} else {
		search->high = middle;
	}
}

/* The rows of a bucket that lie on one page. */
static __attribute__((always_inline)) inline bool cfi_search_page(struct unwind_search *search, void *table,
								  __u32 off_rows, __u32 offset)
{
	const __u8 *page = unwind_table_page(table, (off_rows + search->low * 4) / CFI_PAGE_BYTES);
	if (!page)
		return false;
	for (int i = 0; i < CFI_SEARCH_STEPS && search->low < search->high; i++) {
		__u32 middle = (search->low + search->high) / 2;
		cfi_halve(search, middle, cfi_word_of(page, off_rows + middle * 4), offset);
	}
	return true;
}

static __attribute__((always_inline)) inline bool cfi_search_pages(struct unwind_search *search, void *table,
								   __u32 off_rows, __u32 offset)
{
	for (int i = 0; i < CFI_SEARCH_STEPS && search->low < search->high; i++) {
		__u32 middle = (search->low + search->high) / 2, row = 0;
		if (!cfi_word(table, off_rows + middle * 4, &row))
			return false;
		cfi_halve(search, middle, row, offset);
	}
	return true;
}

/* The rule of the last of rows [low, high) of a bucket that is not above offset, or else of the row before them, which holds from there on. */
static __attribute__((always_inline)) inline bool cfi_search(struct unwind_search *search, void *table, __u32 off_rows,
							     __u32 low, __u32 high, __u32 offset)
{
	__u32 row = 0;
	search->low = low;
	search->high = high;
	search->found = CFI_NO_ROW_FOUND;
	if (low < high) {
		__u32 first = off_rows + low * 4, last = off_rows + high * 4 - 4;
		if (!(first / CFI_PAGE_BYTES == last / CFI_PAGE_BYTES
			      ? cfi_search_page(search, table, off_rows, offset)
			      : cfi_search_pages(search, table, off_rows, offset)))
			return false;
	}
	if (search->found == CFI_NO_ROW_FOUND) {
		if (low == 0 || !cfi_word(table, off_rows + (low - 1) * 4, &row))
			return false;
		search->found = row >> 16;
	}
	return true;
}

/* The number of the rule that holds at pc, into window->search.found. */
static __attribute__((always_inline)) inline bool cfi_find(struct unwind_window *window, void *table, __u64 pc)
{
	const struct unwind_place *place = &window->place;
	__u64 offset = pc + place->bias;
	if (offset < place->text_start || offset >= place->text_end)
		return false;
	__u32 bucket = (__u32)((offset - place->text_start) >> (place->bucket_shift & 31));
	__u32 first = 0, last = 0;
	return cfi_bucket(table, place->off_index + bucket * 4, &first, &last) &&
	       cfi_search(&window->search, table, place->off_rows, first, last, (__u32)offset & 0xffff);
}

static __attribute__((always_inline)) inline const struct cfi_rule *cfi_rule(const struct unwind_place *place,
									     void *table, __u32 number)
{
	__u32 at = place->off_rules + number * CFI_RULE_BYTES;
	const __u8 *page = unwind_table_page(table, at / CFI_PAGE_BYTES);
	if (!page)
		return (void *)0;
	__u32 offset = at & (CFI_PAGE_BYTES - CFI_RULE_BYTES);
	UNWIND_OPAQUE(offset);
	return (const struct cfi_rule *)(page + (offset & (CFI_PAGE_BYTES - CFI_RULE_BYTES)));
}
