/* Names at offsets of files, by the cache and the reader, and what is remembered about each file: whether the reader has it open, whether
 * it can ever have names, and how long it is left alone after it crashed or hung the reader. Not thread-safe, except file_names_get_status and
 * file_names_end. */
#pragma once
#include <stdint.h>

#include "base/scratch.h"
#include "model/unwind_table.h"
#include "symbolize/protocol.h"
#include "symbolize/symbolize.h"

struct file_names;
struct opener;

/* opener is borrowed. NULL: out of memory. */
struct file_names *file_names_new(const struct symbolize_options *options, struct opener *opener);
void file_names_free(struct file_names *names);      /* NULL is fine */
void file_names_end(const struct file_names *names); /* reader_end(); thread: any */
void file_names_get_status(const struct file_names *names, struct symbolize_status *ret); /* thread: any */

/* A file that is asked about. */
struct named_file {
	uint64_t id;
	int fd;
	enum protocol_file kind;
	int root_fd; /* of the target that maps it: where its debug files may be; -1: nowhere but in our own root */
	const char *path; /* in that root; may be "" */
};

/* Learns the build id of a file by opening it in the reader, unless that is known to be in vain: into ret, "" when it has none.
 * 0; -EAGAIN: not now. ret has BUILD_ID_HEX_BYTES. */
int file_names_build_id(struct file_names *names, const struct named_file *file, uint64_t deadline_ns, char *ret);

/* Calls found for each of the n offsets whose functions are known now, 0 functions when it is known to have no name. Returns how many
 * were not looked at: the deadline came, or the file is being left alone. lines are valid during the call;
 * when they are cached, they and their texts stay where they are, and equal ones are one, until the last such call of this file_names_find. */
typedef void file_names_found(void *context, size_t index, const struct profile_line *lines, uint32_t n, bool cached);
size_t file_names_find(struct file_names *names, const struct named_file *file, const uint64_t *file_offsets, size_t n,
		       uint64_t deadline_ns, file_names_found *found, void *context);

/* What code was at n addresses (READER_BATCH_MAX at the most) of a jitdump at those moments, and until when: places, by which file_names_find names
 * it, as if they were offsets; 0: nothing that is known. *ret_n says how many were answered, at least 1. 0; -EAGAIN: none, not now. */
int file_names_code_at(struct file_names *names, const struct named_file *dump, const uint64_t *addresses,
		       const uint64_t *times_ns, size_t n, uint64_t deadline_ns, uint64_t *ret_places,
		       uint64_t *ret_until_ns, size_t *ret_n);

/* As symbolize_unwind_table. What is remembered about failures is apart from that of names. */
int file_names_unwind_table(struct file_names *names, uint64_t file_id, int fd, size_t max_bytes, uint64_t deadline_ns,
			    struct scratch *scratch, struct unwind_table *ret);

/* As symbolize_find_symbols. What is remembered about failures is apart from that of names. */
int file_names_find_symbols(struct file_names *names, uint64_t file_id, int fd, const char *const *symbols, size_t n,
			    uint64_t deadline_ns, uint64_t *ret);
