/* The reader's answers, packet by packet. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "elf/requests.h"
#include "elf_maker.h"
#include "model/cfi_check.h"
#include "proto/reader_limits.h"
#include "reader.pb-c.h"

static struct requests *requests;
static struct maker made;
static uint8_t packet[1 << 20], reply_packet[READER_MESSAGE_MAX_BYTES];
static Sprof__Reader__Reply *reply;
static int table_fd = -1; /* goes along with the next request */

static void setup(void)
{
	static const struct maker_symbol symbols[] = {{0, 16, STB_GLOBAL, STT_FUNC, "_Z3onev"},
						      {16, 16, STB_GLOBAL, STT_FUNC, "two"}};
	maker_make(&made, symbols, 2);
	requests = requests_new();
	ck_assert_ptr_nonnull(requests);
}

static void teardown(void)
{
	if (reply)
		sprof__reader__reply__free_unpacked(reply, NULL);
	reply = NULL;
	requests_free(requests);
}

static void send_packet(size_t bytes, int fd)
{
	const int fds[READER_FDS_MAX] = {fd, table_fd};
	size_t n = requests_handle(requests, packet, bytes, fds, reply_packet);
	table_fd = -1; /* taken */
	ck_assert_uint_gt(n, 0);
	ck_assert_uint_le(n, READER_MESSAGE_MAX_BYTES);
	if (reply)
		sprof__reader__reply__free_unpacked(reply, NULL);
	reply = sprof__reader__reply__unpack(NULL, n, reply_packet);
	ck_assert_ptr_nonnull(reply);
}

static int send_request(Sprof__Reader__Request *request, int fd)
{
	static uint64_t sequence;
	request->sequence = ++sequence;
	ck_assert_uint_le(sprof__reader__request__get_packed_size(request), sizeof(packet));
	send_packet(sprof__reader__request__pack(request, packet), fd);
	ck_assert_uint_eq(reply->sequence, sequence);
	if (reply->error)
		ck_assert_int_eq(reply->what_case, SPROF__READER__REPLY__WHAT__NOT_SET);
	return reply->error;
}

static int send_open(uint64_t file_id, int fd)
{
	Sprof__Reader__Open open = SPROF__READER__OPEN__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_OPEN;
	request.open = &open;
	return send_request(&request, fd);
}

static int send_symbolize(uint64_t file_id, uint64_t *offsets, size_t n)
{
	Sprof__Reader__Symbolize symbolize = SPROF__READER__SYMBOLIZE__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	symbolize.file_offset = offsets;
	symbolize.n_file_offset = n;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_SYMBOLIZE;
	request.symbolize = &symbolize;
	return send_request(&request, -1);
}

static int send_close(uint64_t file_id)
{
	Sprof__Reader__Close close_request = SPROF__READER__CLOSE__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_CLOSE;
	request.close = &close_request;
	return send_request(&request, -1);
}

