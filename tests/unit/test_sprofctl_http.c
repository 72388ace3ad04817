/* What a server may answer, and what a user is told of it: a server of ours that gives one canned answer. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.pb-c.h"
#include "sprofctl/api.h"
#include "sprofctl/connection.h"
#include "sprofctl/http.h"
#include "sprofctl/pull.h"

enum { REQUEST_BYTES = 4096, TIMEOUT_S = 20 };

static char directory[] = "/tmp/sprof-unit.XXXXXX";
static char path[sizeof(directory) + 10];
static struct problem problem;
static int request_pipe = -1;
static pid_t server = -1;

static void setup(void)
{
	strcpy(strrchr(directory, '.'), ".XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/sock", directory);
	memset(&problem, 0, sizeof(problem));
}

static void teardown(void)
{
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	unlink(path);
	rmdir(directory);
}

static int listen_at(const char *where)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", where);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

/* Reads a request, with as much of its body as it announces, into text. */
static void read_request(int fd, char *text)
{
	size_t used = 0;
	for (ssize_t n; used < REQUEST_BYTES - 1 && (n = read(fd, text + used, REQUEST_BYTES - 1 - used)) > 0;) {
		used += (size_t)n;
		text[used] = '\0';
		const char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "content-length:");
		size_t announced = length ? strtoul(length + strlen("content-length:"), NULL, 10) : 0;
		if (end && used >= (size_t)(end - text) + 4 + announced)
			break;
	}
}

/* Serves one request with these bytes, then closes, or stays silent forever. */
static void serve(const void *answer, size_t bytes, bool hang)
{
	int ends[2], fd = listen_at(path);
	ck_assert_int_eq(pipe(ends), 0);
	server = fork();
	ck_assert_int_ge(server, 0);
	if (server == 0) {
		char text[REQUEST_BYTES] = "";
		int client = accept(fd, NULL, NULL);
		read_request(client, text);
		bool ok = write(ends[1], text, sizeof(text)) == sizeof(text) &&
			  (bytes == 0 || send(client, answer, bytes, MSG_NOSIGNAL) == (ssize_t)bytes);
		if (hang)
			pause();
		_exit(ok ? 0 : 1);
	}
	close(fd);
	close(ends[1]);
	request_pipe = ends[0];
}

static void serve_text(const char *answer)
{
	serve(answer, strlen(answer), false);
}

/* What the server was sent. */
static const char *request(void)
{
	static char text[REQUEST_BYTES];
	size_t used = 0;
	for (ssize_t n; (n = read(request_pipe, text + used, sizeof(text) - used)) > 0;)
		used += (size_t)n;
	text[sizeof(text) - 1] = '\0';
	return text;
}

