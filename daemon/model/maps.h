/* A snapshot of the executable mappings of a process: immutable once built, reference-counted, shared by the samples taken
 * while it was true. Thread: any. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/file.h"

enum mapping_kind {
	MAPPING_FILE,      /* backed by a file: file is set unless it could not be opened */
	MAPPING_VDSO,      /* [vdso] */
	MAPPING_ANONYMOUS, /* JIT code and the like: name "//anon", or the kernel's name for it */
	MAPPING_SPECIAL,   /* [vsyscall], [uprobes] */
	MAPPING_KERNEL,    /* [kernel.kallsyms]; never in a struct maps, but in a profile */
	MAPPING_PYTHON,    /* [python], where frames of CPython's are (SAMPLE_FRAME_PYTHON); the same */
};

struct mapping {
	uint64_t start, end; /* [start, end) */
	uint64_t file_offset;
	enum mapping_kind kind;
	struct file *file; /* a reference of its own, or NULL */
	const char *name;  /* path as the target sees it, without " (deleted)"; valid UTF-8 is not promised */
};

struct maps {
	_Atomic unsigned references;
	size_t n;              /* mappings, ascending by start, not overlapping */
	size_t main_index;     /* the main program's first executable mapping; n when unknown */
	struct file *jit_dump; /* the jitdump among the mappings' files (jit-PID.dump); NULL: there is none */
	uint64_t program;      /* which program's they are: mm->start_stack; 0: not known. Set by who read them */
	/* Of all its mappings, as the kernel counts them: mm->map_count, and mm->exec_vm, which leaves writable code out. 0: not known. Set likewise. */
	uint32_t map_count, exec_pages;
	struct mapping mappings[]; /* n */
};

/* Takes the references and copies the names of the n mappings; they must ascend and not overlap (-EINVAL).
 * One reference in *ret. -ENOMEM. On failure the caller keeps what it had. */
int maps_new(const struct mapping *mappings, size_t n, size_t main_index, struct maps **ret);
struct maps *maps_ref(struct maps *maps); /* NULL is fine */
void maps_unref(struct maps *maps);       /* NULL is fine */

/* Whether what is mapped under this name has no names of its own: what is there, if code, a JIT made. */
bool mapping_is_nameless(const char *name);

/* The mapping that holds address, or NULL. O(log n). */
const struct mapping *maps_find(const struct maps *maps, uint64_t address);

/* One snapshot that serves for two moments of one address space: all of newer, and what of older newer has nothing in place of. 0 and a new
 * reference in *ret; -EEXIST when they contradict each other (an address belongs to different mappings); -ENOMEM. */
int maps_merge(struct maps *older, struct maps *newer, struct maps **ret);
