/* What JITs tell of their code, in files of text or of records that they write while they run:
 *
 * - /tmp/perf-PID.map: lines of "start size name", start and size in hex (Linux tools/perf/Documentation/jit-interface.txt). What a later line
 *   says of an address holds instead of an earlier one: code moves.
 * - jit-PID.dump: records of loaded code, with its bytes, lines and unwinding (tools/perf/Documentation/jitdump-specification.txt).
 *   Lines are told before the code that they belong to.
 *
 * A file is read as far as it goes when it is opened. Hostile, as any: bounded in size, symbols and memory.
 *
 * Records of a jitdump say when (CLOCK_MONOTONIC): so what was at an address at a moment is known, and has a number, its place, by which its names
 * are asked for. A place stays the same when the file grows. A perf map says nothing of time: what is told last holds. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "elf/image.h"

struct jit;

enum jit_format { JIT_PERF_MAP, JIT_DUMP };

/* Takes fd in every case. -ENOEXEC: it is no regular file, or not of this format; -EFBIG: more symbols than we would hold; -ENOMEM; -EIO. */
int jit_open(int fd, enum jit_format format, struct jit **ret);
void jit_free(struct jit *jit); /* NULL is fine */
size_t jit_bytes(const struct jit *jit);
size_t jit_count(const struct jit *jit); /* symbols */

/* The function at address, as of the end of the file. 0: none is known, else 1, and *ret. Its texts live until the next call on any jit. */
size_t jit_find(const struct jit *jit, uint64_t address, struct image_frame *ret);

/* Whether it is one that has them. */
bool jit_has_places(const struct jit *jit);
/* What was at address at time_ns. 0: nothing that is known, as always in a perf map; it holds until *ret_until_ns, which is later.
 * A JVM tells of code after it began to run: so before anything is known to be there, what came first is taken. */
uint64_t jit_place_at(const struct jit *jit, uint64_t address, uint64_t time_ns, uint64_t *ret_until_ns);
/* As jit_find, of what jit_place_at gave. */
size_t jit_find_place(const struct jit *jit, uint64_t place, struct image_frame *ret);
