#include "app/windows.h"

#include <errno.h>
#include <stdlib.h>

struct span {
	struct span *next;
	struct epoch *epoch;
};

static uint64_t samples_of(const struct span *span)
{
	struct epoch_totals totals;
	epoch_totals(span->epoch, &totals);
	return totals.samples;
}

/* Whatever comes from now on is in an epoch of its own. */
static int begin_span(struct windows *windows, size_t budget_bytes)
{
	if (windows->last && samples_of(windows->last) == 0)
		return 0;
	struct span *span = malloc(sizeof(*span));
	struct epoch *epoch = span ? epoch_new(budget_bytes) : NULL;
	if (!epoch) {
		free(span);
		return -ENOMEM;
	}
	*span = (struct span){.epoch = epoch};
	if (windows->last)
		windows->last->next = span;
	else
		windows->first = span;
	windows->last = span;
	return 0;
}

/* Those before the first that any open window needs. */
static void drop_spans(struct windows *windows)
{
	while (windows->first) {
		struct span *span = windows->first;
		for (const struct window *window = windows->open; window; window = window->next)
			if (window->first == span)
				return;
		windows->first = span->next;
		epoch_unref(span->epoch);
		free(span);
	}
	windows->last = NULL;
}

struct window *windows_open(struct windows *windows, size_t budget_bytes)
{
	struct window *window = malloc(sizeof(*window));
	if (!window || begin_span(windows, budget_bytes) < 0) {
		free(window);
		return NULL;
	}
	*window = (struct window){.next = windows->open, .first = windows->last};
	windows->open = window;
	return window;
}

void windows_add(struct windows *windows, const struct sample *sample)
{
	if (windows->last)
		(void)epoch_add(windows->last->epoch, sample, NULL);
}

int windows_end(struct windows *windows, struct window *window, size_t budget_bytes, struct epoch ***ret, size_t *ret_n)
{
	size_t n = 0;
	for (const struct span *span = window->first; span; span = span->next)
		n++;
	struct epoch **epochs = calloc(n + 1, sizeof(struct epoch *));
	/* The windows that stay open go on in another: what is shared with a worker must not change. */
	bool others = windows->open != window || window->next;
	if (!epochs || (others && begin_span(windows, budget_bytes) < 0)) {
		free(epochs);
		return -ENOMEM;
	}
	n = 0;
	for (const struct span *span = window->first; span; span = span->next)
		if (samples_of(span) > 0)
			epochs[n++] = epoch_ref(span->epoch);
	windows_close(windows, window);
	*ret = epochs;
	*ret_n = n;
	return 0;
}

void windows_close(struct windows *windows, struct window *window)
{
	struct window **link = &windows->open;
	while (*link != window)
		link = &(*link)->next;
	*link = window->next;
	free(window);
	drop_spans(windows);
}

uint64_t windows_bytes(const struct windows *windows)
{
	uint64_t bytes = 0;
	for (const struct span *span = windows->first; span; span = span->next) {
		struct epoch_totals totals;
		epoch_totals(span->epoch, &totals);
		bytes += totals.bytes;
	}
	return bytes;
}
