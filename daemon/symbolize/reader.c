#include "symbolize/reader.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "symbolize/child.h"

enum { FREE_FAILURES = 3, BACKOFF_SHIFT_MAX = 7 };
#define BACKOFF_MIN_NS (100 * NS_PER_MS)
#define BACKOFF_MAX_NS (10 * NS_PER_S)

struct reader {
	char *path;
	uint64_t timeout_ns;
	struct child child;
	int socket; /* -1: no process */
	int end;    /* eventfd: readable once reader_end was called */
	uint64_t sequence;
	unsigned failures; /* since the last good reply */
	uint64_t start_not_before_ns;
	uint32_t starts;
	/* A request that was sent and not yet answered. */
	bool pending;
	uint64_t pending_file_id, pending_since_ns;
	/* What reader_get_status tells other threads. */
	_Atomic bool running;
	_Atomic uint32_t restarts;
	uint8_t packet[READER_MESSAGE_MAX_BYTES];
};

struct reader *reader_new(const char *path, unsigned timeout_ms)
{
	struct reader *reader = calloc(1, sizeof(*reader));
	if (!reader)
		return NULL;
	reader->path = strdup(path);
	reader->end = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!reader->path || reader->end < 0) {
		if (reader->end >= 0)
			close(reader->end);
		free(reader->path);
		free(reader);
		return NULL;
	}
	reader->timeout_ns = timeout_ms * NS_PER_MS;
	reader->socket = -1;
	child_init(&reader->child);
	return reader;
}

static void stop(struct reader *reader)
{
	if (reader->socket >= 0)
		close(reader->socket);
	reader->socket = -1;
	reader->pending = false;
	reader->running = false;
	child_kill(&reader->child);
}

void reader_free(struct reader *reader)
{
	if (!reader)
		return;
	stop(reader);
	child_release(&reader->child);
	close(reader->end);
	free(reader->path);
	free(reader);
}

void reader_end(const struct reader *reader)
{
	uint64_t one = 1;
	ssize_t written = write(reader->end, &one, sizeof(one)); /* cannot fail: the counter is far from full */
	(void)written;
}

static bool is_ending(const struct reader *reader)
{
	struct pollfd event = {.fd = reader->end, .events = POLLIN};
	return poll(&event, 1, 0) > 0;
}

void reader_get_status(const struct reader *reader, struct reader_status *ret)
{
	*ret = (struct reader_status){.running = reader->running, .restarts = reader->restarts};
}

uint32_t reader_epoch(const struct reader *reader)
{
	return reader->socket >= 0 ? reader->starts : 0;
}

/* It died or was found wanting. A few failures in a row are hostile files, each of which is remembered; many are something else. */
static void fail(struct reader *reader)
{
	stop(reader);
	reader->failures++;
	if (reader->failures < FREE_FAILURES)
		return;
	unsigned shift = reader->failures - FREE_FAILURES;
	uint64_t wait_ns = BACKOFF_MIN_NS << (shift < BACKOFF_SHIFT_MAX ? shift : BACKOFF_SHIFT_MAX);
	reader->start_not_before_ns = clock_monotonic_ns() + (wait_ns < BACKOFF_MAX_NS ? wait_ns : BACKOFF_MAX_NS);
}

static int start(struct reader *reader)
{
	if (clock_monotonic_ns() < reader->start_not_before_ns || is_ending(reader))
		return -EAGAIN;
	int socket = -1;
	int r = child_start(&reader->child, reader->path, &socket);
	if (r < 0) {
		fail(reader);
		return r;
	}
	reader->socket = socket;
	reader->running = true;
	if (reader->starts++ > 0)
		reader->restarts++;
	return 0;
}

