/* Clients that wait, vanish, stall, or come in crowds; and who they are. */
#include <check.h>
#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "serve_harness.h"

static struct harness *harness;

static void setup(void)
{
	harness = harness_start(128, 30);
}
/* Clients that stall are cut after a second. */
static void setup_impatient(void)
{
	harness = harness_start(128, 1);
}
static void teardown(void)
{
	harness_stop(harness);
}

#define ASK_WAITS "GET /debug/pprof/profile?pid=2&seconds=300 HTTP/1.1\r\n\r\n"
#define ASK_LARGE "GET /debug/pprof/profile?pid=3 HTTP/1.1\r\n\r\n"
#define ASK_INDEX "GET /debug/pprof/ HTTP/1.1\r\n\r\n"

static void expect_answer(int fd, int status, const char *body)
{
	struct response response;
	ck_assert_msg(client_receive(fd, false, &response), "no answer");
	ck_assert_int_eq(response.status, status);
	if (body)
		ck_assert_str_eq((char *)response.body, body);
	response_free(&response);
}

static void release_waiting(void)
{
	struct response response = client_ask(harness, "DELETE /v1/targets/2 HTTP/1.1\r\n\r\n");
	ck_assert_int_eq(response.status, 204);
	response_free(&response);
}

/* An idle client beside it is cut, which shows that the time did pass. */
START_TEST(a_client_that_waits_is_not_timed_out)
{
	_cleanup_close_ int waits = client_connect(harness);
	client_send(waits, ASK_WAITS);
	eventually(harness_waiting(harness) == 1);
	for (int i = 0; i < 2; i++) {
		_cleanup_close_ int idle = client_connect(harness);
		_cleanup_free_ char *nothing = client_read_all(idle, NULL);
		ck_assert_str_eq(nothing, "");
	}
	release_waiting();
	expect_answer(waits, 200, "waited");
	client_send(waits, ASK_INDEX);
	expect_answer(waits, 200, "index");
	ck_assert_uint_eq(harness_gone(harness), 0);
}
END_TEST

START_TEST(a_client_that_vanishes_while_it_waits_is_noticed)
{
	int waits = client_connect(harness), other = client_connect(harness);
	client_send(waits, ASK_WAITS);
	client_send(other, ASK_WAITS);
	eventually(harness_waiting(harness) == 2);
	close(waits);
	eventually(harness_gone(harness) == 1);
	ck_assert_uint_eq(harness_counters(harness).connections, 1);
	release_waiting(); /* completes the reply of the one that has gone as well */
	expect_answer(other, 200, "waited");
	close(other);
	eventually(harness_counters(harness).connections == 0);
	ck_assert_uint_eq(harness_gone(harness), 1);
}
END_TEST

START_TEST(a_reply_may_be_completed_as_its_client_goes)
{
	for (int i = 0; i < 10; i++) {
		int fd = client_connect(harness);
		client_send(fd, "GET /debug/pprof/profile?pid=5 HTTP/1.1\r\n\r\n");
		eventually(harness_waiting(harness) == 1);
		close(fd);
		eventually(harness_waiting(harness) == 0);
	}
	ck_assert_uint_eq(harness_gone(harness), 10);
}
END_TEST

START_TEST(a_client_that_was_killed_is_noticed)
{
	pid_t child = fork();
	if (child == 0) {
		client_send(client_connect(harness), ASK_WAITS);
		pause();
		_exit(0);
	}
	eventually(harness_waiting(harness) == 1);
	ck_assert_uint_eq(harness_gone(harness), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	eventually(harness_gone(harness) == 1);
}
END_TEST

START_TEST(bytes_sent_while_waiting_do_no_harm)
{
	static const char garbage[4096] = "\x01\x02garbage\r\n\r\n";
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, ASK_WAITS);
	eventually(harness_waiting(harness) == 1);
	for (int i = 0; i < 10; i++)
		client_send_bytes(fd, garbage, sizeof(garbage));
	struct response response = client_ask(harness, ASK_INDEX);
	response_free(&response);
	release_waiting();
	expect_answer(fd, 200, "waited");
	expect_answer(fd, 400, NULL);
	_cleanup_free_ char *rest = client_read_all(fd, NULL);
	ck_assert_str_eq(rest, "");
}
END_TEST

START_TEST(a_client_that_vanishes_with_bytes_unread_is_noticed)
{
	int fd = client_connect(harness);
	client_send(fd, ASK_WAITS ASK_INDEX);
	eventually(harness_waiting(harness) == 1);
	close(fd);
	eventually(harness_gone(harness) == 1);
}
END_TEST

