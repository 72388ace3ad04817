/* What holds of a walk by the barrier-lock table (docs/BARRIER-TABLE.md, sections 8 and 9): the BPF program walks speculatively and says, segment by
 * segment, under which versions; here it is decided. A pure function. Private to reconcile. */
#pragma once
#include <linux/types.h>
#include <stdint.h>

#include "bpf/record.h"
#include "model/maps.h"

struct segments_stack {
	const uint64_t *user; /* into the record, or room */
	uint16_t n;
	enum stack_end end;
};

/* The record's counts and size have been checked. maps may be NULL: not known. room has RECORD_MAX_USER_FRAMES + 1 places.
 * 0, or -EBADMSG: segments or barriers that make no sense. */
int segments_reconcile(const struct record *record, const struct maps *maps, uint64_t *room,
		       struct segments_stack *ret);
