#include "app/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/notify.h"
#include "base/cleanup.h"

enum { BACKLOG = 128, LOCK_TRIES = 40, LOCK_PAUSE_US = 50000 };

static int fail_on(const char *path, int error, struct error *err)
{
	if (error == ENOENT)
		return error_set(
			err, ENOENT,
			"cannot make the socket %s: its directory does not exist; create it, or give another --socket",
			path);
	return error_set(err, error, "cannot make the socket %s: %s", path, strerror(error));
}

/* Locks the socket's directory, so that two daemons that start at once do not take each other's socket for stale. */
static int lock_directory(const char *path)
{
	char copy[PATH_MAX];
	strncpy(copy, path, sizeof(copy) - 1);
	copy[sizeof(copy) - 1] = '\0';
	int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Released with the fd. Whoever may read the directory may hold the lock for ever: then we go without. */
	for (int i = 0; i < LOCK_TRIES && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK; i++)
		usleep(LOCK_PAUSE_US);
	return fd;
}

/* Makes room at the path: removes a socket on which nobody listens. */
static int replace_stale(const struct sockaddr_un *address, struct error *err)
{
	struct stat st;
	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : fail_on(address->sun_path, errno, err);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, EEXIST, "%s exists and is no socket: remove it, or give another --socket",
				 address->sun_path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail_on(address->sun_path, errno, err);
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return error_set(
			err, EADDRINUSE,
			"another sprofd is serving %s: stop it first (systemctl stop sprofd), or give another --socket",
			address->sun_path);
	if (errno != ECONNREFUSED)
		return fail_on(address->sun_path, errno, err);
	if (unlink(address->sun_path) < 0 && errno != ENOENT)
		return fail_on(address->sun_path, errno, err);
	return 0;
}

static int set_owner(const char *path, const struct listener_options *options, bool *ret_group_missing)
{
	const struct group *group = options->group[0] ? getgrnam(options->group) : NULL;
	*ret_group_missing = options->group[0] && !group;
	if (group && chown(path, (uid_t)-1, group->gr_gid) < 0)
		*ret_group_missing = true; /* not ours to give: then only we ourselves and root can connect */
	return chmod(path, options->mode) < 0 ? -errno : 0;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address, const struct listener_options *options,
			   bool *ret_group_missing)
{
	mode_t before = umask(0177); /* nobody else may connect until owner and mode are right */
	int r = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
	umask(before);
	if (r == 0)
		r = set_owner(address->sun_path, options, ret_group_missing);
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	return r;
}

static int open_own(struct listener *listener, const struct listener_options *options, bool *ret_group_missing,
		    struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(options->path) >= sizeof(address.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "the socket's path is longer than the %zu bytes that Unix sockets allow: %s",
				 sizeof(address.sun_path) - 1, options->path);
	strcpy(address.sun_path, options->path);
	_cleanup_close_ int lock = lock_directory(options->path);
	if (lock < 0)
		return fail_on(options->path, -lock, err);
	int r = replace_stale(&address, err);
	if (r < 0)
		return r;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail_on(options->path, errno, err);
	r = bind_and_listen(fd, &address, options, ret_group_missing);
	struct stat st = {0};
	if (r == 0 && lstat(options->path, &st) < 0)
		r = -errno;
	if (r < 0)
		return fail_on(options->path, -r, err);
	strcpy(listener->path, options->path);
	listener->device = st.st_dev;
	listener->inode = st.st_ino;
	listener->ours = true;
	listener->fd = TAKE_FD(fd);
	return 0;
}

int listener_open(struct listener *listener, const struct listener_options *options, bool *ret_group_missing,
		  struct error *err)
{
	*listener = (struct listener){.fd = -1};
	*ret_group_missing = false;
	int fd = notify_listen_fd();
	if (fd == -EINVAL)
		return error_set(err, EINVAL,
				 "the service manager passed something else than one listening Unix stream socket: see "
				 "ListenStream= in sprofd.socket");
	if (fd >= 0) {
		listener->fd = fd;
		return 0;
	}
	return open_own(listener, options, ret_group_missing, err);
}

void listener_close(struct listener *listener)
{
	struct stat st;
	/* While we hold it open its inode cannot pass to another daemon's socket, and under the lock none can take its place. */
	_cleanup_close_ int lock = listener->ours ? lock_directory(listener->path) : -1;
	if (listener->ours && lstat(listener->path, &st) == 0 && st.st_dev == listener->device &&
	    st.st_ino == listener->inode)
		unlink(listener->path);
	if (listener->fd >= 0)
		close(listener->fd);
	*listener = (struct listener){.fd = -1};
}
