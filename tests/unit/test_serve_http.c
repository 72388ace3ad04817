/* The server as a client sees it: routes, methods, forms, errors, keep-alive, malformed requests. */
#include <check.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "serve/negotiate.h"
#include "serve_harness.h"

static struct harness *harness;

static void setup(void)
{
	harness = harness_start(128, 30);
}
static void teardown(void)
{
	harness_stop(harness);
}

/* A request with a body, malloc'ed. */
static char *with_body(const char *method, const char *path, const char *type, const char *body)
{
	char *text = NULL;
	ck_assert_int_ge(asprintf(&text, "%s %s HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", method,
				  path, type, strlen(body), body),
			 0);
	return text;
}

static void expect(const char *request, int status, const char *body)
{
	struct response response = client_ask(harness, request);
	ck_assert_msg(response.status == status, "%s: %d, not %d: %s", request, response.status, status, response.body);
	if (body)
		ck_assert_str_eq((char *)response.body, body);
	response_free(&response);
}

START_TEST(every_route_reaches_its_handler)
{
	expect("GET /debug/pprof/ HTTP/1.1\r\n\r\n", 200, "index");
	expect("GET /debug/pprof/profile?pid=1 HTTP/1.1\r\n\r\n", 200, "small");
	expect("GET /v1/targets/12 HTTP/1.1\r\n\r\n", 200, "target 12");
	expect("GET /v1/targets/12/table HTTP/1.1\r\n\r\n", 200, "table 12");
	expect("GET /v1/targets/12/table HTTP/1.1\r\nAccept: application/x-protobuf\r\n\r\n", 200,
	       "table 12 as protobuf");
	expect("DELETE /v1/targets/12 HTTP/1.1\r\n\r\n", 204, "");
	expect("GET http://anything/debug/pprof/ HTTP/1.1\r\n\r\n", 200, "index");
	expect("GET /debug/pprof/ HTTP/1.0\r\n\r\n", 200, NULL);
	_cleanup_free_ char *attach = with_body("POST", "/v1/targets", "application/json",
						"{\"pid\":5,\"frequency_hz\":99,\"event\":\"cycles\"}");
	expect(attach, 200, "attach 5 99 2");
	_cleanup_free_ char *rate =
		with_body("PATCH", "/v1/targets/5", "application/json; charset=utf-8", "{\"frequency_hz\":10}");
	expect(rate, 200, "rate 5 10");
}
END_TEST

START_TEST(protobuf_goes_in_and_out)
{
	static const char attach[] =
		"POST /v1/targets HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: 4\r\n\r\n"
		"\x08\x09\x10\x63";
	expect(attach, 200, "attach 9 99 0");
	struct response response =
		client_ask(harness, "GET /v1/targets HTTP/1.1\r\nAccept: application/x-protobuf\r\n\r\n");
	char value[200];
	ck_assert_str_eq(response_header(&response, "Content-Type", value), MEDIA_PROTOBUF_TYPE);
	Sprof__Control__TargetList *list = sprof__control__target_list__unpack(NULL, response.bytes, response.body);
	ck_assert_ptr_nonnull(list);
	ck_assert_uint_eq(list->n_targets, 1);
	ck_assert_uint_eq(list->targets[0]->pid, 7);
	ck_assert_str_eq(list->targets[0]->comm, "seven");
	sprof__control__target_list__free_unpacked(list, NULL);
	response_free(&response);
}
END_TEST

START_TEST(json_is_for_those_who_do_not_ask)
{
	static const char *const accepts[] = {"", "Accept: */*\r\n", "Accept: application/json\r\n"};
	for (size_t i = 0; i < 3; i++) {
		char request[200], value[200];
		snprintf(request, sizeof(request), "GET /v1/targets HTTP/1.1\r\n%s\r\n", accepts[i]);
		struct response response = client_ask(harness, request);
		ck_assert_str_eq(response_header(&response, "Content-Type", value), "application/json");
		ck_assert_ptr_nonnull(strstr((char *)response.body, "\"state\":\"live\""));
		response_free(&response);
	}
}
END_TEST

START_TEST(head_has_the_headers_alone)
{
	struct response get = client_ask(harness, "GET /v1/targets HTTP/1.1\r\n\r\n");
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, "HEAD /v1/targets HTTP/1.1\r\n\r\nHEAD /debug/pprof/profile?pid=2 HTTP/1.1\r\n\r\n"
			"HEAD /nothing HTTP/1.1\r\n\r\nGET /debug/pprof/ HTTP/1.1\r\n\r\n");
	struct response head;
	char one[200], other[200];
	ck_assert(client_receive(fd, true, &head));
	ck_assert_int_eq(head.status, 200);
	ck_assert_str_eq(response_header(&head, "Content-Length", one), response_header(&get, "Content-Length", other));
	response_free(&head);
	response_free(&get);
	/* No profile is begun for it. */
	ck_assert(client_receive(fd, true, &head));
	ck_assert_int_eq(head.status, 200);
	ck_assert_uint_eq(harness_waiting(harness), 0);
	response_free(&head);
	ck_assert(client_receive(fd, true, &head));
	ck_assert_int_eq(head.status, 404);
	response_free(&head);
	/* Had a body followed one of them, this would be it. */
	ck_assert(client_receive(fd, false, &get));
	ck_assert_str_eq((char *)get.body, "index");
	response_free(&get);
}
END_TEST

