/* When a process or thread began, as the kernel tells it (proc(5), field 22 of stat). No stdio: async-signal-safe. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { STATE_FIELD = 3, STARTTIME_FIELD = 22 };

static uint64_t parse(const char *text)
{
	const char *p = strrchr(text, ')'); /* the name may hold anything */
	if (!p)
		return 0;
	for (int field = STATE_FIELD - 1; field < STARTTIME_FIELD; field++) {
		p = strchr(p, ' ');
		if (!p)
			return 0;
		p++;
	}
	uint64_t value = 0;
	for (; *p >= '0' && *p <= '9'; p++)
		value = value * 10 + (uint64_t)(*p - '0');
	return value;
}

uint64_t read_starttime(const char *path)
{
	char text[1024];
	int saved = errno;
	uint64_t value = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t n = read(fd, text, sizeof(text) - 1);
		if (n > 0) {
			text[n] = '\0';
			value = parse(text);
		}
		close(fd);
	}
	errno = saved;
	return value;
}
