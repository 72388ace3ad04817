/* Takes away everything that parsing files handed over as fds does not need. After it, whatever a hostile file makes of this process can
 * read those files, answer on the socket and burn its own time: opening a path, a socket, executing, mapping code, forking or tracing
 * ends it with SIGSYS. */
#pragma once
#include "base/error.h"

/* The first act of the program, single-threaded, once for good: no_new_privs, not dumpable, another user (when root), no
 * capabilities, limits, seccomp. 0 or -errno; after a failure, leave at once. */
int sandbox_enter(struct error *err);
