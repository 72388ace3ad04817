/* Least privilege for a daemon that was started as root by hand; under systemd the unit has done it. */
#pragma once

/* Keeps of the capabilities only the six that sprofd needs, CAP_DAC_OVERRIDE where without it the socket could not be
 * removed at the end, and CAP_SYS_ADMIN while kernel.perf_event_paranoid is above 2: Debian's kernels then ask for it. */
void privileges_drop(const char *socket_path);
