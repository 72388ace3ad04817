#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_main.h"
#include "model/file.h"

static int new_file(const char *content)
{
	char path[] = "/tmp/sprof-test-XXXXXX";
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	unlink(path);
	ck_assert_int_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
	return fd;
}

static int reopen(int fd)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(again, 0);
	return again;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

START_TEST(one_file_for_one_identity)
{
	struct file_registry *registry = file_registry_new(8);
	int a = new_file("a"), b = new_file("b"), again = reopen(a);
	struct file *file_a, *file_b, *file_again;
	ck_assert_int_eq(file_registry_intern(registry, a, &file_a), 0);
	ck_assert_int_eq(file_registry_intern(registry, b, &file_b), 0);
	ck_assert_int_eq(file_registry_intern(registry, again, &file_again), 0);
	ck_assert_ptr_eq(file_a, file_again);
	ck_assert_ptr_ne(file_a, file_b);
	ck_assert_int_eq(file_a->fd, a);
	ck_assert(!is_open(again));
	ck_assert_uint_eq(file_registry_count(registry), 2);
	uint64_t id = file_a->id;
	file_unref(file_a);
	ck_assert(is_open(a));
	file_unref(file_again);
	ck_assert(!is_open(a));
	ck_assert_uint_eq(file_registry_count(registry), 1);
	file_unref(file_b);
	ck_assert_int_eq(file_registry_intern(registry, new_file("c"), &file_a), 0);
	ck_assert_uint_gt(file_a->id, id + 1); /* never reused */
	file_unref(file_a);
	file_unref(NULL);
	file_registry_free(registry);
	file_registry_free(NULL);
}
END_TEST

START_TEST(a_changed_file_is_another)
{
	struct file_registry *registry = file_registry_new(8);
	int fd = new_file("old");
	struct file *before, *after;
	ck_assert_int_eq(file_registry_intern(registry, reopen(fd), &before), 0);
	ck_assert_int_eq(write(fd, "longer", 6), 6);
	ck_assert_int_eq(file_registry_intern(registry, reopen(fd), &after), 0);
	ck_assert_ptr_ne(before, after);
	ck_assert_uint_eq(before->identity.inode, after->identity.inode);
	ck_assert_uint_eq(before->identity.size_bytes, 3);
	ck_assert_uint_eq(after->identity.size_bytes, 9);
	file_unref(before);
	file_unref(after);
	close(fd);
	file_registry_free(registry);
}
END_TEST

START_TEST(what_is_no_file_is_closed_and_refused)
{
	struct file_registry *registry = file_registry_new(8);
	struct file *file = NULL;
	int fds[2];
	ck_assert_int_eq(pipe(fds), 0);
	int odd[] = {fds[0], fds[1], open("/dev/null", O_RDONLY), open("/", O_RDONLY | O_DIRECTORY)};
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		ck_assert_int_eq(file_registry_intern(registry, odd[i], &file), -EINVAL);
		ck_assert(!is_open(odd[i]));
	}
	ck_assert_int_eq(file_registry_intern(registry, -1, &file), -EBADF);
	ck_assert_ptr_null(file);
	ck_assert_uint_eq(file_registry_count(registry), 0);
	file_registry_free(registry);
}
END_TEST

START_TEST(the_budget_of_fds_holds)
{
	enum { BUDGET = 3, FILES = 10 };
	struct file_registry *registry = file_registry_new(BUDGET);
	struct file *files[FILES];
	int fds[FILES], held[FILES + 1], open_fds = 0;
	held[FILES] = new_file("y");
	for (int i = 0; i < FILES; i++) {
		held[i] = new_file("x"); /* keeps the inode from being reused */
		fds[i] = reopen(held[i]);
		ck_assert_int_eq(file_registry_intern(registry, fds[i], &files[i]), 0);
		ck_assert_int_eq(files[i]->fd >= 0, i < BUDGET);
		open_fds += is_open(fds[i]);
	}
	ck_assert_int_eq(open_fds, BUDGET);
	ck_assert_uint_eq(file_registry_count(registry), FILES);
	file_unref(files[FILES - 1]); /* had none: gives none back */
	ck_assert_int_eq(file_registry_intern(registry, reopen(held[FILES]), &files[FILES - 1]), 0);
	ck_assert_int_lt(files[FILES - 1]->fd, 0);
	file_unref(files[0]); /* had one */
	ck_assert_int_eq(file_registry_intern(registry, new_file("z"), &files[0]), 0);
	ck_assert_int_ge(files[0]->fd, 0);
	for (int i = 0; i < FILES; i++) {
		file_unref(files[i]);
		close(held[i]);
	}
	close(held[FILES]);
	file_registry_free(registry);
}
END_TEST

START_TEST(the_first_build_id_wins)
{
	struct file_registry *registry = file_registry_new(8);
	struct file *file;
	ck_assert_int_eq(file_registry_intern(registry, new_file("x"), &file), 0);
	ck_assert_ptr_null(file_build_id(file));
	char hex[] = "c0ffee";
	file_set_build_id(file, hex);
	hex[0] = 'X';
	file_set_build_id(file, "decaf0");
	ck_assert_str_eq(file_build_id(file), "c0ffee");
	file_unref(file);
	file_registry_free(registry);
}
END_TEST

enum { ROUNDS = 3000, SHARED_FILES = 3 };

struct sharer {
	struct file_registry *registry;
	int fds[SHARED_FILES];
	_Atomic int errors;
};

/* Each look-up may be the one that finds the file just as another thread lets go of its last reference. */
static void *intern_and_let_go(void *context)
{
	struct sharer *sharer = context;
	for (int i = 0; i < ROUNDS; i++) {
		struct file *file;
		if (file_registry_intern(sharer->registry, reopen(sharer->fds[i % SHARED_FILES]), &file) < 0) {
			sharer->errors++;
			continue;
		}
		struct file *second = file_ref(file);
		file_set_build_id(file, i % 2 ? "aa" : "bb");
		const char *id = file_build_id(second);
		if (!id || (strcmp(id, "aa") != 0 && strcmp(id, "bb") != 0))
			sharer->errors++;
		file_unref(file);
		if (second->identity.size_bytes != 1 || (second->fd >= 0 && !is_open(second->fd)))
			sharer->errors++;
		file_unref(second);
	}
	return NULL;
}

START_TEST(threads_share_and_let_go_at_once)
{
	enum { THREADS = 4 };
	struct sharer sharer = {.registry = file_registry_new(2)};
	for (int i = 0; i < SHARED_FILES; i++)
		sharer.fds[i] = new_file("s");
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, intern_and_let_go, &sharer), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(sharer.errors, 0);
	ck_assert_uint_eq(file_registry_count(sharer.registry), 0);
	struct file *files[2];
	for (int i = 0; i < 2; i++) { /* all fds of the budget came back */
		ck_assert_int_eq(file_registry_intern(sharer.registry, sharer.fds[i], &files[i]), 0);
		ck_assert_int_ge(files[i]->fd, 0);
	}
	file_unref(files[0]);
	file_unref(files[1]);
	close(sharer.fds[2]);
	file_registry_free(sharer.registry);
}
END_TEST

CHECK_MAIN("file", 60, one_file_for_one_identity, a_changed_file_is_another, what_is_no_file_is_closed_and_refused,
	   the_budget_of_fds_holds, the_first_build_id_wins, threads_share_and_let_go_at_once)
