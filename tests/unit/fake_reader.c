/* A reader that does what some file tells it to: the real one's answers, but for files that begin with "HOSTILE:" and one of the words below
 * it misbehaves, from Open on or (with "later-" before the word) in the first Symbolize. It stands for a reader that such a file has taken over. */
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/cfi_table.h"
#include "elf/requests.h"
#include "proto/reader_limits.h"
#include "reader.pb-c.h"

static uint8_t packet[READER_MESSAGE_MAX_BYTES], answer[2 * READER_MESSAGE_MAX_BYTES];

static ssize_t receive(int fds[READER_FDS_MAX])
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(READER_FDS_MAX * sizeof(int))];
	} control;
	struct iovec data = {.iov_base = packet, .iov_len = sizeof(packet)};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(READER_SOCKET_FD, &message, 0);
	memset(fds, -1, READER_FDS_MAX * sizeof(fds[0]));
	const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (n > 0 && header && header->cmsg_type == SCM_RIGHTS)
		memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
	return n;
}

static size_t pack(Sprof__Reader__Reply *reply)
{
	return sprof__reader__reply__pack(reply, answer);
}

static size_t opened(uint64_t sequence, const char *build_id)
{
	Sprof__Reader__Opened body = SPROF__READER__OPENED__INIT;
	Sprof__Reader__Reply reply = SPROF__READER__REPLY__INIT;
	body.build_id = (char *)build_id;
	body.has_symbols = 1;
	reply.sequence = sequence;
	reply.what_case = SPROF__READER__REPLY__WHAT_OPENED;
	reply.opened = &body;
	return pack(&reply);
}

static size_t symbolized(uint64_t sequence, size_t n, const char *name)
{
	static Sprof__Reader__Frame frame;
	static Sprof__Reader__Frame *frame_list[] = {&frame};
	static Sprof__Reader__Frames frames[READER_BATCH_MAX + 1], *list[READER_BATCH_MAX + 1];
	Sprof__Reader__Symbolized body = SPROF__READER__SYMBOLIZED__INIT;
	Sprof__Reader__Reply reply = SPROF__READER__REPLY__INIT;
	sprof__reader__frame__init(&frame);
	frame.name = (char *)name;
	for (size_t i = 0; i < n; i++) {
		sprof__reader__frames__init(&frames[i]);
		frames[i].n_frame = 1;
		frames[i].frame = frame_list;
		list[i] = &frames[i];
	}
	body.n_frames = n;
	body.frames = list;
	reply.sequence = sequence;
	reply.what_case = SPROF__READER__REPLY__WHAT_SYMBOLIZED;
	reply.symbolized = &body;
	return pack(&reply);
}

/* Wants one more file of split DWARF, each time. */
static size_t wants(uint64_t sequence, const char *path)
{
	Sprof__Reader__SplitWanted body = SPROF__READER__SPLIT_WANTED__INIT;
	Sprof__Reader__Reply reply = SPROF__READER__REPLY__INIT;
	char *paths[] = {(char *)path};
	body.path = paths;
	body.n_path = 1;
	reply.sequence = sequence;
	reply.what_case = SPROF__READER__REPLY__WHAT_SPLIT_WANTED;
	reply.split_wanted = &body;
	return pack(&reply);
}

/* Says that a table of bytes is in the memfd, whose first n are as given. */
static size_t table_made(uint64_t sequence, int table_fd, const void *table, size_t n, uint32_t bytes)
{
	Sprof__Reader__UnwindTableMade body = SPROF__READER__UNWIND_TABLE_MADE__INIT;
	Sprof__Reader__Reply reply = SPROF__READER__REPLY__INIT;
	if (n && pwrite(table_fd, table, n, 0) != (ssize_t)n)
		abort();
	body.total_bytes = bytes;
	reply.sequence = sequence;
	reply.what_case = SPROF__READER__REPLY__WHAT_UNWIND_TABLE;
	reply.unwind_table = &body;
	return pack(&reply);
}

static size_t failed(uint64_t sequence, int error)
{
	Sprof__Reader__Reply reply = SPROF__READER__REPLY__INIT;
	reply.sequence = sequence;
	reply.error = error;
	return pack(&reply);
}

