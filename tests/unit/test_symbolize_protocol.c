/* Replies are hostile input: what is accepted, and everything next to it that is not. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "reader.pb-c.h"
#include "symbolize/protocol.h"

static uint8_t packet[2 * READER_MESSAGE_MAX_BYTES];
static struct protocol_reply parsed;

static Sprof__Reader__Reply reply;
static Sprof__Reader__Opened opened;
static Sprof__Reader__UnwindTableMade table;
static Sprof__Reader__Symbolized symbolized;
static Sprof__Reader__Frames frames[READER_BATCH_MAX + 1], *frames_list[READER_BATCH_MAX + 1];
static Sprof__Reader__Frame frame[READER_FRAMES_MAX + 1], *frame_list[READER_FRAMES_MAX + 1];

static void setup(void)
{
	sprof__reader__reply__init(&reply);
	sprof__reader__opened__init(&opened);
	sprof__reader__unwind_table_made__init(&table);
	sprof__reader__symbolized__init(&symbolized);
	reply.sequence = 42;
	opened.build_id = "00ff";
	for (int i = 0; i <= READER_BATCH_MAX; i++) {
		sprof__reader__frames__init(&frames[i]);
		frames_list[i] = &frames[i];
	}
	for (int i = 0; i <= READER_FRAMES_MAX; i++) {
		sprof__reader__frame__init(&frame[i]);
		frame[i].name = "name";
		frame_list[i] = &frame[i];
	}
	symbolized.frames = frames_list;
	frames[0].frame = frame_list;
	frames[0].n_frame = 1;
	symbolized.n_frames = 1;
}

static int parse(size_t n_asked)
{
	size_t bytes = sprof__reader__reply__get_packed_size(&reply);
	ck_assert_uint_le(bytes, sizeof(packet));
	sprof__reader__reply__pack(&reply, packet);
	return protocol_parse(packet, bytes, 42, n_asked, &parsed);
}

static int parse_opened(void)
{
	reply.what_case = SPROF__READER__REPLY__WHAT_OPENED;
	reply.opened = &opened;
	int r = parse(0);
	if (r == 0)
		protocol_reply_free(&parsed);
	return r;
}

static int parse_symbolized(size_t n_asked)
{
	reply.what_case = SPROF__READER__REPLY__WHAT_SYMBOLIZED;
	reply.symbolized = &symbolized;
	int r = parse(n_asked);
	if (r == 0)
		protocol_reply_free(&parsed);
	return r;
}

START_TEST(requests_as_the_reader_reads_them)
{
	static uint64_t offsets[READER_BATCH_MAX];
	for (size_t i = 0; i < READER_BATCH_MAX; i++)
		offsets[i] = UINT64_MAX - i;
	size_t bytes = protocol_symbolize(UINT64_MAX, UINT64_MAX - 1, offsets, READER_BATCH_MAX, packet);
	ck_assert_uint_le(bytes, READER_MESSAGE_MAX_BYTES);
	Sprof__Reader__Request *request = sprof__reader__request__unpack(NULL, bytes, packet);
	ck_assert_ptr_nonnull(request);
	ck_assert_uint_eq(request->sequence, UINT64_MAX);
	ck_assert_uint_eq(request->file_id, UINT64_MAX - 1);
	ck_assert_uint_eq(request->symbolize->n_file_offset, READER_BATCH_MAX);
	ck_assert_mem_eq(request->symbolize->file_offset, offsets, sizeof(offsets));
	sprof__reader__request__free_unpacked(request, NULL);
	bytes = protocol_open(1, 2, PROTOCOL_ELF, packet);
	request = sprof__reader__request__unpack(NULL, bytes, packet);
	ck_assert_ptr_nonnull(request);
	ck_assert_int_eq(request->what_case, SPROF__READER__REQUEST__WHAT_OPEN);
	sprof__reader__request__free_unpacked(request, NULL);
}
END_TEST

START_TEST(good_replies)
{
	ck_assert_int_eq(parse_opened(), 0);
	ck_assert_str_eq(parsed.build_id, "00ff");
	opened.build_id = "";
	ck_assert_int_eq(parse_opened(), 0);
	frames[1].n_frame = 2;
	frames[1].frame = frame_list;
	frame[0].system_name = "_name";
	frame[0].filename = "a.c";
	frame[0].line = INT32_MAX;
	frame[1].name = "gr\xc3\xbc\xc3\x9f";
	symbolized.n_frames = 3;
	reply.what_case = SPROF__READER__REPLY__WHAT_SYMBOLIZED;
	reply.symbolized = &symbolized;
	ck_assert_int_eq(parse(5), 0);
	ck_assert_int_eq(parsed.kind, REPLY_SYMBOLIZED);
	ck_assert_uint_eq(parsed.n, 3);
	ck_assert_uint_eq(parsed.frames[0].n, 1);
	ck_assert_uint_eq(parsed.frames[1].n, 2);
	ck_assert_uint_eq(parsed.frames[2].n, 0);
	const struct profile_line *lines = parsed.frames[1].lines;
	ck_assert_str_eq(lines[0].system_name, "_name");
	ck_assert_str_eq(lines[0].filename, "a.c");
	ck_assert_int_eq(lines[0].line, INT32_MAX);
	ck_assert_str_eq(lines[1].system_name, "gr\xc3\xbc\xc3\x9f");
	ck_assert_ptr_null(lines[1].filename);
	protocol_reply_free(&parsed);
}
END_TEST

START_TEST(symbols_by_name)
{
	const char *const names[] = {"one", "two"};
	uint64_t positions[READER_SYMBOLS_MAX + 1] = {7, UINT64_MAX};
	Sprof__Reader__FoundSymbols found = SPROF__READER__FOUND_SYMBOLS__INIT;
	size_t bytes = protocol_find_symbols(5, 6, names, 2, packet);
	Sprof__Reader__Request *request = sprof__reader__request__unpack(NULL, bytes, packet);
	ck_assert_ptr_nonnull(request);
	ck_assert_int_eq(request->what_case, SPROF__READER__REQUEST__WHAT_FIND_SYMBOLS);
	ck_assert_uint_eq(request->find_symbols->n_name, 2);
	ck_assert_str_eq(request->find_symbols->name[1], "two");
	sprof__reader__request__free_unpacked(request, NULL);
	reply.what_case = SPROF__READER__REPLY__WHAT_FOUND_SYMBOLS;
	reply.found_symbols = &found;
	found.position = positions;
	found.n_position = 2;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_SYMBOLS), 0);
	ck_assert_int_eq(parsed.kind, REPLY_FOUND_SYMBOLS);
	ck_assert_uint_eq(parsed.n_positions, 2);
	ck_assert_uint_eq(parsed.positions[0], 7);
	ck_assert_uint_eq(parsed.positions[1], UINT64_MAX);
	protocol_reply_free(&parsed);
	ck_assert_int_eq(parse(PROTOCOL_ASKED_UNWIND_TABLE), -EBADMSG);
	ck_assert_int_eq(parse(2), -EBADMSG);
	found.n_position = READER_SYMBOLS_MAX + 1;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_SYMBOLS), -EBADMSG);
}
END_TEST

START_TEST(code_at_moments)
{
	const uint64_t addresses[] = {0x1000, 0x2000}, times[] = {7, UINT64_MAX};
	uint64_t places[READER_BATCH_MAX + 1] = {1, 2}, untils[READER_BATCH_MAX + 1] = {8, 9};
	Sprof__Reader__CodePlaces found = SPROF__READER__CODE_PLACES__INIT;
	size_t bytes = protocol_code_at(5, 6, addresses, times, 2, packet);
	Sprof__Reader__Request *request = sprof__reader__request__unpack(NULL, bytes, packet);
	ck_assert_ptr_nonnull(request);
	ck_assert_int_eq(request->what_case, SPROF__READER__REQUEST__WHAT_CODE_AT);
	ck_assert_uint_eq(request->code_at->n_address, 2);
	ck_assert_uint_eq(request->code_at->address[1], 0x2000);
	ck_assert_uint_eq(request->code_at->n_time, 2);
	ck_assert_uint_eq(request->code_at->time[1], UINT64_MAX);
	sprof__reader__request__free_unpacked(request, NULL);
	reply.what_case = SPROF__READER__REPLY__WHAT_CODE_PLACES;
	reply.code_places = &found;
	found.place = places;
	found.until = untils;
	found.n_place = found.n_until = 2;
	for (size_t asked = 2; asked <= READER_BATCH_MAX; asked++) {
		ck_assert_int_eq(parse(PROTOCOL_ASKED_CODE(asked)), 0);
		ck_assert_int_eq(parsed.kind, REPLY_CODE_PLACES);
		ck_assert_uint_eq(parsed.n_places, 2);
		ck_assert_uint_eq(parsed.places[1], 2);
		ck_assert_uint_eq(parsed.until_ns[1], 9);
		protocol_reply_free(&parsed);
	}
	ck_assert_int_eq(parse(PROTOCOL_ASKED_CODE(1)), -EBADMSG);
	ck_assert_int_eq(parse(PROTOCOL_ASKED_CODE(READER_BATCH_MAX + 1)), -EBADMSG);
	ck_assert_int_eq(parse(PROTOCOL_ASKED_SYMBOLS), -EBADMSG);
	ck_assert_int_eq(parse(PROTOCOL_ASKED_UNWIND_TABLE), -EBADMSG);
	ck_assert_int_eq(parse(2), -EBADMSG);
	ck_assert_int_eq(parse(0), -EBADMSG);
	found.n_until = 1;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_CODE(2)), -EBADMSG);
	found.n_place = found.n_until = 0;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_CODE(2)), -EBADMSG);
	found.n_place = found.n_until = READER_BATCH_MAX + 1;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_CODE(READER_BATCH_MAX)), -EBADMSG);
}
END_TEST

START_TEST(unwind_tables)
{
	size_t bytes = protocol_unwind_table(5, 6, packet);
	Sprof__Reader__Request *request = sprof__reader__request__unpack(NULL, bytes, packet);
	ck_assert_ptr_nonnull(request);
	ck_assert_int_eq(request->what_case, SPROF__READER__REQUEST__WHAT_UNWIND_TABLE);
	ck_assert_uint_eq(request->file_id, 6);
	sprof__reader__request__free_unpacked(request, NULL);
	reply.what_case = SPROF__READER__REPLY__WHAT_UNWIND_TABLE;
	reply.unwind_table = &table;
	table.total_bytes = UINT32_MAX;
	table.n_fdes = UINT64_MAX;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_UNWIND_TABLE), 0);
	ck_assert_int_eq(parsed.kind, REPLY_UNWIND_TABLE);
	ck_assert_uint_eq(parsed.table_bytes, UINT32_MAX);
	ck_assert_uint_eq(parsed.n_fdes, UINT64_MAX);
	protocol_reply_free(&parsed);
	ck_assert_int_eq(parse(0), -EBADMSG);
	ck_assert_int_eq(parse(1), -EBADMSG);
	reply.error = ENODATA;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_UNWIND_TABLE), -EBADMSG); /* an error, and yet an answer */
	reply.error = 0;
	reply.what_case = SPROF__READER__REPLY__WHAT_OPENED;
	reply.opened = &opened;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_UNWIND_TABLE), -EBADMSG);
	reply.what_case = SPROF__READER__REPLY__WHAT_SYMBOLIZED;
	reply.symbolized = &symbolized;
	ck_assert_int_eq(parse(PROTOCOL_ASKED_UNWIND_TABLE), -EBADMSG);
}
END_TEST

