/* Places of code that JITs made: asked for before any location is made, so that samples of the same code at other times stay one. A sample has as many moments
 * as frames in such code; so they are asked for in parts, and of the answers only the changes are kept. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "store/build.h"
#include "store/epoch.h"

enum { ASKED_AT_ONCE = 1 << 18 }; /* 6 MiB */

static struct code_moment moment_of(uint64_t address, uint64_t code_ns)
{
	return (struct code_moment){.address = address, .time_ns = code_ns ? code_ns : UINT64_MAX};
}

static int compare(const void *left, const void *right)
{
	const struct code_moment *a = left, *b = right;
	if (a->address != b->address)
		return a->address < b->address ? -1 : 1;
	return (a->time_ns > b->time_ns) - (a->time_ns < b->time_ns);
}

static size_t drop_doubles(struct code_moment *moments, size_t n)
{
	size_t kept = 0;
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || compare(&moments[i], &moments[kept - 1]) != 0)
			moments[kept++] = moments[i];
	return kept;
}

/* Of those of one address that have one place, the first stands for all that follow it: most code stays for long. */
static size_t keep_changes(struct code_moment *moments, size_t n)
{
	size_t kept = 0;
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || moments[i].address != moments[kept - 1].address ||
		    moments[i].place != moments[kept - 1].place)
			moments[kept++] = moments[i];
	return kept;
}

/* Adds some, ascending, to those that the builder has. */
static int merge(struct builder *builder, const struct code_moment *more, size_t n_more)
{
	const struct code_moment *had = builder->moments;
	size_t n_had = builder->n_moments, n = 0, i = 0, k = 0, bytes = (n_had + n_more) * sizeof(*more);
	struct code_moment *merged = heap_table(&builder->heap, bytes);
	if (!merged)
		return -ENOMEM;
	while (i < n_had || k < n_more) {
		bool takes_had = k == n_more || (i < n_had && compare(&had[i], &more[k]) <= 0);
		merged[n++] = takes_had ? had[i++] : more[k++];
	}
	builder_free_places(builder);
	builder->moments = merged;
	builder->moments_bytes = bytes;
	builder->n_moments = keep_changes(merged, n);
	return 0;
}

/* Moments that are yet to be asked for. */
struct waiting {
	struct code_moment *moments;
	size_t n, room;
};

static int ask(struct builder *builder, struct waiting *waiting)
{
	qsort(waiting->moments, waiting->n, sizeof(waiting->moments[0]), compare);
	size_t n = drop_doubles(waiting->moments, waiting->n);
	builder->options->places(builder->options->places_context, waiting->moments, n);
	waiting->n = 0;
	return merge(builder, waiting->moments, keep_changes(waiting->moments, n));
}

static int add(struct builder *builder, struct waiting *waiting, uint64_t address, uint64_t code_ns)
{
	int r = waiting->n == waiting->room ? ask(builder, waiting) : 0;
	if (r == 0)
		waiting->moments[waiting->n++] = moment_of(address, code_ns);
	return r;
}

/* Adds the frames of the cell that lie where a JIT may have put them, and counts them up; without waiting, it only counts. */
static int collect(struct builder *builder, const struct cell *cell, struct waiting *waiting, size_t *n)
{
	const struct stack *stack = cell->stack;
	const struct builder_version *version = builder_version(builder, stack->maps_version);
	const uint64_t *user = stack->frames + stack->n_kernel;
	int r = 0;
	for (size_t i = 0; r == 0 && version && version->maps && i < stack->n_user; i++) {
		uint64_t address = builder_code_address(user, i);
		const struct mapping *mapping = maps_find(version->maps, address);
		if (!mapping || !mapping_is_nameless(mapping->name))
			continue;
		++*n;
		if (waiting)
			r = add(builder, waiting, address, cell->code_ns);
	}
	return r;
}

static int collect_all(struct builder *builder, struct epoch *const *epochs, size_t n_epochs, struct waiting *waiting,
		       size_t *n)
{
	int r = 0;
	*n = 0;
	for (size_t i = 0; i < n_epochs; i++)
		for (const struct set_entry *entry = epochs[i]->cells.first; entry && r == 0; entry = entry->next)
			r = collect(builder, (const struct cell *)entry, waiting, n);
	return r;
}

int builder_find_places(struct builder *builder, struct epoch *const *epochs, size_t n_epochs)
{
	size_t n = 0;
	if (builder->options->places)
		(void)collect_all(builder, epochs, n_epochs, NULL, &n);
	if (n == 0)
		return 0;
	struct waiting waiting = {.room = n < ASKED_AT_ONCE ? n : ASKED_AT_ONCE};
	size_t bytes = waiting.room * sizeof(waiting.moments[0]);
	waiting.moments = heap_table(&builder->heap, bytes);
	if (!waiting.moments)
		return -ENOMEM;
	int r = collect_all(builder, epochs, n_epochs, &waiting, &n);
	if (r == 0)
		r = ask(builder, &waiting);
	heap_table_free(&builder->heap, waiting.moments, bytes);
	return r;
}

uint64_t builder_place(const struct builder *builder, uint64_t address, uint64_t code_ns)
{
	struct code_moment key = moment_of(address, code_ns);
	size_t low = 0, high = builder->n_moments; /* the first one behind the key */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (compare(&builder->moments[middle], &key) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && builder->moments[low - 1].address == address ? builder->moments[low - 1].place : 0;
}

void builder_free_places(struct builder *builder)
{
	heap_table_free(&builder->heap, builder->moments, builder->moments_bytes);
	builder->moments = NULL;
	builder->n_moments = 0;
}
