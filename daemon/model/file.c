#include "model/file.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"

enum { BUCKETS = 1024 }; /* identities cannot be chosen freely, and max_fds bounds those that cost anything */

struct file_registry {
	pthread_mutex_t lock;
	unsigned max_fds, open_fds, count;
	uint64_t last_id;
	struct file *buckets[BUCKETS];
};

static struct file **bucket_of(struct file_registry *registry, const struct file_identity *identity)
{
	return &registry->buckets[hash_bytes(identity, sizeof(*identity), hash_seed()) % BUCKETS];
}

struct file_registry *file_registry_new(unsigned max_fds)
{
	struct file_registry *registry = calloc(1, sizeof(*registry));
	if (!registry)
		return NULL;
	pthread_mutex_init(&registry->lock, NULL);
	registry->max_fds = max_fds;
	return registry;
}

void file_registry_free(struct file_registry *registry)
{
	if (!registry)
		return;
	pthread_mutex_destroy(&registry->lock);
	free(registry);
}

unsigned file_registry_count(struct file_registry *registry)
{
	pthread_mutex_lock(&registry->lock);
	unsigned count = registry->count;
	pthread_mutex_unlock(&registry->lock);
	return count;
}

static int identify(int fd, struct file_identity *ret)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*ret = (struct file_identity){
		.device = st.st_dev,
		.inode = st.st_ino,
		.size_bytes = (uint64_t)st.st_size,
		.mtime_ns = (int64_t)st.st_mtim.tv_sec * (int64_t)NS_PER_S + st.st_mtim.tv_nsec,
		.ctime_ns = (int64_t)st.st_ctim.tv_sec * (int64_t)NS_PER_S + st.st_ctim.tv_nsec,
	};
	return 0;
}

static struct file *find(struct file *file, const struct file_identity *identity)
{
	while (file && memcmp(&file->identity, identity, sizeof(*identity)) != 0)
		file = file->next;
	return file;
}

/* The registry's lock is held. Takes fd only on success. */
static struct file *add(struct file_registry *registry, struct file **bucket, const struct file_identity *identity,
			int fd)
{
	struct file *file = calloc(1, sizeof(*file));
	if (!file)
		return NULL;
	file->identity = *identity;
	file->references = 1;
	file->registry = registry;
	file->id = ++registry->last_id;
	file->fd = -1;
	if (registry->open_fds < registry->max_fds) {
		file->fd = fd;
		registry->open_fds++;
	}
	file->next = *bucket;
	*bucket = file;
	registry->count++;
	return file;
}

int file_registry_intern(struct file_registry *registry, int fd, struct file **ret)
{
	_cleanup_close_ int owned = fd;
	struct file_identity identity;
	int r = identify(fd, &identity);
	if (r < 0)
		return r;

	pthread_mutex_lock(&registry->lock);
	struct file **bucket = bucket_of(registry, &identity);
	struct file *file = find(*bucket, &identity);
	if (file) {
		file->references++; /* under the lock, so that file_unref cannot be freeing it */
	} else {
		file = add(registry, bucket, &identity, fd);
		if (file && file->fd == fd)
			(void)TAKE_FD(owned);
	}
	pthread_mutex_unlock(&registry->lock);
	if (!file)
		return -ENOMEM;
	*ret = file;
	return 0;
}

struct file *file_ref(struct file *file)
{
	file->references++;
	return file;
}

void file_unref(struct file *file)
{
	if (!file)
		return;
	struct file_registry *registry = file->registry;
	pthread_mutex_lock(&registry->lock); /* the last reference and a new look-up must not cross */
	bool last = --file->references == 0;
	if (last) {
		struct file **link = bucket_of(registry, &file->identity);
		while (*link != file)
			link = &(*link)->next;
		*link = file->next;
		registry->count--;
		if (file->fd >= 0)
			registry->open_fds--;
	}
	pthread_mutex_unlock(&registry->lock);
	if (!last)
		return;
	if (file->fd >= 0)
		close(file->fd);
	free((char *)file->build_id);
	free(file);
}

const char *file_build_id(const struct file *file)
{
	return file->build_id;
}

void file_set_build_id(struct file *file, const char *hex)
{
	const char *copy = strdup(hex);
	const char *unset = NULL;
	if (copy && !atomic_compare_exchange_strong(&file->build_id, &unset, copy))
		free((char *)copy);
}