static void serve_message(int status, const char *type, const ProtobufCMessage *message)
{
	uint8_t answer[2000];
	size_t bytes = protobuf_c_message_get_packed_size(message);
	int head = snprintf((char *)answer, sizeof(answer),
			    "HTTP/1.1 %d x\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type, bytes);
	ck_assert_uint_lt((size_t)head + bytes, sizeof(answer));
	protobuf_c_message_pack(message, answer + head);
	serve(answer, (size_t)head + bytes, false);
}

static int get(struct http_answer *answer)
{
	struct http_request r = {.socket = path,
				 .method = "GET",
				 .path = "/v1/status",
				 .accept = API_JSON,
				 .timeout_s = TIMEOUT_S,
				 .interrupt_fd = -1};
	return http_exchange(&r, answer, &problem);
}

static void assert_told(const char *words)
{
	if (!strstr(problem.text, words))
		ck_abort_msg("no \"%s\" in \"%s\"", words, problem.text);
	ck_assert_ptr_null(strchr(problem.text, '\n'));
}

START_TEST(an_answer)
{
	struct http_answer answer;
	serve_text("HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}");
	ck_assert_int_eq(get(&answer), 0);
	ck_assert_int_eq(answer.status, 200);
	ck_assert_str_eq(answer.content_type, "application/json");
	ck_assert_str_eq((const char *)answer.body, "{}");
	ck_assert_uint_eq(answer.body_bytes, 2);
	free(answer.body);
	const char *sent = request();
	ck_assert_int_eq(strncmp(sent, "GET /v1/status HTTP/1.1\r\n", 25), 0);
	ck_assert_ptr_nonnull(strstr(sent, "\r\nAccept: application/json\r\n"));
}
END_TEST

START_TEST(an_interim_answer_is_none)
{
	struct http_answer answer;
	serve_text("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Type: text/html\r\n\r\n"
		   "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nup to the end");
	ck_assert_int_eq(get(&answer), 0);
	ck_assert_int_eq(answer.status, 200);
	ck_assert_str_eq(answer.content_type, "text/plain");
	ck_assert_str_eq((const char *)answer.body, "up to the end");
	free(answer.body);
}
END_TEST

START_TEST(what_follows_an_answer_is_not_read)
{
	static const char *const more[] = {
		"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nmore",
		"HTTP/1.1 103 Early Hints\r\n\r\n", "no HTTP"};
	char text[300];
	struct http_answer answer;
	snprintf(text, sizeof(text),
		 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}%s", more[_i]);
	serve_text(text);
	ck_assert_int_eq(get(&answer), 0);
	ck_assert_int_eq(answer.status, 200);
	ck_assert_str_eq(answer.content_type, "application/json");
	ck_assert_str_eq((const char *)answer.body, "{}");
	free(answer.body);
}
END_TEST

/* All but that the other end has closed, which may have answered before. */
START_TEST(what_cannot_be_sent_is_told)
{
	struct connection connection = {.path = path, .interrupt_fd = -1, .timeout_s = TIMEOUT_S};
	int ends[2];
	connection.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(connection_send(&connection, "x", 1, &problem), -ENOTCONN);
	assert_told("cannot send to sprofd");
	connection_close(&connection);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	ck_assert_int_eq(write(ends[1], "early", 5), 5);
	close(ends[1]);
	connection.fd = ends[0];
	char answer[8];
	ck_assert_int_eq(connection_send(&connection, "x", 1, &problem), 0);
	connection.deadline_ms = INT64_MAX;
	ck_assert_int_eq(connection_receive(&connection, answer, sizeof(answer), &problem), 5);
	ck_assert_int_eq(connection_receive(&connection, answer, sizeof(answer), &problem), 0);
	connection_close(&connection);
}
END_TEST

/* Accepts and answers only after a while; until then its queue is full of others. */
START_TEST(a_full_queue_is_waited_for)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	static const char text[] = "HTTP/1.1 204 No Content\r\n\r\n";
	struct http_answer answer;
	int listener = listen_at(path), others = 0;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	for (;; others++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
			break;
	}
	ck_assert_int_eq(errno, EAGAIN);
	server = fork();
	ck_assert_int_ge(server, 0);
	if (server == 0) {
		char request_text[REQUEST_BYTES];
		usleep(200 * 1000);
		for (; others > 0; others--)
			close(accept(listener, NULL, NULL));
		int client = accept(listener, NULL, NULL);
		read_request(client, request_text);
		_exit(send(client, text, sizeof(text) - 1, MSG_NOSIGNAL) < 0);
	}
	ck_assert_int_eq(get(&answer), 0);
	ck_assert_int_eq(answer.status, 204);
	close(listener);
}
END_TEST

START_TEST(proxies_do_not_matter)
{
	struct http_answer answer;
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	serve_text("HTTP/1.1 204 No Content\r\n\r\n");
	ck_assert_int_eq(get(&answer), 0);
	ck_assert_int_eq(answer.status, 204);
	ck_assert_ptr_null(answer.body);
}
END_TEST

START_TEST(nobody_there)
{
	struct http_answer answer;
	ck_assert_int_eq(get(&answer), -ENOENT);
	assert_told(path);
	assert_told("systemctl start sprofd");
	close(listen_at(path)); /* a stale socket */
	ck_assert_int_eq(get(&answer), -ECONNREFUSED);
	assert_told("systemctl start sprofd");
}
END_TEST

START_TEST(no_permission)
{
	struct http_answer answer;
	if (geteuid() != 0)
		return; /* then it is tested by what follows being root's */
	int fd = listen_at(path);
	ck_assert_int_eq(chmod(path, 0600), 0);
	ck_assert_int_eq(chmod(directory, 0711), 0);
	ck_assert_int_eq(seteuid(65534), 0);
	ck_assert_int_eq(get(&answer), -EACCES);
	ck_assert_int_eq(seteuid(0), 0);
	assert_told("permission denied");
	assert_told("group sprof");
	close(fd);
}
END_TEST

START_TEST(a_path_that_is_too_long)
{
	struct http_answer answer;
	char long_path[200];
	struct http_request r = {
		.socket = long_path, .method = "GET", .path = "/", .accept = API_JSON, .interrupt_fd = -1};
	memset(long_path, 'x', sizeof(long_path));
	long_path[sizeof(long_path) - 1] = '\0';
	ck_assert_int_eq(http_exchange(&r, &answer, &problem), -ENAMETOOLONG);
	assert_told("107 bytes");
}
END_TEST

