/* CPython's own frames, from the state of the thread that was interrupted. One piece of code that builds as BPF and in user mode; see unwind.h.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 *
 * python_reset() forgets the last walk; python_begin() finds the thread's state; python_step() is called until it returns nonzero, each time for one
 * frame, at most PYTHON_STEPS times. Frames come in runs: those that one call of _PyEval_EvalFrameDefault executes. Of each run it is known where on
 * the C stack that call has its frame: as the walk of the C stack comes past it, python_passed() notes which C frame that is.
 *
 * The thread is interrupted, so nobody changes its frames meanwhile. Nothing of what is read is trusted: whatever does not lead to a code object
 * ends the walk with a reason. */
#pragma once
#include "bpf/python_config.h"
#include "bpf/record.h"

enum {
	PYTHON_STEPS = 1536, /* deeper frames than the record holds are still passed, to find where their run begins */
	PYTHON_FRAME_WORDS = PYTHON_FRAME_BYTES / 8,
	PYTHON_CODE_WORDS = PYTHON_CODE_BYTES / 8,
};

#ifndef PYTHON_IS_NEW
#define PYTHON_IS_NEW(identity) \
	0 /* whether the daemon has not been told of such a code object, as far as the program remembers */
#endif

struct python_walk {
	__u64 next_entry; /* where the next run has its C frame: what passes it is that frame's caller. ~0: no run is left */
	__u64 at;         /* the frame that comes next; 0: none */
	__u64 c_frame; /* the _PyCFrame of the run at hand; 0: this version has none */
	__u32 end;     /* enum python_end */
	__u32 n_frames, n_runs, n_passed;
	__u32 run_first; /* first frame of the run at hand */
	__u32 too_deep;  /* frames were left out */
	__u32 has_new;   /* some code object is new to the daemon */
	__u32 reserved;
	/* As read; powers of two above PYTHON_FRAME_WORDS and PYTHON_CODE_WORDS. Aligned, copies are made sooner. */
	__u64 frame[16] __attribute__((aligned(64)));
	__u64 code[32] __attribute__((aligned(64)));
	__u64 entries[RECORD_MAX_PYTHON_RUNS];
	struct record_python_frame frames[RECORD_MAX_PYTHON_FRAMES];
	struct record_python_run runs[RECORD_MAX_PYTHON_RUNS];
};

static inline void python_reset(struct python_walk *python)
{
	python->next_entry = ~0ull;
	python->at = python->c_frame = 0;
	python->n_frames = python->n_runs = python->n_passed = python->run_first = 0;
	python->too_deep = python->has_new = 0;
	python->end = PYTHON_END_NONE;
}

static inline int python_read_word(__u64 *to, __u64 address, void *memory)
{
	return unwind_read(to, sizeof(*to), address, memory) == 0;
}

/* A state belongs to the thread whose fs base it has. */
static inline int python_is_own(const struct python_config *config, __u64 state, __u64 fs_base, void *memory)
{
	__u64 id = 0;
	return state && python_read_word(&id, state + config->state_thread_id, memory) && id == fs_base;
}

/* The thread's PyThreadState: the one that holds the GIL, if that is its own; else the one that it keeps. 0: it has none. */
static inline __u64 python_find_state(const struct python_config *config, __u64 fs_base, void *memory)
{
	__u64 state = 0;
	if (config->holder_at && python_read_word(&state, config->holder_at, memory) &&
	    python_is_own(config, state, fs_base, memory))
		return state;
	state = 0;
	if (python_read_word(&state, fs_base + config->specific, memory) &&
	    python_is_own(config, state, fs_base, memory))
		return state;
	return 0;
}

static inline int python_stop(struct python_walk *python, __u32 end)
{
	python->end = end;
	return 1;
}

/* Goes on at the frame that the _PyCFrame has for innermost. */
static inline int python_enter_c_frame(struct python_walk *python, const struct python_config *config, void *memory)
{
	if (!python_read_word(&python->at, python->c_frame + config->c_frame_current, memory))
		return python_stop(python, PYTHON_END_UNREADABLE);
	return 0;
}

/* Nonzero: there is nothing to walk. */
static inline int python_begin(struct python_walk *python, const struct python_config *config, __u64 fs_base,
			       void *memory)
{
	__u64 state = python_find_state(config, fs_base, memory);
	if (!state)
		return python_stop(python, PYTHON_END_NO_STATE);
	python->end = PYTHON_END_TOO_DEEP;
	if (!python_read_word(&python->at, state + config->state_frame, memory))
		return python_stop(python, PYTHON_END_UNREADABLE);
	if (!config->has_c_frames)
		return 0;
	python->c_frame = python->at;
	return python_enter_c_frame(python, config, memory);
}

