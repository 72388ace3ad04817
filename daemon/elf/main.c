/* sprofd-elf: parses ELF files for sprofd, in a sandbox. Started by sprofd with its socket as fd 3; of no use by hand. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "elf/dwarf_sections.h"
#include "elf/requests.h"
#include "elf/sandbox.h"
#include "proto/reader_limits.h"

enum {
	/* sprofd ends us much sooner; this is for when it is gone. SIGALRM's default action is what we want. */
	REQUEST_MAX_S = 30,
	HEAP_KEPT_BYTES = 8 << 20,
	MMAP_THRESHOLD_BYTES = 32 << 20, /* the most that malloc takes */
};

/* One packet and its fds (-1: none). Its length, 0 when sprofd is gone, -errno. */
static ssize_t receive(int socket, uint8_t *packet, int fds[READER_FDS_MAX])
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(READER_FDS_MAX * sizeof(int))];
	} control;
	struct iovec data = {.iov_base = packet, .iov_len = READER_MESSAGE_MAX_BYTES};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	memset(fds, -1, READER_FDS_MAX * sizeof(fds[0]));
	const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
		memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
	return n;
}

/* Else a file that comes in would have its number, and the sandbox treats that number as a log. */
static void keep_stderr_taken(void)
{
	if (fcntl(STDERR_FILENO, F_GETFD) >= 0)
		return;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && fd != STDERR_FILENO) {
		(void)dup2(fd, STDERR_FILENO);
		close(fd);
	}
}

static int serve(int socket, struct requests *requests)
{
	static uint8_t packet[READER_MESSAGE_MAX_BYTES], reply[READER_MESSAGE_MAX_BYTES];
	for (;;) {
		int fds[READER_FDS_MAX];
		ssize_t n = receive(socket, packet, fds);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		alarm(REQUEST_MAX_S);
		size_t bytes = requests_handle(requests, packet, (size_t)n, fds, reply);
		alarm(0);
		struct iovec data = {.iov_base = reply, .iov_len = bytes};
		struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
		if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
			return -errno;
	}
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--version") == 0)
		return printf("sprofd-elf %s\n", SPROF_VERSION) < 0;
	struct error err = {};
	int type = 0;
	socklen_t length = sizeof(type);
	if (getsockopt(READER_SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_SEQPACKET) {
		log_error("sprofd-elf is started by sprofd, with a socket as fd 3; it does nothing by itself");
		return 2;
	}
	keep_stderr_taken();
	/* From the heap, which has huge pages (symbolize/child.c) and was touched before, rather than from a mapping for each large array: page
	 * faults were half of what a file took. What a large file leaves is given back, see requests.c. */
	mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
	mallopt(M_TRIM_THRESHOLD, HEAP_KEPT_BYTES);
	struct requests *requests = requests_new();
	(void)dwarf_sections_survive_truncation(); /* else such a file ends us, and sprofd starts us again */
	if (!requests || sandbox_enter(&err) < 0) {
		log_error("sprofd-elf: %s", requests ? err.text : "out of memory");
		requests_free(requests);
		return 1;
	}
	int r = serve(READER_SOCKET_FD, requests);
	/* Not exit(): what runs then (a leak checker, in debug builds) wants more than the sandbox gives. */
	_exit(r == 0 || r == -EPIPE || r == -ECONNRESET ? 0 : 1);
}
