#include "reconcile/deep_stack.h"

#include <string.h>

#include "model/sample.h"

static bool has_both_ends(const struct record *record)
{
	return record->n_left_out > 0 && record->n_user == RECORD_MAX_USER_FRAMES;
}

bool deep_stack_check(const struct record *record)
{
	if (record->n_segments > 0)
		return record->n_left_out == 0 && record->n_user <= RECORD_LEAF_FRAMES;
	return record->n_left_out == 0 || has_both_ends(record) ||
	       (record->n_user == RECORD_LEAF_FRAMES && record->user_end == STACK_END_TOO_DEEP);
}

unsigned deep_stack_place(const struct record *record, unsigned frame)
{
	if (!has_both_ends(record) || frame < RECORD_LEAF_FRAMES)
		return frame;
	unsigned first_kept = RECORD_LEAF_FRAMES + record->n_left_out;
	return frame < first_kept ? RECORD_LEAF_FRAMES : frame - first_kept + RECORD_LEAF_FRAMES + 1;
}

static enum stack_end cut_end(enum stack_end end)
{
	return end == STACK_END_ROOT || end == STACK_END_OUTERMOST ? STACK_END_CUT : end;
}

void deep_stack_join(const struct record *record, uint64_t *room, struct segments_stack *stack)
{
	if (!has_both_ends(record))
		return;
	const uint64_t *ring = stack->user + RECORD_LEAF_FRAMES;
	unsigned first = record->n_left_out % RECORD_ROOT_FRAMES;
	memcpy(room, stack->user, RECORD_LEAF_FRAMES * sizeof(room[0]));
	uint64_t *to = room + RECORD_LEAF_FRAMES;
	*to++ = SAMPLE_FRAME_LEFT_OUT;
	memcpy(to, ring + first, (RECORD_ROOT_FRAMES - first) * sizeof(room[0]));
	memcpy(to + RECORD_ROOT_FRAMES - first, ring, first * sizeof(room[0]));
	stack->user = room;
	stack->n = RECORD_MAX_USER_FRAMES + 1;
	stack->end = cut_end(stack->end);
}
