#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/notify.h"
#include "check_main.h"

static int manager_socket(const char *name, bool abstract)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, name);
	if (abstract)
		address.sun_path[0] = '\0';
	socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, bytes), 0);
	return fd;
}

static void expect(int fd, const char *text)
{
	char got[256];
	ssize_t n = recv(fd, got, sizeof(got) - 1, 0);
	ck_assert_int_ge(n, 0);
	got[n] = '\0';
	ck_assert_str_eq(got, text);
}

START_TEST(tells_the_manager)
{
	char directory[] = "/tmp/sprof-notify-XXXXXX", path[64];
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/notify", directory);
	int fd = manager_socket(path, false);
	setenv("NOTIFY_SOCKET", path, 1);
	notify_send("READY=1\nSTATUS=x");
	expect(fd, "READY=1\nSTATUS=x");
	close(fd);
	unlink(path);
	notify_send("READY=1"); /* the manager is gone: nothing happens */
	rmdir(directory);
}
END_TEST

START_TEST(tells_the_manager_in_the_abstract_namespace)
{
	char name[64];
	snprintf(name, sizeof(name), "@sprof-notify-%d", (int)getpid());
	int fd = manager_socket(name, true);
	setenv("NOTIFY_SOCKET", name, 1);
	notify_send("WATCHDOG=1");
	expect(fd, "WATCHDOG=1");
	close(fd);
}
END_TEST

START_TEST(odd_addresses_are_let_be)
{
	char path[300];
	unsetenv("NOTIFY_SOCKET");
	notify_send("READY=1");
	static const char *const odd[] = {"", "relative", "vsock:2:1234"};
	for (size_t i = 0; i < 3; i++) {
		setenv("NOTIFY_SOCKET", odd[i], 1);
		notify_send("READY=1");
	}
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	setenv("NOTIFY_SOCKET", path, 1);
	notify_send("READY=1");
	ck_assert_int_ge(fcntl(STDERR_FILENO, F_GETFD), 0);
}
END_TEST

START_TEST(the_watchdog)
{
	char pid[16];
	unsetenv("WATCHDOG_PID");
	unsetenv("WATCHDOG_USEC");
	ck_assert_uint_eq(notify_watchdog_interval_us(), 0);
	setenv("WATCHDOG_USEC", "30000000", 1);
	ck_assert_uint_eq(notify_watchdog_interval_us(), 15000000);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_PID", pid, 1);
	ck_assert_uint_eq(notify_watchdog_interval_us(), 15000000);
	setenv("WATCHDOG_PID", "1", 1); /* meant for another */
	ck_assert_uint_eq(notify_watchdog_interval_us(), 0);
	unsetenv("WATCHDOG_PID");
	static const char *const odd[] = {"", "x", "12x", "99999999999999999999999"};
	for (size_t i = 0; i < 4; i++) {
		setenv("WATCHDOG_USEC", odd[i], 1);
		ck_assert_uint_eq(notify_watchdog_interval_us(), 0);
	}
}
END_TEST

static void pass_fds(const char *n, pid_t pid)
{
	char text[16];
	snprintf(text, sizeof(text), "%d", (int)pid);
	setenv("LISTEN_PID", text, 1);
	setenv("LISTEN_FDS", n, 1);
	setenv("LISTEN_FDNAMES", "sprofd.socket", 1);
}

static void put_at_3(int fd)
{
	ck_assert_int_eq(dup2(fd, 3), 3);
	if (fd != 3)
		close(fd);
}

static int unix_socket(int type, bool listening)
{
	int fd = socket(AF_UNIX, type, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (listening) {
		ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0); /* any abstract name */
		ck_assert_int_eq(listen(fd, 5), 0);
	}
	return fd;
}

START_TEST(a_passed_socket_is_taken)
{
	put_at_3(unix_socket(SOCK_STREAM, true));
	pass_fds("1", getpid());
	ck_assert_int_eq(notify_listen_fd(), 3);
	ck_assert_int_eq(fcntl(3, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ck_assert_int_eq(fcntl(3, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	ck_assert_ptr_null(getenv("LISTEN_FDS"));
	ck_assert_ptr_null(getenv("LISTEN_PID"));
	ck_assert_ptr_null(getenv("LISTEN_FDNAMES"));
	ck_assert_int_eq(notify_listen_fd(), -1); /* once */
}
END_TEST

START_TEST(what_is_not_for_us)
{
	put_at_3(unix_socket(SOCK_STREAM, true));
	pass_fds("1", getppid());
	ck_assert_int_eq(notify_listen_fd(), -1);
	ck_assert_ptr_null(getenv("LISTEN_FDS")); /* nor for our children */
	pass_fds("0", getpid());
	ck_assert_int_eq(notify_listen_fd(), -1);
	setenv("LISTEN_FDS", "1", 1);
	ck_assert_int_eq(notify_listen_fd(), -1);
}
END_TEST

START_TEST(what_is_something_else)
{
	put_at_3(unix_socket(SOCK_STREAM, true));
	pass_fds("2", getpid());
	ck_assert_int_eq(notify_listen_fd(), -EINVAL);
	int odd[] = {unix_socket(SOCK_STREAM, false), unix_socket(SOCK_SEQPACKET, true), unix_socket(SOCK_DGRAM, false),
		     socket(AF_INET, SOCK_STREAM, 0), open("/dev/null", O_RDWR)};
	ck_assert_int_eq(listen(odd[3], 1), 0);
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		put_at_3(odd[i]);
		pass_fds("1", getpid());
		if (notify_listen_fd() != -EINVAL)
			ck_abort_msg("case %zu", i);
	}
	close(3);
	pass_fds("1", getpid());
	ck_assert_int_eq(notify_listen_fd(), -EINVAL);
}
END_TEST

CHECK_MAIN("notify", 20, tells_the_manager, tells_the_manager_in_the_abstract_namespace, odd_addresses_are_let_be,
	   the_watchdog, a_passed_socket_is_taken, what_is_not_for_us, what_is_something_else)
