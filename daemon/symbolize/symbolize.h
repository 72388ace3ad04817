/* Names for addresses: from sprofd-elf for files and the vdso, from kallsyms for the kernel.
 *
 * Results are cached by (file, address) and for the kernel, under a byte budget. sprofd-elf is started when first needed, in its own process,
 * is handed read-only fds, and its answers are checked as hostile input. When it crashes, times out or exceeds its budget on a
 * file, that file goes without names (remembered, retried with back-off) and everything else goes on.
 *
 * Thread: any; calls are serialized inside, file by file. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/scratch.h"
#include "model/profile.h"
#include "model/unwind_table.h"
#include "symbolize/fetch_client.h"

struct symbolize;

struct symbolize_options {
	const char *reader_path;    /* sprofd-elf */
	size_t cache_bytes;         /* of names, over all files */
	unsigned reader_timeout_ms; /* for one request */
	const char *kallsyms_path;  /* "/proc/kallsyms"; tests give another */
	struct fetch_options fetch; /* all zeros: no debuginfod */
};

struct symbolize_status {
	bool reader_running;
	uint32_t reader_restarts;
	uint64_t cached_bytes;
};

/* In place of a real file's number, which count from 1. */
enum { SYMBOLIZE_VDSO_FILE_ID = 0 };

int symbolize_new(const struct symbolize_options *options, struct symbolize **ret, struct error *err);
/* From now on nobody waits for the reader: what it was asked fails at once, and all that is asked later. NULL is fine. */
void symbolize_end(struct symbolize *symbolize);
void symbolize_free(struct symbolize *symbolize); /* ends the reader and reaps it */

/* Completes the profile: lines of the locations, build_id and has_* of the mappings, missing_names. Never fails as a whole: what
 * could not be named stays without lines (mapping + address, which pprof can still symbolize), until deadline_ns (CLOCK_MONOTONIC).
 * Locations of mappings without file: the kernel by kallsyms, [vdso] by the reader, others stay without lines except that
 * anonymous and special mappings get one line with the name "[anon]" or the mapping's own name, since pprof can never name them;
 * and frames of CPython's have their lines whatever was asked for, for the same reason. */
enum symbolize_what {
	SYMBOLIZE_ALL,
	SYMBOLIZE_BUILD_IDS, /* of the mappings' files alone: no lines */
};
void symbolize_profile(struct symbolize *symbolize, struct profile *profile, enum symbolize_what what,
		       uint64_t deadline_ns);

/* Lets go of the kernel's names, where nobody asked for them since that moment; never waits. False: nothing is left that another call could let go of. */
bool symbolize_trim(struct symbolize *symbolize, uint64_t before_ns);

/* The unwind table of the file of that number, which fd reads (SYMBOLIZE_VDSO_FILE_ID: of the vdso of 64-bit processes, without fd: file offsets
 * count from where it is mapped). At most max_bytes are taken, CFI_MAX_TABLE_BYTES at the most. It is not kept here, but in the
 * caller's scratch, which is reset first.
 * -ENODATA: the file has no call frame information, -ENOEXEC: it is no ELF file, -EOPNOTSUPP: not for x86-64: remembered, asking again
 * costs nothing; -EFBIG: the table is larger than max_bytes, remembered too; -EAGAIN: not now: the deadline came, or the file is left
 * alone because the reader crashed or hung on it, or made a table of it that is not sound (retried with back-off). */
int symbolize_unwind_table(struct symbolize *symbolize, uint64_t file_id, int fd, size_t max_bytes,
			   uint64_t deadline_ns, struct scratch *scratch, struct unwind_table *ret);
/* Where n symbols (READER_SYMBOLS_MAX at the most) of an ELF file are, whose number and fd are as above: in *ret, as offsets from where offset 0 of the file
 * would be mapped by the mapping of its code; UINT64_MAX: it has no such symbol. -ENOEXEC: it is no ELF file; -EAGAIN: not now. */
int symbolize_find_symbols(struct symbolize *symbolize, uint64_t file_id, int fd, const char *const *names, size_t n,
			   uint64_t deadline_ns, uint64_t *ret);
/* Before a profile is symbolized: what code, by a jitdump, was where its samples were (store_build_options.places). */
struct symbolize_code {
	struct symbolize *symbolize;
	const struct file *dump; /* NULL: there is none, and nothing is known */
	uint64_t deadline_ns;
	uint64_t missing; /* counted up: moments that could not be looked at */
};
/* context: a struct symbolize_code. The moments ascend by address, and of one address by time. Sets their places, 0 where nothing is known. */
void symbolize_places(void *context, struct code_moment *moments, size_t n);
/* The jitdump among the mappings of n snapshots (NULL: none) of a process, the newest last; borrowed. NULL: there is none. */
struct file *symbolize_jit_dump(struct maps *const *maps, size_t n);
void symbolize_status(struct symbolize *symbolize, struct symbolize_status *ret);