START_TEST(errors_say_what_to_do)
{
	char value[200];
	struct response response = client_ask(harness, "GET /v2 HTTP/1.1\r\n\r\n");
	ck_assert_int_eq(response.status, 404);
	ck_assert_ptr_nonnull(strstr((char *)response.body, "/debug/pprof/profile?pid=N"));
	ck_assert_ptr_nonnull(strstr((char *)response.body, "/metrics\n"));
	ck_assert_str_eq(response_header(&response, "X-Go-Pprof", value), "1");
	ck_assert_str_eq(response_header(&response, "Content-Type", value), "text/plain; charset=utf-8");
	response_free(&response);
	response = client_ask(harness, "POST /v1/status HTTP/1.1\r\n\r\n");
	ck_assert_int_eq(response.status, 405);
	ck_assert_str_eq(response_header(&response, "Allow", value), "GET, HEAD");
	response_free(&response);
	response = client_ask(harness, "OPTIONS /v1/targets/3 HTTP/1.1\r\n\r\n");
	ck_assert_int_eq(response.status, 405);
	ck_assert_str_eq(response_header(&response, "Allow", value), "GET, HEAD, DELETE, PATCH");
	response_free(&response);
	response = client_ask(harness, "GET /debug/pprof HTTP/1.1\r\n\r\n");
	ck_assert_int_eq(response.status, 301);
	ck_assert_str_eq(response_header(&response, "Location", value), "/debug/pprof/");
	response_free(&response);
	_cleanup_free_ char *form = with_body("POST", "/v1/targets", "application/x-www-form-urlencoded", "pid=1");
	response = client_ask(harness, form);
	ck_assert_int_eq(response.status, 415);
	ck_assert_ptr_nonnull(strstr((char *)response.body, "application/json"));
	response_free(&response);
	expect("GET /debug/pprof/profile HTTP/1.1\r\n\r\n", 400, NULL);
	expect("GET /v1/status?verbose=1 HTTP/1.1\r\n\r\n", 400, NULL);
}
END_TEST

START_TEST(an_error_of_a_handler_takes_the_form_asked_for)
{
	expect("GET /debug/pprof/profile?pid=4 HTTP/1.1\r\n\r\n", 404, "no ? such?process\n");
	struct response response = client_ask(
		harness, "GET /debug/pprof/profile?pid=4 HTTP/1.1\r\nAccept: application/x-protobuf\r\n\r\n");
	Sprof__Control__Error *error = sprof__control__error__unpack(NULL, response.bytes, response.body);
	ck_assert_ptr_nonnull(error);
	ck_assert_uint_eq(error->status, 404);
	ck_assert_str_eq(error->message, "no ? such?process");
	sprof__control__error__free_unpacked(error, NULL);
	response_free(&response);
	response = client_ask(harness, "GET /debug/pprof/profile?pid=4 HTTP/1.1\r\nAccept: application/json\r\n\r\n");
	ck_assert_ptr_nonnull(strstr((char *)response.body, "\"status\":404"));
	response_free(&response);
}
END_TEST

