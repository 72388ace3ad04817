/* From a record to a sample: checks what the kernel delivered and decides what of it to trust. A pure function of the record and
 * the thread's clock. (With the barrier-lock table this is where substituted return addresses are judged.) */
#pragma once
#include <linux/types.h>
#include <stddef.h>

#include "bpf/record.h"
#include "model/sample.h"
#include "reconcile/thread_clock.h"

/* bytes is what was delivered. Fills *ret but for maps_version; its pointers point into the record. Returns OUTCOME_SAMPLE, or the reason why
 * there is none (OUTCOME_MALFORMED_RECORD, OUTCOME_STORE_FULL when memory is out). */
enum outcome reconcile_record(const struct record *record, size_t bytes, struct thread_clock *clock,
			      struct sample *ret);
