#include "app/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { LISTEN_FDS_START = 3 }; /* sd_listen_fds(3) */

void notify_send(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, strlen(path));
	if (path[0] == '@') /* the abstract namespace */
		address.sun_path[0] = '\0';
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
}

/* The variable as a number, when it is one; 0 otherwise. */
static uint64_t number_from_environment(const char *name)
{
	const char *text = getenv(name);
	char *end;
	if (!text || !*text)
		return 0;
	errno = 0;
	uint64_t number = strtoull(text, &end, 10);
	return *end || errno ? 0 : number;
}

uint64_t notify_watchdog_interval_us(void)
{
	if (getenv("WATCHDOG_PID") && number_from_environment("WATCHDOG_PID") != (uint64_t)getpid())
		return 0;
	return number_from_environment("WATCHDOG_USEC") / 2;
}

static int check_listening(int fd)
{
	int type = 0, listening = 0;
	socklen_t bytes = sizeof(int);
	struct sockaddr_storage address = {0};
	socklen_t address_bytes = sizeof(address);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) < 0 || type != SOCK_STREAM ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) < 0 || !listening ||
	    getsockname(fd, (struct sockaddr *)&address, &address_bytes) < 0 || address.ss_family != AF_UNIX)
		return -EINVAL;
	return 0;
}

int notify_listen_fd(void)
{
	bool for_us = number_from_environment("LISTEN_PID") == (uint64_t)getpid();
	uint64_t n = number_from_environment("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	if (!for_us || n == 0)
		return -1;
	if (n != 1 || check_listening(LISTEN_FDS_START) < 0)
		return -EINVAL;
	fcntl(LISTEN_FDS_START, F_SETFD, FD_CLOEXEC);
	fcntl(LISTEN_FDS_START, F_SETFL, fcntl(LISTEN_FDS_START, F_GETFL) | O_NONBLOCK);
	return LISTEN_FDS_START;
}
