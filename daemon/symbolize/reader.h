/* The process sprofd-elf: started when first needed, spoken to one request at a time, killed and reaped when it does not answer, answers
 * nonsense or dies; restarted, after several failures in a row with back-off. Not thread-safe, except reader_get_status and
 * reader_end. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/protocol.h"

struct reader;

struct reader_status {
	bool running;
	uint32_t restarts; /* starts after the first */
};

/* Copies path. timeout_ms bounds each request. NULL: out of memory. */
struct reader *reader_new(const char *path, unsigned timeout_ms);
void reader_free(struct reader *reader); /* kills and reaps the process; NULL is fine */
/* For good: the request that is under way fails at once, and so do all that come. thread: any */
void reader_end(const struct reader *reader);
void reader_get_status(const struct reader *reader, struct reader_status *ret); /* thread: any */

/* Changes with every process: files that were opened in another one are not open. 0: none runs. */
uint32_t reader_epoch(const struct reader *reader);

/* Makes the reader ready for a request: starts it if need be, and waits for what an earlier call left unanswered at its deadline.
 * 0; -EAGAIN: not now, it failed too often; -ETIME: deadline_ns (CLOCK_MONOTONIC) came first; -errno: cannot be started.
 * -ECONNRESET, -ETIMEDOUT: it died of, or took too long for, the earlier request, which was about *ret_culprit. */
int reader_prepare(struct reader *reader, uint64_t deadline_ns, uint64_t *ret_culprit);

/* After reader_prepare gave 0. fd: sent along with Open and Attach, stays the caller's. 0, and release *ret with protocol_reply_free;
 * -ETIME: deadline_ns came first, the reply is left to the next reader_prepare; -ECONNRESET: it died; -ETIMEDOUT: too slow, killed;
 * -EBADMSG: malformed reply, killed; -ENOMEM. */
int reader_open(struct reader *reader, uint64_t file_id, enum protocol_file kind, int fd, uint64_t deadline_ns,
		struct protocol_reply *ret);
int reader_attach(struct reader *reader, uint64_t file_id, enum protocol_attachment kind, int fd, uint64_t deadline_ns,
		  struct protocol_reply *ret);
/* fds: the file, and a memfd for the table; both stay the caller's. */
int reader_unwind_table(struct reader *reader, uint64_t file_id, const int fds[READER_FDS_MAX], uint64_t deadline_ns,
			struct protocol_reply *ret);
int reader_find_symbols(struct reader *reader, uint64_t file_id, int fd, const char *const *names, size_t n,
			uint64_t deadline_ns, struct protocol_reply *ret);
int reader_code_at(struct reader *reader, uint64_t file_id, const uint64_t *addresses, const uint64_t *times_ns,
		   size_t n, uint64_t deadline_ns, struct protocol_reply *ret);
int reader_symbolize(struct reader *reader, uint64_t file_id, const uint64_t *file_offsets, size_t n,
		     uint64_t deadline_ns, struct protocol_reply *ret);
