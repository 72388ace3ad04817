/* A stack that is deeper than a record: the ends that it has, leaf's and root's, with a frame between that stands for what was left out. A pure
 * function of the record. Private to reconcile. */
#pragma once
#include <stdbool.h>

#include "reconcile/segments.h"

/* Whether the counts can be such a stack's, or one's of which nothing was left out. */
bool deep_stack_check(const struct record *record);
/* Where a frame is, by its number in the whole stack; one that was left out is where the frame that stands for it is. Beyond the stack: in no place. */
unsigned deep_stack_place(const struct record *record, unsigned frame);
/* Puts the frames in their order. *stack: what segments_reconcile made of a record that was checked; room has RECORD_MAX_USER_FRAMES + 1 places. */
void deep_stack_join(const struct record *record, uint64_t *room, struct segments_stack *stack);
