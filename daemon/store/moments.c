/* Places of code that JITs made: asked for once, all together, so that samples of the same code at other times stay one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/build.h"
#include "store/epoch.h"

static struct code_moment moment_of(uint64_t address, uint64_t code_ns)
{
	return (struct code_moment){.address = address, .time_ns = code_ns ? code_ns : UINT64_MAX};
}

/* How many frames of the cell lie where a JIT may have put them; with moments, these are put there. */
static size_t collect(struct builder *builder, const struct cell *cell, struct code_moment *moments)
{
	const struct stack *stack = cell->stack;
	const struct builder_version *version = builder_version(builder, stack->maps_version);
	const uint64_t *user = stack->frames + stack->n_kernel;
	size_t n = 0;
	for (size_t i = 0; version && version->maps && i < stack->n_user; i++) {
		uint64_t address = builder_code_address(user, i);
		const struct mapping *mapping = maps_find(version->maps, address);
		if (!mapping || !mapping_is_nameless(mapping->name))
			continue;
		if (moments)
			moments[n] = moment_of(address, cell->code_ns);
		n++;
	}
	return n;
}

static size_t collect_all(struct builder *builder, struct epoch *const *epochs, size_t n_epochs,
			  struct code_moment *moments)
{
	size_t n = 0;
	for (size_t i = 0; i < n_epochs; i++)
		for (const struct set_entry *entry = epochs[i]->cells.first; entry; entry = entry->next)
			n += collect(builder, (const struct cell *)entry, moments ? moments + n : NULL);
	return n;
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

int builder_find_places(struct builder *builder, struct epoch *const *epochs, size_t n_epochs)
{
	size_t n = builder->options->places ? collect_all(builder, epochs, n_epochs, NULL) : 0;
	if (n == 0)
		return 0;
	size_t bytes = n * sizeof(struct code_moment);
	struct code_moment *moments = heap_table(&builder->heap, bytes);
	if (!moments)
		return -ENOMEM;
	collect_all(builder, epochs, n_epochs, moments);
	qsort(moments, n, sizeof(*moments), compare);
	builder->moments = moments;
	builder->moments_bytes = bytes;
	builder->n_moments = drop_doubles(moments, n);
	builder->options->places(builder->options->places_context, moments, builder->n_moments);
	return 0;
}

uint64_t builder_place(const struct builder *builder, uint64_t address, uint64_t code_ns)
{
	struct code_moment key = moment_of(address, code_ns);
	if (!builder->moments)
		return 0;
	const struct code_moment *found = bsearch(&key, builder->moments, builder->n_moments, sizeof(key), compare);
	return found ? found->place : 0;
}

void builder_free_places(struct builder *builder)
{
	if (builder->moments)
		heap_table_free(&builder->heap, builder->moments, builder->moments_bytes);
	builder->moments = NULL;
}