static int parse_wanted(size_t n_paths, const char *path)
{
	static char *paths[READER_SPLITS_MAX + 1];
	for (size_t i = 0; i < n_paths; i++)
		paths[i] = (char *)path;
	Sprof__Reader__SplitWanted wanted = SPROF__READER__SPLIT_WANTED__INIT;
	wanted.path = paths;
	wanted.n_path = n_paths;
	reply.what_case = SPROF__READER__REPLY__WHAT_SPLIT_WANTED;
	reply.split_wanted = &wanted;
	int r = parse(1);
	if (r == 0) {
		ck_assert_int_eq(parsed.kind, REPLY_SPLIT_WANTED);
		ck_assert_uint_eq(parsed.n_split_paths, n_paths);
		ck_assert_str_eq(parsed.split_paths[n_paths - 1], path);
		protocol_reply_free(&parsed);
	}
	return r;
}

START_TEST(split_files)
{
	static char longest[READER_LINK_MAX_BYTES + 2];
	memset(longest, 'x', READER_LINK_MAX_BYTES);
	ck_assert_int_eq(parse_wanted(1, "/build/a.dwo"), 0);
	ck_assert_int_eq(parse_wanted(READER_SPLITS_MAX, longest), 0);
	ck_assert_int_eq(parse_wanted(READER_SPLITS_MAX + 1, "a.dwo"), -EBADMSG);
	longest[READER_LINK_MAX_BYTES] = 'x';
	ck_assert_int_eq(parse_wanted(1, longest), -EBADMSG);
	ck_assert_int_eq(parse_wanted(1, ""), -EBADMSG);
	ck_assert_int_eq(parse_wanted(1, "a\nb"), -EBADMSG);
	ck_assert_int_eq(parse_wanted(0, ""), -EBADMSG); /* it wants nothing, and says no names */
	reply.what_case = SPROF__READER__REPLY__WHAT_SPLIT_WANTED;
	Sprof__Reader__SplitWanted wanted = SPROF__READER__SPLIT_WANTED__INIT;
	wanted.package = true;
	reply.split_wanted = &wanted;
	ck_assert_int_eq(parse(0), -EBADMSG); /* of an Open */
	ck_assert_int_eq(parse(PROTOCOL_ASKED_UNWIND_TABLE), -EBADMSG);
	ck_assert_int_eq(parse(1), 0);
	ck_assert(parsed.wants_package);
	protocol_reply_free(&parsed);
}
END_TEST

