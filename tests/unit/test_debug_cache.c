/* The cache directory of sprofd-fetch: what is there, what is never seen half done, and what goes first. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check_main.h"
#include "fetch/debug_cache.h"

enum { FILE_BYTES = 1000, FILES = 8 };

static char directory[64];
static int cache_fd = -1;

static const char *id(unsigned i)
{
	static char text[32];
	snprintf(text, sizeof(text), "%08x", i);
	return text;
}

static void setup(void)
{
	strcpy(directory, "/tmp/sprof-cache-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(debug_cache_open(directory, &cache_fd), 0);
}

static void teardown(void)
{
	debug_cache_trim(cache_fd, 0);
	close(cache_fd);
	ck_assert_int_eq(rmdir(directory), 0);
}

static void begin(unsigned i)
{
	static const char content[FILE_BYTES];
	int fd = debug_cache_begin(cache_fd, id(i));
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, content, FILE_BYTES), FILE_BYTES);
	close(fd);
}

static void add(unsigned i)
{
	begin(i);
	ck_assert_int_eq(debug_cache_commit(cache_fd, id(i)), 0);
}

/* Unlike debug_cache_has, without using it. */
static bool is_there(unsigned i, const char *suffix)
{
	char name[64];
	snprintf(name, sizeof(name), "%s%s", id(i), suffix);
	return faccessat(cache_fd, name, F_OK, 0) == 0;
}

/* All within one tick of the clock that file systems go by. */
START_TEST(what_was_used_longest_ago_goes_first)
{
	for (unsigned first = 0; first < FILES; first++) {
		for (unsigned i = 0; i < FILES; i++)
			add(i);
		for (unsigned i = 1; i < FILES; i++)
			ck_assert(debug_cache_has(cache_fd, id((first + i) % FILES)));
		for (unsigned n = FILES; n > 0; n--) {
			debug_cache_trim(cache_fd, (n - 1) * FILE_BYTES);
			for (unsigned i = 0; i < FILES; i++)
				ck_assert_int_eq(is_there((first + i) % FILES, ".debug"), i > FILES - n);
		}
	}
}
END_TEST

START_TEST(a_new_file_was_used_last)
{
	for (unsigned i = 0; i < 100; i++) {
		add(2 * i);
		ck_assert(debug_cache_has(cache_fd, id(2 * i)));
		add(2 * i + 1);
		debug_cache_trim(cache_fd, FILE_BYTES);
		ck_assert(!is_there(2 * i, ".debug") && is_there(2 * i + 1, ".debug"));
	}
}
END_TEST

START_TEST(half_done)
{
	begin(1);
	ck_assert(!debug_cache_has(cache_fd, id(1)) && is_there(1, ".part"));
	add(2);
	debug_cache_trim(cache_fd, FILE_BYTES); /* it counts, and stays */
	ck_assert(!is_there(2, ".debug") && is_there(1, ".part"));
	debug_cache_abort(cache_fd, id(1));
	ck_assert(!is_there(1, ".part"));
	ck_assert_int_eq(debug_cache_commit(cache_fd, id(1)), -ENOENT);
	begin(1);
	add(2);
	close(cache_fd);
	ck_assert_int_eq(debug_cache_open(directory, &cache_fd), 0); /* another run */
	ck_assert(!is_there(1, ".part") && is_there(2, ".debug"));
}
END_TEST

START_TEST(what_is_not_ours)
{
	static const char *const others[] = {"readme", "0123.debug", "0123456789.txt", "ABCDEF0123.debug"};
	for (size_t i = 0; i < 4; i++)
		close(openat(cache_fd, others[i], O_WRONLY | O_CREAT, 0600));
	ck_assert_int_eq(symlinkat("/dev/null", cache_fd, "0000002a.debug"), 0);
	ck_assert(!debug_cache_has(cache_fd, id(42)));
	debug_cache_trim(cache_fd, 0);
	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(unlinkat(cache_fd, others[i], 0), 0);
}
END_TEST

CHECK_MAIN_WITH(setup, teardown, "debug_cache", 60, what_was_used_longest_ago_goes_first, a_new_file_was_used_last,
		half_done, what_is_not_ours)
