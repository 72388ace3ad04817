#include "symbolize/fetch_client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "fetch.pb-c.h"
#include "proto/fetch_limits.h"

#define WAIT_MAX_NS  (1 * NS_PER_S)
#define IMPATIENT_NS (10 * NS_PER_S) /* after a wait that was in vain */
#define RECONNECT_NS (5 * NS_PER_S)
#define MIB          (UINT64_C(1) << 20)

struct fetch_client {
	char *urls, *socket_path, *cache_dir; /* urls: cut into the pieces below */
	char *url[FETCH_URLS_MAX];
	size_t n_urls;
	uint32_t timeout_seconds, file_max_mib, cache_max_mib;
	int socket; /* -1: not connected */
	uint64_t connect_not_before_ns, impatient_until_ns;
};

static void split_urls(struct fetch_client *client)
{
	char *rest = client->urls, *url = NULL;
	while (client->n_urls < FETCH_URLS_MAX && (url = strsep(&rest, " \t")))
		if (url[0])
			client->url[client->n_urls++] = url;
}

struct fetch_client *fetch_client_new(const struct fetch_options *options)
{
	struct fetch_client *client = calloc(1, sizeof(*client));
	if (!client)
		return NULL;
	*client = (struct fetch_client){
		.urls = strdup(options->urls ? options->urls : ""),
		.socket_path = strdup(options->socket ? options->socket : ""),
		.cache_dir = strdup(options->cache_dir ? options->cache_dir : ""),
		.timeout_seconds = options->timeout_seconds,
		.file_max_mib = options->file_max_mib,
		.cache_max_mib = options->cache_max_mib,
		.socket = -1,
	};
	if (!client->urls || !client->socket_path || !client->cache_dir) {
		fetch_client_free(client);
		return NULL;
	}
	split_urls(client);
	return client;
}

static void disconnect(struct fetch_client *client)
{
	if (client->socket >= 0)
		close(TAKE_FD(client->socket));
	client->connect_not_before_ns = clock_monotonic_ns() + RECONNECT_NS;
}

void fetch_client_free(struct fetch_client *client)
{
	if (!client)
		return;
	disconnect(client);
	free(client->urls);
	free(client->socket_path);
	free(client->cache_dir);
	free(client);
}

/* Never blocks: one that has many connections waiting is as good as none. */
static int connect_now(struct fetch_client *client)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (client->socket >= 0)
		return 0;
	if (clock_monotonic_ns() < client->connect_not_before_ns ||
	    strlen(client->socket_path) >= sizeof(address.sun_path))
		return -ENOTCONN;
	strcpy(address.sun_path, client->socket_path);
	client->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (client->socket >= 0 && connect(client->socket, (struct sockaddr *)&address, sizeof(address)) == 0)
		return 0;
	disconnect(client);
	return -ENOTCONN;
}

static int send_request(struct fetch_client *client, const char *build_id)
{
	uint8_t packet[FETCH_MESSAGE_MAX_BYTES];
	Sprof__Fetch__Request request = SPROF__FETCH__REQUEST__INIT;
	request.build_id = (char *)build_id;
	request.url = client->url;
	request.n_url = client->n_urls;
	request.timeout_seconds = client->timeout_seconds;
	request.file_max_bytes = client->file_max_mib * MIB;
	request.cache_max_bytes = client->cache_max_mib * MIB;
	if (sprof__fetch__request__get_packed_size(&request) > sizeof(packet))
		return -EMSGSIZE;
	size_t bytes = sprof__fetch__request__pack(&request, packet);
	return send(client->socket, packet, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* What the next reply says, if it is about build_id; UNKNOWN: it is about another, that nobody waits for now. -EAGAIN: there is none; -EIO. */
static int take_reply(struct fetch_client *client, const char *build_id)
{
	uint8_t packet[FETCH_MESSAGE_MAX_BYTES];
	ssize_t n = recv(client->socket, packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	Sprof__Fetch__Reply *reply =
		n > 0 && (size_t)n <= sizeof(packet) ? sprof__fetch__reply__unpack(NULL, (size_t)n, packet) : NULL;
	if (!reply)
		return -EIO;
	int state = strcmp(reply->build_id, build_id) == 0 ? (int)reply->state : SPROF__FETCH__REPLY__STATE__UNKNOWN;
	sprof__fetch__reply__free_unpacked(reply, NULL);
	return state < 0 ? -EIO : state;
}

/* The state that is replied; -EAGAIN: none until then; -EIO: it is gone, or talks nonsense. */
static int await(struct fetch_client *client, const char *build_id, uint64_t until_ns)
{
	for (;;) {
		uint64_t now_ns = clock_monotonic_ns();
		uint64_t wait_ms = until_ns > now_ns ? (until_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
		struct pollfd event = {.fd = client->socket, .events = POLLIN};
		int n = poll(&event, 1, (int)wait_ms);
		if (n < 0 && errno != EINTR)
			return -EIO;
		if (n == 0 && wait_ms == 0)
			return -EAGAIN;
		int state = n > 0 ? take_reply(client, build_id) : -EAGAIN;
		if (state != -EAGAIN && state != SPROF__FETCH__REPLY__STATE__UNKNOWN)
			return state;
		if (clock_monotonic_ns() >= until_ns + NS_PER_S) /* it talks without end */
			return -EIO;
	}
}

int fetch_client_ask(struct fetch_client *client, const char *build_id, uint64_t deadline_ns, char *ret_path)
{
	uint64_t now_ns = clock_monotonic_ns(), until_ns = now_ns + WAIT_MAX_NS;
	if (client->n_urls == 0)
		return -EOPNOTSUPP;
	if (connect_now(client) < 0)
		return -EAGAIN;
	if (send_request(client, build_id) < 0) {
		disconnect(client);
		return -EAGAIN;
	}
	if (now_ns < client->impatient_until_ns)
		until_ns = now_ns;
	int state = await(client, build_id, until_ns < deadline_ns ? until_ns : deadline_ns);
	if (state == -EIO)
		disconnect(client);
	if (state == -EAGAIN)
		client->impatient_until_ns = clock_monotonic_ns() + IMPATIENT_NS;
	if (state < 0)
		return -EAGAIN;
	if (state != SPROF__FETCH__REPLY__STATE__HERE)
		return -ENOENT;
	int n = snprintf(ret_path, PATH_MAX, "%s/%s" FETCH_FILE_SUFFIX, client->cache_dir, build_id);
	return n > 0 && n < PATH_MAX ? 0 : -ENOENT;
}
