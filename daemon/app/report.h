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

/* The stable name and the text of an outcome. */
const char *report_outcome_name(enum outcome outcome);
const char *report_outcome_text(enum outcome outcome);
/* What an entry became otherwise than a sample: of the BPF program's counters and the daemon's. */
uint64_t report_loss(const struct target *target, enum outcome outcome);
bool report_is_loss(enum outcome outcome);

/* Adds to a profile's comments how the stacks end in the epochs that it was made of, and, when it is of a process with CPython, how far that's frames are
 * known; cut: samples whose stack was cut when it was made. Thread: any. */
void report_stacks(struct epoch *const *epochs, size_t n_epochs, bool has_python, uint64_t cut,
		   struct profile *profile);
