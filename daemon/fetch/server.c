#include "fetch/server.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "fetch/jobs.h"
#include "proto/fetch_limits.h"

enum { CLIENTS_MAX = 8, WAIT_MS = 1000 };

struct client {
	int fd; /* -1: a free place */
	uint64_t number;
};

struct server {
	int listen_fd;
	CURLM *multi;
	struct jobs *jobs;
	struct client clients[CLIENTS_MAX];
	uint64_t last_number;
};

static void drop(struct server *server, struct client *client)
{
	jobs_forget_waiter(server->jobs, client->number);
	close(TAKE_FD(client->fd));
}

/* A client that does not take its replies is none. It is let go of when it next has something to say, or hangs up. */
static void reply(void *context, uint64_t waiter, const char *build_id, Sprof__Fetch__Reply__State state,
		  const char *why)
{
	struct server *server = context;
	uint8_t packet[FETCH_MESSAGE_MAX_BYTES];
	Sprof__Fetch__Reply message = SPROF__FETCH__REPLY__INIT;
	message.build_id = (char *)build_id;
	message.state = state;
	message.why = (char *)why;
	size_t bytes = sprof__fetch__reply__pack(&message, packet); /* why is one of curl's at the longest */
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		if (server->clients[i].fd >= 0 && server->clients[i].number == waiter)
			(void)send(server->clients[i].fd, packet, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void accept_client(struct server *server)
{
	_cleanup_close_ int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	for (size_t i = 0; fd >= 0 && i < CLIENTS_MAX; i++)
		if (server->clients[i].fd < 0)
			server->clients[i] = (struct client){.fd = TAKE_FD(fd), .number = ++server->last_number};
}

/* False: the client is gone, or talks nonsense. */
static bool take_packet(struct server *server, const struct client *client)
{
	uint8_t packet[FETCH_MESSAGE_MAX_BYTES];
	ssize_t n = recv(client->fd, packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0 || (size_t)n > sizeof(packet))
		return false;
	Sprof__Fetch__Request *request = sprof__fetch__request__unpack(NULL, (size_t)n, packet);
	bool sound = request && jobs_request_is_sound(request);
	if (sound)
		jobs_add(server->jobs, request, client->number);
	else
		log_warning("sprofd-fetch: malformed request: the client is let go of");
	if (request)
		sprof__fetch__request__free_unpacked(request, NULL);
	return sound;
}

static int turn(struct server *server, struct error *err)
{
	struct curl_waitfd waits[CLIENTS_MAX + 1] = {{.fd = server->listen_fd, .events = CURL_WAIT_POLLIN}};
	struct client *of[CLIENTS_MAX + 1] = {NULL};
	unsigned n = 1;
	int running = 0;
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		if (server->clients[i].fd < 0)
			continue;
		of[n] = &server->clients[i];
		waits[n++] = (struct curl_waitfd){.fd = server->clients[i].fd, .events = CURL_WAIT_POLLIN};
	}
	CURLMcode r = curl_multi_poll(server->multi, waits, n, WAIT_MS, NULL);
	if (r == CURLM_OK)
		r = curl_multi_perform(server->multi, &running);
	if (r != CURLM_OK)
		return error_set(err, EIO, "curl: %s", curl_multi_strerror(r));
	jobs_run(server->jobs);
	for (unsigned i = 1; i < n; i++)
		if (waits[i].revents && !take_packet(server, of[i]))
			drop(server, of[i]);
	if (waits[0].revents)
		accept_client(server);
	return 0;
}

int server_run(int listen_fd, int cache_fd, const volatile int *stop, struct error *err)
{
	struct server server = {.listen_fd = listen_fd, .multi = curl_multi_init()};
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		server.clients[i].fd = -1;
	server.jobs = server.multi ? jobs_new(server.multi, cache_fd, reply, &server) : NULL;
	int r = server.jobs ? 0 : error_set(err, ENOMEM, "out of memory");
	while (r == 0 && !*stop)
		r = turn(&server, err);
	for (size_t i = 0; server.jobs && i < CLIENTS_MAX; i++)
		if (server.clients[i].fd >= 0)
			drop(&server, &server.clients[i]);
	jobs_free(server.jobs);
	curl_multi_cleanup(server.multi);
	return r;
}