/* What is wrong with an unwind table; 0: word is about something else. */
static size_t misbehave_with_table(const char *word, uint64_t sequence, int table_fd)
{
	static uint8_t noise[4096];
	memset(noise, 0xa5, sizeof(noise));
	struct cfi_table_header header = {.magic = CFI_TABLE_MAGIC, .total_bytes = sizeof(noise)};
	if (strcmp(word, "table-noise") == 0)
		return table_made(sequence, table_fd, noise, sizeof(noise), sizeof(noise));
	if (strcmp(word, "table-header") == 0)
		return table_made(sequence, table_fd, &header, sizeof(header), sizeof(noise));
	if (strcmp(word, "table-empty") == 0)
		return table_made(sequence, table_fd, NULL, 0, 0);
	if (strcmp(word, "table-huge") == 0)
		return table_made(sequence, table_fd, NULL, 0, UINT32_MAX);
	if (strcmp(word, "table-nothing") == 0)
		return failed(sequence, 0);
	if (strcmp(word, "table-opened") == 0)
		return opened(sequence, "");
	return 0;
}

/* The length of the misbehaving answer; it may as well not return. */
static size_t misbehave(const char *word, const Sprof__Reader__Request *request, int table_fd)
{
	size_t with_table = misbehave_with_table(word, request->sequence, table_fd);
	if (with_table)
		return with_table;

	uint64_t sequence = request->sequence;
	size_t n = request->what_case == SPROF__READER__REQUEST__WHAT_SYMBOLIZE ? request->symbolize->n_file_offset : 0;
	static char long_name[READER_NAME_MAX_BYTES + 2];
	if (strcmp(word, "crash") == 0)
		abort();
	if (strcmp(word, "exit") == 0)
		exit(0);
	if (strcmp(word, "hang") == 0)
		for (;;)
			pause();
	if (strcmp(word, "garbage") == 0) {
		memset(answer, 0xff, 64);
		return 64;
	}
	if (strcmp(word, "flood") == 0)
		return READER_MESSAGE_MAX_BYTES + 1;
	if (strcmp(word, "sequence") == 0)
		return n ? symbolized(sequence + 1, n, "lie") : opened(sequence - 1, "");
	if (strcmp(word, "error") == 0)
		return failed(sequence, -5);
	if (strcmp(word, "build-id") == 0)
		return opened(sequence, "not hex at all!!");
	if (strcmp(word, "kind") == 0)
		return n ? opened(sequence, "") : symbolized(sequence, 1, "lie");
	if (strcmp(word, "more") == 0)
		return symbolized(sequence, n + 1, "lie");
	if (strcmp(word, "none") == 0)
		return symbolized(sequence, 0, "lie");
	if (strcmp(word, "utf8") == 0)
		return symbolized(sequence, n, "lie\xff\xfe");
	if (strcmp(word, "control") == 0)
		return symbolized(sequence, n, "lie\x1b[2J");
	if (strcmp(word, "empty") == 0)
		return symbolized(sequence, n, "");
	if (strcmp(word, "wants") == 0)
		return request->what_case == SPROF__READER__REQUEST__WHAT_ATTACH ? failed(sequence, 2)
										 : wants(sequence, "/bin/true");
	if (strcmp(word, "wants-nothing") == 0)
		return wants(sequence, "");
	if (strcmp(word, "forgets") == 0)
		return failed(sequence, 2);
	if (strcmp(word, "long") == 0) {
		memset(long_name, 'x', sizeof(long_name) - 1);
		return symbolized(sequence, n, long_name);
	}
	fprintf(stderr, "fake_reader: unknown word %s\n", word);
	return 0;
}

/* What the file of an Open says, remembered by file id; NULL: it is an ordinary one. */
static const char *word_of(uint64_t file_id, int fd)
{
	static char words[256][64];
	char *word = words[file_id % 256], text[64] = "";
	if (fd >= 0 && pread(fd, text, sizeof(text) - 1, 0) > 8 && strncmp(text, "HOSTILE:", 8) == 0)
		snprintf(word, sizeof(words[0]), "%s", text + 8);
	return word[0] ? word : NULL;
}

static size_t handle(struct requests *requests, size_t bytes, const int fds[READER_FDS_MAX])
{
	Sprof__Reader__Request *request = sprof__reader__request__unpack(NULL, bytes, packet);
	const char *word = word_of(request->file_id, fds[0]);
	if (!word)
		return requests_handle(requests, packet, bytes, fds, answer);
	if (strncmp(word, "later-", 6) == 0) {
		word += 6;
		if (request->what_case == SPROF__READER__REQUEST__WHAT_OPEN)
			return opened(request->sequence, "");
	}
	return misbehave(word, request, fds[1]);
}

int main(void)
{
	struct requests *requests = requests_new();
	for (;;) {
		int fds[READER_FDS_MAX];
		ssize_t n = receive(fds);
		if (n <= 0)
			return 0;
		size_t bytes = handle(requests, (size_t)n, fds);
		if (send(READER_SOCKET_FD, answer, bytes, MSG_NOSIGNAL) < 0)
			return 1;
	}
}
