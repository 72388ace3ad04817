#include <check.h>
#include <errno.h>
#include <string.h>

#include "serve/request.h"

static int parse(enum method method, const char *path, const char *query, struct request *ret, char *ret_allow,
		 struct error *err)
{
	struct request_text text = {.method = method, .path = path, .query = query};
	return request_parse(&text, ret, ret_allow, err);
}

static const struct {
	const char *text;
	int result;
	uint32_t value;
} numbers[] = {
	{"0", 0, 0},
	{"1", 0, 1},
	{"4294967295", 0, UINT32_MAX},
	{"4294967296", -ERANGE, 0},
	{"99999999999999999999999999", -ERANGE, 0},
	{"", -EINVAL, 0},
	{"+1", -EINVAL, 0},
	{"-1", -EINVAL, 0},
	{" 1", -EINVAL, 0},
	{"1 ", -EINVAL, 0},
	{"01", -EINVAL, 0},
	{"00", -EINVAL, 0},
	{"0x10", -EINVAL, 0},
	{"1e3", -EINVAL, 0},
	{"%31", -EINVAL, 0},
	{"99999999999999999999999999x", -EINVAL, 0},
};

START_TEST(numbers_are_strict)
{
	uint32_t value = 77;
	ck_assert_int_eq(request_parse_number(numbers[_i].text, strlen(numbers[_i].text), &value), numbers[_i].result);
	ck_assert_uint_eq(value, numbers[_i].result == 0 ? numbers[_i].value : 77);
}
END_TEST

START_TEST(a_number_ends_where_it_is_said_to)
{
	uint32_t value;
	ck_assert_int_eq(request_parse_number("12345", 2, &value), 0);
	ck_assert_uint_eq(value, 12);
}
END_TEST

static const struct {
	const char *query;
	uint32_t pid, seconds; /* pid 0: refused */
} pulls[] = {
	{"pid=1", 1, 0},
	{"pid=4194304", 4194304, 0},
	{"pid=7&seconds=86400", 7, 86400},
	{"seconds=1&pid=7", 7, 1},
	{"pid=7&", 7, 0},
	{NULL, 0, 0},
	{"", 0, 0},
	{"seconds=5", 0, 0},
	{"pid", 0, 0},
	{"pid=", 0, 0},
	{"pid=0", 0, 0},
	{"pid=4194305", 0, 0},
	{"pid=1=1", 0, 0},
	{"pid=1&pid=1", 0, 0},
	{"pid=1&seconds=2&seconds=2", 0, 0},
	{"pid=1&seconds=0", 0, 0},
	{"pid=1&seconds=86401", 0, 0},
	{"pid=1&seconds=", 0, 0},
	{"pid=1&second=5", 0, 0},
	{"pid=1&&seconds=5", 0, 0},
	{"&pid=1", 0, 0},
	{"PID=1", 0, 0},
	{"pid=1;seconds=5", 0, 0},
	{"p%69d=1", 0, 0},
	{"pid=1&debug=1", 0, 0},
};

START_TEST(a_pull_is_as_the_interface_says)
{
	struct request request = {.pull = {.pid = 77}};
	struct error err = {0};
	char allow[REQUEST_ALLOW_BYTES] = "";
	int status = parse(METHOD_GET, "/debug/pprof/profile", pulls[_i].query, &request, allow, &err);
	if (pulls[_i].pid == 0) {
		ck_assert_int_eq(status, 400);
		ck_assert_str_ne(err.text, "");
		ck_assert_uint_eq(request.pull.pid, 77);
		return;
	}
	ck_assert_msg(status == 0, "%s", err.text);
	ck_assert_int_eq(request.action, ACTION_PULL);
	ck_assert_uint_eq(request.pull.pid, pulls[_i].pid);
	ck_assert_int_eq(request.pull.has_seconds, pulls[_i].seconds != 0);
	ck_assert_uint_eq(request.pull.seconds, pulls[_i].seconds);
}
END_TEST

