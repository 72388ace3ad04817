/* Control messages about the daemon and its targets. All memory is the arena's. */
#pragma once
#include "app/pipeline.h"
#include "base/arena.h"
#include "control.pb-c.h"

/* NULL when out of memory. The ring buffer should have been drained, and the target counted, right before. */
Sprof__Control__Target *report_target(struct arena *arena, const struct target *target);
/* The targets that the requester may touch. NULL when out of memory. */
Sprof__Control__TargetList *report_list(struct arena *arena, struct pipeline *pipeline,
					const struct requester *requester);
Sprof__Control__Status *report_status(struct arena *arena, struct pipeline *pipeline,
				      const struct requester *requester);

/* The stable name and the text of an outcome and of a stack end. */
const char *report_outcome_name(enum outcome outcome);
const char *report_outcome_text(enum outcome outcome);
const char *report_stack_end_name(enum stack_end end);
const char *report_stack_end_text(enum stack_end end);
/* Whether a stack that ends so is whole. */
bool report_stack_end_is_whole(enum stack_end end);
/* What an entry became otherwise than a sample: of the BPF program's counters and the daemon's. */
uint64_t report_loss(const struct target *target, enum outcome outcome);
bool report_is_loss(enum outcome outcome);

/* Adds to a profile's comments how far the frames of CPython are in the epochs that it was made of. Thread: any. */
void report_python(struct epoch *const *epochs, size_t n_epochs, struct profile *profile);
