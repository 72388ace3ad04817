/* Code of a jitdump by address and time. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "elf/jit_internal.h"

enum {
	OFFSET_BITS = 40,
	LOOKED_AT_MAX = 1 << 16, /* for one question: what began close below the address */
};

_Static_assert(JIT_SYMBOLS_MAX < 1 << (64 - OFFSET_BITS - 1), "a place has room for the number of a symbol");

static int compare_starts(const void *left, const void *right, void *context)
{
	const struct jit_symbol *symbols = context;
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
	if (symbols[a].start != symbols[b].start)
		return symbols[a].start < symbols[b].start ? -1 : 1;
	if (symbols[a].from_ns != symbols[b].from_ns)
		return symbols[a].from_ns < symbols[b].from_ns ? -1 : 1;
	return (a > b) - (a < b);
}

int jit_index_times(struct jit *jit)
{
	size_t n = jit->n ? jit->n : 1;
	jit->by_start = reallocarray(NULL, n, sizeof(jit->by_start[0]));
	jit->reach = reallocarray(NULL, n, sizeof(jit->reach[0]));
	if (!jit->by_start || !jit->reach)
		return -ENOMEM;
	for (size_t i = 0; i < jit->n; i++)
		jit->by_start[i] = (uint32_t)i;
	qsort_r(jit->by_start, jit->n, sizeof(jit->by_start[0]), compare_starts, jit->symbols);
	for (size_t i = 0; i < jit->n; i++) {
		uint64_t end = jit->symbols[jit->by_start[i]].end;
		jit->reach[i] = i > 0 && jit->reach[i - 1] > end ? jit->reach[i - 1] : end;
	}
	return 0;
}

/* Of all that ever was at an address. */
struct moment {
	const struct jit_symbol *held; /* at the moment; NULL: nothing */
	const struct jit_symbol *next; /* then; NULL: nothing */
};

static bool is_newer(const struct jit_symbol *a, const struct jit_symbol *b)
{
	return a->from_ns > b->from_ns || (a->from_ns == b->from_ns && a->order > b->order);
}

static void take(struct moment *moment, const struct jit_symbol *symbol, uint64_t time_ns)
{
	if (symbol->from_ns <= time_ns) {
		if (!moment->held || is_newer(symbol, moment->held))
			moment->held = symbol;
	} else if (!moment->next || symbol->from_ns < moment->next->from_ns) {
		moment->next = symbol;
	}
}

static const struct jit_symbol *at(const struct jit *jit, size_t i)
{
	return &jit->symbols[jit->by_start[i]];
}

/* The first of by_start, from low to high, that comes behind all that begin below start, or at start not after time_ns. */
static size_t behind(const struct jit *jit, size_t low, size_t high, uint64_t start, uint64_t time_ns)
{
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct jit_symbol *symbol = at(jit, middle);
		if (symbol->start < start || (symbol->start == start && symbol->from_ns <= time_ns))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Of those that begin at one address, from first to last, takes the one that was there and the one that came next, of what reaches to address. How many
 * were looked at. */
static size_t take_group(const struct jit *jit, size_t first, size_t last, uint64_t address, uint64_t time_ns,
			 struct moment *moment)
{
	size_t later = behind(jit, first, last, at(jit, first)->start, time_ns), held = later, next = later;
	while (held > first && at(jit, held - 1)->end <= address)
		held--;
	while (next < last && at(jit, next)->end <= address)
		next++;
	if (held > first)
		take(moment, at(jit, held - 1), time_ns);
	if (next < last)
		take(moment, at(jit, next), time_ns);
	return 1 + (later - held) + (next - later);
}

static struct moment look(const struct jit *jit, uint64_t address, uint64_t time_ns)
{
	struct moment moment = {};
	size_t last = behind(jit, 0, jit->n, address, UINT64_MAX);
	for (size_t looked = 0; last > 0 && jit->reach[last - 1] > address;) {
		uint64_t start = at(jit, last - 1)->start;
		size_t first = start > 0 ? behind(jit, 0, last, start - 1, UINT64_MAX) : 0;
		looked += take_group(jit, first, last, address, time_ns, &moment);
		if (looked > LOOKED_AT_MAX)
			return (struct moment){};
		last = first;
	}
	return moment;
}

bool jit_has_places(const struct jit *jit)
{
	return jit->by_start;
}

uint64_t jit_place_at(const struct jit *jit, uint64_t address, uint64_t time_ns, uint64_t *ret_until_ns)
{
	struct moment moment = {};
	if (jit->by_start)
		moment = look(jit, address, time_ns);
	if (!moment.held && moment.next)
		moment = look(jit, address, moment.next->from_ns);
	*ret_until_ns = moment.next ? moment.next->from_ns : UINT64_MAX;
	if (!moment.held)
		return 0;
	uint64_t number = (uint64_t)(moment.held - jit->symbols) + 1;
	return number << OFFSET_BITS | (address - moment.held->start);
}

size_t jit_find_place(const struct jit *jit, uint64_t place, struct image_frame *ret)
{
	uint64_t number = place >> OFFSET_BITS, offset = place & ((UINT64_C(1) << OFFSET_BITS) - 1);
	if (!jit->by_start || number == 0 || number > jit->n)
		return 0;
	const struct jit_symbol *symbol = &jit->symbols[number - 1];
	return offset < symbol->end - symbol->start ? jit_describe(jit, symbol, offset, ret) : 0;
}
