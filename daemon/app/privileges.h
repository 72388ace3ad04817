/* Least privilege for a daemon that was started as root by hand; under systemd the unit has done it. */
#pragma once

/* Keeps of the capabilities only the six that sprofd needs, and CAP_DAC_OVERRIDE where without it the socket could not be removed at the end. */
void privileges_drop(const char *socket_path);
