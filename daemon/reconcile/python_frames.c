#include "reconcile/python_frames.h"

#include <errno.h>
#include <string.h>

#include "model/sample.h"
#include "reconcile/deep_stack.h"

struct view {
	const struct record_python_frame *frames;
	const struct record_python_run *runs;
	unsigned n_frames, n_runs;
};

static struct view view_of(const struct record *record)
{
	const __u64 *words = record->frames + record->n_kernel + record->n_user +
			     record->n_segments * (sizeof(struct record_segment) / sizeof(__u64)) + record->n_barriers;
	const struct record_python_frame *frames = (const struct record_python_frame *)words;
	return (struct view){.frames = frames,
			     .runs = (const struct record_python_run *)(frames + record->n_python),
			     .n_frames = record->n_python,
			     .n_runs = record->n_python_runs};
}

/* Runs follow one another, and so do their C frames; behind one that was not found none was. */
int python_frames_check(const struct record *record)
{
	struct view view = view_of(record);
	unsigned n = 0;
	int last = -1;
	for (unsigned i = 0; i < view.n_runs; i++) {
		int c_frame = view.runs[i].c_frame;
		n += view.runs[i].n;
		if (n > view.n_frames ||
		    (c_frame != RECORD_NO_C_FRAME && c_frame >= record->n_user + record->n_left_out) ||
		    (c_frame <= last && !(c_frame == RECORD_NO_C_FRAME && last == RECORD_NO_C_FRAME)))
			return -EBADMSG;
		last = c_frame;
	}
	return 0;
}

static uint64_t frame_of(const struct record_python_frame *frame, struct python_codes *codes)
{
	struct python_code_key key = {.address = frame->code, .identity = frame->identity};
	__u32 instruction =
		frame->instruction < RECORD_MAX_PYTHON_OFFSET ? frame->instruction : RECORD_MAX_PYTHON_OFFSET;
	return SAMPLE_FRAME_PYTHON(python_codes_number(codes, &key), instruction);
}

void python_frames_merge(const struct record *record, struct python_codes *codes, uint64_t *room,
			 struct segments_stack *stack)
{
	struct view view = view_of(record);
	unsigned n_c = stack->n, n = 0, frame = 0, run = 0;
	if (view.n_frames == 0 || !codes)
		return;
	/* Out of the way of what is put together. */
	uint64_t *c_frames = room + RECORD_MAX_PYTHON_FRAMES;
	memmove(c_frames, stack->user, n_c * sizeof(c_frames[0]));
	for (unsigned c_frame = 0; c_frame < n_c; c_frame++) {
		for (; run < view.n_runs && deep_stack_place(record, view.runs[run].c_frame) == c_frame; run++)
			for (unsigned end = frame + view.runs[run].n; frame < end; frame++)
				room[n++] = frame_of(&view.frames[frame], codes);
		/* The sampled address is exact, and all others are taken for return addresses. */
		uint64_t leaf_is_caller = c_frame == 0 && n > 0;
		room[n++] = c_frames[c_frame] + leaf_is_caller;
	}
	/* Callers of C frames that could not be walked. */
	for (; frame < view.n_frames; frame++)
		room[n++] = frame_of(&view.frames[frame], codes);
	stack->user = room;
	stack->n = (uint16_t)n;
}
