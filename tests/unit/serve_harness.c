#include "serve_harness.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "serve/openmetrics.h"

enum { MAX_WAITING = 64 };

struct waiter {
	struct harness *harness;
	struct serve_reply *reply;
	bool forgets;
};

struct harness {
	struct sockaddr_un address;
	socklen_t address_bytes;
	int listen_fd, commands[2];
	struct event_base *base;
	struct event *command;
	struct serve *serve;
	pthread_t thread;
	struct waiter waiters[MAX_WAITING];
	atomic_uint waiting, gone, answered;
	struct serve_counters counters;
	struct serve_peer peer;
};

static void reply_text(struct serve_reply *reply, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	char *text = NULL;
	int length = vasprintf(&text, format, args);
	va_end(args);
	ck_assert_int_ge(length, 0);
	serve_reply_bytes(reply, "text/plain", NULL, (uint8_t *)text, (size_t)length);
}

static void on_attach(void *context, struct serve_reply *reply, const Sprof__Control__AttachRequest *request)
{
	(void)context;
	reply_text(reply, "attach %u %u %d", request->pid, request->frequency_hz, (int)request->event);
}
static void on_rate(void *context, struct serve_reply *reply, uint32_t pid, uint32_t frequency_hz)
{
	(void)context;
	reply_text(reply, "rate %u %u", pid, frequency_hz);
}

static void release_all(struct harness *harness)
{
	for (size_t i = 0; i < MAX_WAITING; i++) {
		struct serve_reply *reply = TAKE_PTR(harness->waiters[i].reply);
		if (!reply)
			continue;
		harness->waiting--;
		reply_text(reply, "waited");
	}
}

static void on_detach(void *context, struct serve_reply *reply, uint32_t pid)
{
	if (pid == PULL_WAITS)
		release_all(context);
	serve_reply_empty(reply);
}
static void on_list(void *context, struct serve_reply *reply)
{
	(void)context;
	Sprof__Control__Target target = SPROF__CONTROL__TARGET__INIT;
	target.pid = 7;
	target.state = SPROF__CONTROL__TARGET_STATE__TARGET_LIVE;
	target.comm = (char *)"seven";
	Sprof__Control__Target *targets[] = {&target};
	Sprof__Control__TargetList list = SPROF__CONTROL__TARGET_LIST__INIT;
	list.targets = targets;
	list.n_targets = 1;
	serve_reply_message(reply, &list.base);
}
static void on_target(void *context, struct serve_reply *reply, uint32_t pid)
{
	(void)context;
	reply_text(reply, "target %u", pid);
}
static void on_table(void *context, struct serve_reply *reply, uint32_t pid)
{
	(void)context;
	reply_text(reply, "table %u%s", pid, serve_reply_wants_protobuf(reply) ? " as protobuf" : "");
}
static void on_status(void *context, struct serve_reply *reply)
{
	struct harness *harness = context;
	harness->peer = *serve_reply_peer(reply);
	Sprof__Control__Status status = SPROF__CONTROL__STATUS__INIT;
	status.version = (char *)"0.1";
	serve_reply_message(reply, &status.base);
}
static void on_metrics(void *context, struct serve_reply *reply)
{
	(void)context;
	Sprof__Control__Status status = SPROF__CONTROL__STATUS__INIT;
	char *text;
	size_t bytes;
	ck_assert_int_eq(openmetrics_format(&status, &text, &bytes), 0);
	serve_reply_bytes(reply, OPENMETRICS_CONTENT_TYPE, NULL, (uint8_t *)text, bytes);
}
static void on_index(void *context, struct serve_reply *reply)
{
	(void)context;
	reply_text(reply, "index");
}

static void on_gone(void *context)
{
	struct waiter *waiter = context;
	if (waiter->forgets) {
		struct error err = {.code = ECANCELED, .text = "nobody hears this"};
		waiter->harness->waiting--;
		serve_reply_error(TAKE_PTR(waiter->reply), &err);
	}
	waiter->harness->gone++;
}

