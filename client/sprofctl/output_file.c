#include "sprofctl/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ATTEMPTS = 10, NEW_FILE_MODE = 0666 /* less the umask */ };

int write_all(int fd, const uint8_t *data, size_t bytes)
{
	while (bytes > 0) {
		ssize_t n = write(fd, data, bytes);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			bytes -= (size_t)n;
		}
	}
	return 0;
}

static int cannot_write(const char *path, int error, struct problem *problem)
{
	return problem_set(problem, error, "cannot write %s: %s; choose another place with --output=FILE", path,
			   strerror(error));
}

static int open_temporary(struct output_file *file)
{
	const char *slash = strrchr(file->final, '/');
	int directory_length = slash ? (int)(slash - file->final) + 1 : 0;
	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		uint64_t random;
		if (getrandom(&random, sizeof(random), 0) != sizeof(random))
			return -EIO;
		if (snprintf(file->temporary, sizeof(file->temporary), "%.*s.sprofctl.%016" PRIx64 ".tmp",
			     directory_length, file->final, random) >= (int)sizeof(file->temporary))
			break;
		int fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, NEW_FILE_MODE);
		if (fd >= 0 || errno != EEXIST)
			return fd >= 0 ? fd : -errno;
	}
	return -ENAMETOOLONG;
}

int output_file_open(struct output_file *file, const char *path, struct problem *problem)
{
	struct stat st;
	*file = (struct output_file){.fd = -1};
	if (snprintf(file->final, sizeof(file->final), "%s", path) >= (int)sizeof(file->final))
		return problem_set(problem, ENAMETOOLONG, "the name of the --output file is too long");
	bool exists = stat(path, &st) == 0;
	if (exists && S_ISDIR(st.st_mode))
		return problem_set(problem, EISDIR, "%s is a directory: give --output the name of a file", path);
	if (exists && !S_ISREG(st.st_mode)) {
		file->fd = open(path, O_WRONLY | O_CLOEXEC);
		return file->fd < 0 ? cannot_write(path, errno, problem) : 0;
	}
	if (exists && !realpath(path, file->final))
		return cannot_write(path, errno, problem);
	int fd = open_temporary(file);
	if (fd < 0) {
		file->temporary[0] = '\0';
		return cannot_write(path, -fd, problem);
	}
	file->fd = fd;
	file->renames = true;
	return 0;
}

int output_file_write(struct output_file *file, const uint8_t *data, size_t bytes, struct problem *problem)
{
	int r = write_all(file->fd, data, bytes);
	return r < 0 ? cannot_write(file->final, -r, problem) : 0;
}

int output_file_commit(struct output_file *file, bool overwrite, struct problem *problem)
{
	if (!file->renames)
		return 0;
	unsigned flags = overwrite ? 0 : RENAME_NOREPLACE;
	int r = renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->final, flags);
	if (r < 0 && errno == EINVAL && !overwrite) /* a file system that does not know the flag */
		r = rename(file->temporary, file->final);
	if (r < 0)
		return cannot_write(file->final, errno, problem);
	file->temporary[0] = '\0';
	return 0;
}

void output_file_close(struct output_file *file)
{
	if (file->temporary[0])
		unlink(file->temporary);
	if (file->fd >= 0)
		close(file->fd);
	*file = (struct output_file){.fd = -1};
}
