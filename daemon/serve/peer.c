#include "serve/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* The kernel gives all of the groups, or with too small a buffer only how many bytes they take. */
static int read_groups(int fd, struct serve_peer *peer)
{
	socklen_t bytes = sizeof(peer->groups);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &bytes) == 0) {
		peer->n_groups = bytes / sizeof(gid_t);
		return 0;
	}
	if (errno != ERANGE)
		return -errno;
	gid_t *groups = malloc(bytes);
	if (!groups)
		return -ENOMEM;
	int r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) < 0 ? -errno : 0;
	if (r == 0) {
		memcpy(peer->groups, groups, sizeof(peer->groups));
		peer->n_groups = sizeof(peer->groups) / sizeof(gid_t);
	}
	free(groups);
	return r;
}

int peer_read(int fd, struct serve_peer *ret)
{
	struct ucred credentials;
	socklen_t bytes = sizeof(credentials);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) < 0)
		return -errno;
	struct serve_peer peer = {.uid = credentials.uid, .gid = credentials.gid, .pid = credentials.pid};
	int r = read_groups(fd, &peer);
	if (r == 0)
		*ret = peer;
	return r;
}
