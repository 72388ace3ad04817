/* sprofd.conf: whatever is in it, the settings stay within their bounds, and an error says where. */
#undef NDEBUG /* a check that is left out checks nothing */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "app/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_bounds(const struct settings *settings)
{
	assert(strnlen(settings->socket, sizeof(settings->socket)) < sizeof(settings->socket));
	assert(strnlen(settings->socket_group, sizeof(settings->socket_group)) < sizeof(settings->socket_group));
	assert(strnlen(settings->reader, sizeof(settings->reader)) < sizeof(settings->reader));
	assert(settings->socket_mode <= 0777);
	assert(settings->log_level >= LOG_ERROR && settings->log_level <= LOG_DEBUG);
	assert(settings->frequency_hz >= 1 && settings->frequency_hz <= 100000);
	assert(settings->ring_mib >= 1 && settings->ring_mib <= 1024);
	assert(settings->target_mib >= 1 && settings->target_mib <= 4096);
	assert(settings->unwind_mib >= 1 && settings->unwind_mib <= 65536);
	assert(settings->exited_seconds <= 86400);
	assert(settings->max_targets >= 1 && settings->max_targets <= 1024);
	assert(settings->max_connections >= 1 && settings->max_connections <= 100000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct settings settings;
	struct error err = {0};
	char path[64];
	int fd = memfd_create("sprofd.conf", MFD_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t written = bytes ? write(fd, data, bytes) : 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	settings_defaults(&settings);
	int r = written == (ssize_t)bytes ? settings_read(&settings, path, &err) : 0;
	close(fd);
	check_bounds(&settings);
	assert((r < 0) == (err.code != 0));
	assert(!err.code || (strstr(err.text, ", line ") && !strpbrk(err.text, "\n\r\033")));
	return 0;
}
