#include <check.h>
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "control.pb-c.h"
#include "serve/json.h"

/* The text, parsed again by json-c, in its shortest form. */
static char *formatted(const ProtobufCMessage *message)
{
	char *text = NULL;
	size_t bytes = 0;
	ck_assert_int_eq(json_format(message, &text, &bytes), 0);
	ck_assert_uint_eq(strlen(text), bytes);
	ck_assert_int_eq(text[bytes - 1], '\n');
	json_object *object = json_tokener_parse(text);
	ck_assert_ptr_nonnull(object);
	char *plain = strdup(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
	json_object_put(object);
	free(text);
	return plain;
}

static void expect(const ProtobufCMessage *message, const char *expected)
{
	char *text = formatted(message);
	ck_assert_str_eq(text, expected);
	free(text);
}

START_TEST(every_field_is_there_when_zero)
{
	Sprof__Control__AttachRequest request = SPROF__CONTROL__ATTACH_REQUEST__INIT;
	expect(&request.base, "{\"pid\":0,\"frequency_hz\":0,\"event\":\"auto\"}");
	Sprof__Control__TargetList list = SPROF__CONTROL__TARGET_LIST__INIT;
	expect(&list.base, "{\"targets\":[]}");
}
END_TEST

START_TEST(numbers_keep_their_whole_range)
{
	Sprof__Control__Target target = SPROF__CONTROL__TARGET__INIT;
	target.pid = UINT32_MAX;
	target.entries = UINT64_MAX;
	target.not_delivered = INT64_MIN;
	target.not_delivered_ratio = 0.25;
	target.effective_hz = NAN;
	char *text = NULL;
	size_t bytes;
	ck_assert_int_eq(json_format(&target.base, &text, &bytes), 0);
	ck_assert_ptr_nonnull(strstr(text, "\"pid\":4294967295,"));
	ck_assert_ptr_nonnull(strstr(text, "\"entries\":18446744073709551615,"));
	ck_assert_ptr_nonnull(strstr(text, "\"not_delivered\":-9223372036854775808,"));
	ck_assert_ptr_nonnull(strstr(text, "\"not_delivered_ratio\":0.25,"));
	ck_assert_ptr_nonnull(strstr(text, "\"effective_hz\":null"));
	free(text);
}
END_TEST

START_TEST(enums_have_short_names)
{
	static const char *const states[] = {"arming", "live", "exited", "detached"};
	Sprof__Control__Target target = SPROF__CONTROL__TARGET__INIT;
	for (int i = 0; i < 5; i++) {
		target.state = (Sprof__Control__TargetState)i;
		char expected[40];
		snprintf(expected, sizeof(expected), i < 4 ? "\"state\":\"%s\"" : "\"state\":4",
			 i < 4 ? states[i] : "");
		_cleanup_free_ char *text = formatted(&target.base);
		ck_assert_ptr_nonnull(strstr(text, expected));
	}
	target.event = SPROF__CONTROL__EVENT__EVENT_CPU_CLOCK;
	_cleanup_free_ char *text = formatted(&target.base);
	ck_assert_ptr_nonnull(strstr(text, "\"event\":\"cpu-clock\""));
}
END_TEST

START_TEST(lists_and_messages_nest)
{
	Sprof__Control__Count one = SPROF__CONTROL__COUNT__INIT, two = SPROF__CONTROL__COUNT__INIT;
	one.name = (char *)"ring_full";
	one.count = 3;
	one.text = (char *)"the ring was \"full\"";
	Sprof__Control__Count *counts[] = {&one, &two};
	Sprof__Control__Status status = SPROF__CONTROL__STATUS__INIT;
	status.losses = counts;
	status.n_losses = 2;
	status.reader_running = 1;
	char *text = formatted(&status.base);
	ck_assert_ptr_nonnull(
		strstr(text, "\"losses\":[{\"name\":\"ring_full\",\"count\":3,\"text\":\"the ring was \\\"full\\\"\"},"
			     "{\"name\":\"\",\"count\":0,\"text\":\"\"}]"));
	ck_assert_ptr_nonnull(strstr(text, "\"reader_running\":true"));
	free(text);
}
END_TEST

START_TEST(text_is_always_utf8)
{
	Sprof__Control__Error error = SPROF__CONTROL__ERROR__INIT;
	error.message = (char *)"a\xff\xc3\xa9\xc3\n\x01/";
	char *text = NULL;
	size_t bytes;
	ck_assert_int_eq(json_format(&error.base, &text, &bytes), 0);
	ck_assert_ptr_nonnull(strstr(text, "\"a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\\n\\u0001/\""));
	free(text);
	error.message = NULL;
	expect(&error.base, "{\"status\":0,\"message\":\"\"}");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("serve_json");
	TCase *tcase = tcase_create("serve_json");
	tcase_add_test(tcase, every_field_is_there_when_zero);
	tcase_add_test(tcase, numbers_keep_their_whole_range);
	tcase_add_test(tcase, enums_have_short_names);
	tcase_add_test(tcase, lists_and_messages_nest);
	tcase_add_test(tcase, text_is_always_utf8);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
