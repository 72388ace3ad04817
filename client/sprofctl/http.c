#include "sprofctl/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "sprofctl/cleanup.h"

enum { CONNECT_TIMEOUT_S = 10, TICK_MS = 1000 };
#define HOW_TO_START "start it with `systemctl start sprofd`, or name its socket with --socket=PATH or SPROFD_SOCKET"

struct exchange {
	const struct http_request *request;
	struct http_answer answer;
	CURL *easy;
	CURLM *multi;
	struct curl_slist *headers;
	struct problem *problem;
	int error; /* of the sink, or ours: -errno, *problem is set; 0: none */
};

static void free_exchange(struct exchange *exchange)
{
	if (exchange->multi && exchange->easy)
		curl_multi_remove_handle(exchange->multi, exchange->easy);
	curl_easy_cleanup(exchange->easy);
	curl_multi_cleanup(exchange->multi);
	curl_slist_free_all(exchange->headers);
	free(exchange->answer.body);
}

static int keep_body(struct exchange *exchange, const uint8_t *data, size_t bytes)
{
	struct http_answer *answer = &exchange->answer;
	if (bytes > HTTP_MAX_ANSWER_BYTES - answer->body_bytes)
		return problem_set(exchange->problem, EMSGSIZE, "the answer of sprofd is too long: is %s its socket?",
				   exchange->request->socket);
	uint8_t *body = realloc(answer->body, answer->body_bytes + bytes + 1);
	if (!body)
		return problem_set(exchange->problem, ENOMEM, "out of memory");
	memcpy(body + answer->body_bytes, data, bytes);
	answer->body = body;
	answer->body_bytes += bytes;
	answer->body[answer->body_bytes] = '\0';
	return 0;
}

static size_t on_body(char *data, size_t one, size_t bytes, void *context)
{
	struct exchange *exchange = context;
	const struct http_request *request = exchange->request;
	long status = 0;
	(void)one;
	curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &status);
	exchange->error = request->sink && status == 200
				  ? request->sink(request->context, (const uint8_t *)data, bytes, exchange->problem)
				  : keep_body(exchange, (const uint8_t *)data, bytes);
	return exchange->error ? 0 : bytes;
}

static int add_header(struct exchange *exchange, const char *name, const char *value)
{
	char line[200];
	snprintf(line, sizeof(line), "%s: %s", name, value);
	struct curl_slist *headers = curl_slist_append(exchange->headers, line);
	if (!headers)
		return problem_set(exchange->problem, ENOMEM, "out of memory");
	exchange->headers = headers;
	return 0;
}

static int prepare(struct exchange *exchange)
{
	const struct http_request *request = exchange->request;
	char url[512];
	exchange->easy = curl_easy_init();
	exchange->multi = curl_multi_init();
	if (!exchange->easy || !exchange->multi)
		return problem_set(exchange->problem, ENOMEM, "out of memory");
	int r = add_header(exchange, "Accept", request->accept);
	if (r == 0 && request->content_type)
		r = add_header(exchange, "Content-Type", request->content_type);
	if (r < 0)
		return r;
	snprintf(url, sizeof(url), "http://sprofd%s", request->path);
	CURL *easy = exchange->easy;
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, request->socket);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* whatever the environment says */
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "sprofctl/" SPROF_VERSION);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	if (request->content_type) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, (const char *)request->body);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
	}
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)request->timeout_s);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
	if (curl_multi_add_handle(exchange->multi, easy) != CURLM_OK)
		return problem_set(exchange->problem, ENOMEM, "out of memory");
	return 0;
}

/* Runs until the exchange is over or interrupted; 0 and curl's word for how it went. */
static int perform(struct exchange *exchange, CURLcode *ret)
{
	struct curl_waitfd interrupt = {.fd = exchange->request->interrupt_fd, .events = CURL_WAIT_POLLIN};
	unsigned n_extra = interrupt.fd >= 0;
	for (int running = 1;;) {
		CURLMcode r = curl_multi_perform(exchange->multi, &running);
		if (r == CURLM_OK && running)
			r = curl_multi_poll(exchange->multi, &interrupt, n_extra, TICK_MS, NULL);
		if (r != CURLM_OK)
			return problem_set(exchange->problem, EIO, "cannot talk to sprofd: %s", curl_multi_strerror(r));
		if (interrupt.revents)
			return problem_set(exchange->problem, EINTR, "interrupted");
		if (!running)
			break;
		if (exchange->request->tick)
			exchange->request->tick(exchange->request->context);
	}
	int left;
	const CURLMsg *message = curl_multi_info_read(exchange->multi, &left);
	*ret = message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_RECV_ERROR;
	return 0;
}