static int made_fd(void)
{
	int fd = maker_memfd(made.bytes, made.n);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static int send_find(char **names, size_t n, int fd)
{
	Sprof__Reader__FindSymbols find = SPROF__READER__FIND_SYMBOLS__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	find.name = names;
	find.n_name = n;
	request.file_id = 9;
	request.what_case = SPROF__READER__REQUEST__WHAT_FIND_SYMBOLS;
	request.find_symbols = &find;
	return send_request(&request, fd);
}

static int send_code_at(uint64_t file_id, uint64_t *addresses, uint64_t *times, size_t n_addresses, size_t n_times)
{
	Sprof__Reader__CodeAt code_at = SPROF__READER__CODE_AT__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	code_at.address = addresses;
	code_at.time = times;
	code_at.n_address = n_addresses;
	code_at.n_time = n_times;
	request.file_id = file_id;
	request.what_case = SPROF__READER__REQUEST__WHAT_CODE_AT;
	request.code_at = &code_at;
	return send_request(&request, -1);
}

/* A jitdump with two functions, one after the other at one address. */
static int jit_dump_fd(void)
{
	static const struct {
		uint32_t magic, version, bytes, machine, padding, pid;
		uint64_t time, flags;
		struct {
			uint32_t id, bytes;
			uint64_t time;
			uint32_t pid, tid;
			uint64_t vma, address, code_bytes, index;
			char name[8];
		} loads[2];
	} dump = {0x4A695444,
		  1,
		  40,
		  62,
		  0,
		  1,
		  0,
		  0,
		  {{0, 64, 100, 1, 1, 0x1000, 0x1000, 16, 0, "first"},
		   {0, 64, 200, 1, 1, 0x1000, 0x1000, 16, 1, "second"}}};
	return maker_memfd(&dump, sizeof(dump));
}

START_TEST(code_by_its_moment)
{
	Sprof__Reader__Open open = SPROF__READER__OPEN__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	uint64_t addresses[READER_BATCH_MAX + 1] = {0x1004, 0x1004, 0x3000},
					      times[READER_BATCH_MAX + 1] = {150, 250, 150};
	ck_assert_int_eq(send_code_at(3, addresses, times, 3, 3), ENOENT);
	open.kind = SPROF__READER__OPEN__KIND__JITDUMP;
	request.file_id = 3;
	request.what_case = SPROF__READER__REQUEST__WHAT_OPEN;
	request.open = &open;
	ck_assert_int_eq(send_request(&request, jit_dump_fd()), 0);
	ck_assert(reply->opened->has_symbols);
	ck_assert_int_eq(send_code_at(3, addresses, times, 3, 3), 0);
	ck_assert_int_eq(reply->what_case, SPROF__READER__REPLY__WHAT_CODE_PLACES);
	ck_assert_uint_eq(reply->code_places->n_place, 3);
	ck_assert_uint_eq(reply->code_places->n_until, 3);
	ck_assert_uint_eq(reply->code_places->until[0], 200);
	ck_assert_uint_eq(reply->code_places->until[1], UINT64_MAX);
	uint64_t places[3];
	memcpy(places, reply->code_places->place, sizeof(places));
	ck_assert_uint_eq(places[2], 0);
	ck_assert_int_eq(send_symbolize(3, places, 3), 0);
	ck_assert_str_eq(reply->symbolized->frames[0]->frame[0]->name, "first");
	ck_assert_str_eq(reply->symbolized->frames[1]->frame[0]->name, "second");
	ck_assert_uint_eq(reply->symbolized->frames[2]->n_frame, 0);
	ck_assert_int_eq(send_code_at(3, addresses, times, READER_BATCH_MAX, READER_BATCH_MAX), 0);
	ck_assert_uint_eq(reply->code_places->n_place, READER_BATCH_MAX);
	ck_assert_int_eq(send_code_at(3, addresses, times, READER_BATCH_MAX + 1, READER_BATCH_MAX + 1), EBADMSG);
	ck_assert_int_eq(send_code_at(3, addresses, times, 3, 2), EBADMSG);
	ck_assert_int_eq(send_code_at(3, addresses, times, 0, 0), EBADMSG);
	ck_assert_int_eq(send_open(4, made_fd()), 0);
	ck_assert_int_eq(send_code_at(4, addresses, times, 3, 3), EBADMSG); /* no jitdump */
}
END_TEST

START_TEST(symbols_are_found_by_name)
{
	char *names[READER_SYMBOLS_MAX + 1] = {"two", "none", "_Z3onev"};
	ck_assert_int_eq(send_find(names, 3, made_fd()), 0);
	ck_assert_uint_eq(reply->found_symbols->n_position, 3);
	ck_assert_uint_eq(reply->found_symbols->position[0], MAKER_TEXT + 16);
	ck_assert_uint_eq(reply->found_symbols->position[1], UINT64_MAX);
	ck_assert_uint_eq(reply->found_symbols->position[2], MAKER_TEXT);
	ck_assert_int_eq(send_find(names, 3, -1), EBADMSG);
	ck_assert_int_eq(send_find(names, 0, made_fd()), EBADMSG);
	for (size_t i = 0; i <= READER_SYMBOLS_MAX; i++)
		names[i] = "two";
	ck_assert_int_eq(send_find(names, READER_SYMBOLS_MAX, made_fd()), 0);
	ck_assert_int_eq(send_find(names, READER_SYMBOLS_MAX + 1, made_fd()), EBADMSG);
	ck_assert_int_eq(send_find(names, 1, maker_memfd("no ELF file", 11)), ENOEXEC);
}
END_TEST

/* Cut short anywhere, or with any byte changed: an answer, whatever it is. */
START_TEST(symbols_of_broken_files)
{
	char *names[] = {"two"};
	for (size_t n = 1; n < made.n; n += 7)
		(void)send_find(names, 1, maker_memfd(made.bytes, n));
	for (size_t i = 0; i < made.n; i++) {
		made.bytes[i] ^= 0xff;
		(void)send_find(names, 1, made_fd());
		made.bytes[i] ^= 0xff;
	}
}
END_TEST

START_TEST(open_symbolize_close)
{
	uint64_t offsets[] = {MAKER_TEXT + 16, MAKER_TEXT + 100, MAKER_TEXT, UINT64_MAX};
	ck_assert_int_eq(send_symbolize(7, offsets, 4), ENOENT);
	ck_assert_int_eq(send_open(7, made_fd()), 0);
	ck_assert_str_eq(reply->opened->build_id, "0102abcd");
	ck_assert(reply->opened->has_symbols);
	ck_assert_int_eq(send_symbolize(7, offsets, 4), 0);
	ck_assert_uint_eq(reply->symbolized->n_frames, 4);
	Sprof__Reader__Frames **frames = reply->symbolized->frames;
	ck_assert_uint_eq(frames[0]->n_frame, 1);
	ck_assert_str_eq(frames[0]->frame[0]->name, "two");
	ck_assert_str_eq(frames[0]->frame[0]->system_name, "");
	ck_assert_uint_eq(frames[1]->n_frame, 0);
	ck_assert_str_eq(frames[2]->frame[0]->name, "one()");
	ck_assert_str_eq(frames[2]->frame[0]->system_name, "_Z3onev");
	ck_assert_uint_eq(frames[3]->n_frame, 0);
	ck_assert_int_eq(send_close(7), 0);
	ck_assert_int_eq(send_close(7), ENOENT);
	ck_assert_int_eq(send_symbolize(7, offsets, 1), ENOENT);
}
END_TEST

static int count_fds(void)
{
	int n = 0;
	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

START_TEST(opened_twice)
{
	ck_assert_int_eq(send_open(7, made_fd()), 0);
	int before = count_fds();
	ck_assert_int_eq(send_open(7, made_fd()), 0);
	ck_assert_str_eq(reply->opened->build_id, "0102abcd");
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

START_TEST(what_is_no_elf_file)
{
	int before = count_fds();
	ck_assert_int_eq(send_open(1, maker_memfd("#!/bin/sh\n", 10)), ENOEXEC);
	ck_assert_uint_gt(strlen(reply->error_text), 0);
	ck_assert_int_eq(send_open(1, -1), EBADMSG);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

START_TEST(least_used_files_go)
{
	uint64_t offset = MAKER_TEXT;
	int before = count_fds();
	for (uint64_t id = 1; id <= 60; id++) {
		ck_assert_int_eq(send_open(id, made_fd()), 0);
		ck_assert_int_eq(send_symbolize(1, &offset, 1), 0);
	}
	ck_assert_int_eq(send_symbolize(2, &offset, 1), ENOENT);
	ck_assert_int_eq(send_symbolize(60, &offset, 1), 0);
	ck_assert_int_le(count_fds() - before, 48); /* RLIMIT_NOFILE is 64 */
}
END_TEST

START_TEST(malformed)
{
	static uint64_t offsets[READER_BATCH_MAX + 1];
	ck_assert_int_eq(send_open(7, made_fd()), 0);
	ck_assert_int_eq(send_symbolize(7, offsets, READER_BATCH_MAX + 1), EBADMSG);
	ck_assert_int_eq(send_symbolize(7, offsets, 0), EBADMSG);
	ck_assert_int_eq(send_symbolize(7, offsets, READER_BATCH_MAX), 0);
	Sprof__Reader__Request nothing = SPROF__READER__REQUEST__INIT;
	ck_assert_int_eq(send_request(&nothing, -1), EBADMSG);
	nothing.sequence = 0;
	Sprof__Reader__Close close_request = SPROF__READER__CLOSE__INIT;
	nothing.what_case = SPROF__READER__REQUEST__WHAT_CLOSE;
	nothing.close = &close_request;
	nothing.file_id = 7;
	send_packet(sprof__reader__request__pack(&nothing, packet), -1); /* sequence 0: not an empty packet */
	ck_assert_int_eq(reply->error, EBADMSG);
	int before = count_fds();
	memset(packet, 0xff, 100);
	send_packet(100, made_fd());
	ck_assert_int_eq(reply->error, EBADMSG);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

static int send_unwind_table(int fd, int memory)
{
	Sprof__Reader__UnwindTable unwind_table = SPROF__READER__UNWIND_TABLE__INIT;
	Sprof__Reader__Request request = SPROF__READER__REQUEST__INIT;
	request.file_id = 7;
	request.what_case = SPROF__READER__REQUEST__WHAT_UNWIND_TABLE;
	request.unwind_table = &unwind_table;
	table_fd = memory;
	return send_request(&request, fd);
}

static int memory_of(off_t bytes)
{
	int fd = memfd_create("table", MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, bytes), 0);
	return fd;
}

static int libc_fd(void)
{
	return open("/lib/x86_64-linux-gnu/libc.so.6", O_RDONLY | O_CLOEXEC);
}

START_TEST(unwind_table)
{
	enum { MEMORY_BYTES = 1 << 20 };
	int memory = memory_of(MEMORY_BYTES), before = count_fds();
	ck_assert_int_eq(send_unwind_table(libc_fd(), dup(memory)), 0);
	uint32_t bytes = reply->unwind_table->total_bytes;
	ck_assert_uint_le(bytes, MEMORY_BYTES);
	void *table = mmap(NULL, MEMORY_BYTES, PROT_READ, MAP_SHARED, memory, 0);
	ck_assert_ptr_ne(table, MAP_FAILED);
	ck_assert(cfi_table_check(table, bytes));
	munmap(table, MEMORY_BYTES);
	ck_assert_uint_gt(reply->unwind_table->n_fdes, 1000);
	ck_assert_uint_eq(reply->unwind_table->n_malformed, 0);
	ck_assert_int_eq(send_unwind_table(libc_fd(), memory_of(bytes)), 0);
	ck_assert_int_eq(send_unwind_table(libc_fd(), memory_of(bytes - 1)), EFBIG);
	ck_assert_int_eq(send_unwind_table(libc_fd(), memory_of(0)), EFBIG);
	ck_assert_int_eq(send_unwind_table(libc_fd(), libc_fd()), EBADF); /* not writable */
	ck_assert_int_eq(send_unwind_table(libc_fd(), -1), EBADMSG);
	ck_assert_int_eq(send_unwind_table(-1, dup(memory)), EBADMSG);
	ck_assert_int_eq(send_unwind_table(made_fd(), dup(memory)), ENODATA);
	ck_assert_str_ne(reply->error_text, "");
	ck_assert_int_eq(send_symbolize(7, (uint64_t[]){0}, 1), ENOENT); /* the file is not open for it */
	ck_assert_int_eq(count_fds(), before);
	close(memory);
}
END_TEST

/* More than fits a packet: the reply ends early, and the rest can be asked for. */
START_TEST(full_packet_ends_early)
{
	enum { N = 40 };
	static char names[N][READER_NAME_MAX_BYTES];
	struct maker_symbol symbols[N];
	uint64_t offsets[N];
	for (int i = 0; i < N; i++) {
		memset(names[i], 'a' + i % 26, sizeof(names[i]) - 1);
		symbols[i] = (struct maker_symbol){(uint64_t)i * 16, 16, STB_GLOBAL, STT_FUNC, names[i]};
		offsets[i] = MAKER_TEXT + (uint64_t)i * 16;
	}
	maker_make(&made, symbols, N);
	ck_assert_int_eq(send_open(7, made_fd()), 0);
	size_t done = 0, rounds = 0;
	for (; done < N; rounds++) {
		ck_assert_int_eq(send_symbolize(7, offsets + done, N - done), 0);
		ck_assert_uint_gt(reply->symbolized->n_frames, 0);
		for (size_t i = 0; i < reply->symbolized->n_frames; i++)
			ck_assert_str_eq(reply->symbolized->frames[i]->frame[0]->name, names[done + i]);
		done += reply->symbolized->n_frames;
	}
	ck_assert_uint_eq(done, N);
	ck_assert_uint_ge(rounds, 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("elf_requests");
	TCase *tests = tcase_create("requests");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, symbols_are_found_by_name);
	tcase_add_test(tests, code_by_its_moment);
	tcase_add_test(tests, symbols_of_broken_files);
	tcase_add_test(tests, open_symbolize_close);
	tcase_add_test(tests, opened_twice);
	tcase_add_test(tests, what_is_no_elf_file);
	tcase_add_test(tests, least_used_files_go);
	tcase_add_test(tests, malformed);
	tcase_add_test(tests, unwind_table);
	tcase_add_test(tests, full_packet_ends_early);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
