/* What one client may send, and how many may come. */
#include <check.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "serve_harness.h"

#define ASK_INDEX "GET /debug/pprof/ HTTP/1.1\r\n\r\n"
#define ASK_LARGE "GET /debug/pprof/profile?pid=3 HTTP/1.1\r\n\r\n"

static struct harness *harness;

static void setup(void)
{
	harness = harness_start(8, 30);
}
static void setup_impatient(void)
{
	harness = harness_start(8, 1);
}
static void teardown(void)
{
	harness_stop(harness);
}

static char *filled(size_t bytes, char with)
{
	char *text = malloc(bytes + 1);
	ck_assert_ptr_nonnull(text);
	memset(text, with, bytes);
	text[bytes] = '\0';
	return text;
}

/* Sends what it can, until the server has had enough. */
static void send_some(int fd, const char *text)
{
	for (size_t bytes = strlen(text); bytes;) {
		ssize_t n = send(fd, text, bytes, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		text += n;
		bytes -= (size_t)n;
	}
}

static void expect_status(int fd, int status)
{
	struct response response;
	ck_assert(client_receive(fd, false, &response));
	ck_assert_int_eq(response.status, status);
	response_free(&response);
}

static void expect_served(void)
{
	struct response response = client_ask(harness, ASK_INDEX);
	ck_assert_int_eq(response.status, 200);
	response_free(&response);
}

START_TEST(headers_are_bounded)
{
	for (size_t bytes = 15 * 1024; bytes <= 1024 * 1024; bytes *= 4) {
		_cleanup_close_ int fd = client_connect(harness);
		_cleanup_free_ char *long_text = filled(bytes, 'x');
		send_some(fd, "GET /debug/pprof/ HTTP/1.1\r\nX-Long: ");
		send_some(fd, long_text);
		send_some(fd, "\r\n\r\n");
		expect_status(fd, bytes < 16 * 1024 ? 200 : 400);
	}
	_cleanup_close_ int fd = client_connect(harness);
	_cleanup_free_ char *path = filled(200 * 1024, '/');
	send_some(fd, path);
	expect_status(fd, 400);
	expect_served();
}
END_TEST

START_TEST(many_short_headers_are_bounded)
{
	_cleanup_close_ int fd = client_connect(harness);
	send_some(fd, "GET /debug/pprof/ HTTP/1.1\r\n");
	for (int i = 0; i < 10000; i++)
		send_some(fd, "A: b\r\n");
	send_some(fd, "\r\n");
	expect_status(fd, 400);
	expect_served();
}
END_TEST

START_TEST(bodies_are_bounded)
{
	for (size_t bytes = 64 * 1024; bytes <= 4 * 1024 * 1024; bytes = bytes == 64 * 1024 ? bytes + 1 : bytes * 8) {
		_cleanup_close_ int fd = client_connect(harness);
		char *body = filled(bytes, ' ');
		char head[200];
		snprintf(head, sizeof(head),
			 "POST /v1/targets HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
			 bytes);
		client_send(fd, head);
		client_send(fd, body); /* is taken in, so that the refusal is read */
		free(body);
		expect_status(fd, bytes <= 64 * 1024 ? 400 : 413);
	}
	expect_served();
}
END_TEST

START_TEST(chunked_bodies_are_bounded)
{
	_cleanup_close_ int fd = client_connect(harness);
	_cleanup_free_ char *chunk = filled(0x1000, ' ');
	send_some(fd, "POST /v1/targets HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 17; i++) {
		send_some(fd, "1000\r\n");
		send_some(fd, chunk);
		send_some(fd, "\r\n");
	}
	expect_status(fd, 413);
	expect_served();
}
END_TEST

START_TEST(a_chunk_size_without_end_is_cut)
{
	_cleanup_close_ int fd = client_connect(harness);
	char *digits = filled(4 * 1024 * 1024, '0');
	send_some(fd, "POST /v1/targets HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
	send_some(fd, digits);
	free(digits);
	_cleanup_free_ char *answer = client_read_all(fd, NULL);
	ck_assert_str_eq(answer, "");
	expect_served();
}
END_TEST

/* A byte now and then keeps no connection. */
START_TEST(a_request_must_arrive_in_time)
{
	static const char *const beginnings[] = {
		"", "GET",
		"GET /v1/status HTTP/1.1\r\nA: ", "POST /v1/targets HTTP/1.1\r\nContent-Length: 60000\r\n\r\n",
		"POST /v1/targets HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"};
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, beginnings[_i]);
	bool cut = false;
	for (int i = 0; i < 200 && !cut; i++) {
		usleep(50 * 1000);
		cut = send(fd, "x", 1, MSG_NOSIGNAL) != 1;
	}
	ck_assert(cut);
	expect_served();
}
END_TEST

START_TEST(an_idle_connection_is_closed)
{
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, ASK_INDEX);
	expect_status(fd, 200);
	_cleanup_free_ char *nothing = client_read_all(fd, NULL);
	ck_assert_str_eq(nothing, "");
	eventually(harness_counters(harness).connections == 0);
}
END_TEST

