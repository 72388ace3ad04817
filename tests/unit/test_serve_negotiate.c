#include <check.h>

#include "serve/negotiate.h"

static const struct {
	const char *header;
	enum media media;
} types[] = {
	{NULL, MEDIA_NONE},
	{"application/x-protobuf", MEDIA_PROTOBUF},
	{"Application/X-Protobuf", MEDIA_PROTOBUF},
	{" application/json ;charset=utf-8", MEDIA_JSON},
	{"application/json;", MEDIA_JSON},
	{"", MEDIA_OTHER},
	{"application/jsonx", MEDIA_OTHER},
	{"application/json, application/x-protobuf", MEDIA_OTHER},
	{"text/plain", MEDIA_OTHER},
};

START_TEST(content_type_names_the_body)
{
	ck_assert_int_eq(media_of_content_type(types[_i].header), types[_i].media);
}
END_TEST

static const struct {
	const char *header;
	enum media media;
} accepts[] = {
	{NULL, MEDIA_NONE},
	{"", MEDIA_NONE},
	{"*/*", MEDIA_NONE},
	{"text/html,*/*;q=0.8", MEDIA_NONE},
	{"application/x-protobuf", MEDIA_PROTOBUF},
	{"application/json", MEDIA_JSON},
	{"text/html , application/x-protobuf;v=1", MEDIA_PROTOBUF},
	{"application/json, application/x-protobuf", MEDIA_PROTOBUF},
	{"application/json, application/x-protobuf;q=0.9", MEDIA_JSON},
	{"application/json;q=0.25, application/x-protobuf;q=0.3", MEDIA_PROTOBUF},
	{"application/x-protobuf;q=0, */*", MEDIA_NONE},
	{"application/x-protobuf;q=0.000;x=y", MEDIA_NONE},
	{"application/x-protobuf; Q = 0", MEDIA_NONE},
	{"application/json;q=0.001", MEDIA_JSON},
	{"application/json;q=junk", MEDIA_JSON},
	{";;;,,,==,application/json", MEDIA_JSON},
};

START_TEST(accept_chooses_the_answer)
{
	ck_assert_int_eq(media_wanted(accepts[_i].header), accepts[_i].media);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("serve_negotiate");
	TCase *tcase = tcase_create("serve_negotiate");
	tcase_add_loop_test(tcase, content_type_names_the_body, 0, sizeof(types) / sizeof(types[0]));
	tcase_add_loop_test(tcase, accept_chooses_the_answer, 0, sizeof(accepts) / sizeof(accepts[0]));
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