static void wait_for_release(struct harness *harness, struct serve_reply *reply, bool forgets)
{
	for (size_t i = 0; i < MAX_WAITING; i++) {
		struct waiter *waiter = &harness->waiters[i];
		if (waiter->reply)
			continue;
		*waiter = (struct waiter){harness, reply, forgets};
		serve_reply_on_gone(reply, on_gone, waiter);
		harness->waiting++;
		return;
	}
	ck_abort_msg("too many wait");
}

static void reply_large(struct serve_reply *reply)
{
	uint8_t *data = malloc(LARGE_BYTES);
	ck_assert_ptr_nonnull(data);
	for (size_t i = 0; i < LARGE_BYTES; i++)
		data[i] = large_byte(i);
	serve_reply_bytes(reply, "application/octet-stream", "profile", data, LARGE_BYTES);
}

static void on_pull(void *context, struct serve_reply *reply, const struct serve_pull *request)
{
	struct error err = {.code = ESRCH, .text = "no \xff such\nprocess"};
	switch (request->pid) {
	case PULL_WAITS:
	case PULL_FORGETS:
		wait_for_release(context, reply, request->pid == PULL_FORGETS);
		break;
	case PULL_LARGE:
		reply_large(reply);
		break;
	case PULL_FAILS:
		serve_reply_error(reply, &err);
		break;
	default:
		reply_text(reply, "small");
	}
}

static const struct serve_handlers handlers = {
	.attach = on_attach,
	.rate = on_rate,
	.detach = on_detach,
	.list = on_list,
	.target = on_target,
	.table = on_table,
	.status = on_status,
	.metrics = on_metrics,
	.index = on_index,
	.pull = on_pull,
};

static void *run(void *context)
{
	struct harness *harness = context;
	event_base_dispatch(harness->base);
	return NULL;
}

/* The server's thread alone may touch the server: 'q' ends the loop, 'c' asks for the counters. */
static void on_command(evutil_socket_t fd, short events, void *context)
{
	(void)events;
	struct harness *harness = context;
	char command = 'q';
	if (read(fd, &command, 1) == 1 && command == 'c') {
		serve_counters(harness->serve, &harness->counters);
		harness->answered++;
	} else {
		event_base_loopbreak(harness->base);
	}
}

static void listen_abstract(struct harness *harness)
{
	struct sockaddr_un *address = &harness->address;
	address->sun_family = AF_UNIX;
	int n = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "sprofd-test-%d-%p", getpid(),
			 (void *)harness);
	harness->address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
	harness->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ck_assert_int_ge(harness->listen_fd, 0);
	ck_assert_int_eq(bind(harness->listen_fd, (struct sockaddr *)address, harness->address_bytes), 0);
	ck_assert_int_eq(listen(harness->listen_fd, 256), 0);
}

struct harness *harness_start(unsigned max_connections, unsigned idle_timeout_s)
{
	struct harness *harness = calloc(1, sizeof(*harness));
	ck_assert_ptr_nonnull(harness);
	signal(SIGPIPE, SIG_IGN);
	listen_abstract(harness);
	harness->base = event_base_new();
	struct serve_options options = {harness->listen_fd, max_connections, idle_timeout_s};
	struct error err = {0};
	ck_assert_msg(serve_new(harness->base, &options, &handlers, harness, &harness->serve, &err) == 0, "%s",
		      err.text);
	ck_assert_int_eq(pipe2(harness->commands, O_CLOEXEC), 0);
	harness->command = event_new(harness->base, harness->commands[0], EV_READ | EV_PERSIST, on_command, harness);
	event_add(harness->command, NULL);
	ck_assert_int_eq(pthread_create(&harness->thread, NULL, run, harness), 0);
	return harness;
}

void harness_stop(struct harness *harness)
{
	ck_assert_int_eq(write(harness->commands[1], "q", 1), 1);
	pthread_join(harness->thread, NULL);
	serve_free(harness->serve);
	release_all(harness);
	event_free(harness->command);
	event_base_free(harness->base);
	close(harness->commands[0]);
	close(harness->commands[1]);
	close(harness->listen_fd);
	free(harness);
}

