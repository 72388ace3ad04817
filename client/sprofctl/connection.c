#include "sprofctl/connection.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "sprofctl/cleanup.h"

enum { CONNECT_TIMEOUT_MS = 10 * 1000, CONNECT_AGAIN_MS = 20, TICK_MS = 1000 };
#define HOW_TO_START "start it with `systemctl start sprofd`, or name its socket with --socket=PATH or SPROFD_SOCKET"

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Waits for events of fd (-1: of none), for at_most_ms. 1: they are there; 0: they are not, yet; -EINTR or -ETIMEDOUT with *problem. */
static int wait_a_while(struct connection *connection, int fd, short events, int64_t at_most_ms,
			struct problem *problem)
{
	struct pollfd fds[] = {{.fd = connection->interrupt_fd, .events = POLLIN}, {.fd = fd, .events = events}};
	int64_t now = now_ms();
	if (connection->timeout_s && now >= connection->deadline_ms)
		return problem_set(problem, ETIMEDOUT,
				   "sprofd on %s does not answer: see what it says with `journalctl -u sprofd`, or "
				   "restart it with `systemctl restart sprofd`",
				   connection->path);
	if (connection->timeout_s && at_most_ms > connection->deadline_ms - now)
		at_most_ms = connection->deadline_ms - now;
	int r = poll(fds, sizeof(fds) / sizeof(fds[0]), (int)at_most_ms);
	if (r < 0 && errno != EINTR)
		return problem_set(problem, errno, "cannot wait for sprofd: %s", strerror(errno));
	if (r > 0 && fds[0].revents)
		return problem_set(problem, EINTR, "interrupted");
	return r > 0 && fds[1].revents;
}

/* 0 once the socket is ready for it, or -errno with *problem. */
static int wait_for(struct connection *connection, short events, struct problem *problem)
{
	for (;;) {
		int64_t left = connection->tick_ms - now_ms();
		if (left <= 0) {
			if (connection->tick)
				connection->tick(connection->context);
			connection->tick_ms = now_ms() + TICK_MS;
			left = TICK_MS;
		}
		int r = wait_a_while(connection, connection->fd, events, left, problem);
		if (r)
			return r < 0 ? r : 0;
	}
}

static int explain_permission(const char *path, struct problem *problem)
{
	struct stat st;
	const struct passwd *user = getpwuid(geteuid());
	const struct group *group = stat(path, &st) == 0 && st.st_gid != 0 ? getgrgid(st.st_gid) : NULL;
	const char *group_name = group ? group->gr_name : "sprof";
	return problem_set(
		problem, EACCES,
		"permission denied on the socket %s: it is for root and members of group %s; run as root, or "
		"`usermod -aG %s %s` and log in again",
		path, group_name, group_name, user ? user->pw_name : "USER");
}

static int explain_connect(const char *path, int error, struct problem *problem)
{
	switch (error) {
	case ENOENT:
		return problem_set(problem, error, "sprofd is not running: there is no socket %s; " HOW_TO_START, path);
	case ECONNREFUSED:
		return problem_set(problem, error, "sprofd is not running: nobody serves the socket %s; " HOW_TO_START,
				   path);
	case EACCES:
	case EPERM:
		return explain_permission(path, problem);
	case EAGAIN:
		return problem_set(problem, EAGAIN, "sprofd on %s is too busy to answer: try again", path);
	default:
		return problem_set(problem, error, "cannot connect to sprofd on %s: %s; " HOW_TO_START, path,
				   strerror(error));
	}
}

int connection_open(struct connection *connection, struct problem *problem)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int64_t began = now_ms();
	connection->fd = -1;
	connection->deadline_ms = began + connection->timeout_s * 1000LL;
	connection->tick_ms = began + TICK_MS;
	if (strlen(connection->path) >= sizeof(address.sun_path))
		return problem_set(problem, ENAMETOOLONG,
				   "the socket's path has more than the %zu bytes that Unix sockets allow: %s",
				   sizeof(address.sun_path) - 1, connection->path);
	memcpy(address.sun_path, connection->path, strlen(connection->path));
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return problem_set(problem, errno, "cannot make a socket: %s", strerror(errno));
	/* A full queue is told by EAGAIN at once, and nothing tells when there is room. */
	while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = errno;
		if (error != EAGAIN || now_ms() >= began + CONNECT_TIMEOUT_MS)
			return explain_connect(connection->path, error, problem);
		int r = wait_a_while(connection, -1, 0, CONNECT_AGAIN_MS, problem);
		if (r < 0)
			return r;
	}
	connection->fd = TAKE_FD(fd);
	return 0;
}

void connection_close(struct connection *connection)
{
	if (connection->fd >= 0)
		close(connection->fd);
	connection->fd = -1;
}

int connection_send(struct connection *connection, const void *data, size_t bytes, struct problem *problem)
{
	for (const char *at = data; bytes > 0;) {
		ssize_t n = send(connection->fd, at, bytes, MSG_NOSIGNAL);
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return 0;
		if (n < 0 && errno != EAGAIN)
			return problem_set(problem, errno, "cannot send to sprofd on %s: %s", connection->path,
					   strerror(errno));
		if (n > 0) {
			at += n;
			bytes -= (size_t)n;
			continue;
		}
		int r = wait_for(connection, POLLOUT, problem);
		if (r < 0)
			return r;
	}
	return 0;
}

ssize_t connection_receive(struct connection *connection, void *ret, size_t bytes, struct problem *problem)
{
	for (;;) {
		int r = wait_for(connection, POLLIN, problem);
		if (r < 0)
			return r;
		ssize_t n = recv(connection->fd, ret, bytes, 0);
		if (n >= 0)
			return n;
		if (errno == ECONNRESET)
			return 0;
		if (errno != EAGAIN)
			return problem_set(problem, errno, "cannot read what sprofd on %s answers: %s",
					   connection->path, strerror(errno));
	}
}
