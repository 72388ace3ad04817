#include <check.h>
#include <errno.h>
#include <string.h>

#include "serve/body.h"

static int attach_json(const char *text, Sprof__Control__AttachRequest *ret, struct error *err)
{
	return body_parse_attach(MEDIA_JSON, (const uint8_t *)text, strlen(text), ret, err);
}

START_TEST(attach_in_json)
{
	Sprof__Control__AttachRequest request;
	struct error err;
	ck_assert_int_eq(attach_json(" {\"pid\":1,\"frequency_hz\":99,\"event\":\"cpu-clock\"}\r\n", &request, &err),
			 0);
	ck_assert_uint_eq(request.pid, 1);
	ck_assert_uint_eq(request.frequency_hz, 99);
	ck_assert_int_eq(request.event, SPROF__CONTROL__EVENT__EVENT_CPU_CLOCK);
	ck_assert_int_eq(attach_json("{\"event\":\"auto\",\"pid\":4194304}", &request, &err), 0);
	ck_assert_uint_eq(request.pid, 4194304);
	ck_assert_uint_eq(request.frequency_hz, 0);
	ck_assert_int_eq(request.event, SPROF__CONTROL__EVENT__EVENT_AUTO);
	ck_assert_int_eq(attach_json("{\"pid\":2,\"frequency_hz\":1000000}", &request, &err), 0);
	ck_assert_uint_eq(request.frequency_hz, 1000000);
}
END_TEST

static const struct {
	const char *text;
	int result;
} refused[] = {
	{"", -EINVAL},
	{"{}", -ERANGE},
	{"{\"pid\":1", -EINVAL},
	{"{\"pid\":1}}", -EINVAL},
	{"{\"pid\":1}{\"pid\":2}", -EINVAL},
	{"[1]", -EINVAL},
	{"1", -EINVAL},
	{"null", -EINVAL},
	{"{\"pid\":0}", -ERANGE},
	{"{\"pid\":-1}", -EINVAL},
	{"{\"pid\":4194305}", -ERANGE},
	{"{\"pid\":4294967297}", -ERANGE},
	{"{\"pid\":99999999999999999999999}", -ERANGE},
	{"{\"pid\":1.0}", -EINVAL},
	{"{\"pid\":\"1\"}", -EINVAL},
	{"{\"pid\":null}", -EINVAL},
	{"{\"pid\":true}", -EINVAL},
	{"{\"pid\":[1]}", -EINVAL},
	{"{\"pid\":1,\"frequency_hz\":1000001}", -ERANGE},
	{"{\"pid\":1,\"event\":\"Cycles\"}", -EINVAL},
	{"{\"pid\":1,\"event\":2}", -EINVAL},
	{"{\"pid\":1,\"hz\":99}", -EINVAL},
	{"{\"pid\":1,\"\":99}", -EINVAL},
	{"{\"pid\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}", -EINVAL},
};

START_TEST(json_that_is_not_the_request_is_refused)
{
	Sprof__Control__AttachRequest request = {.pid = 77};
	struct error err = {0};
	ck_assert_int_eq(attach_json(refused[_i].text, &request, &err), refused[_i].result);
	ck_assert_int_eq(err.code, -refused[_i].result);
	ck_assert_str_ne(err.text, "");
	ck_assert_uint_eq(request.pid, 77);
}
END_TEST

START_TEST(an_unknown_field_is_named)
{
	Sprof__Control__AttachRequest request;
	struct error err;
	ck_assert_int_eq(attach_json("{\"pid\":1,\"freqency_hz\":99}", &request, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "freqency_hz"));
}
END_TEST

static int attach_packed(uint32_t pid, uint32_t frequency_hz, int event, Sprof__Control__AttachRequest *ret)
{
	Sprof__Control__AttachRequest request = SPROF__CONTROL__ATTACH_REQUEST__INIT;
	request.pid = pid;
	request.frequency_hz = frequency_hz;
	request.event = (Sprof__Control__Event)event;
	uint8_t bytes[64];
	size_t n = sprof__control__attach_request__pack(&request, bytes);
	return body_parse_attach(MEDIA_PROTOBUF, bytes, n, ret, NULL);
}

