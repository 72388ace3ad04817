/* pprof: go tool pprof on what a pull gives. The profile is an anonymous file that pprof inherits, so nothing has to be cleaned up
 * after it, however it ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sprofctl/cleanup.h"
#include "sprofctl/commands.h"
#include "sprofctl/output_file.h"
#include "sprofctl/pull.h"

static int write_memory(void *context, const uint8_t *data, size_t bytes, struct problem *problem)
{
	int r = write_all(*(const int *)context, data, bytes);
	return r < 0 ? problem_set(problem, -r, "cannot keep the profile: %s", strerror(-r)) : 0;
}

/* Looks before the seconds of a pull are spent. */
static bool is_installed(const char *program)
{
	const char *path = getenv("PATH");
	char candidate[4096];
	while (path && *path) {
		size_t length = strcspn(path, ":");
		snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)length, path, program);
		if (access(candidate, X_OK) == 0)
			return true;
		path += length + (path[length] == ':');
	}
	return false;
}

static int no_go(struct problem *problem)
{
	return problem_set(
		problem, ENOENT,
		"go is not installed, and `go tool pprof` is part of it: install it (apt install golang-go), or use "
		"`sprofctl pull` and open the file elsewhere");
}

/* Does not return when it succeeds. */
static int run_pprof(char **arguments, int fd, struct problem *problem)
{
	char file[32];
	size_t n = 0;
	char *const *from = arguments;
	while (arguments[n])
		n++;
	char **argv = calloc(n + 5, sizeof(*argv));
	if (!argv)
		return problem_set(problem, ENOMEM, "out of memory");
	snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
	char **to = argv;
	*to++ = (char *)"go";
	*to++ = (char *)"tool";
	*to++ = (char *)"pprof";
	while (*from)
		*to++ = *from++;
	*to = file;
	execvp("go", argv);
	int error = errno;
	free(argv);
	return error == ENOENT ? no_go(problem) : problem_set(problem, error, "cannot run go: %s", strerror(error));
}

int command_pprof(const struct command_line *command_line, struct problem *problem)
{
	_cleanup_close_ int fd = -1;
	struct pull_sink sink = {.write = write_memory, .context = &fd, .interrupt_fd = -1};
	if (!is_installed("go"))
		return no_go(problem);
	fd = memfd_create("profile", 0); /* not close-on-exec: pprof reads it */
	if (fd < 0)
		return problem_set(problem, errno, "cannot keep the profile in memory: %s", strerror(errno));
	int r = pull_profile(command_line, &sink, problem);
	return r < 0 ? r : run_pprof(command_line->pprof_arguments, fd, problem);
}