START_TEST(errors)
{
	reply.error = ENOEXEC;
	ck_assert_int_eq(parse(0), 0);
	ck_assert_int_eq(parsed.kind, REPLY_ERROR);
	ck_assert_int_eq(parsed.error, ENOEXEC);
	protocol_reply_free(&parsed);
	ck_assert_int_eq(parse_opened(), -EBADMSG); /* an error, and yet an answer */
	reply.what_case = SPROF__READER__REPLY__WHAT__NOT_SET;
	reply.error = -1;
	ck_assert_int_eq(parse(0), -EBADMSG);
	reply.error = 4096;
	ck_assert_int_eq(parse(0), -EBADMSG);
	reply.error = 0;
	ck_assert_int_eq(parse(0), -EBADMSG);
}
END_TEST

START_TEST(answers_to_something_else)
{
	reply.sequence = 41;
	ck_assert_int_eq(parse_opened(), -EBADMSG);
	reply.sequence = 42;
	reply.what_case = SPROF__READER__REPLY__WHAT_OPENED;
	reply.opened = &opened;
	ck_assert_int_eq(parse(1), -EBADMSG);
	ck_assert_int_eq(parse_symbolized(0), -EBADMSG);
	symbolized.n_frames = 2;
	ck_assert_int_eq(parse_symbolized(1), -EBADMSG);
	symbolized.n_frames = 0;
	ck_assert_int_eq(parse_symbolized(1), -EBADMSG);
	symbolized.n_frames = READER_BATCH_MAX + 1;
	ck_assert_int_eq(parse_symbolized(READER_BATCH_MAX + 1), -EBADMSG);
}
END_TEST

