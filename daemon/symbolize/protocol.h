/* The daemon's side of reader.proto: requests out, and replies in. A reply comes from a process that a hostile file may have taken over:
 * it is believed only as far as it is checked here. Thread: any. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/profile.h"
#include "proto/reader_limits.h"

enum reply_kind {
	REPLY_ERROR,
	REPLY_OPENED,
	REPLY_SYMBOLIZED,
	REPLY_UNWIND_TABLE,
	REPLY_SPLIT_WANTED,
	REPLY_FOUND_SYMBOLS,
	REPLY_CODE_PLACES
};

struct protocol_reply {
	enum reply_kind kind;
	int error; /* REPLY_ERROR: a positive errno */
	/* REPLY_OPENED */
	char build_id[2 * READER_BUILD_ID_MAX_BYTES + 1]; /* lower-case hex, or "" */
	bool has_symbols;
	bool wants_debug;                           /* it has no debug information of its own */
	char debug_link[READER_LINK_MAX_BYTES + 1]; /* a file name without slash, or "" */
	char alt_link[READER_LINK_MAX_BYTES + 1];   /* a path, or "" */
	char alt_build_id[2 * READER_BUILD_ID_MAX_BYTES + 1];
	/* REPLY_SYMBOLIZED */
	void *message; /* owns the texts below */
	size_t n;      /* answered offsets, the first n of those asked for; at least 1 */
	struct {
		const struct profile_line *lines;
		uint32_t n;
	} frames[READER_BATCH_MAX];
	struct profile_line *lines; /* all of them */
	/* REPLY_SPLIT_WANTED; the paths are message's */
	bool wants_package;
	char *const *split_paths;
	size_t n_split_paths;
	/* REPLY_UNWIND_TABLE */
	uint32_t table_bytes;
	uint64_t n_fdes, n_malformed, n_unsupported, n_registers_lost;
	/* REPLY_FOUND_SYMBOLS */
	size_t n_positions;
	uint64_t positions[READER_SYMBOLS_MAX];
	/* REPLY_CODE_PLACES */
	size_t n_places; /* the first of what was asked for; at least 1 */
	uint64_t places[READER_BATCH_MAX], until_ns[READER_BATCH_MAX];
};

/* The length of the request in packet, which has READER_MESSAGE_MAX_BYTES. n is at most READER_BATCH_MAX. */
enum protocol_file { PROTOCOL_ELF, PROTOCOL_PERF_MAP, PROTOCOL_JITDUMP };
size_t protocol_open(uint64_t sequence, uint64_t file_id, enum protocol_file kind, uint8_t *packet);
enum protocol_attachment { PROTOCOL_DEBUG_FILE, PROTOCOL_SUPPLEMENTARY, PROTOCOL_SPLIT, PROTOCOL_PACKAGE };
size_t protocol_attach(uint64_t sequence, uint64_t file_id, enum protocol_attachment kind, uint8_t *packet);
size_t protocol_symbolize(uint64_t sequence, uint64_t file_id, const uint64_t *file_offsets, size_t n, uint8_t *packet);

size_t protocol_unwind_table(uint64_t sequence, uint64_t file_id, uint8_t *packet);

/* n is at most READER_SYMBOLS_MAX. */
size_t protocol_find_symbols(uint64_t sequence, uint64_t file_id, const char *const *names, size_t n, uint8_t *packet);

/* n is at most READER_BATCH_MAX. */
size_t protocol_code_at(uint64_t sequence, uint64_t file_id, const uint64_t *addresses, const uint64_t *times_ns,
			size_t n, uint8_t *packet);

/* In place of n_asked: it was UnwindTable, or FindSymbols, or CodeAt of n. */
#define PROTOCOL_ASKED_UNWIND_TABLE SIZE_MAX
#define PROTOCOL_ASKED_SYMBOLS      (SIZE_MAX - 1)
#define PROTOCOL_ASKED_CODE(n)      (SIZE_MAX - 2 - (n))

/* Checks and unpacks the reply to the request of sequence, which asked for n_asked offsets (0: it was Open or Attach). 0, and release *ret with
 * protocol_reply_free; -EBADMSG: it is malformed, or answers something else, or is out of bounds; -ENOMEM. */
int protocol_parse(const uint8_t *packet, size_t bytes, uint64_t sequence, size_t n_asked, struct protocol_reply *ret);
void protocol_reply_free(struct protocol_reply *reply);