/* Why nobody can be reached at path, found out by trying again, since curl does not always tell; 0: now it works. */
static int connect_error(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? errno : 0;
}

static int explain_permission(const char *path, struct problem *problem)
{
	struct stat st;
	const struct passwd *user = getpwuid(geteuid());
	const struct group *group = stat(path, &st) == 0 && st.st_gid != 0 ? getgrgid(st.st_gid) : NULL;
	const char *group_name = group ? group->gr_name : "sprof";
	return problem_set(
		problem, EACCES,
		"permission denied on the socket %s: it is for root and members of group %s; run as root, or "
		"`usermod -aG %s %s` and log in again",
		path, group_name, group_name, user ? user->pw_name : "USER");
}

static int explain_connect(const char *path, struct problem *problem)
{
	int error = connect_error(path);
	switch (error) {
	case ENOENT:
		return problem_set(problem, error, "sprofd is not running: there is no socket %s; " HOW_TO_START, path);
	case ECONNREFUSED:
		return problem_set(problem, error, "sprofd is not running: nobody serves the socket %s; " HOW_TO_START,
				   path);
	case EACCES:
	case EPERM:
		return explain_permission(path, problem);
	case 0:
	case EAGAIN:
		return problem_set(problem, EAGAIN, "sprofd on %s is too busy to answer: try again", path);
	default:
		return problem_set(problem, error, "cannot connect to sprofd on %s: %s; " HOW_TO_START, path,
				   strerror(error));
	}
}

static int explain(const struct exchange *exchange, CURLcode code)
{
	const char *path = exchange->request->socket;
	struct problem *problem = exchange->problem;
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		return explain_connect(path, problem);
	case CURLE_OPERATION_TIMEDOUT:
		return problem_set(problem, ETIMEDOUT,
				   "sprofd on %s does not answer: see what it says with `journalctl -u sprofd`, or "
				   "restart it with `systemctl restart sprofd`",
				   path);
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return problem_set(problem, ECONNRESET,
				   "sprofd on %s ended the connection before its answer was complete (stopped, or "
				   "restarted?): try again, or see `journalctl -u sprofd`",
				   path);
	case CURLE_OUT_OF_MEMORY:
		return problem_set(problem, ENOMEM, "out of memory");
	default:
		return problem_set(problem, EPROTO,
				   "what answers on %s is not sprofd (%s): name its socket with --socket=PATH", path,
				   curl_easy_strerror(code));
	}
}

static void read_head(struct exchange *exchange)
{
	const char *type = NULL;
	curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &exchange->answer.status);
	curl_easy_getinfo(exchange->easy, CURLINFO_CONTENT_TYPE, &type);
	if (type)
		snprintf(exchange->answer.content_type, HTTP_TYPE_BYTES, "%.*s", (int)strcspn(type, "; \t"), type);
}

int http_exchange(const struct http_request *request, struct http_answer *ret, struct problem *problem)
{
	if (strlen(request->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return problem_set(problem, ENAMETOOLONG,
				   "the socket's path has more than the %zu bytes that Unix sockets allow: %s",
				   sizeof(((struct sockaddr_un *)0)->sun_path) - 1, request->socket);
	_cleanup_(free_exchange) struct exchange exchange = {.request = request, .problem = problem};
	CURLcode code = CURLE_OK;
	int r = prepare(&exchange);
	if (r == 0)
		r = perform(&exchange, &code);
	if (r < 0)
		return r;
	if (code != CURLE_OK)
		return exchange.error ? exchange.error : explain(&exchange, code);
	read_head(&exchange);
	*ret = exchange.answer;
	exchange.answer.body = NULL;
	return 0;
}
