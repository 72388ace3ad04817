/* What the daemon tells the BPF program about a target's CPython: where a thread finds its state, and how the interpreter's frames are laid out
 * in that version (daemon/collect/python_layout.c). What the program then reads there is the target's, and is not to be trusted.
 * Shared by BPF and userspace; SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
 * The including file provides the fixed-width types. */
#pragma once

enum python_runs {
	PYTHON_RUNS_BY_FLAG,  /* 3.11: a frame says that it was entered from C; the C frame holds a _PyCFrame */
	PYTHON_RUNS_BY_OWNER, /* from 3.12 on: below it is a frame that lies on the C stack itself */
};

/* Offsets are in bytes. Those of frames are of words, below PYTHON_FRAME_BYTES; those of code objects below PYTHON_CODE_BYTES. */
struct python_config {
	__u64 program;   /* mm->start_stack of the program whose interpreter this is; 0: none */
	__u64 code_type; /* address of PyCode_Type */
	__u64 holder_at; /* where the address of the state that holds the GIL is; 0: nowhere */
	__u32 salt;      /* so that what was told of an earlier target is not taken for told of this one */
	__u32 specific;  /* from a thread's fs base to where pthreads keep the address of its state */
	__u16 runs;      /* enum python_runs */
	__u16 state_thread_id,
		state_frame; /* of a PyThreadState: the fs base; its innermost frame, or _PyCFrame if it has those */
	__u16 has_c_frames;  /* up to 3.12 */
	__u16 c_frame_current, c_frame_previous; /* of a _PyCFrame */
	__u16 frame_code, frame_previous, frame_instruction;
	__u16 frame_entry,
		frame_owner; /* bytes of the frame's last word, counted from its start: is_entry (3.11); owner */
	__u16 owner_c_stack; /* its value */
	__u16 code_first_line, code_filename, code_qualname, code_line_table, code_instructions;
	__u16 code_number; /* from 3.12 on no two objects have the same (co_version); in 3.11 half of the address of the constants */
};

enum {
	PYTHON_FRAME_BYTES = 72, /* of a _PyInterpreterFrame, without its locals */
	PYTHON_CODE_BYTES = 160, /* of a PyCodeObject, as far as it is looked at */
};

/* What tells a code object from another one that was at its address before: what no two of them share, at one time. */
static __attribute__((always_inline)) inline __u32 python_identity(__u32 first_line, __u64 filename, __u64 qualname,
								   __u64 line_table, __u32 number)
{
	__u64 mixed = (filename ^ (__u64)first_line << 48) * 0x9E3779B97F4A7C15ull;
	mixed = (mixed ^ mixed >> 32 ^ qualname) * 0xBF58476D1CE4E5B9ull;
	/* Another number with all else the same is always another identity: the factor is odd. */
	mixed = (mixed ^ mixed >> 32 ^ line_table ^ (__u64)number << 32) * 0x94D049BB133111EBull;
	return (__u32)(mixed >> 32);
}
