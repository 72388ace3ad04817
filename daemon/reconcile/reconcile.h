/* From a record to a sample: checks what the kernel delivered and decides what of it to trust. A pure function of the record, the mappings and
 * the thread's clock, but for the numbers of code objects. */
#pragma once
#include <linux/types.h>
#include <stddef.h>

#include "bpf/record.h"
#include "model/maps.h"
#include "model/python_codes.h"
#include "model/sample.h"
#include "reconcile/thread_clock.h"

/* Room for a stack that is not as the record has it. */
struct reconcile_room {
	uint64_t user[RECORD_MAX_PYTHON_FRAMES + RECORD_MAX_USER_FRAMES + 1];
	struct python_codes
		*codes; /* of the target's CPython, to which code objects are added; NULL: its frames are left out */
};

/* bytes is what was delivered. maps: what was mapped executable at that moment, or NULL when that is not known. Fills *ret but for maps_version; its
 * pointers point into the record or into *room. Returns OUTCOME_SAMPLE, or the reason why there is none (OUTCOME_MALFORMED_RECORD,
 * OUTCOME_STORE_FULL when memory is out). */
enum outcome reconcile_record(const struct record *record, size_t bytes, const struct maps *maps,
			      struct thread_clock *clock, struct reconcile_room *room, struct sample *ret);