START_TEST(a_half_closed_client_gets_its_answer)
{
	_cleanup_close_ int waits = client_connect(harness);
	client_send(waits, ASK_WAITS);
	shutdown(waits, SHUT_WR);
	_cleanup_close_ int large = client_connect(harness);
	client_send(large, ASK_LARGE);
	shutdown(large, SHUT_WR);
	struct response response;
	ck_assert(client_receive(large, false, &response));
	ck_assert_uint_eq(response.bytes, LARGE_BYTES);
	response_free(&response);
	eventually(harness_waiting(harness) == 1);
	release_waiting();
	expect_answer(waits, 200, "waited");
	_cleanup_free_ char *rest = client_read_all(waits, NULL);
	ck_assert_str_eq(rest, "");
	ck_assert_uint_eq(harness_gone(harness), 0);
}
END_TEST

START_TEST(a_half_closed_client_is_not_waited_for_without_end)
{
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, ASK_WAITS);
	shutdown(fd, SHUT_WR);
	eventually(harness_gone(harness) == 1);
	_cleanup_free_ char *nothing = client_read_all(fd, NULL);
	ck_assert_str_eq(nothing, "");
}
END_TEST

/* B is served while A's 50 MB wait for A, who then gets every byte. */
START_TEST(a_client_that_does_not_read_delays_nobody)
{
	_cleanup_close_ int a = client_connect(harness);
	client_send(a, ASK_LARGE);
	char first;
	ck_assert_int_eq(recv(a, &first, 1, MSG_PEEK), 1); /* its answer has begun */
	_cleanup_close_ int b = client_connect(harness);
	for (int i = 0; i < 20; i++) {
		client_send(b, ASK_INDEX);
		expect_answer(b, 200, "index");
	}
	struct response response = client_ask(harness, ASK_LARGE);
	ck_assert_uint_eq(response.bytes, LARGE_BYTES);
	response_free(&response);
	ck_assert(client_receive(a, false, &response));
	ck_assert_uint_eq(response.bytes, LARGE_BYTES);
	for (size_t i = 0; i < LARGE_BYTES; i += 997)
		ck_assert_uint_eq(response.body[i], large_byte(i));
	response_free(&response);
}
END_TEST

START_TEST(a_client_that_never_reads_is_cut)
{
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, ASK_LARGE);
	eventually(harness_counters(harness).requests == 1);
	eventually(harness_counters(harness).connections == 0);
	size_t bytes;
	_cleanup_free_ char *beginning = client_read_all(fd, &bytes);
	ck_assert_uint_gt(bytes, 0);
	ck_assert_uint_lt(bytes, LARGE_BYTES);
}
END_TEST

/* Slower than a deadline in all, but never without progress. */
START_TEST(a_client_that_reads_slowly_is_not_cut)
{
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, ASK_LARGE);
	size_t total = 0;
	_cleanup_free_ char *piece = malloc(1 << 20);
	for (int i = 0; i < 30; i++) {
		usleep(100 * 1000); /* 3 s in all */
		for (size_t n = 0; n < 1 << 20;) {
			ssize_t got = recv(fd, piece, (1 << 20) - n, 0);
			ck_assert_int_gt(got, 0);
			n += (size_t)got;
		}
		total += 1 << 20;
	}
	size_t rest;
	_cleanup_free_ char *end = client_read_all(fd, &rest);
	ck_assert_uint_gt(total + rest, LARGE_BYTES);
}
END_TEST

START_TEST(a_client_that_vanishes_in_the_middle_of_its_answer_is_forgotten)
{
	for (int i = 0; i < 5; i++) {
		int fd = client_connect(harness);
		client_send(fd, ASK_LARGE);
		char first;
		ck_assert_int_eq(recv(fd, &first, 1, 0), 1);
		close(fd);
	}
	eventually(harness_counters(harness).connections == 0);
}
END_TEST

START_TEST(a_hundred_clients_at_once)
{
	enum { CLIENTS = 100 };
	int fds[CLIENTS];
	for (int i = 0; i < CLIENTS; i++)
		fds[i] = client_connect(harness);
	for (int i = 0; i < CLIENTS; i++) {
		char request[100];
		snprintf(request, sizeof(request), "GET /v1/targets/%d HTTP/1.1\r\n\r\n", i + 1);
		client_send(fds[i], i % 2 ? request : "GET /debug/pprof/profile?pid=1 HTTP/1.1\r\n\r\n");
	}
	for (int i = CLIENTS - 1; i >= 0; i--) {
		char body[100];
		snprintf(body, sizeof(body), "target %d", i + 1);
		expect_answer(fds[i], 200, i % 2 ? body : "small");
		close(fds[i]);
	}
	eventually(harness_counters(harness).connections == 0);
	ck_assert_uint_eq(harness_counters(harness).requests, CLIENTS);
	ck_assert_uint_eq(harness_counters(harness).connections_refused, 0);
}
END_TEST

