/* The whole server on a real socket: the input is what a client sends, in pieces that a byte 0xff separates, each in one go. A pull of
 * an even pid is answered only at the end, if the client is still there. Whatever comes, the server must serve the next client. */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "serve/serve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct server {
	struct event_base *base;
	struct serve *serve;
	struct sockaddr_un address;
	socklen_t address_bytes;
	struct serve_reply *waiting[64];
	size_t n_waiting;
};

static void require(int condition)
{
	if (!condition)
		abort();
}

static void on_attach(void *context, struct serve_reply *reply, const Sprof__Control__AttachRequest *request)
{
	(void)context;
	require(request->pid != 0);
	Sprof__Control__Target target = SPROF__CONTROL__TARGET__INIT;
	target.pid = request->pid;
	serve_reply_message(reply, &target.base);
}
static void on_rate(void *context, struct serve_reply *reply, uint32_t pid, uint32_t frequency_hz)
{
	(void)context;
	struct error err;
	error_set(&err, frequency_hz & 1 ? ESRCH : EPERM, "no process %u", pid);
	serve_reply_error(reply, &err);
}
static void on_detach(void *context, struct serve_reply *reply, uint32_t pid)
{
	(void)context, (void)pid;
	serve_reply_empty(reply);
}
static void on_plain(void *context, struct serve_reply *reply)
{
	(void)context;
	serve_reply_bytes(reply, "text/plain", NULL, (uint8_t *)strdup("text"), 4);
}
static void on_pull(void *context, struct serve_reply *reply, const struct serve_pull *request)
{
	struct server *server = context;
	if (request->pid % 2 == 0 && server->n_waiting < 64)
		server->waiting[server->n_waiting++] = reply;
	else
		on_plain(context, reply);
}

static const struct serve_handlers handlers = {.attach = on_attach,
					       .rate = on_rate,
					       .detach = on_detach,
					       .list = on_plain,
					       .target = on_detach,
					       .table = on_detach,
					       .status = on_plain,
					       .metrics = on_plain,
					       .index = on_plain,
					       .pull = on_pull};

static struct server *start(void)
{
	struct server *server = calloc(1, sizeof(*server));
	signal(SIGPIPE, SIG_IGN);
	server->base = event_base_new();
	server->address.sun_family = AF_UNIX;
	int n = snprintf(server->address.sun_path + 1, sizeof(server->address.sun_path) - 1, "sprofd-fuzz-%d",
			 getpid());
	server->address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	require(bind(fd, (struct sockaddr *)&server->address, server->address_bytes) == 0 && listen(fd, 16) == 0);
	struct serve_options options = {.listen_fd = fd, .max_connections = 4, .idle_timeout_s = 60};
	require(serve_new(server->base, &options, &handlers, server, &server->serve, NULL) == 0);
	return server;
}

static void turn(struct server *server)
{
	for (int i = 0; i < 3; i++)
		event_base_loop(server->base, EVLOOP_NONBLOCK);
}

static int connect_to(struct server *server)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	require(connect(fd, (struct sockaddr *)&server->address, server->address_bytes) == 0);
	return fd;
}

static void release(struct server *server)
{
	for (; server->n_waiting; server->n_waiting--)
		on_plain(NULL, server->waiting[server->n_waiting - 1]);
}

static void check_alive(struct server *server)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\n\r\n";
	char answer[512] = "";
	_cleanup_close_ int fd = connect_to(server);
	require(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) == (ssize_t)sizeof(request) - 1);
	for (int i = 0; i < 100 && recv(fd, answer, sizeof(answer) - 1, 0) <= 0; i++)
		turn(server);
	require(strncmp(answer, "HTTP/1.1 200 OK", 15) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct server *server;
	if (!server)
		server = start();
	_cleanup_close_ int fd = connect_to(server);
	char sink[65536];
	for (size_t at = 0; at < bytes;) {
		const uint8_t *end = memchr(data + at, 0xff, bytes - at);
		size_t piece = end ? (size_t)(end - data) - at : bytes - at;
		if (piece && send(fd, data + at, piece, MSG_NOSIGNAL) < 0)
			break;
		turn(server);
		while (recv(fd, sink, sizeof(sink), 0) > 0)
			;
		at += piece + 1;
	}
	turn(server);
	if (bytes % 3 == 0) { /* the client goes before it is answered */
		close(TAKE_FD(fd));
		turn(server);
	}
	release(server);
	turn(server);
	check_alive(server);
	return 0;
}
