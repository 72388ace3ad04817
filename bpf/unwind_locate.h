/* Which mapping an address is in. Part of unwind.h. SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

enum unwind_found {
	UNWIND_NOWHERE,  /* in no mapping that is known */
	UNWIND_IN_PLAIN, /* in code without a table */
	UNWIND_IN_TABLE, /* window->place has its table */
};

/* The page of the list that has the entry of address, if any has: the last whose first entry is not above it. */
static __attribute__((always_inline)) inline __u32
unwind_list_search(struct unwind_search *search, const struct unwind_list_header *header, __u64 address)
{
	search->low = 0;
	search->high = header->n_pages; /* the answer, plus one, is in [low, high] */
	for (int i = 0; i < 10 && search->low < search->high; i++) {
		__u32 middle = (search->low + search->high) / 2;
		if (middle >= UNWIND_LIST_MAX_PAGES)
			break;
		if (header->first[middle] <= address)
			search->low = middle + 1;
		else
			search->high = middle;
	}
	return search->low;
}

/* The entry of a page that holds address, or NULL. Entries behind the last are zero, and must not be looked at. */
static __attribute__((always_inline)) inline const struct unwind_list_entry *
unwind_page_search(struct unwind_search *search, const struct unwind_list_entry *entries, __u32 n, __u64 address)
{
	search->low = 0;
	search->high = n;
	for (int i = 0; i < 8 && search->low < search->high; i++) {
		__u32 middle = (search->low + search->high) / 2 & (UNWIND_PAGE_ENTRIES - 1);
		if (entries[middle].start <= address)
			search->low = middle + 1;
		else
			search->high = middle;
	}
	__u32 low = search->low;
	if (low == 0)
		return (void *)0;
	const struct unwind_list_entry *entry = &entries[(low - 1) & (UNWIND_PAGE_ENTRIES - 1)];
	return address < entry->end ? entry : (void *)0;
}

static __attribute__((always_inline)) inline void unwind_read_header(struct unwind_place *place, void *memory)
{
	void *table = unwind_table_open(place->table, memory);
	const struct cfi_table_header *header = table ? unwind_table_page(table, 0) : (void *)0;
	place->no_table = !header;
	if (!header)
		return;
	place->text_start = header->text_start;
	place->text_end = header->text_end;
	place->bucket_shift = header->bucket_shift;
	place->off_index = header->off_index;
	place->off_rows = header->off_rows;
	place->off_rules = header->off_rules;
	place->off_code = header->off_code;
}

/* Brings window->place to the mapping of address. 0; negative when there is none, and the place is as it was. */
UNWIND_SUBPROGRAM int unwind_move_place(struct unwind_window *window, __u32 list, __u64 address)
{
	if (!window)
		return -1;
	void *memory = unwind_memory(window);
	const struct unwind_list_header *header = unwind_list_page(list, 0, memory);
	if (!header)
		return -1;
	__u32 page = unwind_list_search(&window->search, header, address);
	if (page == 0)
		return -1;
	__u32 before = (page - 1) * UNWIND_PAGE_ENTRIES;
	__u32 n = header->n_entries - before;
	const struct unwind_list_entry *entries = unwind_list_page(list, page, memory);
	if (!entries)
		return -1;
	const struct unwind_list_entry *entry = unwind_page_search(
		&window->search, entries, n < UNWIND_PAGE_ENTRIES ? n : UNWIND_PAGE_ENTRIES, address);
	if (!entry)
		return -1;
	struct unwind_place *place = &window->place;
	__u32 table_before = place->table;
	bool had_table = place->end && place->kind == UNWIND_CODE_TABLE;
	place->start = entry->start;
	place->end = entry->end;
	place->bias = entry->bias;
	place->kind = entry->kind;
	place->table = entry->table;
	if (place->kind == UNWIND_CODE_TABLE && !(had_table && table_before == place->table))
		unwind_read_header(place, memory);
	return 0;
}

static __attribute__((always_inline)) inline enum unwind_found unwind_locate(struct unwind_window *window, __u32 list,
									     __u64 address)
{
	const struct unwind_place *place = &window->place;
	if ((address < place->start || address >= place->end) && unwind_move_place(window, list, address) < 0)
		return UNWIND_NOWHERE;
	return place->kind == UNWIND_CODE_TABLE && !place->no_table ? UNWIND_IN_TABLE : UNWIND_IN_PLAIN;
}
