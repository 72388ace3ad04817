#include "elf/symbol_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int symbol_list_add(struct symbol_list *list, const struct symbol *symbol)
{
	if (list->n == list->allocated) {
		if (list->n >= SYMBOLS_MAX)
			return -EFBIG;
		size_t allocated = list->allocated ? list->allocated * 2 : 1024;
		struct symbol *grown = reallocarray(list->symbols, allocated, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		list->symbols = grown;
		list->allocated = allocated;
	}
	list->symbols[list->n++] = *symbol;
	return 0;
}

void symbol_list_free(struct symbol_list *list)
{
	free(list->symbols);
	*list = (struct symbol_list){};
}

const char *symbol_list_text(const struct symbol_list *list, struct symbol_name name)
{
	if (!list->text[name.strings] || name.offset >= list->text_bytes[name.strings])
		return "";
	return list->text[name.strings] + name.offset;
}

static int compare_numbers(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

/* Of two symbols that begin at one address; negative: a wins. */
static int compare_merit(const struct symbol *a, const struct symbol *b, const struct symbol_list *list)
{
	const char *name_a = symbol_list_text(list, a->name), *name_b = symbol_list_text(list, b->name);
	int order = compare_numbers(a->rank, b->rank);
	if (order == 0)
		order = compare_numbers(strspn(name_a, "_"), strspn(name_b, "_"));
	if (order == 0)
		order = compare_numbers(a->end, b->end);
	if (order == 0)
		order = compare_numbers(strlen(name_a), strlen(name_b));
	return order ? order : strcmp(name_a, name_b);
}

static int compare(const void *left, const void *right, void *list)
{
	const struct symbol *a = left, *b = right;
	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	if (a->sized != b->sized)
		return a->sized ? -1 : 1;
	return compare_merit(b, a, list);
}

void symbol_list_sort(struct symbol_list *list)
{
	if (list->n)
		qsort_r(list->symbols, list->n, sizeof(list->symbols[0]), compare, list);
}

const struct symbol *symbol_list_at(const struct symbol_list *list, uint64_t start)
{
	size_t low = 0, high = list->n; /* the first symbol above start */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (list->symbols[middle].start <= start)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && list->symbols[low - 1].start == start ? &list->symbols[low - 1] : NULL;
}

bool section_content(Elf_Scn *section, GElf_Shdr *ret_header, Elf_Data **ret_data)
{
	GElf_Shdr header;
	if (!section || !gelf_getshdr(section, &header) || header.sh_type == SHT_NOBITS ||
	    header.sh_flags & SHF_COMPRESSED || header.sh_size == 0 || header.sh_size > TABLE_MAX_BYTES)
		return false;
	Elf_Data *data = elf_getdata(section, NULL);
	if (!data || !data->d_buf || data->d_size == 0)
		return false;
	*ret_header = header;
	*ret_data = data;
	return true;
}
