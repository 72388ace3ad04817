/* One reconciled sample: what the stages after reconcile work on. Borrowed pointers, valid during the call. */
#pragma once
#include <stdint.h>

#include "bpf/outcome.h"

enum { SAMPLE_COMM_BYTES = 16 };

/* User frames that stand for what has no address; no code is ever there. */
#define SAMPLE_FRAME_SYSTEM        (UINT64_MAX - 1) /* [System]: the runtime at work, where its stack could not be walked */
#define SAMPLE_FRAME_GC            (UINT64_MAX - 2) /* [GC]: the same, for its collector */
#define SAMPLE_FRAME_EXTERNAL_CODE (UINT64_MAX - 3) /* [ExternalCode]: code that is in no known text */
#define SAMPLE_FRAME_LEFT_OUT \
	(UINT64_MAX - 4) /* [LeftOut]: the frames between the ends of a stack too deep for a record */

/* A user frame that is a frame of CPython's: number of the code object (python_codes.h), and where in it, in bytes (RECORD_MAX_PYTHON_OFFSET). No address has
 * these upper 16 bits. */
#define SAMPLE_PYTHON_FIRST (UINT64_C(0x5059) << 48)
#define SAMPLE_PYTHON_END   (UINT64_C(0x505a) << 48)
#define SAMPLE_FRAME_PYTHON(number, instruction) \
	(SAMPLE_PYTHON_FIRST | (uint64_t)(number) << 20 | ((uint64_t)(instruction) >> 1))
#define SAMPLE_IS_PYTHON(frame)          ((frame) >= SAMPLE_PYTHON_FIRST && (frame) < SAMPLE_PYTHON_END)
#define SAMPLE_PYTHON_NUMBER(frame)      ((uint32_t)((frame) >> 20) & SAMPLE_PYTHON_NO_CODE)
#define SAMPLE_PYTHON_INSTRUCTION(frame) (((uint32_t)(frame)&0xfffff) << 1)
enum { SAMPLE_PYTHON_NO_CODE = (1 << 28) - 1 }; /* there was no room for another code object */

struct sample {
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t
		code_ns; /* time_ns, when names of its code are those of that time; 0: names are the same at all times */
	uint64_t cpu_ns;       /* CPU time this sample stands for: since the thread's previous sample */
	uint32_t tid;          /* in the daemon's pid namespace */
	uint32_t maps_version; /* which snapshot of the target's mappings the addresses belong to */
	char comm[SAMPLE_COMM_BYTES];
	enum stack_end user_end;    /* why the user part ends where it does */
	enum python_end python_end; /* how far CPython's frames are in it */
	uint16_t n_kernel, n_user;  /* frames */
	const uint64_t *kernel;     /* leaf first: [0] is the sampled pc, the others are return addresses */
	const uint64_t
		*user; /* leaf first: [0] is the interrupted pc (return addresses after it), after any kernel frames */
};
