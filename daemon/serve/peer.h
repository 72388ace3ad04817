/* Who is at the other end of a Unix socket. Thread: any. */
#pragma once
#include "serve/serve.h"

/* By SO_PEERCRED and SO_PEERGROUPS, as they were when the peer connected. 0 or -errno. */
int peer_read(int fd, struct serve_peer *ret);
