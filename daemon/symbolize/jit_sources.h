/* Where the JIT of a profile's process tells its functions: the jitdump that it maps, and /tmp/perf-PID.map in its own root, by its
 * number in its own pid namespace. Each is a file for the reader, which goes by addresses; when it has grown it is another file.
 * Not thread-safe. */
#pragma once
#include "symbolize/file_names.h"
#include "symbolize/opener.h"

enum { JIT_SOURCES_MAX = 2 };

struct jit_ids;
struct jit_ids *jit_ids_new(void); /* NULL: out of memory */
void jit_ids_free(struct jit_ids *ids);

struct jit_sources {
	struct named_file files[JIT_SOURCES_MAX]; /* the one that says more comes first */
	size_t n;
	int map_fd; /* -1: not opened */
};

/* Finds what there is now. A perf map is believed when it is a file of the process's user or root, and not older than the process. */
void jit_sources_find(struct jit_ids *ids, struct opener *opener, const struct profile_target *target,
		      uint64_t deadline_ns, struct jit_sources *ret);
/* The jitdump alone (NULL: there is none), as it is now. -ENOENT. */
int jit_sources_dump(struct jit_ids *ids, const struct file *dump, struct named_file *ret);
void jit_sources_release(struct jit_sources *sources);