START_TEST(build_ids)
{
	static char longest[2 * READER_BUILD_ID_MAX_BYTES + 3];
	static const char *const bad[] = {"0", "0g", "AB", "00\n", "../x", "00 0"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		opened.build_id = (char *)bad[i];
		ck_assert_msg(parse_opened() == -EBADMSG, "%s", bad[i]);
	}
	memset(longest, 'a', 2 * READER_BUILD_ID_MAX_BYTES);
	opened.build_id = longest;
	ck_assert_int_eq(parse_opened(), 0);
	memset(longest, 'a', 2 * READER_BUILD_ID_MAX_BYTES + 2);
	ck_assert_int_eq(parse_opened(), -EBADMSG);
}
END_TEST

START_TEST(texts)
{
	static char longest[READER_NAME_MAX_BYTES + 2];
	static const char *const bad[] = {"a\x1b[2J",     "new\nline",        "\xff",     "\xc3",    "\xc0\xaf",
					  "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc2\x85", "del\x7f", "\xe2\x82"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		setup();
		frame[0].name = (char *)bad[i];
		ck_assert_msg(parse_symbolized(1) == -EBADMSG, "name %zu", i);
		setup();
		frame[0].system_name = (char *)bad[i];
		ck_assert_msg(parse_symbolized(1) == -EBADMSG, "system_name %zu", i);
		setup();
		frame[0].filename = (char *)bad[i];
		ck_assert_msg(parse_symbolized(1) == -EBADMSG, "filename %zu", i);
	}
	setup();
	frame[0].name = "";
	ck_assert_int_eq(parse_symbolized(1), -EBADMSG);
	memset(longest, 'x', READER_NAME_MAX_BYTES);
	frame[0].name = longest;
	ck_assert_int_eq(parse_symbolized(1), 0);
	longest[READER_NAME_MAX_BYTES] = 'x';
	ck_assert_int_eq(parse_symbolized(1), -EBADMSG);
}
END_TEST