START_TEST(a_redirect_is_not_followed)
{
	char *text;
	serve_text("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
	ck_assert_int_lt(api_get_json(path, "/v1/status", &text, &problem), 0);
	assert_told("302");
}
END_TEST

START_TEST(silence_ends_by_time_out)
{
	struct http_answer answer;
	struct http_request r = {
		.socket = path, .method = "GET", .path = "/", .accept = API_JSON, .timeout_s = 1, .interrupt_fd = -1};
	serve("HTTP/1.1 200 OK\r\n", 17, true);
	ck_assert_int_eq(http_exchange(&r, &answer, &problem), -ETIMEDOUT);
	assert_told("does not answer");
}
END_TEST

START_TEST(an_interrupt_ends_it_at_once)
{
	struct http_answer answer;
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	struct http_request r = {.socket = path,
				 .method = "GET",
				 .path = "/",
				 .accept = API_JSON,
				 .timeout_s = 100,
				 .interrupt_fd = ends[0]};
	serve("", 0, true);
	ck_assert_int_eq(write(ends[1], "x", 1), 1);
	ck_assert_int_eq(http_exchange(&r, &answer, &problem), -EINTR);
}
END_TEST

START_TEST(a_message)
{
	Sprof__Control__Target target = SPROF__CONTROL__TARGET__INIT;
	Sprof__Control__RateRequest rate = SPROF__CONTROL__RATE_REQUEST__INIT;
	ProtobufCMessage *answer;
	target.pid = 77;
	target.comm = (char *)"xz";
	rate.frequency_hz = 5;
	serve_message(200, API_PROTOBUF, &target.base);
	ck_assert_int_eq(api_call(path, "PATCH", "/v1/targets/77", &rate.base, &sprof__control__target__descriptor,
				  &answer, &problem),
			 0);
	ck_assert_uint_eq(((Sprof__Control__Target *)answer)->pid, 77);
	ck_assert_str_eq(((Sprof__Control__Target *)answer)->comm, "xz");
	protobuf_c_message_free_unpacked(answer, NULL);
	const char *sent = request();
	ck_assert_int_eq(strncmp(sent, "PATCH /v1/targets/77 HTTP/1.1\r\n", 31), 0);
	ck_assert_ptr_nonnull(strstr(sent, "\r\nContent-Type: application/x-protobuf\r\n"));
	ck_assert_ptr_nonnull(strstr(sent, "\r\n\r\n\x08\x05"));
}
END_TEST

static int call(void)
{
	ProtobufCMessage *answer;
	return api_call(path, "GET", "/v1/status", NULL, &sprof__control__status__descriptor, &answer, &problem);
}

static const char *const bad[] = {
	"",
	"garbage\r\n\r\n",
	"SSH-2.0-OpenSSH_9.2\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	"HTTP/1.1 200 OK\r\nContent-Len",
};

START_TEST(an_answer_that_is_none)
{
	serve_text(bad[_i]);
	ck_assert_int_lt(call(), 0);
	assert_told(path);
}
END_TEST

START_TEST(a_message_that_makes_no_sense)
{
	serve_text(
		"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff");
	ck_assert_int_eq(call(), -EPROTO);
	assert_told("makes no sense");
}
END_TEST

START_TEST(an_answer_of_another_type)
{
	serve_text("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>");
	ck_assert_int_eq(call(), -EPROTO);
	assert_told("not sprofd");
}
END_TEST

START_TEST(the_reason_of_a_refusal)
{
	Sprof__Control__Error error = SPROF__CONTROL__ERROR__INIT;
	error.status = 404;
	error.message = (char *)"process 7 is not attached\nsecond\033[1m line";
	serve_message(404, API_PROTOBUF, &error.base);
	ck_assert_int_eq(call(), -EREMOTEIO);
	ck_assert_str_eq(problem.text, "process 7 is not attached?second?[1m line");
}
END_TEST

static const struct {
	const char *answer, *told;
} refusals[] = {
	{"HTTP/1.1 403 x\r\nContent-Type: application/json\r\nContent-Length: "
	 "32\r\n\r\n{\"status\":403,\"message\":\"not you\"}",
	 "HTTP status 403"}, /* cut short: no JSON */
	{"HTTP/1.1 403 x\r\nContent-Type: application/json\r\nContent-Length: "
	 "34\r\n\r\n{\"status\":403,\"message\":\"not you\"}",
	 "not you"},
	{"HTTP/1.1 503 x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 9\r\n\r\nfull\nhere", "full"},
	{"HTTP/1.1 500 x\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>", "HTTP status 500"},
	{"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n", "HTTP status 500"},
	{"HTTP/1.1 500 x\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull", "HTTP status 500"},
	{"HTTP/1.1 500 x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]", "HTTP status 500"},
	{"HTTP/1.1 500 x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 3\r\n\r\n\xff\xff\xff",
	 "HTTP status 500"},
};

START_TEST(refusals_in_other_forms)
{
	serve_text(refusals[_i].answer);
	ck_assert_int_eq(call(), -EREMOTEIO);
	assert_told(refusals[_i].told);
}
END_TEST

struct collected {
	char text[100];
	size_t bytes;
	int error;
};

static int collect(void *context, const uint8_t *data, size_t bytes, struct problem *why)
{
	struct collected *collected = context;
	if (collected->error)
		return problem_set(why, collected->error, "no room");
	ck_assert_uint_lt(collected->bytes + bytes, sizeof(collected->text));
	memcpy(collected->text + collected->bytes, data, bytes);
	collected->bytes += bytes;
	return 0;
}

static int pull(struct collected *collected)
{
	struct command_line command_line = {.socket = path, .pid = 12, .has_seconds = true, .seconds = 3};
	struct pull_sink sink = {.write = collect, .context = collected, .interrupt_fd = -1};
	return pull_profile(&command_line, &sink, &problem);
}

START_TEST(a_profile_goes_to_the_sink)
{
	struct collected collected = {0};
	serve_text("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 7\r\n\r\nprofile");
	ck_assert_int_eq(pull(&collected), 0);
	ck_assert_str_eq(collected.text, "profile");
	ck_assert_int_eq(strncmp(request(), "GET /debug/pprof/profile?pid=12&seconds=3 HTTP/1.1\r\n", 52), 0);
}
END_TEST

START_TEST(a_refusal_does_not)
{
	struct collected collected = {0};
	serve_text("HTTP/1.1 404 x\r\nContent-Type: text/plain\r\nX-Go-Pprof: 1\r\nContent-Length: 4\r\n\r\ngone");
	ck_assert_int_eq(pull(&collected), -EREMOTEIO);
	ck_assert_str_eq(problem.text, "gone");
	ck_assert_uint_eq(collected.bytes, 0);
}
END_TEST

START_TEST(an_empty_profile_is_none)
{
	struct collected collected = {0};
	serve_text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	ck_assert_int_eq(pull(&collected), -EPROTO);
	assert_told("empty");
}
END_TEST

START_TEST(a_sink_that_fails_ends_it)
{
	struct collected collected = {.error = ENOSPC};
	serve_text("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nprofile");
	ck_assert_int_eq(pull(&collected), -ENOSPC);
	ck_assert_str_eq(problem.text, "no room");
}
END_TEST

START_TEST(half_a_profile_is_an_error)
{
	struct collected collected = {0};
	serve_text("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\nprofile");
	ck_assert_int_eq(pull(&collected), -ECONNRESET);
	assert_told(path);
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("sprofctl_http");
	TCase *tcase = tcase_create("exchange");
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 2 * TIMEOUT_S);
	tcase_add_test(tcase, an_answer);
	tcase_add_test(tcase, an_interim_answer_is_none);
	tcase_add_loop_test(tcase, what_follows_an_answer_is_not_read, 0, 3);
	tcase_add_test(tcase, what_cannot_be_sent_is_told);
	tcase_add_test(tcase, a_full_queue_is_waited_for);
	tcase_add_test(tcase, proxies_do_not_matter);
	tcase_add_test(tcase, nobody_there);
	tcase_add_test(tcase, no_permission);
	tcase_add_test(tcase, a_path_that_is_too_long);
	tcase_add_loop_test(tcase, an_answer_that_is_none, 0, (int)(sizeof(bad) / sizeof(bad[0])));
	tcase_add_test(tcase, a_redirect_is_not_followed);
	tcase_add_test(tcase, silence_ends_by_time_out);
	tcase_add_test(tcase, an_interrupt_ends_it_at_once);
	tcase_add_test(tcase, a_message);
	tcase_add_test(tcase, a_message_that_makes_no_sense);
	tcase_add_test(tcase, an_answer_of_another_type);
	tcase_add_test(tcase, the_reason_of_a_refusal);
	tcase_add_loop_test(tcase, refusals_in_other_forms, 0, (int)(sizeof(refusals) / sizeof(refusals[0])));
	tcase_add_test(tcase, a_profile_goes_to_the_sink);
	tcase_add_test(tcase, a_refusal_does_not);
	tcase_add_test(tcase, an_empty_profile_is_none);
	tcase_add_test(tcase, a_sink_that_fails_ends_it);
	tcase_add_test(tcase, half_a_profile_is_an_error);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(make_suite());
	srunner_set_fork_status(runner, CK_FORK);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
