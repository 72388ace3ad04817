/* Memory for one piece of work at a time, in one stretch of addresses: it is kept from one to the next, and an array grows where it is. The first
 * touch of a page costs tens of microseconds where a hypervisor has page tables of its own, and was most of what an unwind table took. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { SCRATCH_KEPT_BYTES = 4 << 20 }; /* by scratch_reset */

struct scratch {
	uint8_t *start;   /* NULL: nothing was asked for yet */
	size_t used;      /* bytes from the start */
	size_t committed; /* bytes from the start that may be touched */
	uint8_t *last;    /* the newest array, which can grow where it is */
};

/* Each is aligned to 16 bytes, and there until the scratch is reset; its content is undefined. NULL: no memory, or more than an address
 * space of 2 GiB for all. {} is an empty scratch. */
void *scratch_alloc(struct scratch *scratch, size_t bytes);
/* An array with what it had, up to `bytes`; it may have moved. NULL: as above, and the array is as it was. */
void *scratch_resize(struct scratch *scratch, void *array, size_t old_bytes, size_t bytes);
/* Forgets all that is in it. What goes beyond SCRATCH_KEPT_BYTES is given back to the kernel. */
void scratch_reset(struct scratch *scratch);
void scratch_release(struct scratch *scratch);