static const struct {
	enum method method;
	const char *path;
	int status;
	int action;
	const char *allow;
} routes[] = {
	{METHOD_GET, "/debug/pprof/", 0, ACTION_INDEX, ""},
	{METHOD_HEAD, "/debug/pprof/", 0, ACTION_INDEX, ""},
	{METHOD_GET, "/debug/pprof", 0, ACTION_INDEX_REDIRECT, ""},
	{METHOD_GET, "/v1/targets", 0, ACTION_LIST, ""},
	{METHOD_GET, "/v1/targets/3", 0, ACTION_TARGET, ""},
	{METHOD_DELETE, "/v1/targets/3", 0, ACTION_DETACH, ""},
	{METHOD_GET, "/v1/targets/3/table", 0, ACTION_TABLE, ""},
	{METHOD_HEAD, "/v1/targets/3/table", 0, ACTION_TABLE, ""},
	{METHOD_DELETE, "/v1/targets/3/table", 405, 0, "GET, HEAD"},
	{METHOD_GET, "/v1/targets/3/table/", 404, 0, ""},
	{METHOD_GET, "/v1/targets/3/tables", 404, 0, ""},
	{METHOD_GET, "/v1/targets//table", 404, 0, ""},
	{METHOD_GET, "/v1/targets/table", 400, 0, ""},
	{METHOD_GET, "/v1/targets/x/table", 400, 0, ""},
	{METHOD_GET, "/v1/targets/0/table", 400, 0, ""},
	{METHOD_GET, "/v1/status", 0, ACTION_STATUS, ""},
	{METHOD_GET, "/metrics", 0, ACTION_METRICS, ""},
	{METHOD_POST, "/v1/targets/3", 405, 0, "GET, HEAD, DELETE, PATCH"},
	{METHOD_PATCH, "/v1/targets", 405, 0, "GET, HEAD, POST"},
	{METHOD_OTHER, "/metrics", 405, 0, "GET, HEAD"},
	{METHOD_POST, "/debug/pprof/profile", 405, 0, "GET, HEAD"},
	{METHOD_GET, "", 404, 0, ""},
	{METHOD_GET, "/", 404, 0, ""},
	{METHOD_GET, "metrics", 404, 0, ""},
	{METHOD_GET, "/metrics/", 404, 0, ""},
	{METHOD_GET, "/Metrics", 404, 0, ""},
	{METHOD_GET, "/%6detrics", 404, 0, ""},
	{METHOD_GET, "/debug/pprof/heap", 404, 0, ""},
	{METHOD_GET, "/v1/targets/", 404, 0, ""},
	{METHOD_GET, "/v1/targets/3/", 404, 0, ""},
	{METHOD_GET, "/v1/targets/../status", 404, 0, ""},
	{METHOD_GET, "/v1/targets/x", 400, 0, ""},
	{METHOD_GET, "/v1/targets/-3", 400, 0, ""},
	{METHOD_GET, "/v1/targets/0", 400, 0, ""},
	{METHOD_DELETE, "/v1/targets/4194305", 400, 0, ""},
};

START_TEST(paths_and_methods_choose_the_action)
{
	struct request request = {0};
	struct error err = {0};
	char allow[REQUEST_ALLOW_BYTES] = "";
	ck_assert_int_eq(parse(routes[_i].method, routes[_i].path, NULL, &request, allow, &err), routes[_i].status);
	ck_assert_str_eq(allow, routes[_i].allow);
	if (routes[_i].status == 0)
		ck_assert_int_eq(request.action, routes[_i].action);
	else
		ck_assert_str_ne(err.text, "");
}
END_TEST

START_TEST(parameters_belong_to_a_pull_alone)
{
	static const char *const paths[] = {"/debug/pprof/", "/v1/targets", "/v1/targets/3", "/v1/status", "/metrics"};
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct request request;
		struct error err = {0};
		char allow[REQUEST_ALLOW_BYTES] = "";
		ck_assert_int_eq(parse(METHOD_GET, paths[i], "pid=3", &request, allow, &err), 400);
		ck_assert_int_eq(parse(METHOD_GET, paths[i], "", &request, allow, &err), 0);
	}
}
END_TEST

START_TEST(a_body_needs_its_type)
{
	static const struct {
		const char *type;
		int status;
	} types[] = {{NULL, 415}, {"text/plain", 415}, {"application/json", 0}, {"application/x-protobuf", 400}};
	static const uint8_t body[] = "{\"pid\":3}";
	for (size_t i = 0; i < 4; i++) {
		struct request_text text = {METHOD_POST, "/v1/targets", NULL, types[i].type, body, sizeof(body) - 1};
		struct request request = {0};
		struct error err = {0};
		char allow[REQUEST_ALLOW_BYTES] = "";
		ck_assert_int_eq(request_parse(&text, &request, allow, &err), types[i].status);
		if (types[i].status == 0)
			ck_assert_uint_eq(request.attach.pid, 3);
	}
	struct request_text text = {
		METHOD_PATCH, "/v1/targets/9", NULL, "application/x-protobuf", (const uint8_t *)"\x08\x63", 2};
	struct request request = {0};
	char allow[REQUEST_ALLOW_BYTES] = "";
	ck_assert_int_eq(request_parse(&text, &request, allow, NULL), 0);
	ck_assert_int_eq(request.action, ACTION_RATE);
	ck_assert_uint_eq(request.pid, 9);
	ck_assert_uint_eq(request.frequency_hz, 99);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("serve_request");
	TCase *tcase = tcase_create("serve_request");
	tcase_add_loop_test(tcase, numbers_are_strict, 0, sizeof(numbers) / sizeof(numbers[0]));
	tcase_add_test(tcase, a_number_ends_where_it_is_said_to);
	tcase_add_loop_test(tcase, a_pull_is_as_the_interface_says, 0, sizeof(pulls) / sizeof(pulls[0]));
	tcase_add_loop_test(tcase, paths_and_methods_choose_the_action, 0, sizeof(routes) / sizeof(routes[0]));
	tcase_add_test(tcase, parameters_belong_to_a_pull_alone);
	tcase_add_test(tcase, a_body_needs_its_type);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
