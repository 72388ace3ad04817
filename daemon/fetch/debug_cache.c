#include "fetch/debug_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "proto/fetch_limits.h"

#define PART_SUFFIX ".part"
enum { NAME_BYTES = FETCH_BUILD_ID_MAX_DIGITS + 16, FILE_MODE = 0644 };

static void name_of(const char *build_id, const char *suffix, char name[NAME_BYTES])
{
	snprintf(name, NAME_BYTES, "%s%s", build_id, suffix);
}

/* Of one of our files: what its name ends with; NULL: it is something else. */
static const char *suffix_of(const char *name)
{
	size_t digits = strspn(name, "0123456789abcdef");
	const char *suffix = name + digits;
	bool ours = strcmp(suffix, FETCH_FILE_SUFFIX) == 0 || strcmp(suffix, PART_SUFFIX) == 0;
	return digits >= FETCH_BUILD_ID_MIN_DIGITS && digits <= FETCH_BUILD_ID_MAX_DIGITS && ours ? suffix : NULL;
}

/* From its begin. NULL: it cannot be read. */
static DIR *list(int directory_fd)
{
	int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
	if (!directory && fd >= 0)
		close(fd);
	return directory;
}

static void remove_unfinished(int directory_fd)
{
	_cleanup_closedir_ DIR *directory = list(directory_fd);
	const struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		const char *suffix = suffix_of(entry->d_name);
		if (suffix && strcmp(suffix, PART_SUFFIX) == 0)
			(void)unlinkat(directory_fd, entry->d_name, 0);
	}
}

int debug_cache_open(const char *directory, int *ret_fd)
{
	_cleanup_close_ int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	remove_unfinished(fd);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* By a finer clock than file systems stamp with, whose ticks would make files alike that were used one soon after the other. */
static void mark_used(int directory_fd, const char *name)
{
	struct timespec times[2] = {{0}};
	clock_gettime(CLOCK_REALTIME, &times[0]);
	times[1] = times[0];
	(void)utimensat(directory_fd, name, times, AT_SYMLINK_NOFOLLOW);
}

bool debug_cache_has(int directory_fd, const char *build_id)
{
	char name[NAME_BYTES];
	struct stat st;
	name_of(build_id, FETCH_FILE_SUFFIX, name);
	if (fstatat(directory_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return false;
	mark_used(directory_fd, name);
	return true;
}

int debug_cache_begin(int directory_fd, const char *build_id)
{
	char name[NAME_BYTES];
	name_of(build_id, PART_SUFFIX, name);
	int fd = openat(directory_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
	return fd < 0 ? -errno : fd;
}

int debug_cache_commit(int directory_fd, const char *build_id)
{
	char from[NAME_BYTES], to[NAME_BYTES];
	name_of(build_id, PART_SUFFIX, from);
	name_of(build_id, FETCH_FILE_SUFFIX, to);
	mark_used(directory_fd, from);
	return renameat(directory_fd, from, directory_fd, to) < 0 ? -errno : 0;
}

void debug_cache_abort(int directory_fd, const char *build_id)
{
	char name[NAME_BYTES];
	name_of(build_id, PART_SUFFIX, name);
	(void)unlinkat(directory_fd, name, 0);
}

/* Sums up what is there, and finds the finished file that was used longest ago: oldest[0] is 0 when there is none. */
static uint64_t survey(int directory_fd, char oldest[NAME_BYTES])
{
	_cleanup_closedir_ DIR *directory = list(directory_fd);
	struct timespec used = {0};
	uint64_t bytes = 0;
	const struct dirent *entry;
	oldest[0] = '\0';
	while (directory && (entry = readdir(directory))) {
		const char *suffix = suffix_of(entry->d_name);
		struct stat st;
		if (!suffix || fstatat(directory_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		bytes += (uint64_t)st.st_size;
		bool older = st.st_mtim.tv_sec < used.tv_sec ||
			     (st.st_mtim.tv_sec == used.tv_sec && st.st_mtim.tv_nsec < used.tv_nsec);
		if (strcmp(suffix, FETCH_FILE_SUFFIX) == 0 && (!oldest[0] || older)) {
			used = st.st_mtim;
			snprintf(oldest, NAME_BYTES, "%.*s", NAME_BYTES - 1, entry->d_name);
		}
	}
	return bytes;
}

void debug_cache_trim(int directory_fd, uint64_t max_bytes)
{
	char oldest[NAME_BYTES];
	while (survey(directory_fd, oldest) > max_bytes && oldest[0])
		if (unlinkat(directory_fd, oldest, 0) < 0)
			return;
}
