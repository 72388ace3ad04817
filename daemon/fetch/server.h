/* The socket, its few clients (sprofd, and another one while it restarts), and the loop. One thread. */
#pragma once
#include "base/error.h"

/* Serves until *stop, which a signal handler may set. Closes neither fd. 0, or an error. */
int server_run(int listen_fd, int cache_fd, const volatile int *stop, struct error *err);
