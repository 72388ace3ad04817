/* What of the sampling program is about CPython; python.h has the walk itself. Part of sampler.bpf.c.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
/* What is remembered of the code objects that the daemon has been told of: the last with each of these hashes. */
enum { PYTHON_SEEN = 16384 };
__u32 python_seen[PYTHON_SEEN];

static bool python_is_new(__u32 identity)
{
	__u32 *seen = &python_seen[identity & (PYTHON_SEEN - 1)];
	if (*seen == identity)
		return false;
	*seen = identity;
	return true;
}
#define PYTHON_IS_NEW(identity) python_is_new(identity)
#include "bpf/walk.h"

/* Of targets with TARGET_HAS_PYTHON. Written while they do not have it: whatever a walk of before then reads is checked. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TARGET_SLOTS);
	__type(key, __u32);
	__type(value, struct python_config);
} pythons SEC(".maps");

struct walking_python {
	struct python_walk *python;
	const struct python_config *config;
};

static long step_python(__u32 index __attribute__((unused)), struct walking_python *walking)
{
	return python_step(walking->python, walking->config, NULL);
}

/* A function that the verifier looks at once. */
__attribute__((noinline)) int walk_python_frames(struct python_walk *python, __u32 slot, __u64 program, __u64 fs_base)
{
	if (!python)
		return 0;
	struct walking_python walking = {.python = python, .config = bpf_map_lookup_elem(&pythons, &slot)};
	if (!walking.config || walking.config->program != program)
		return 0;
	if (python_begin(python, walking.config, fs_base, NULL) == 0)
		bpf_loop(PYTHON_STEPS, step_python, &walking, 0);
	return 0;
}

/* CPython's frames, before those of C, which find their place among them. */
static void walk_python(struct task_struct *task, struct walk *walk, __u32 slot, __u16 target_flags)
{
	if (!(target_flags & TARGET_HAS_PYTHON) || !task->mm)
		return;
	walk_python_frames(&walk->python, slot, task->mm->start_stack, task->thread.fsbase);
	if (walk->python.has_new)
		walk->flags |= RECORD_NEW_PYTHON;
}

/* CPython's frames go behind all that. Words as above. */
__attribute__((noinline)) __u32 add_python(struct walk *walk, __u32 words)
{
	if (!walk)
		return 0;
	__u32 frames = walk->python.n_frames, runs = walk->python.n_runs;
	if (frames == 0)
		return words;
	if (frames > RECORD_MAX_PYTHON_FRAMES || runs > RECORD_MAX_PYTHON_RUNS || words > WALK_WORDS + WALK_TAIL_WORDS)
		return 0;
	bpf_probe_read_kernel(&walk->frames[words], frames * sizeof(struct record_python_frame), walk->python.frames);
	words += frames * (sizeof(struct record_python_frame) / sizeof(__u64));
	if (words > WALK_WORDS + WALK_TAIL_WORDS + WALK_PYTHON_WORDS)
		return 0;
	if (runs)
		bpf_probe_read_kernel(&walk->frames[words], runs * sizeof(struct record_python_run), walk->python.runs);
	return words + runs;
}
