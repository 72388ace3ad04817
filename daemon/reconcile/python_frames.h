/* Puts CPython's frames among those of C: the frames of each run before the C frame of the interpreter that executes them, so that what Python code
 * takes by itself is its own, and what it calls in C comes after it. A pure function but for the numbers of code objects. Private to reconcile. */
#pragma once
#include <linux/types.h>
#include <stdint.h>

#include "bpf/record.h"
#include "model/python_codes.h"
#include "reconcile/segments.h"

/* Whether the record's counts of Python frames and runs hold. */
int python_frames_check(const struct record *record);
/* The record has been checked. stack may lie in room already, which has place for the C frames, one more, and RECORD_MAX_PYTHON_FRAMES. */
void python_frames_merge(const struct record *record, struct python_codes *codes, uint64_t *room,
			 struct segments_stack *stack);
