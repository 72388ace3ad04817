/* What JITs tell of their code, in files of text or of records that they write while they run:
 *
 * - /tmp/perf-PID.map: lines of "start size name", start and size in hex (Linux tools/perf/Documentation/jit-interface.txt). What a later line
 *   says of an address holds instead of an earlier one: code moves.
 * - jit-PID.dump: records of loaded code, with its bytes, lines and unwinding (tools/perf/Documentation/jitdump-specification.txt).
 *   Lines are told before the code that they belong to.
 *
 * A file is read as far as it goes when it is opened. Hostile, as any: bounded in size, symbols and memory. */
#pragma once
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

/* The function at address. 0: none is known, else 1, and *ret. Its texts live until the next call on any jit. */
size_t jit_find(const struct jit *jit, uint64_t address, struct image_frame *ret);
