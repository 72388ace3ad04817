#include "elf/jit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "elf/demangle.h"
#include "elf/jit_internal.h"
#include "elf/text.h"

int jit_grow(void **array, size_t needed, size_t *allocated, size_t max, size_t element_bytes)
{
	if (needed <= *allocated)
		return 0;
	if (needed > max)
		return -EFBIG;
	size_t wanted = *allocated ? *allocated * 2 : 1024;
	wanted = wanted < needed ? needed : wanted > max ? max : wanted;
	void *grown = reallocarray(*array, wanted, element_bytes);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*allocated = wanted;
	return 0;
}

int jit_add_text(struct jit *jit, const char *text, size_t length, uint32_t *ret)
{
	if (length > READER_NAME_MAX_BYTES)
		length = READER_NAME_MAX_BYTES;
	int r = jit_grow((void **)&jit->text, jit->text_bytes + length + 1, &jit->text_allocated, JIT_TEXT_MAX_BYTES,
			 1);
	if (r < 0)
		return r;
	char *copy = jit->text + jit->text_bytes;
	memcpy(copy, text, length);
	copy[length] = '\0';
	text_make_printable(copy);
	*ret = (uint32_t)jit->text_bytes;
	jit->text_bytes += length + 1;
	return 0;
}

int jit_add(struct jit *jit, const struct jit_symbol *symbol)
{
	int r = jit_grow((void **)&jit->symbols, jit->n + 1, &jit->allocated, JIT_SYMBOLS_MAX, sizeof(jit->symbols[0]));
	if (r < 0)
		return r;
	jit->symbols[jit->n] = *symbol;
	jit->symbols[jit->n].order = (uint32_t)jit->n;
	jit->n++;
	return 0;
}

int jit_add_named(struct jit *jit, struct jit_symbol symbol, const char *name, size_t name_length)
{
	if (symbol.end <= symbol.start || name_length == 0 || name[0] == '\0')
		return 0;
	int r = jit_add_text(jit, name, name_length, &symbol.name);
	return r < 0 ? r : jit_add(jit, &symbol);
}

static int compare(const void *left, const void *right)
{
	const struct jit_symbol *a = left, *b = right;
	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	return (a->order > b->order) - (a->order < b->order);
}

/* What is told last holds. Of two that overlap, the earlier one is cut where the later one begins, or begins where that ends: JITs
 * reuse memory whole, so what is left of it is of little use anyway. */
static void settle(struct jit *jit)
{
	if (jit->n == 0)
		return;
	qsort(jit->symbols, jit->n, sizeof(jit->symbols[0]), compare);
	size_t kept = 0;
	for (size_t i = 0; i < jit->n; i++) {
		struct jit_symbol symbol = jit->symbols[i];
		while (kept > 0 && jit->symbols[kept - 1].end > symbol.start) {
			struct jit_symbol *before = &jit->symbols[kept - 1];
			if (before->order > symbol.order) {
				symbol.start = before->end;
				break;
			}
			before->end = symbol.start;
			if (before->end > before->start)
				break;
			kept--;
		}
		if (symbol.start < symbol.end)
			jit->symbols[kept++] = symbol;
	}
	jit->n = kept;
}

int jit_open(int fd, enum jit_format format, struct jit **ret)
{
	_cleanup_close_ int owned = fd;
	struct stat st;
	if (fstat(owned, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOEXEC;
	uint64_t bytes = (uint64_t)st.st_size < JIT_FILE_MAX_BYTES ? (uint64_t)st.st_size : JIT_FILE_MAX_BYTES;
	struct jit *jit = calloc(1, sizeof(*jit));
	uint32_t empty = 0;
	int r = jit ? jit_add_text(jit, "", 0, &empty) : -ENOMEM;
	if (r == 0)
		r = format == JIT_DUMP ? jit_read_dump(jit, owned, bytes) : jit_read_perf_map(jit, owned, bytes);
	if (r == 0 && format == JIT_DUMP)
		r = jit_index_times(jit);
	else if (r == 0)
		settle(jit);
	if (r < 0) {
		jit_free(jit);
		return r;
	}
	*ret = jit;
	return 0;
}

void jit_free(struct jit *jit)
{
	if (!jit)
		return;
	free(jit->symbols);
	free(jit->lines);
	free(jit->text);
	free(jit->by_start);
	free(jit->reach);
	free(jit);
}

size_t jit_bytes(const struct jit *jit)
{
	return sizeof(*jit) + jit->allocated * sizeof(jit->symbols[0]) + jit->lines_allocated * sizeof(jit->lines[0]) +
	       jit->text_allocated + (jit->by_start ? jit->n * (sizeof(jit->by_start[0]) + sizeof(jit->reach[0])) : 0);
}

size_t jit_count(const struct jit *jit)
{
	return jit->n;
}

static const struct jit_symbol *find_symbol(const struct jit *jit, uint64_t address)
{
	size_t low = 0, high = jit->n; /* the first symbol above address */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (jit->symbols[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low && address < jit->symbols[low - 1].end ? &jit->symbols[low - 1] : NULL;
}

/* The last of its lines at or below address; they need not be in order. */
static const struct jit_line *find_line(const struct jit *jit, const struct jit_symbol *symbol, uint64_t address)
{
	const struct jit_line *best = NULL;
	for (uint32_t i = 0; i < symbol->n_lines; i++) {
		const struct jit_line *line = &jit->lines[symbol->first_line + i];
		if (line->address <= address && (!best || line->address >= best->address))
			best = line;
	}
	return best;
}

size_t jit_describe(const struct jit *jit, const struct jit_symbol *symbol, uint64_t offset, struct image_frame *ret)
{
	static char readable[READER_NAME_MAX_BYTES + 1]; /* there is one thread */
	const struct jit_line *line = find_line(jit, symbol, symbol->told_at + offset);
	const char *name = jit->text + symbol->name;
	bool mangled = demangle(name, readable, sizeof(readable));
	if (mangled)
		text_make_printable(readable);
	*ret = (struct image_frame){
		.name = mangled ? readable : name,
		.system_name = name,
		.filename = line ? jit->text + line->file : "",
		.line = line ? line->line : 0,
	};
	return 1;
}

size_t jit_find(const struct jit *jit, uint64_t address, struct image_frame *ret)
{
	uint64_t until_ns = 0;
	if (jit->by_start)
		return jit_find_place(jit, jit_place_at(jit, address, UINT64_MAX, &until_ns), ret);
	const struct jit_symbol *symbol = find_symbol(jit, address);
	return symbol ? jit_describe(jit, symbol, address - symbol->start, ret) : 0;
}