unsigned harness_waiting(struct harness *harness)
{
	return harness->waiting;
}
unsigned harness_gone(struct harness *harness)
{
	return harness->gone;
}
struct serve_counters harness_counters(struct harness *harness)
{
	unsigned before = harness->answered;
	ck_assert_int_eq(write(harness->commands[1], "c", 1), 1);
	eventually(harness->answered != before);
	return harness->counters;
}
struct serve_peer harness_peer(struct harness *harness)
{
	return harness->peer; /* the answer to the request has been read: it is no longer written */
}

int client_connect(struct harness *harness)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	/* So that a server that never answers fails the test by name. */
	struct timeval patience = {.tv_sec = 20};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&harness->address, harness->address_bytes), 0);
	return fd;
}

void client_send_bytes(int fd, const void *data, size_t bytes)
{
	for (size_t sent = 0; sent < bytes;) {
		ssize_t n = send(fd, (const char *)data + sent, bytes - sent, MSG_NOSIGNAL);
		ck_assert_msg(n > 0, "send: %s", strerror(errno));
		sent += (size_t)n;
	}
}
void client_send(int fd, const char *text)
{
	client_send_bytes(fd, text, strlen(text));
}

char *client_read_all(int fd, size_t *ret_bytes)
{
	size_t bytes = 0, room = 1 << 16;
	char *text = malloc(room);
	ck_assert_ptr_nonnull(text);
	for (ssize_t n; (n = recv(fd, text + bytes, room - bytes - 1, 0)) != 0;) {
		if (n < 0 && errno == ECONNRESET)
			break;
		ck_assert_msg(n > 0, "recv: %s", strerror(errno));
		bytes += (size_t)n;
		if (room - bytes < 2)
			text = realloc(text, room *= 2);
		ck_assert_ptr_nonnull(text);
	}
	text[bytes] = '\0';
	if (ret_bytes)
		*ret_bytes = bytes;
	return text;
}

/* Byte by byte up to the blank line, so that what follows stays in the socket. */
static char *receive_headers(int fd)
{
	enum { MAX = 8192 };
	char *text = calloc(1, MAX);
	ck_assert_ptr_nonnull(text);
	for (size_t n = 0; n < MAX - 1; n++) {
		if (recv(fd, text + n, 1, 0) != 1)
			break;
		if (n >= 3 && memcmp(text + n - 3, "\r\n\r\n", 4) == 0)
			return text;
	}
	free(text);
	return NULL;
}

const char *response_header(const struct response *response, const char *name, char value[200])
{
	for (const char *line = response->headers; (line = strstr(line, "\r\n")) && line[2] != '\r';) {
		line += 2;
		if (strncasecmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
			sscanf(line + strlen(name) + 1, " %199[^\r]", value);
			return value;
		}
	}
	return NULL;
}

bool client_receive(int fd, bool head, struct response *ret)
{
	struct response response = {.headers = receive_headers(fd)};
	if (!response.headers)
		return false;
	ck_assert_int_eq(sscanf(response.headers, "HTTP/1.%*d %d", &response.status), 1);
	char value[200];
	size_t bytes = 0;
	if (!head && response_header(&response, "Content-Length", value))
		bytes = strtoul(value, NULL, 10);
	response.body = malloc(bytes + 1);
	ck_assert_ptr_nonnull(response.body);
	while (response.bytes < bytes) {
		ssize_t n = recv(fd, response.body + response.bytes, bytes - response.bytes, 0);
		if (n <= 0) {
			response_free(&response);
			return false;
		}
		response.bytes += (size_t)n;
	}
	response.body[bytes] = '\0';
	*ret = response;
	return true;
}

void response_free(struct response *response)
{
	free(response->headers);
	free(response->body);
}

struct response client_ask(struct harness *harness, const char *request)
{
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, request);
	struct response response;
	ck_assert_msg(client_receive(fd, strncmp(request, "HEAD ", 5) == 0, &response), "no answer to %s", request);
	return response;
}
