#include "symbolize/opener.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"

enum { LEFT_BEHIND_MAX = 8, PROC_PATH_BYTES = 64, STACK_BYTES = 64 << 10 };
#define OPEN_MAX_NS (1 * NS_PER_S)
#define SHUN_NS     (60 * NS_PER_S)

/* A root where an open did not come back. */
struct shunned {
	dev_t device;
	ino_t inode;
	uint64_t until_ns;
};

/* Shared between the opener and the threads it has left behind. */
struct opener {
	pthread_mutex_t lock;
	pthread_cond_t done;
	unsigned references, left_behind;
	struct shunned shunned[LEFT_BEHIND_MAX];
	unsigned next_shunned; /* the place of the next one */
};

struct attempt {
	struct opener *opener; /* a reference */
	int root_fd;           /* -1: ours */
	uint32_t uid;
	bool elf_only;
	char *path;
	bool finished, abandoned; /* under the opener's lock */
	int result, fd;
};

struct opener *opener_new(void)
{
	struct opener *opener = calloc(1, sizeof(*opener));
	pthread_condattr_t attributes;
	if (!opener || pthread_condattr_init(&attributes) != 0) {
		free(opener);
		return NULL;
	}
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&opener->done, &attributes);
	pthread_condattr_destroy(&attributes);
	pthread_mutex_init(&opener->lock, NULL);
	opener->references = 1;
	return opener;
}

static void unref(struct opener *opener)
{
	pthread_mutex_lock(&opener->lock);
	bool last = --opener->references == 0;
	pthread_mutex_unlock(&opener->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&opener->lock);
	pthread_cond_destroy(&opener->done);
	free(opener);
}

void opener_free(struct opener *opener)
{
	if (opener)
		unref(opener);
}

static void free_attempt(struct attempt *attempt)
{
	if (attempt->root_fd >= 0)
		close(attempt->root_fd);
	if (attempt->fd >= 0)
		close(attempt->fd);
	free(attempt->path);
	free(attempt);
}

