#include "symbolize/kallsyms.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

enum {
	SYMBOLS_MAX = 4 << 20,
	NAMES_MAX_BYTES = 256 << 20,
	MODULES_MAX = UINT16_MAX,
	LINE_BYTES = 1024,
	NAME_MAX_BYTES = 511,         /* the kernel's KSYM_NAME_LEN is 512 */
	FUNCTION_MAX_BYTES = 1 << 20, /* larger than any function of a kernel */
};

struct entry {
	uint64_t start;
	uint32_t name;
	uint16_t module; /* 0: the kernel proper */
	uint8_t rank;    /* of several at one address the smallest is kept */
	uint8_t is_end;  /* "_etext" and the like: nothing is here */
};

struct kallsyms {
	struct entry *entries;
	size_t n, entries_allocated;
	char *names; /* NUL-terminated, one behind the other */
	size_t names_bytes, names_allocated;
	uint32_t *modules; /* offsets into names */
	size_t n_modules;
	size_t seen; /* lines that are symbols, of whatever kind */
	bool any_address;
};

static int grow(void **array, size_t *allocated, size_t needed, size_t max, size_t element_bytes)
{
	if (needed <= *allocated)
		return 0;
	if (needed > max)
		return -EFBIG;
	size_t n = *allocated ? *allocated * 2 : 1024;
	if (n < needed)
		n = needed;
	void *grown = reallocarray(*array, n, element_bytes);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*allocated = n;
	return 0;
}

static int add_name(struct kallsyms *kallsyms, const char *text, uint32_t *ret)
{
	size_t bytes = strlen(text) + 1;
	int r = grow((void **)&kallsyms->names, &kallsyms->names_allocated, kallsyms->names_bytes + bytes,
		     NAMES_MAX_BYTES, 1);
	if (r < 0)
		return r;
	memcpy(kallsyms->names + kallsyms->names_bytes, text, bytes);
	*ret = (uint32_t)kallsyms->names_bytes;
	kallsyms->names_bytes += bytes;
	return 0;
}

