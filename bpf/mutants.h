/* Mutants: each turns one rule of the reader off, to show that some test misses it. A build configured with -DSPROF_MUTANT=name is one;
 * scripts/mutants.sh builds and judges them all. In every other build MUTANT() is 0 and costs nothing.
 * Shared by BPF and userspace; SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once

/* X(name, what it turns off) */
#define MUTANT_TABLE(X)                                                                                     \
	X(start_check, "rule 1: a walk starts on a stack whether or not sp lies in it")                     \
	X(sets_sp, "rule 1: a walk starts in the middle of a stack switch")                                 \
	X(enter_stack, "rule 1: the walk does not notice that sp enters a known stack")                     \
	X(foreign_first, "rule 2: the foreign context is not looked at")                                    \
	X(foreign_native, "rule 2: the native frames of foreign code are not kept")                         \
	X(foreign_lock, "rule 2: the foreign walk goes by the lock of the user stack (the seed's bug)")     \
	X(foreign_fallback, "rule 3: when the foreign stack is locked another start is tried")              \
	X(lock_busy, "rules 4 to 6: a lock that is held does not keep from walking")                        \
	X(no_jump, "rule 4: the walk does not go on from the system stack to the user stack")               \
	X(system_fallback, "rule 5: with the user stack locked the frames of the system stack are dropped") \
	X(lock_through_pointer, "rule 7: what is checked at the end is looked up anew")                     \
	X(owner, "rule 7: a stack of another thread is trusted")                                            \
	X(libcall, "rule 8: the libcall context is not tried")                                              \
	X(libcall_lock, "rule 8: the libcall stack is walked whether or not its lock is held")              \
	X(two_frames, "rule 9: what could not be walked is no stack of two frames")                         \
	X(gc_root, "rule 9: the collector's root is [System]")                                              \
	X(external_code, "rule 9: a pc in no known text is not [ExternalCode]")                             \
	X(retry, "rule 10: a held lock is tried again")                                                     \
	X(callback, "rule 11: foreign_depth alone makes a foreign start")                                   \
	X(slot_match, "rule 12: barriers are taken in order, whatever their slot")                          \
	X(barriers, "rule 12: hijacked return addresses are not replaced")                                  \
	X(interior, "rule 13: a pc inside of a trampoline is a frame like others")                          \
	X(interior_pos, "rule 13: only the barrier at pos is looked at")                                    \
	X(interior_cfa, "rule 13: the slot is sought at sp, as if the trampoline had pushed nothing")       \
	X(trampoline_frame, "rule 14: trampolines are frames")                                              \
	X(jump_cursor, "rule 15: a jump keeps the barrier cursor")                                          \
	X(version, "rule 16: the version is not read again at the end")                                     \
	X(version_end, "rule 16: seq_end is read again instead of seq_begin")                               \
	X(drop_all, "rule 16: a stack that changed takes the frames before it along")                       \
	X(context_early, "section 8: a context is read before the lock of its stack")                       \
	X(seq_odd, "section 8: a thread that switches is believed")                                         \
	X(starttime, "section 8: a thread's start time is not compared")                                    \
	X(generation, "section 8: a reference to a stack that is gone is followed")                         \
	X(probe_first, "section 8: a thread is looked for in its first place alone")                        \
	X(ranges_version, "section 8: ranges that have changed are believed")                               \
	X(resumer, "section 8: a fiber's stack ends where the fiber ends")                                  \
	X(stack_top, "section 8: a STACK_TOP frame is a frame like others")                                 \
	X(exec_id, "section 6: the table of another program is used")                                       \
	X(foreign_process, "section 5: the parent's table is used in a vfork child")

enum mutant {
	MUTANT_none,
#define MUTANT_ENUM(name, text) MUTANT_##name,
	MUTANT_TABLE(MUTANT_ENUM)
#undef MUTANT_ENUM
};

#if __has_include("sprof_mutant.h")
#include "sprof_mutant.h"
#endif
#ifndef SPROF_MUTANT
#define SPROF_MUTANT MUTANT_none
#endif
#define MUTANT(name) (SPROF_MUTANT == MUTANT_##name)