/* First as a mere place (O_PATH), which opens no device and wakes nobody; then what is there, if it is a file. */
static int open_file(const struct attempt *attempt, int *ret_fd)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	_cleanup_close_ int own_root = attempt->root_fd < 0 ? open("/", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	int root = attempt->root_fd < 0 ? own_root : attempt->root_fd;
	_cleanup_close_ int place = (int)syscall(SYS_openat2, root, attempt->path, &how, sizeof(how));
	if (place < 0)
		return -errno;
	struct stat st;
	char path[PROC_PATH_BYTES];
	if (fstat(place, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (attempt->uid != OPENER_ANY_USER && st.st_uid != attempt->uid && st.st_uid != 0)
		return -EPERM;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
	int fd = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* Here and not by whoever asked: reading may block as opening may. */
static int check_magic(int fd)
{
	char magic[SELFMAG];
	if (pread(fd, magic, SELFMAG, 0) != SELFMAG || memcmp(magic, ELFMAG, SELFMAG) != 0)
		return -ENOEXEC;
	return 0;
}

static void *run(void *context)
{
	struct attempt *attempt = context;
	struct opener *opener = attempt->opener;
	int fd = -1, result = open_file(attempt, &fd);
	if (result == 0 && attempt->elf_only)
		result = check_magic(fd);
	if (result < 0 && fd >= 0)
		close(TAKE_FD(fd));
	pthread_mutex_lock(&opener->lock);
	attempt->result = result;
	attempt->fd = fd;
	attempt->finished = true;
	bool abandoned = attempt->abandoned;
	if (abandoned)
		opener->left_behind--;
	pthread_cond_broadcast(&opener->done);
	pthread_mutex_unlock(&opener->lock);
	if (abandoned) {
		free_attempt(attempt);
		unref(opener);
	}
	return NULL;
}

static int start(struct attempt *attempt)
{
	pthread_t thread;
	pthread_attr_t attributes;
	int r = pthread_attr_init(&attributes);
	if (r != 0)
		return -r;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	r = pthread_create(&thread, &attributes, run, attempt);
	pthread_attr_destroy(&attributes);
	return -r;
}

/* Whether the attempt is still ours afterwards. */
static bool await(struct opener *opener, struct attempt *attempt, uint64_t until_ns)
{
	struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};
	int r = 0;
	pthread_mutex_lock(&opener->lock);
	while (!attempt->finished && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&opener->done, &opener->lock, &until);
	bool finished = attempt->finished;
	if (!finished) {
		attempt->abandoned = true;
		opener->left_behind++;
	}
	pthread_mutex_unlock(&opener->lock);
	return finished;
}

static struct attempt *new_attempt(struct opener *opener, int root_fd, const char *path, uint32_t uid, bool elf_only)
{
	struct attempt *attempt = calloc(1, sizeof(*attempt));
	if (!attempt)
		return NULL;
	*attempt = (struct attempt){
		.opener = opener, .root_fd = -1, .uid = uid, .elf_only = elf_only, .path = strdup(path), .fd = -1};
	if (root_fd >= 0)
		attempt->root_fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 0);
	if (!attempt->path || (root_fd >= 0 && attempt->root_fd < 0)) {
		free_attempt(attempt);
		return NULL;
	}
	return attempt;
}

static bool is_same_root(const struct shunned *shunned, const struct stat *root)
{
	return shunned->device == root->st_dev && shunned->inode == root->st_ino;
}

/* So that one target, which may hold up each of many opens, holds up others for a second a minute. */
static void shun(struct opener *opener, const struct stat *root)
{
	pthread_mutex_lock(&opener->lock);
	opener->shunned[opener->next_shunned++ % LEFT_BEHIND_MAX] = (struct shunned){
		.device = root->st_dev, .inode = root->st_ino, .until_ns = clock_monotonic_ns() + SHUN_NS};
	pthread_mutex_unlock(&opener->lock);
}

/* With the lock held. */
static bool is_shunned(const struct opener *opener, const struct stat *root)
{
	for (size_t i = 0; i < LEFT_BEHIND_MAX; i++)
		if (is_same_root(&opener->shunned[i], root) && clock_monotonic_ns() < opener->shunned[i].until_ns)
			return true;
	return false;
}

static int open_either(struct opener *opener, int root_fd, const char *path, uint32_t uid, bool elf_only,
		       uint64_t deadline_ns, int *ret_fd)
{
	struct stat root = {};
	if (root_fd >= 0 && fstat(root_fd, &root) < 0)
		return -errno;
	pthread_mutex_lock(&opener->lock);
	bool full = opener->left_behind >= LEFT_BEHIND_MAX || is_shunned(opener, &root);
	opener->references += !full; /* of the thread */
	pthread_mutex_unlock(&opener->lock);
	if (full)
		return -EAGAIN;
	struct attempt *attempt = new_attempt(opener, root_fd, path, uid, elf_only);
	int r = attempt ? start(attempt) : -ENOMEM;
	uint64_t soon_ns = clock_monotonic_ns() + OPEN_MAX_NS;
	if (r == 0 && !await(opener, attempt, soon_ns < deadline_ns ? soon_ns : deadline_ns)) {
		/* The thread has the attempt now. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		if (soon_ns < deadline_ns)
			shun(opener, &root);
		return -ETIME;
	}
	if (r == 0) {
		r = attempt->result;
		if (r == 0)
			*ret_fd = TAKE_FD(attempt->fd);
	}
	if (attempt)
		free_attempt(attempt);
	unref(opener);
	return r;
}

int opener_open(struct opener *opener, int root_fd, const char *path, uint32_t uid, uint64_t deadline_ns, int *ret_fd)
{
	return open_either(opener, root_fd, path, uid, false, deadline_ns, ret_fd);
}

int opener_open_elf(struct opener *opener, int root_fd, const char *path, uint64_t deadline_ns, int *ret_fd)
{
	return open_either(opener, root_fd, path, OPENER_ANY_USER, true, deadline_ns, ret_fd);
}
