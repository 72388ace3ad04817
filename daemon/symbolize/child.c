#include "symbolize/child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proto/reader_limits.h"

enum { DEATH_WAIT_MS = 1000 };

void child_init(struct child *child)
{
	child->pidfd = -1;
	for (int i = 0; i < CHILD_LINGERING_MAX; i++)
		child->lingering[i] = -1;
}

/* True when it is gone, and *pidfd closed. */
static bool reap(int *pidfd, int wait_ms)
{
	struct pollfd event = {.fd = *pidfd, .events = POLLIN};
	if (poll(&event, 1, wait_ms) == 0)
		return false;
	siginfo_t info;
	(void)waitid(P_PIDFD, (id_t)*pidfd, &info, WEXITED | WNOHANG);
	close(TAKE_FD(*pidfd));
	return true;
}

/* A free place, or NULL. */
static int *reap_lingering(struct child *child)
{
	int *free_place = NULL;
	for (int i = 0; i < CHILD_LINGERING_MAX; i++) {
		if (child->lingering[i] < 0 || reap(&child->lingering[i], 0))
			free_place = &child->lingering[i];
	}
	return free_place;
}

void child_kill(struct child *child)
{
	if (child->pidfd < 0)
		return;
	(void)pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
	if (reap(&child->pidfd, DEATH_WAIT_MS))
		return;
	int *place = reap_lingering(child); /* child_start saw to it that there is one */
	if (place)
		*place = TAKE_FD(child->pidfd);
}

void child_release(struct child *child)
{
	(void)reap_lingering(child);
	for (int i = 0; i < CHILD_LINGERING_MAX; i++) {
		if (child->lingering[i] >= 0)
			close(TAKE_FD(child->lingering[i]));
	}
}

static int set_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	int r = posix_spawnattr_setsigmask(attributes, &none);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(attributes, &all);
	if (r == 0) /* a Ctrl-C is for sprofd, which then ends it in order */
		r = posix_spawnattr_setpgroup(attributes, 0);
	if (r == 0)
		r = posix_spawnattr_setflags(attributes,
					     POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	return r;
}

static int set_files(posix_spawn_file_actions_t *files, int socket)
{
	int r = posix_spawn_file_actions_adddup2(files, socket, READER_SOCKET_FD);
	if (r == 0)
		r = posix_spawn_file_actions_addclose(files, STDIN_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_addclose(files, STDOUT_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(files, READER_SOCKET_FD + 1);
	return r;
}

static int spawn(const char *path, int socket, pid_t *ret)
{
	posix_spawnattr_t attributes;
	posix_spawn_file_actions_t files;
	int r = posix_spawnattr_init(&attributes);
	if (r != 0)
		return -r;
	r = posix_spawn_file_actions_init(&files);
	if (r == 0) {
		/* glibc 2.35: the heap asks for huge pages (madvise). */
		static const char huge_pages[] = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1";
		char *arguments[] = {(char *)path, NULL}, *environment[] = {(char *)huge_pages, NULL};
		r = set_attributes(&attributes);
		if (r == 0)
			r = set_files(&files, socket);
		if (r == 0)
			r = posix_spawn(ret, path, &files, &attributes, arguments, environment);
		posix_spawn_file_actions_destroy(&files);
	}
	posix_spawnattr_destroy(&attributes);
	return -r;
}

int child_start(struct child *child, const char *path, int *ret_socket)
{
	int sockets[2];
	if (!reap_lingering(child))
		return -EAGAIN;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return -errno;
	_cleanup_close_ int ours = sockets[0], theirs = sockets[1];
	pid_t pid = -1;
	int r = spawn(path, theirs, &pid);
	if (r < 0)
		return r;
	child->pidfd = pidfd_open(pid, 0); /* ours and not reaped: the number is still its own */
	if (child->pidfd < 0) {
		r = -errno;
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		return r;
	}
	*ret_socket = TAKE_FD(ours);
	return 0;
}