/* The frames since the last run are one, whose C frame holds address. Nonzero: no more runs fit. */
static inline int python_close_run(struct python_walk *python, __u64 address)
{
	__u32 i = python->n_runs, first = python->run_first;
	if (i >= RECORD_MAX_PYTHON_RUNS)
		return python_stop(python, PYTHON_END_TOO_DEEP);
	python->entries[i] = address;
	python->runs[i].n = (__u16)(python->n_frames - first);
	python->runs[i].c_frame = RECORD_NO_C_FRAME;
	python->run_first = python->n_frames;
	python->n_runs = i + 1;
	if (i == 0)
		python->next_entry = address;
	return 0;
}

/* 32 bits of the code object that was read. */
static inline __u32 python_code_half(const struct python_walk *python, __u16 offset)
{
	__u64 word = python->code[offset / 8 & 31];
	return (__u32)(offset & 4 ? word >> 32 : word);
}

/* The code object of the frame at hand. Nonzero: it is none. */
static inline int python_add_frame(struct python_walk *python, const struct python_config *config, __u64 code,
				   __u64 instruction, void *memory)
{
	__u32 i = python->n_frames;
	if (i >= RECORD_MAX_PYTHON_FRAMES) {
		python->too_deep = 1;
		return 0;
	}
	if (unwind_read(python->code, PYTHON_CODE_BYTES, code, memory) < 0)
		return python_stop(python, PYTHON_END_UNREADABLE);
	if (python->code[1] != config->code_type || code >> 47)
		return python_stop(python, PYTHON_END_NOT_CODE);
	__u32 first_line = python_code_half(python, config->code_first_line);
	__u32 identity = python_identity(
		first_line, python->code[config->code_filename / 8 & 31], python->code[config->code_qualname / 8 & 31],
		python->code[config->code_line_table / 8 & 31], python_code_half(python, config->code_number));
	__u64 offset = instruction - code - config->code_instructions;
	struct record_python_frame *frame = &python->frames[i];
	frame->code = code;
	frame->identity = identity;
	/* Before the first instruction it is that less one: negative. */
	frame->instruction = offset >> 63                        ? 0
			     : offset < RECORD_MAX_PYTHON_OFFSET ? (__u32)offset
								 : RECORD_MAX_PYTHON_OFFSET;
	python->n_frames = i + 1;
	if (PYTHON_IS_NEW(identity ^ config->salt))
		python->has_new = 1;
	return 0;
}

/* The frame at hand was entered from C, by 3.11's word on it. */
static inline int python_leave_c_frame(struct python_walk *python, const struct python_config *config, void *memory)
{
	__u64 previous = 0;
	if (python_close_run(python, python->c_frame))
		return 1;
	if (!python_read_word(&previous, python->c_frame + config->c_frame_previous, memory))
		return python_stop(python, PYTHON_END_UNREADABLE);
	python->c_frame = previous;
	return 0;
}

/* One frame. Nonzero: there is nothing more to do, and `end` says why. */
static inline int python_step(struct python_walk *python, const struct python_config *config, void *memory)
{
	__u64 at = python->at;
	if (!at)
		return python_stop(python, python->too_deep ? PYTHON_END_TOO_DEEP : PYTHON_END_WHOLE);
	if (unwind_read(python->frame, PYTHON_FRAME_BYTES, at, memory) < 0)
		return python_stop(python, PYTHON_END_UNREADABLE);
	__u64 last = python->frame[PYTHON_FRAME_WORDS - 1];
	__u64 previous = python->frame[config->frame_previous / 8 & 15];
	__u8 owner = (__u8)(last >> (config->frame_owner & 7) * 8);
	__u8 entry = (__u8)(last >> (config->frame_entry & 7) * 8);
	python->at = previous;
	if (config->runs == PYTHON_RUNS_BY_OWNER && owner == config->owner_c_stack)
		return python_close_run(python, at);
	int r = python_add_frame(python, config, python->frame[config->frame_code / 8 & 15],
				 python->frame[config->frame_instruction / 8 & 15], memory);
	if (!r && config->runs == PYTHON_RUNS_BY_FLAG && entry)
		r = python_leave_c_frame(python, config, memory);
	return r;
}

/* The walk of the C stack has come past next_entry: the C frame of that number, of the user frames, has the run that comes next. */
static inline void python_passed(struct python_walk *python, __u32 c_frame)
{
	__u32 i = python->n_passed, next = i + 1;
	if (i >= RECORD_MAX_PYTHON_RUNS)
		return;
	python->runs[i].c_frame = (__u16)c_frame;
	python->n_passed = next;
	python->next_entry = next < python->n_runs && next < RECORD_MAX_PYTHON_RUNS ? python->entries[next] : ~0ull;
}

/* The walk of the C stack begins again: its frames have other numbers. */
static inline void python_not_passed(struct python_walk *python)
{
	__u32 n = python->n_passed;
	for (__u32 i = 0; i < RECORD_MAX_PYTHON_RUNS; i++) {
		if (i >= n)
			break;
		python->runs[i].c_frame = RECORD_NO_C_FRAME;
	}
	python->n_passed = 0;
	python->next_entry = python->n_runs ? python->entries[0] : ~0ull;
}
