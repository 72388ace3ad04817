#include "reconcile/segments.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "bpf/mutants.h"
#include "model/sample.h"

struct view {
	const struct record *record;
	const struct record_segment *segments;
	const __u64 *barriers;
	const __u64 *user;
};

static struct view view_of(const struct record *record)
{
	const __u64 *user = record->frames + record->n_kernel;
	const struct record_segment *segments = (const struct record_segment *)(user + record->n_user);
	return (struct view){
		.record = record,
		.segments = segments,
		.barriers = (const __u64 *)(segments + record->n_segments),
		.user = user,
	};
}

/* Segments follow one another over the frames; one that was not walked, or whose frames are void already, has none. */
static bool are_well_formed(const struct view *view)
{
	unsigned next = 0;
	for (unsigned i = 0; i < view->record->n_segments; i++) {
		const struct record_segment *segment = &view->segments[i];
		if (segment->kind >= SEGMENT_KINDS || segment->lock >= SEGMENT_LOCKS || segment->end >= STACK_END_COUNT)
			return false;
		if (segment->n == 0)
			continue;
		if (segment->first < next || segment->first + segment->n > view->record->n_user ||
		    segment->lock > SEGMENT_LOCKED)
			return false;
		next = segment->first + segment->n;
	}
	for (unsigned i = 0; i < view->record->n_barriers; i++)
		if (BARRIER_FRAME(view->barriers[i]) >= view->record->n_user ||
		    (i > 0 && BARRIER_FRAME(view->barriers[i]) <= BARRIER_FRAME(view->barriers[i - 1])))
			return false;
	return true;
}

static const struct record_segment *segment_of(const struct view *view, unsigned frame)
{
	for (unsigned i = 0; i < view->record->n_segments; i++)
		if (frame >= view->segments[i].first && frame - view->segments[i].first < view->segments[i].n)
			return &view->segments[i];
	return NULL;
}

/* Whether barrier i may have given its frame: under the lock of its stack, above the one before it there, into code. */
static bool barrier_is_plausible(const struct view *view, unsigned i, const struct maps *maps)
{
	unsigned frame = BARRIER_FRAME(view->barriers[i]);
	const struct record_segment *segment = segment_of(view, frame);
	if (!segment || segment->lock != SEGMENT_LOCKED)
		return false;
	if (i > 0 && segment == segment_of(view, BARRIER_FRAME(view->barriers[i - 1])) &&
	    BARRIER_SLOT(view->barriers[i]) <= BARRIER_SLOT(view->barriers[i - 1]))
		return false;
	return !maps || maps_find(maps, view->user[frame] - 1);
}

/* Frames from *n on are void. Rule 16: those of a stack whose version has changed, back to where it was entered. */
static void cut_changed(const struct view *view, unsigned *n, enum stack_end *end)
{
	for (unsigned i = 0; i < view->record->n_segments; i++) {
		const struct record_segment *segment = &view->segments[i];
		if (segment->lock != SEGMENT_LOCKED || segment->version_begin == segment->version_end ||
		    segment->n == 0 || segment->first >= *n || MUTANT(version))
			continue;
		*n = MUTANT(drop_all) ? 0 : segment->first;
		*end = STACK_END_STACK_CHANGED;
	}
}

static void cut_implausible(const struct view *view, const struct maps *maps, unsigned *n, enum stack_end *end)
{
	for (unsigned i = 0; i < view->record->n_barriers; i++) {
		unsigned frame = BARRIER_FRAME(view->barriers[i]);
		if (frame >= *n)
			return;
		if (barrier_is_plausible(view, i, maps))
			continue;
		*n = frame;
		*end = STACK_END_BARRIER_MISMATCH;
		return;
	}
}

/* Rule 9. The sampled pc, unless it is a trampoline's (rule 14), and who is to be blamed. */
static void two_frames(const struct view *view, uint64_t *room, struct segments_stack *stack)
{
	bool shown = !(view->record->flags & RECORD_IN_TRAMPOLINE) || MUTANT(trampoline_frame);
	bool gc = view->record->thread_flags & 1 && !MUTANT(gc_root);
	room[0] = shown ? view->user[0] : SAMPLE_FRAME_EXTERNAL_CODE;
	room[1] = gc ? SAMPLE_FRAME_GC : SAMPLE_FRAME_SYSTEM;
	stack->user = room;
	stack->n = MUTANT(two_frames) ? 1 : 2;
}

/* Mutants of rules that the BPF program follows and that leave no trace in its code. */
static void mutate(const struct view *view, unsigned *n)
{
	if (MUTANT(system_fallback) && view->record->user_end == STACK_END_SYSTEM_ONLY)
		*n = 0;
}

int segments_reconcile(const struct record *record, const struct maps *maps, uint64_t *room, struct segments_stack *ret)
{
	struct view view = view_of(record);
	struct segments_stack stack = {
		.user = (const uint64_t *)view.user, .n = record->n_user, .end = (enum stack_end)record->user_end};
	if (record->n_segments > 0 && record->n_user > 0) {
		if (!are_well_formed(&view))
			return -EBADMSG;
		unsigned n = record->n_user;
		cut_changed(&view, &n, &stack.end);
		cut_implausible(&view, maps, &n, &stack.end);
		mutate(&view, &n);
		/* The leaf that no segment has stands before a walk from another start (rule 8), or alone. */
		bool leaf_only = !segment_of(&view, 0);
		bool hidden = leaf_only && record->flags & RECORD_IN_TRAMPOLINE;
		stack.n = (uint16_t)n;
		if (n == 0 || (leaf_only && n == 1)) {
			two_frames(&view, room, &stack);
		} else if (hidden) {
			stack.user++;
			stack.n--;
		} else if (MUTANT(foreign_native) && record->n_segments > 1 &&
			   view.segments[1].kind == SEGMENT_FOREIGN && view.segments[1].n) {
			stack.user += view.segments[1].first;
			stack.n = (uint16_t)(n - view.segments[1].first);
		}
	}
	*ret = stack;
	return 0;
}