/* Modules come in runs: mostly it is the last one again. */
static int add_module(struct kallsyms *kallsyms, const char *module, uint16_t *ret)
{
	for (size_t i = kallsyms->n_modules; i-- > 0;) {
		if (strcmp(kallsyms->names + kallsyms->modules[i], module) == 0) {
			*ret = (uint16_t)i;
			return 0;
		}
	}
	if (kallsyms->n_modules >= MODULES_MAX)
		return -EFBIG;
	uint32_t *grown = reallocarray(kallsyms->modules, kallsyms->n_modules + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	kallsyms->modules = grown;
	int r = add_name(kallsyms, module, &grown[kallsyms->n_modules]);
	if (r < 0)
		return r;
	*ret = (uint16_t)kallsyms->n_modules++;
	return 0;
}

static bool is_clean(const char *text)
{
	size_t length = strlen(text);
	if (length == 0 || length > NAME_MAX_BYTES)
		return false;
	for (size_t at = 0, n = 0; at < length; at += n) {
		n = utf8_printable(text + at, length - at);
		if (n == 0)
			return false;
	}
	return true;
}

struct line {
	uint64_t address;
	char type;
	char *name, *module;
};

/* Cuts text up in place. */
static bool split(char *text, struct line *ret)
{
	char *rest = NULL;
	if (!isxdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	ret->address = strtoull(text, &rest, 16);
	if (errno || rest[0] != ' ' || !isalpha((unsigned char)rest[1]) || rest[2] != ' ')
		return false;
	ret->type = rest[1];
	ret->name = rest + 3;
	ret->module = "";
	ret->name[strcspn(ret->name, "\n")] = '\0';
	char *tab = strchr(ret->name, '\t');
	if (tab) {
		*tab = '\0';
		size_t length = strlen(tab + 1);
		if (tab[1] != '[' || length < 3 || tab[length] != ']')
			return false;
		tab[length] = '\0';
		ret->module = tab + 2;
		if (!is_clean(ret->module))
			return false;
	}
	return is_clean(ret->name);
}

static bool ends_text(const char *name)
{
	return strcmp(name, "_etext") == 0 || strcmp(name, "_einittext") == 0;
}

static int add_line(struct kallsyms *kallsyms, char *text)
{
	struct line line;
	if (!split(text, &line))
		return 0;
	kallsyms->seen++;
	const char *kind = strchr("TWwt", line.type);
	if (!kind || line.address == 0)
		return 0;
	kallsyms->any_address = true;
	int r = grow((void **)&kallsyms->entries, &kallsyms->entries_allocated, kallsyms->n + 1, SYMBOLS_MAX,
		     sizeof(kallsyms->entries[0]));
	if (r < 0)
		return r;
	struct entry entry = {.start = line.address, .rank = (uint8_t)(kind - "TWwt"), .is_end = ends_text(line.name)};
	r = add_module(kallsyms, line.module, &entry.module);
	if (r == 0)
		r = add_name(kallsyms, line.name, &entry.name);
	if (r == 0)
		kallsyms->entries[kallsyms->n++] = entry;
	return r;
}

/* Ascending; of several at one address the one to keep comes first: a function rather than an end, global, the file's first. */
static int compare(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;
	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	if (a->is_end != b->is_end)
		return a->is_end - b->is_end;
	if (a->rank != b->rank)
		return a->rank - b->rank;
	return (a->name > b->name) - (a->name < b->name);
}

static void finish(struct kallsyms *kallsyms)
{
	if (kallsyms->n == 0)
		return;
	qsort(kallsyms->entries, kallsyms->n, sizeof(kallsyms->entries[0]), compare);
	size_t kept = 1;
	for (size_t i = 1; i < kallsyms->n; i++) {
		if (kallsyms->entries[i].start != kallsyms->entries[kept - 1].start)
			kallsyms->entries[kept++] = kallsyms->entries[i];
	}
	kallsyms->n = kept;
	struct entry *entries = reallocarray(kallsyms->entries, kept, sizeof(*entries));
	if (entries) {
		kallsyms->entries = entries;
		kallsyms->entries_allocated = kept;
	}
	char *names = realloc(kallsyms->names, kallsyms->names_bytes);
	if (names) {
		kallsyms->names = names;
		kallsyms->names_allocated = kallsyms->names_bytes;
	}
}

int kallsyms_read(FILE *in, struct kallsyms **ret)
{
	struct kallsyms *kallsyms = calloc(1, sizeof(*kallsyms));
	if (!kallsyms)
		return -ENOMEM;
	char line[LINE_BYTES]; /* of a longer one the pieces are no symbols */
	uint16_t kernel_proper = 0;
	int r = add_module(kallsyms, "", &kernel_proper);
	while (r == 0 && fgets(line, sizeof(line), in))
		r = add_line(kallsyms, line);
	if (r == 0 && ferror(in))
		r = -EIO;
	if (r < 0) {
		kallsyms_free(kallsyms);
		return r;
	}
	finish(kallsyms);
	*ret = kallsyms;
	return 0;
}

void kallsyms_free(struct kallsyms *kallsyms)
{
	if (!kallsyms)
		return;
	free(kallsyms->entries);
	free(kallsyms->names);
	free(kallsyms->modules);
	free(kallsyms);
}

bool kallsyms_restricted(const struct kallsyms *kallsyms)
{
	return kallsyms->seen > 0 && !kallsyms->any_address;
}

bool kallsyms_find(const struct kallsyms *kallsyms, uint64_t address, struct kallsyms_symbol *ret)
{
	size_t low = 0, high = kallsyms->n; /* the answer, if any, is the last entry at or below address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (kallsyms->entries[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return false;
	const struct entry *entry = &kallsyms->entries[low - 1];
	if (entry->is_end || address - entry->start >= FUNCTION_MAX_BYTES)
		return false;
	ret->name = kallsyms->names + entry->name;
	ret->module = kallsyms->names + kallsyms->modules[entry->module];
	ret->start = entry->start;
	return true;
}

size_t kallsyms_count(const struct kallsyms *kallsyms)
{
	return kallsyms->n;
}

size_t kallsyms_bytes(const struct kallsyms *kallsyms)
{
	return sizeof(*kallsyms) + kallsyms->entries_allocated * sizeof(kallsyms->entries[0]) +
	       kallsyms->names_allocated + kallsyms->n_modules * sizeof(kallsyms->modules[0]);
}
