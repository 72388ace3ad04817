/* The conversation with sprofd-fetch, when that is silent, talks nonsense, or is gone: nobody waits longer than was said. */
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "fetch.pb-c.h"
#include "symbolize/fetch_client.h"

#define ID "0123456789abcdef"

enum deed { ANSWER, SILENCE, GARBAGE, ANOTHER, FLOOD, HANG_UP, UNKNOWN_STATE };

static char directory[64], path[80];
static int listen_fd = -1;
static pthread_t thread;
static enum deed deed;
static Sprof__Fetch__Reply__State state;
static struct fetch_client *client;

static void send_reply(int fd, const char *build_id, int reply_state)
{
	uint8_t packet[256];
	Sprof__Fetch__Reply reply = SPROF__FETCH__REPLY__INIT;
	reply.build_id = (char *)build_id;
	reply.state = (Sprof__Fetch__Reply__State)reply_state;
	(void)send(fd, packet, sprof__fetch__reply__pack(&reply, packet), MSG_NOSIGNAL);
}

static void behave(int fd)
{
	switch (deed) {
	case ANSWER:
		send_reply(fd, "ffffffff", SPROF__FETCH__REPLY__STATE__NOWHERE); /* of an earlier question */
		send_reply(fd, ID, (int)state);
		break;
	case GARBAGE:
		(void)send(fd, "\xff\xff\xff\xff", 4, MSG_NOSIGNAL);
		break;
	case ANOTHER:
		send_reply(fd, "ffffffff", SPROF__FETCH__REPLY__STATE__HERE);
		break;
	case FLOOD:
		for (int i = 0; i < 100000; i++)
			send_reply(fd, "ffffffff", SPROF__FETCH__REPLY__STATE__HERE);
		break;
	case UNKNOWN_STATE:
		send_reply(fd, ID, 77);
		break;
	case SILENCE:
	case HANG_UP:
		break;
	}
}

/* One client; its questions are answered until it hangs up. */
static void *serve(void *context)
{
	char packet[8192];
	(void)context;
	int fd = accept(listen_fd, NULL, NULL);
	while (recv(fd, packet, sizeof(packet), 0) > 0 && deed != HANG_UP)
		behave(fd);
	close(fd);
	return NULL;
}

static void start(enum deed what)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(directory, "/tmp/sprof-fetch.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/socket", directory);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(listen_fd, 4), 0);
	deed = what;
	ck_assert_int_eq(pthread_create(&thread, NULL, serve, NULL), 0);
	struct fetch_options options = {.urls = " http://one  http://two ",
					.socket = path,
					.cache_dir = "/cache",
					.timeout_seconds = 5,
					.file_max_mib = 1,
					.cache_max_mib = 2};
	client = fetch_client_new(&options);
	ck_assert_ptr_nonnull(client);
}

static void teardown(void)
{
	fetch_client_free(client);
	client = NULL;
	if (listen_fd < 0)
		return;
	pthread_join(thread, NULL);
	close(listen_fd);
	listen_fd = -1;
	unlink(path);
	rmdir(directory);
}

static char found[PATH_MAX];

static int ask(uint64_t *ret_ms)
{
	uint64_t begin_ns = clock_monotonic_ns();
	int r = fetch_client_ask(client, ID, begin_ns + 20 * NS_PER_S, found);
	*ret_ms = (clock_monotonic_ns() - begin_ns) / NS_PER_MS;
	return r;
}

START_TEST(answers)
{
	uint64_t ms = 0;
	start(ANSWER);
	state = SPROF__FETCH__REPLY__STATE__HERE;
	ck_assert_int_eq(ask(&ms), 0);
	ck_assert_str_eq(found, "/cache/" ID ".debug");
	state = SPROF__FETCH__REPLY__STATE__NOWHERE;
	ck_assert_int_eq(ask(&ms), -ENOENT);
	state = SPROF__FETCH__REPLY__STATE__FAILED;
	ck_assert_int_eq(ask(&ms), -ENOENT);
}
END_TEST

/* One wait is in vain, and the next question waits for nothing. */
START_TEST(silence)
{
	uint64_t ms = 0;
	start(_i ? ANOTHER : SILENCE);
	ck_assert_int_eq(ask(&ms), -EAGAIN);
	ck_assert_uint_ge(ms, 900);
	ck_assert_uint_lt(ms, 5000);
	ck_assert_int_eq(ask(&ms), -EAGAIN);
	ck_assert_uint_lt(ms, 500);
}
END_TEST

START_TEST(the_callers_deadline)
{
	start(SILENCE);
	uint64_t begin_ns = clock_monotonic_ns();
	ck_assert_int_eq(fetch_client_ask(client, ID, begin_ns + 50 * NS_PER_MS, found), -EAGAIN);
	ck_assert_uint_lt(clock_monotonic_ns() - begin_ns, 700 * NS_PER_MS);
}
END_TEST

START_TEST(nonsense)
{
	static const enum deed deeds[] = {GARBAGE, FLOOD, HANG_UP};
	uint64_t ms = 0;
	start(deeds[_i]);
	ck_assert_int_eq(ask(&ms), -EAGAIN);
	ck_assert_uint_lt(ms, 10000);
}
END_TEST

START_TEST(a_state_that_is_none)
{
	uint64_t ms = 0;
	start(UNKNOWN_STATE);
	ck_assert_int_eq(ask(&ms), -ENOENT);
}
END_TEST

START_TEST(nobody_there)
{
	uint64_t ms = 0;
	client = fetch_client_new(&(struct fetch_options){
		.urls = "http://one", .socket = "/nowhere/fetch.sock", .cache_dir = "/cache", .timeout_seconds = 1});
	ck_assert_int_eq(ask(&ms), -EAGAIN);
	ck_assert_uint_lt(ms, 500);
}
END_TEST

START_TEST(off)
{
	uint64_t ms = 0;
	client = fetch_client_new(&(struct fetch_options){.urls = "  "});
	ck_assert_int_eq(ask(&ms), -EOPNOTSUPP);
	fetch_client_free(client);
	client = fetch_client_new(&(struct fetch_options){});
	ck_assert_int_eq(ask(&ms), -EOPNOTSUPP);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fetch_client");
	TCase *tests = tcase_create("fetch_client");
	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_add_test(tests, answers);
	tcase_add_loop_test(tests, silence, 0, 2);
	tcase_add_test(tests, the_callers_deadline);
	tcase_add_loop_test(tests, nonsense, 0, 3);
	tcase_add_test(tests, a_state_that_is_none);
	tcase_add_test(tests, nobody_there);
	tcase_add_test(tests, off);
	tcase_set_timeout(tests, 60);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