START_TEST(one_connection_serves_many_requests)
{
	_cleanup_close_ int fd = client_connect(harness);
	for (int i = 0; i < 50; i++) {
		client_send(fd, "GET /debug/pprof/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
		struct response response;
		ck_assert(client_receive(fd, false, &response));
		ck_assert_str_eq((char *)response.body, "index");
		response_free(&response);
	}
	struct serve_counters counters = harness_counters(harness);
	ck_assert_uint_eq(counters.requests, 50);
	ck_assert_uint_eq(counters.errors, 0);
	ck_assert_uint_eq(counters.connections, 1);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order)
{
	_cleanup_close_ int fd = client_connect(harness);
	for (int i = 0; i < 100; i++)
		client_send(fd, "GET /v1/targets/1 HTTP/1.1\r\n\r\nGET /v1/targets/2 HTTP/1.1\r\n\r\n");
	for (int i = 0; i < 200; i++) {
		struct response response;
		ck_assert(client_receive(fd, false, &response));
		ck_assert_str_eq((char *)response.body, i % 2 ? "target 2" : "target 1");
		response_free(&response);
	}
}
END_TEST

/* Each of these is refused in plain text, on a connection that is then closed, by a server that goes on. */
static const struct {
	const char *request;
	int status;
} malformed[] = {
	{"\r\n\r\n", 400},
	{"hello\r\n\r\n", 400},
	{"GET\r\n\r\n", 400},
	{"GET /v1/status\r\n\r\n", 400},
	{"GET /v1/status HTTP/9.9\r\n\r\n", 400},
	{"GET /v1/status FTP/1.1\r\n\r\n", 400},
	{"GET /v1/status HTTP/1.1\r\nno colon here\r\n\r\n", 400},
	{"\x16\x03\x01\x02\x01\xfc\x03\x03 a TLS hello ................\r\n\r\n", 400},
	{"BREW /v1/status HTTP/1.1\r\n\r\n", 501},
	{"CONNECT localhost:80 HTTP/1.1\r\n\r\n", 501},
	{"POST /v1/targets HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400},
	{"POST /v1/targets HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
	{"POST /v1/targets HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 413},
	{"POST /v1/targets HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", 413},
	{"POST /v1/targets HTTP/1.1\r\nExpect: the-unexpected\r\nContent-Length: 3\r\n\r\nabc", 417},
};

START_TEST(malformed_requests_are_refused)
{
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, malformed[_i].request);
	shutdown(fd, SHUT_WR);
	struct response response;
	ck_assert_msg(client_receive(fd, false, &response), "%s", malformed[_i].request);
	ck_assert_msg(response.status == malformed[_i].status, "%s: %d", malformed[_i].request, response.status);
	char value[200];
	ck_assert_str_eq(response_header(&response, "Content-Type", value), "text/plain; charset=utf-8");
	ck_assert_str_eq(response_header(&response, "X-Go-Pprof", value), "1");
	ck_assert_str_eq(response_header(&response, "Connection", value), "close");
	ck_assert_ptr_null(strstr((char *)response.body, "<H"));
	ck_assert_int_eq(response.body[response.bytes - 1], '\n');
	response_free(&response);
	_cleanup_free_ char *rest = client_read_all(fd, NULL);
	ck_assert_str_eq(rest, "");
	struct serve_counters counters = harness_counters(harness);
	ck_assert_uint_eq(counters.requests, 1);
	ck_assert_uint_eq(counters.errors, 1);
	expect("GET /debug/pprof/ HTTP/1.1\r\n\r\n", 200, "index");
}
END_TEST

START_TEST(a_chunked_body_is_put_together)
{
	expect("POST /v1/targets HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	       "5\r\n{\"pid\r\n4\r\n\":6}\r\n0\r\n\r\n",
	       200, "attach 6 0 0");
}
END_TEST

START_TEST(expect_100_continue_is_met)
{
	_cleanup_close_ int fd = client_connect(harness);
	client_send(fd, "POST /v1/targets HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
			"Content-Length: 9\r\n\r\n");
	struct response response;
	ck_assert(client_receive(fd, false, &response));
	ck_assert_int_eq(response.status, 100);
	response_free(&response);
	client_send(fd, "{\"pid\":8}");
	ck_assert(client_receive(fd, false, &response));
	ck_assert_str_eq((char *)response.body, "attach 8 0 0");
	response_free(&response);
}
END_TEST

START_TEST(a_named_file_is_an_attachment)
{
	struct response response = client_ask(harness, "GET /debug/pprof/profile?pid=3 HTTP/1.1\r\n\r\n");
	char value[200];
	ck_assert_str_eq(response_header(&response, "Content-Disposition", value), "attachment; filename=\"profile\"");
	ck_assert_uint_eq(response.bytes, LARGE_BYTES);
	for (size_t i = 0; i < LARGE_BYTES; i++)
		if (response.body[i] != large_byte(i))
			ck_abort_msg("byte %zu", i);
	response_free(&response);
}
END_TEST

START_TEST(sigpipe_must_be_ignored)
{
	signal(SIGPIPE, SIG_DFL);
	struct event_base *base = event_base_new();
	struct serve_options options = {.listen_fd = 0, .max_connections = 1, .idle_timeout_s = 1};
	struct serve_handlers none = {0};
	struct serve *serve = NULL;
	struct error err = {0};
	ck_assert_int_lt(serve_new(base, &options, &none, NULL, &serve, &err), 0);
	ck_assert_ptr_null(serve);
	ck_assert_ptr_nonnull(strstr(err.text, "SIGPIPE"));
	event_base_free(base);
	signal(SIGPIPE, SIG_IGN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("serve_http");
	TCase *tcase = tcase_create("http");
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, every_route_reaches_its_handler);
	tcase_add_test(tcase, protobuf_goes_in_and_out);
	tcase_add_test(tcase, json_is_for_those_who_do_not_ask);
	tcase_add_test(tcase, head_has_the_headers_alone);
	tcase_add_test(tcase, errors_say_what_to_do);
	tcase_add_test(tcase, an_error_of_a_handler_takes_the_form_asked_for);
	tcase_add_test(tcase, one_connection_serves_many_requests);
	tcase_add_test(tcase, pipelined_requests_are_answered_in_order);
	tcase_add_loop_test(tcase, malformed_requests_are_refused, 0, sizeof(malformed) / sizeof(malformed[0]));
	tcase_add_test(tcase, a_chunked_body_is_put_together);
	tcase_add_test(tcase, expect_100_continue_is_met);
	tcase_add_test(tcase, a_named_file_is_an_attachment);
	tcase_add_test(tcase, sigpipe_must_be_ignored);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