START_TEST(numbers)
{
	frame[0].line = (uint32_t)INT32_MAX + 1;
	ck_assert_int_eq(parse_symbolized(1), -EBADMSG);
	frame[0].line = 1;
	frame[0].start_line = UINT32_MAX;
	ck_assert_int_eq(parse_symbolized(1), -EBADMSG);
	frame[0].start_line = 1;
	frames[0].n_frame = READER_FRAMES_MAX;
	ck_assert_int_eq(parse_symbolized(1), 0);
	frames[0].n_frame = READER_FRAMES_MAX + 1;
	ck_assert_int_eq(parse_symbolized(1), -EBADMSG);
}
END_TEST

START_TEST(packets)
{
	memset(packet, 0xff, sizeof(packet));
	ck_assert_int_eq(protocol_parse(packet, 100, 42, 0, &parsed), -EBADMSG);
	ck_assert_int_eq(protocol_parse(packet, 0, 42, 0, &parsed), -EBADMSG);
	reply.what_case = SPROF__READER__REPLY__WHAT_OPENED;
	reply.opened = &opened;
	size_t bytes = sprof__reader__reply__pack(&reply, packet);
	for (size_t n = 0; n < bytes; n++)
		ck_assert_int_eq(protocol_parse(packet, n, 42, 0, &parsed), -EBADMSG);
	ck_assert_int_eq(protocol_parse(packet, READER_MESSAGE_MAX_BYTES + 1, 42, 0, &parsed), -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("symbolize_protocol");
	TCase *tests = tcase_create("protocol");
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_test(tests, requests_as_the_reader_reads_them);
	tcase_add_test(tests, good_replies);
	tcase_add_test(tests, symbols_by_name);
	tcase_add_test(tests, code_at_moments);
	tcase_add_test(tests, unwind_tables);
	tcase_add_test(tests, split_files);
	tcase_add_test(tests, errors);
	tcase_add_test(tests, answers_to_something_else);
	tcase_add_test(tests, build_ids);
	tcase_add_test(tests, texts);
	tcase_add_test(tests, numbers);
	tcase_add_test(tests, packets);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