START_TEST(attach_in_protobuf)
{
	Sprof__Control__AttachRequest request;
	ck_assert_int_eq(attach_packed(3, 99, 2, &request), 0);
	ck_assert_uint_eq(request.pid, 3);
	ck_assert_uint_eq(request.frequency_hz, 99);
	ck_assert_int_eq(request.event, SPROF__CONTROL__EVENT__EVENT_CYCLES);
	ck_assert_int_eq(attach_packed(0, 99, 0, &request), -ERANGE);
	ck_assert_int_eq(attach_packed(4194305, 99, 0, &request), -ERANGE);
	ck_assert_int_eq(attach_packed(3, 1000001, 0, &request), -ERANGE);
	ck_assert_int_eq(attach_packed(3, 99, 3, &request), -EINVAL);
	ck_assert_int_eq(attach_packed(3, 99, -1, &request), -EINVAL);
}
END_TEST

START_TEST(protobuf_that_is_not_the_request_is_refused)
{
	static const struct {
		const char *bytes;
		size_t n;
	} bodies[] = {
		{"\x08", 1},             /* ends in the middle */
		{"\x08\x01\x12\x7f", 4}, /* a length beyond the end */
		{"\x0a\x01x", 3}, /* another type on a known number: an unknown field to protobuf-c or an error */
		{"\x08\x01\xa0\x06\x05", 5},         /* field 100 */
		{"\xff\xff\xff\xff\xff\xff\xff", 7}, /* no tag */
	};
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		Sprof__Control__AttachRequest request = {.pid = 77};
		struct error err = {0};
		ck_assert_int_lt(body_parse_attach(MEDIA_PROTOBUF, (const uint8_t *)bodies[i].bytes, bodies[i].n,
						   &request, &err),
				 0);
		ck_assert_str_ne(err.text, "");
		ck_assert_uint_eq(request.pid, 77);
	}
	struct error err;
	uint32_t frequency_hz = 77;
	ck_assert_int_eq(body_parse_rate(MEDIA_PROTOBUF, (const uint8_t *)"\xa0\x06\x05", 3, &frequency_hz, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "field 100"));
	ck_assert_uint_eq(frequency_hz, 77);
}
END_TEST

START_TEST(rate)
{
	uint32_t frequency_hz = 77;
	ck_assert_int_eq(body_parse_rate(MEDIA_JSON, (const uint8_t *)"{\"frequency_hz\":5}", 18, &frequency_hz, NULL),
			 0);
	ck_assert_uint_eq(frequency_hz, 5);
	ck_assert_int_eq(body_parse_rate(MEDIA_JSON, (const uint8_t *)"{\"pid\":5}", 9, &frequency_hz, NULL), -EINVAL);
	ck_assert_int_eq(body_parse_rate(MEDIA_PROTOBUF, (const uint8_t *)"\x08\x63", 2, &frequency_hz, NULL), 0);
	ck_assert_uint_eq(frequency_hz, 99);
	ck_assert_int_eq(body_parse_rate(MEDIA_PROTOBUF, (const uint8_t *)"\x08\xc1\x84\x3d", 4, &frequency_hz, NULL),
			 -ERANGE);
	ck_assert_uint_eq(frequency_hz, 99);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("serve_body");
	TCase *tcase = tcase_create("serve_body");
	tcase_add_test(tcase, attach_in_json);
	tcase_add_loop_test(tcase, json_that_is_not_the_request_is_refused, 0, sizeof(refused) / sizeof(refused[0]));
	tcase_add_test(tcase, an_unknown_field_is_named);
	tcase_add_test(tcase, attach_in_protobuf);
	tcase_add_test(tcase, protobuf_that_is_not_the_request_is_refused);
	tcase_add_test(tcase, rate);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