/* The server ends while clients wait: teardown completes the replies after serve_free. */
START_TEST(the_server_may_end_while_clients_wait)
{
	int fds[3];
	for (int i = 0; i < 3; i++) {
		fds[i] = client_connect(harness);
		client_send(fds[i], i < 2 ? ASK_WAITS : ASK_LARGE);
	}
	eventually(harness_waiting(harness) == 2);
	harness_stop(harness);
	for (int i = 0; i < 3; i++) {
		_cleanup_free_ char *text = client_read_all(fds[i], NULL);
		if (i < 2)
			ck_assert_str_eq(text, "");
		close(fds[i]);
	}
	harness = harness_start(1, 1); /* for teardown */
}
END_TEST

START_TEST(peers_are_known)
{
	struct response response = client_ask(harness, "GET /v1/status HTTP/1.1\r\n\r\n");
	response_free(&response);
	struct serve_peer peer = harness_peer(harness);
	ck_assert_int_eq(peer.pid, getpid());
	ck_assert_uint_eq(peer.uid, geteuid());
	ck_assert_uint_eq(peer.gid, getegid());
	gid_t groups[256];
	int n = getgroups(256, groups);
	ck_assert_int_eq((int)peer.n_groups, n < 64 ? n : 64);
	ck_assert_mem_eq(peer.groups, groups, peer.n_groups * sizeof(gid_t));
}
END_TEST

START_TEST(groups_beyond_what_fits_are_left_out)
{
	if (geteuid() != 0)
		return; /* only root may choose its groups; the test suite runs as root */
	pid_t child = fork();
	if (child == 0) {
		gid_t groups[100];
		for (unsigned i = 0; i < 100; i++)
			groups[i] = 1000 + i;
		if (setgroups(100, groups) < 0 || setgid(4321) < 0 || setuid(1234) < 0)
			_exit(1);
		int fd = client_connect(harness);
		client_send(fd, "GET /v1/status HTTP/1.1\r\n\r\n");
		struct response response;
		_exit(client_receive(fd, false, &response) ? 0 : 1);
	}
	int status;
	waitpid(child, &status, 0);
	ck_assert_int_eq(status, 0);
	struct serve_peer peer = harness_peer(harness);
	ck_assert_uint_eq(peer.uid, 1234);
	ck_assert_uint_eq(peer.gid, 4321);
	ck_assert_int_eq(peer.pid, child);
	ck_assert_uint_eq(peer.n_groups, 64);
	ck_assert_uint_eq(peer.groups[63], 1063);
}
END_TEST

static TCase *new_case(const char *name, void (*begin)(void))
{
	TCase *tcase = tcase_create(name);
	tcase_add_checked_fixture(tcase, begin, teardown);
	tcase_set_timeout(tcase, 60);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("serve_clients");
	TCase *patient = new_case("patient", setup), *impatient = new_case("impatient", setup_impatient);
	tcase_add_test(patient, a_client_that_vanishes_while_it_waits_is_noticed);
	tcase_add_test(patient, a_reply_may_be_completed_as_its_client_goes);
	tcase_add_test(patient, a_client_that_was_killed_is_noticed);
	tcase_add_test(patient, bytes_sent_while_waiting_do_no_harm);
	tcase_add_test(patient, a_client_that_vanishes_with_bytes_unread_is_noticed);
	tcase_add_test(patient, a_half_closed_client_gets_its_answer);
	tcase_add_test(patient, a_client_that_does_not_read_delays_nobody);
	tcase_add_test(patient, a_client_that_vanishes_in_the_middle_of_its_answer_is_forgotten);
	tcase_add_test(patient, a_hundred_clients_at_once);
	tcase_add_test(patient, the_server_may_end_while_clients_wait);
	tcase_add_test(patient, peers_are_known);
	tcase_add_test(patient, groups_beyond_what_fits_are_left_out);
	tcase_add_test(impatient, a_client_that_waits_is_not_timed_out);
	tcase_add_test(impatient, a_half_closed_client_is_not_waited_for_without_end);
	tcase_add_test(impatient, a_client_that_never_reads_is_cut);
	tcase_add_test(impatient, a_client_that_reads_slowly_is_not_cut);
	suite_add_tcase(suite, patient);
	suite_add_tcase(suite, impatient);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