START_TEST(connections_are_bounded)
{
	int fds[8];
	for (int i = 0; i < 8; i++)
		fds[i] = client_connect(harness);
	eventually(harness_counters(harness).connections == 8);
	struct response response = client_ask(harness, ASK_INDEX);
	ck_assert_int_eq(response.status, 503);
	ck_assert_ptr_nonnull(strstr((char *)response.body, "too many clients"));
	response_free(&response);
	ck_assert_uint_eq(harness_counters(harness).connections_refused, 1);
	client_send(fds[3], ASK_INDEX);
	expect_status(fds[3], 200);
	close(fds[5]);
	eventually(harness_counters(harness).connections == 7);
	expect_served();
	for (int i = 0; i < 8; i++)
		if (i != 5)
			close(fds[i]);
}
END_TEST

/* Those that are turned away are bounded too, and a connection that asks for nothing does not stay. */
START_TEST(a_flood_of_connections_is_survived)
{
	enum { FLOOD = 100 };
	int in[8], fds[FLOOD];
	for (int i = 0; i < 8; i++)
		in[i] = client_connect(harness);
	eventually(harness_counters(harness).connections == 8);
	for (int i = 0; i < FLOOD; i++)
		fds[i] = client_connect(harness);
	for (int i = 0; i < FLOOD; i++) {
		_cleanup_free_ char *text = client_read_all(fds[i], NULL);
		if (i < 32)
			ck_assert_str_eq(text, ""); /* let in to ask, and did not */
		else
			ck_assert_ptr_nonnull(strstr(text, "too many clients"));
		close(fds[i]);
	}
	ck_assert_uint_eq(harness_counters(harness).connections_refused, FLOOD);
	ck_assert_uint_eq(harness_counters(harness).connections, 8);
	client_send(in[0], ASK_INDEX);
	expect_status(in[0], 200);
	for (int i = 0; i < 8; i++)
		close(in[i]);
}
END_TEST

/* The sixth answer of 50 MB would make more than 256 MiB that nobody reads. */
START_TEST(what_is_not_read_is_bounded)
{
	int fds[5];
	for (int i = 0; i < 5; i++) {
		fds[i] = client_connect(harness);
		client_send(fds[i], ASK_LARGE);
		char first;
		ck_assert_int_eq(recv(fds[i], &first, 1, MSG_PEEK), 1);
	}
	struct response response = client_ask(harness, ASK_LARGE);
	ck_assert_int_eq(response.status, 503);
	response_free(&response);
	expect_served();
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	eventually(harness_counters(harness).connections == 0);
	response = client_ask(harness, ASK_LARGE);
	ck_assert_int_eq(response.status, 200);
	response_free(&response);
}
END_TEST

/* A client that connects while no fd is left is served once there is one, and the server does not spin meanwhile. */
START_TEST(running_out_of_fds_is_survived)
{
	_cleanup_close_ int in = client_connect(harness);
	client_send(in, ASK_INDEX);
	expect_status(in, 200);
	struct sockaddr_un address;
	socklen_t bytes = sizeof(address);
	ck_assert_int_eq(getpeername(in, (struct sockaddr *)&address, &bytes), 0);
	_cleanup_close_ int out = socket(AF_UNIX, SOCK_STREAM, 0);
	struct rlimit before, none;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 1;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	uint64_t cpu_ns = clock_process_cpu_ns();
	ck_assert_int_eq(connect(out, (struct sockaddr *)&address, bytes), 0);
	client_send(out, ASK_INDEX);
	for (int i = 0; i < 20; i++) { /* those who are in are served; 2 s */
		client_send(in, ASK_INDEX);
		expect_status(in, 200);
		usleep(100 * 1000);
	}
	ck_assert_uint_lt(clock_process_cpu_ns() - cpu_ns, NS_PER_S);
	ck_assert_uint_eq(harness_counters(harness).connections, 1);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	expect_status(out, 200);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("serve_limits");
	TCase *patient = tcase_create("patient"), *impatient = tcase_create("impatient");
	tcase_add_checked_fixture(patient, setup, teardown);
	tcase_add_checked_fixture(impatient, setup_impatient, teardown);
	tcase_set_timeout(patient, 60);
	tcase_set_timeout(impatient, 60);
	tcase_add_test(patient, headers_are_bounded);
	tcase_add_test(patient, many_short_headers_are_bounded);
	tcase_add_test(patient, bodies_are_bounded);
	tcase_add_test(patient, chunked_bodies_are_bounded);
	tcase_add_test(patient, a_chunk_size_without_end_is_cut);
	tcase_add_test(patient, connections_are_bounded);
	tcase_add_test(patient, a_flood_of_connections_is_survived);
	tcase_add_test(patient, what_is_not_read_is_bounded);
	tcase_add_test(patient, running_out_of_fds_is_survived);
	tcase_add_loop_test(impatient, a_request_must_arrive_in_time, 0, 5);
	tcase_add_test(impatient, an_idle_connection_is_closed);
	suite_add_tcase(suite, patient);
	suite_add_tcase(suite, impatient);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
