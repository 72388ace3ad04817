/* The samples of a target while pulls of its next seconds are under way: each window is a span of them. A sample is stored once, however many windows
 * are open: into a series of epochs of which a new one begins whenever a window opens or ends, so that each window is a run of whole epochs.
 * Event loop only. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

struct span; /* an epoch of the series */

struct window {
	struct window *next;
	struct span *first;               /* of the series that is this window's */
	void (*cut_short)(void *context); /* the target ended */
	void *context;
};

struct windows {
	struct window *open;
	struct span *first, *last; /* all that some open window needs; samples go into the last */
};

/* A window from now on, whose epochs each hold at most budget_bytes. NULL when out of memory. */
struct window *windows_open(struct windows *windows, size_t budget_bytes);
/* A sample of the target. What there is no room for is missing from the windows' samples. */
void windows_add(struct windows *windows, const struct sample *sample);
/* Ends the window: *ret is a malloc'ed array of *ret_n references to its epochs, which do not change any more. The window is closed, or
 * -ENOMEM and it is not. */
int windows_end(struct windows *windows, struct window *window, size_t budget_bytes, struct epoch ***ret,
		size_t *ret_n);
/* Without its samples. */
void windows_close(struct windows *windows, struct window *window);
/* Of all epochs. */
uint64_t windows_bytes(const struct windows *windows);
