/* A profile in memory, before it is encoded: filled by store (stacks, mappings), completed by symbolize (lines), encoded by
 * pprof. All strings and arrays live in its arena. Owned by one thread at a time. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "bpf/outcome.h"
#include "model/maps.h"

struct profile_line {            /* one function at a location; several when calls were inlined */
	const char *name;        /* demangled; never NULL */
	const char *system_name; /* as in the symbol table; never NULL */
	const char *filename;    /* NULL: unknown */
	int64_t line;            /* 0: unknown */
	int64_t start_line;      /* 0: unknown */
};

struct profile_mapping {
	uint64_t start, end, file_offset;
	enum mapping_kind kind;
	const char *name;
	struct file *file;    /* a reference of its own, or NULL; released by profile_free */
	const char *build_id; /* hex, or "": unknown or none; set by symbolize */
	/* True only when every location of the mapping has it: pprof does not symbolize again once one is set. */
	bool has_functions, has_filenames, has_line_numbers, has_inline_frames;
};

#define PROFILE_NO_MAPPING UINT32_MAX

/* Code that a JIT made was at an address when it was sampled, perhaps not before or after. */
struct code_moment {
	uint64_t address;
	uint64_t time_ns; /* CLOCK_MONOTONIC; UINT64_MAX: as of now */
	uint64_t place;   /* what code that was, as the JIT's file tells, for symbolize; 0: not known */
};
#define CODE_PLACE_UNASKED UINT64_MAX

struct profile_location {
	uint64_t address;           /* where to look: the sampled pc, or return address - 1 for a caller */
	uint64_t file_offset;       /* of address, in the mapping's file; for the kernel the address itself */
	uint32_t mapping;           /* index, or PROFILE_NO_MAPPING */
	uint64_t place;             /* of a code_moment; 0: none */
	uint32_t n_lines;           /* 0: no name is known */
	struct profile_line *lines; /* [0] is the innermost inlined function */
};

struct profile_sample {
	uint64_t count;
	uint64_t cpu_ns;
	uint32_t tid;
	const char *comm;
	enum stack_end incomplete; /* why the stack lacks its root; STACK_END_NONE: it does not */
	uint32_t n_locations;
	const uint32_t *locations; /* indices, leaf first */
};

/* Where more names of the sampled process may be found. Borrowed, as long as the profile lives. */
struct profile_target {
	int root_fd;                 /* its root directory (O_PATH); -1: unknown */
	uint32_t inner_pid;          /* its number in its own pid namespace; 0: unknown */
	uint32_t user;               /* its owner: whose files are believed */
	uint64_t started_unix_ns;    /* when it was born; 0: unknown */
	struct file *jit_dump;       /* the jitdump that it maps; NULL: none */
	struct python_codes *python; /* its CPython's code objects; NULL: none */
};

struct profile {
	struct arena arena;
	size_t n_mappings, n_locations, n_samples, n_comments;
	struct profile_mapping *mappings; /* [0] is the main program's, when there is one */
	struct profile_location *locations;
	struct profile_sample *samples;
	const char **comments;
	struct profile_target target;
	uint32_t pid;
	const char *cgroup;    /* the target's control group, or "" */
	uint64_t time_unix_ns; /* when it begins */
	uint64_t duration_ns;
	uint64_t period_ns;     /* nominal; of the newest rate */
	uint64_t missing_names; /* locations of named files that symbolize could not look at within its budget */
};

/* An empty profile whose arena may hold budget_bytes; NULL when out of memory. */
struct profile *profile_new(size_t budget_bytes);
void profile_free(struct profile *profile); /* NULL is fine */
/* Adds a line of text to the comments. -ENOMEM. Before encoding. */
int profile_comment(struct profile *profile, const char *format, ...) __attribute__((format(printf, 2, 3)));
