#include "serve/peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

/* All of the groups, or nothing: with too small a buffer the kernel tells only how many bytes they take. */
static int read_groups(int fd, gid_t **ret, size_t *ret_n)
{
	socklen_t bytes = 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &bytes) < 0 && errno != ERANGE)
		return -errno;
	_cleanup_free_ gid_t *groups = malloc(bytes ? bytes : 1);
	if (!groups)
		return -ENOMEM;
	if (bytes && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) < 0)
		return -errno;
	*ret_n = bytes / sizeof(gid_t);
	*ret = TAKE_PTR(groups);
	return 0;
}

int peer_read(int fd, struct serve_peer *ret)
{
	struct ucred credentials;
	socklen_t bytes = sizeof(credentials);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) < 0)
		return -errno;
	_cleanup_free_ gid_t *groups = NULL;
	size_t n = 0;
	int r = read_groups(fd, &groups, &n);
	if (r < 0)
		return r;
	struct serve_peer peer = {.uid = credentials.uid, .gid = credentials.gid, .pid = credentials.pid};
	size_t room = sizeof(peer.groups) / sizeof(peer.groups[0]);
	peer.n_groups = n < room ? n : room;
	memcpy(peer.groups, groups, peer.n_groups * sizeof(gid_t));
	*ret = peer;
	return 0;
}