/* 0: the socket is readable or hung up; -ETIME; -ECANCELED: nobody waits any more. */
static int wait_readable(const struct reader *reader, uint64_t until_ns)
{
	for (;;) {
		uint64_t now_ns = clock_monotonic_ns();
		uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
		uint64_t wait_ms = (wait_ns + NS_PER_MS - 1) / NS_PER_MS;
		struct pollfd events[] = {{.fd = reader->socket, .events = POLLIN},
					  {.fd = reader->end, .events = POLLIN}};
		int n = poll(events, 2, wait_ms > INT32_MAX ? INT32_MAX : (int)wait_ms);
		if (n > 0)
			return events[1].revents ? -ECANCELED : 0;
		if (n == 0 && wait_ns == 0)
			return -ETIME;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

/* Waits for the one packet that is due, as long as the request and the caller may take. Its length into *ret. */
static int await(struct reader *reader, uint64_t deadline_ns, size_t *ret)
{
	uint64_t timeout_at_ns = reader->pending_since_ns + reader->timeout_ns;
	int r = wait_readable(reader, deadline_ns < timeout_at_ns ? deadline_ns : timeout_at_ns);
	if (r == -ETIME && clock_monotonic_ns() < timeout_at_ns)
		return -ETIME;
	ssize_t n = -1;
	if (r == 0) {
		/* MSG_TRUNC makes n the packet's real length. fds that a reader sends are thrown away: no room for them is given. */
		n = recv(reader->socket, reader->packet, sizeof(reader->packet), MSG_DONTWAIT | MSG_TRUNC);
	}
	if (n <= 0 || (size_t)n > sizeof(reader->packet)) {
		fail(reader);
		return r == -ETIME ? -ETIMEDOUT : n > 0 ? -EBADMSG : -ECONNRESET;
	}
	reader->pending = false;
	*ret = (size_t)n;
	return 0;
}

/* Nothing was asked, and yet there is something to read: it died, or it speaks out of turn. No file's fault. */
static bool is_broken(const struct reader *reader)
{
	struct pollfd event = {.fd = reader->socket, .events = POLLIN};
	return reader->socket >= 0 && !reader->pending && poll(&event, 1, 0) > 0;
}

int reader_prepare(struct reader *reader, uint64_t deadline_ns, uint64_t *ret_culprit)
{
	if (clock_monotonic_ns() >= deadline_ns)
		return -ETIME;
	if (reader->pending) {
		uint64_t file_id = reader->pending_file_id;
		size_t late_bytes = 0; /* too late to be of use: whatever it says */
		int r = await(reader, deadline_ns, &late_bytes);
		if (r < 0) {
			if (r != -ETIME)
				*ret_culprit = file_id;
			return r == -EBADMSG ? -ECONNRESET : r;
		}
	}
	if (is_broken(reader))
		fail(reader);
	return reader->socket >= 0 ? 0 : start(reader);
}

static int send_packet(const struct reader *reader, size_t bytes, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(READER_FDS_MAX * sizeof(int))];
	} control = {};
	struct iovec data = {.iov_base = (void *)reader->packet, .iov_len = bytes};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	if (n_fds) {
		control.header = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n_fds * sizeof(int))};
		memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	/* Nothing else is under way, so there is room for it; a reader for which that is not so is broken. */
	return sendmsg(reader->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int exchange_with(struct reader *reader, uint64_t file_id, size_t bytes, const int *fds, size_t n_fds,
			 size_t n_asked, uint64_t deadline_ns, struct protocol_reply *ret)
{
	if (send_packet(reader, bytes, fds, n_fds) < 0) {
		fail(reader);
		return -ECONNRESET;
	}
	reader->pending = true;
	reader->pending_file_id = file_id;
	reader->pending_since_ns = clock_monotonic_ns();
	size_t reply_bytes = 0;
	int r = await(reader, deadline_ns, &reply_bytes);
	if (r < 0)
		return r;
	r = protocol_parse(reader->packet, reply_bytes, reader->sequence, n_asked, ret);
	if (r == 0)
		reader->failures = 0;
	else if (r == -EBADMSG)
		fail(reader);
	return r;
}

/* fd: sent along; -1: none. */
static int exchange(struct reader *reader, uint64_t file_id, size_t bytes, int fd, size_t n_asked, uint64_t deadline_ns,
		    struct protocol_reply *ret)
{
	return exchange_with(reader, file_id, bytes, &fd, fd >= 0, n_asked, deadline_ns, ret);
}

int reader_open(struct reader *reader, uint64_t file_id, enum protocol_file kind, int fd, uint64_t deadline_ns,
		struct protocol_reply *ret)
{
	size_t bytes = protocol_open(++reader->sequence, file_id, kind, reader->packet);
	return exchange(reader, file_id, bytes, fd, 0, deadline_ns, ret);
}

int reader_attach(struct reader *reader, uint64_t file_id, enum protocol_attachment kind, int fd, uint64_t deadline_ns,
		  struct protocol_reply *ret)
{
	size_t bytes = protocol_attach(++reader->sequence, file_id, kind, reader->packet);
	return exchange(reader, file_id, bytes, fd, 0, deadline_ns, ret);
}

int reader_symbolize(struct reader *reader, uint64_t file_id, const uint64_t *file_offsets, size_t n,
		     uint64_t deadline_ns, struct protocol_reply *ret)
{
	size_t bytes = protocol_symbolize(++reader->sequence, file_id, file_offsets, n, reader->packet);
	return exchange(reader, file_id, bytes, -1, n, deadline_ns, ret);
}

int reader_unwind_table(struct reader *reader, uint64_t file_id, const int fds[READER_FDS_MAX], uint64_t deadline_ns,
			struct protocol_reply *ret)
{
	size_t bytes = protocol_unwind_table(++reader->sequence, file_id, reader->packet);
	return exchange_with(reader, file_id, bytes, fds, READER_FDS_MAX, PROTOCOL_ASKED_UNWIND_TABLE, deadline_ns,
			     ret);
}

int reader_find_symbols(struct reader *reader, uint64_t file_id, int fd, const char *const *names, size_t n,
			uint64_t deadline_ns, struct protocol_reply *ret)
{
	size_t bytes = protocol_find_symbols(++reader->sequence, file_id, names, n, reader->packet);
	return exchange(reader, file_id, bytes, fd, PROTOCOL_ASKED_SYMBOLS, deadline_ns, ret);
}

int reader_code_at(struct reader *reader, uint64_t file_id, const uint64_t *addresses, const uint64_t *times_ns,
		   size_t n, uint64_t deadline_ns, struct protocol_reply *ret)
{
	size_t bytes = protocol_code_at(++reader->sequence, file_id, addresses, times_ns, n, reader->packet);
	return exchange(reader, file_id, bytes, -1, PROTOCOL_ASKED_CODE(n), deadline_ns, ret);
}
