/* The service manager's protocol, sd_notify(3) and sd_listen_fds(3), in the few lines that it takes. Thread: the event loop's. */
#pragma once
#include <event2/event.h>
#include <stdint.h>

/* Sends "READY=1", "STATUS=...", ... to $NOTIFY_SOCKET; does nothing without one. */
void notify_send(const char *state);
/* Half of $WATCHDOG_USEC when it is meant for this process, in microseconds; 0: no watchdog. */
uint64_t notify_watchdog_interval_us(void);
/* The listening Unix socket that the service manager passed, made close-on-exec; -1: none; -EINVAL: what was passed is something else. Clears the
 * environment's words for it. */
int notify_listen_fd(void);
