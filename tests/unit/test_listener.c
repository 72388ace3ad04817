#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/listener.h"
#include "base/clock.h"
#include "check_main.h"

static char directory[64], path[108];
static struct listener_options options;
static bool group_missing;
static struct error err;

static void setup(void)
{
	strcpy(directory, "/tmp/sprof-listener-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/s", directory);
	options = (struct listener_options){.path = path, .mode = 0600, .group = ""};
	err = (struct error){0};
}

static void teardown(void)
{
	unlink(path);
	ck_assert_int_eq(rmdir(directory), 0);
}

static int open_it(struct listener *listener)
{
	return listener_open(listener, &options, &group_missing, &err);
}

static int connect_to(const char *to)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, to);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	int error = errno;
	close(fd);
	return -error;
}

static void make_stale(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	listen(fd, 1);
	close(fd);
	ck_assert_int_eq(access(path, F_OK), 0);
}

START_TEST(listens_and_leaves_nothing)
{
	struct listener listener;
	struct stat st;
	setup();
	options.mode = 0640;
	ck_assert_int_eq(open_it(&listener), 0);
	ck_assert(listener.ours && !group_missing);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0640);
	ck_assert_int_eq(fcntl(listener.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ck_assert_int_eq(fcntl(listener.fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	int client = connect_to(path), accepted = accept(listener.fd, NULL, NULL);
	ck_assert_int_ge(client, 0);
	ck_assert_int_ge(accepted, 0);
	close(client);
	close(accepted);
	listener_close(&listener);
	ck_assert_int_lt(listener.fd, 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	listener_close(&listener); /* twice is fine */
	teardown();
}
END_TEST

START_TEST(the_umask_is_left_as_it_was)
{
	struct listener listener;
	setup();
	umask(0027);
	ck_assert_int_eq(open_it(&listener), 0);
	ck_assert_uint_eq(umask(0022), 0027);
	listener_close(&listener);
	teardown();
}
END_TEST

START_TEST(groups)
{
	struct listener listener;
	setup();
	options.group = "no-such-group-here";
	ck_assert_int_eq(open_it(&listener), 0);
	ck_assert(group_missing);
	listener_close(&listener);
	if (geteuid() == 0) {
		struct stat st;
		options.group = "daemon";
		ck_assert_int_eq(open_it(&listener), 0);
		ck_assert(!group_missing);
		ck_assert_int_eq(stat(path, &st), 0);
		ck_assert_uint_eq(st.st_gid, getgrnam("daemon")->gr_gid);
		listener_close(&listener);
	}
	teardown();
}
END_TEST

START_TEST(a_stale_socket_is_replaced)
{
	struct listener listener;
	setup();
	make_stale();
	ck_assert_int_eq(connect_to(path), -ECONNREFUSED);
	ck_assert_int_eq(open_it(&listener), 0);
	int client = connect_to(path);
	ck_assert_int_ge(client, 0);
	close(client);
	listener_close(&listener);
	teardown();
}
END_TEST

START_TEST(a_live_one_is_refused_and_left_alone)
{
	struct listener first, second;
	setup();
	ck_assert_int_eq(open_it(&first), 0);
	ck_assert_int_eq(open_it(&second), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.text, "another sprofd"));
	listener_close(&second);
	int client = connect_to(path);
	ck_assert_int_ge(client, 0);
	close(client);
	listener_close(&first);
	teardown();
}
END_TEST

START_TEST(a_live_one_too_busy_to_answer_is_refused_too)
{
	struct listener first, second;
	int clients[600], n = 0;
	setup();
	ck_assert_int_eq(open_it(&first), 0);
	while (n < 600 && (clients[n] = connect_to(path)) >= 0)
		n++;
	ck_assert_int_lt(n, 600); /* its queue is full */
	ck_assert_int_eq(open_it(&second), -EADDRINUSE);
	while (n > 0)
		close(clients[--n]);
	listener_close(&first);
	teardown();
}
END_TEST

START_TEST(what_is_no_socket_is_left_alone)
{
	struct listener listener;
	setup();
	close(open(path, O_CREAT | O_WRONLY, 0600));
	ck_assert_int_eq(open_it(&listener), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.text, "no socket"));
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(symlink("/nowhere", path), 0);
	ck_assert_int_eq(open_it(&listener), -EEXIST);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(open_it(&listener), -EEXIST);
	ck_assert_int_eq(rmdir(path), 0);
	teardown();
}
END_TEST

START_TEST(paths_that_cannot_be)
{
	struct listener listener;
	char long_path[200], missing[128];
	setup();
	memset(long_path, 'x', sizeof(long_path));
	memcpy(long_path, "/tmp/", 5);
	for (size_t length = 107; length <= 199; length += 92) {
		long_path[length] = '\0';
		options.path = long_path;
		int r = open_it(&listener);
		ck_assert_int_eq(r, length == 107 ? 0 : -ENAMETOOLONG);
		listener_close(&listener);
		long_path[length] = 'x';
	}
	long_path[108] = '\0';
	ck_assert_int_eq(open_it(&listener), -ENAMETOOLONG);
	snprintf(missing, sizeof(missing), "%s/no/s", directory);
	options.path = missing;
	ck_assert_int_eq(open_it(&listener), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "directory does not exist"));
	options.path = "";
	ck_assert_int_lt(open_it(&listener), 0);
	ck_assert_int_lt(listener.fd, 0);
	teardown();
}
END_TEST

START_TEST(only_its_own_socket_is_removed)
{
	struct listener first, second;
	setup();
	ck_assert_int_eq(open_it(&first), 0);
	ck_assert_int_eq(unlink(path), 0);     /* somebody did that by hand, */
	ck_assert_int_eq(open_it(&second), 0); /* and started another */
	listener_close(&first);
	int client = connect_to(path);
	ck_assert_int_ge(client, 0);
	close(client);
	listener_close(&second);
	ck_assert_int_eq(access(path, F_OK), -1);
	teardown();
}
END_TEST

START_TEST(of_many_daemons_at_once_one_serves)
{
	enum { DAEMONS = 12, ROUNDS = 8 };
	for (int round = 0; round < ROUNDS; round++) {
		setup();
		if (round % 2)
			make_stale();
		int go[2], up[2], end[2];
		char served = 0, byte = 1;
		ck_assert_int_eq(pipe(go), 0);
		ck_assert_int_eq(pipe(up), 0);
		ck_assert_int_eq(pipe(end), 0);
		pid_t daemons[DAEMONS];
		for (int i = 0; i < DAEMONS; i++) {
			daemons[i] = fork();
			if (daemons[i] != 0)
				continue;
			struct listener listener;
			close(go[1]);
			close(up[0]);
			close(end[1]);
			while (read(go[0], &byte, 1) > 0)
				;
			int r = open_it(&listener);
			char word = r == 0 ? 's' : r == -EADDRINUSE ? 'r' : 'x';
			ssize_t written = write(up[1], &word, 1);
			while (read(end[0], &byte, 1) > 0) /* serves until all others have tried */
				;
			_exit(written != 1);
		}
		close(go[0]);
		close(up[1]);
		close(go[1]);
		int refused = 0;
		char words[DAEMONS];
		for (int i = 0; i < DAEMONS; i++) {
			ck_assert_int_eq(read(up[0], &words[i], 1), 1);
			served += words[i] == 's';
			refused += words[i] == 'r';
		}
		ck_assert_int_eq(served, 1);
		ck_assert_int_eq(refused, DAEMONS - 1);
		close(up[0]);
		close(end[0]);
		close(end[1]);
		for (int i = 0; i < DAEMONS; i++)
			waitpid(daemons[i], NULL, 0);
		teardown();
	}
}
END_TEST

START_TEST(nobody_can_hold_up_the_start)
{
	struct listener listener;
	setup();
	int theirs = open(directory, O_RDONLY | O_DIRECTORY); /* whoever may read the directory may lock it */
	ck_assert_int_eq(flock(theirs, LOCK_EX), 0);
	uint64_t before_ns = clock_monotonic_ns();
	alarm(20);
	ck_assert_int_eq(open_it(&listener), 0);
	listener_close(&listener);
	alarm(0);
	ck_assert_uint_lt(clock_monotonic_ns() - before_ns, 10 * NS_PER_S);
	close(theirs);
	teardown();
}
END_TEST

START_TEST(a_passed_socket_is_not_removed)
{
	struct listener listener;
	char pid[16];
	setup();
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	dup2(fd, 3);
	if (fd != 3)
		close(fd);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "1", 1);
	ck_assert_int_eq(open_it(&listener), 0);
	ck_assert_int_eq(listener.fd, 3);
	listener_close(&listener);
	ck_assert_int_eq(access(path, F_OK), 0);
	setenv("LISTEN_PID", pid, 1); /* and what is no socket is an error, not overlooked */
	setenv("LISTEN_FDS", "1", 1);
	dup2(STDERR_FILENO, 3);
	ck_assert_int_eq(open_it(&listener), -EINVAL);
	teardown();
}
END_TEST

CHECK_MAIN("listener", 60, listens_and_leaves_nothing, the_umask_is_left_as_it_was, groups, a_stale_socket_is_replaced,
	   a_live_one_is_refused_and_left_alone, a_live_one_too_busy_to_answer_is_refused_too,
	   what_is_no_socket_is_left_alone, paths_that_cannot_be, only_its_own_socket_is_removed,
	   of_many_daemons_at_once_one_serves, nobody_can_hold_up_the_start, a_passed_socket_is_not_removed)
