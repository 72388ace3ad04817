#include "symbolize/jit_sources.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "symbolize/symbolize.h"

enum { IDS_MAX = 128, PATH_BYTES = 64 };
#define FIRST_ID (UINT64_C(1) << 62) /* files that are mapped count from 1 */
#define SLACK_NS (2 * NS_PER_S)      /* file systems and boot clocks are that far from each other */

/* The states of files that were seen lately. */
struct jit_ids {
	struct {
		uint64_t device, inode, bytes, mtime_ns, id;
	} seen[IDS_MAX];
	size_t next; /* the place of the next new one */
	uint64_t last_id;
};

struct jit_ids *jit_ids_new(void)
{
	struct jit_ids *ids = calloc(1, sizeof(*ids));
	if (ids)
		ids->last_id = FIRST_ID;
	return ids;
}

void jit_ids_free(struct jit_ids *ids)
{
	free(ids);
}

static uint64_t mtime_of(const struct stat *st)
{
	return (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec;
}

static uint64_t id_of(struct jit_ids *ids, const struct stat *st)
{
	uint64_t bytes = (uint64_t)st->st_size, mtime_ns = mtime_of(st);
	for (size_t i = 0; i < IDS_MAX; i++)
		if (ids->seen[i].id && ids->seen[i].device == st->st_dev && ids->seen[i].inode == st->st_ino &&
		    ids->seen[i].bytes == bytes && ids->seen[i].mtime_ns == mtime_ns)
			return ids->seen[i].id;
	size_t at = ids->next++ % IDS_MAX;
	ids->seen[at].device = st->st_dev;
	ids->seen[at].inode = st->st_ino;
	ids->seen[at].bytes = bytes;
	ids->seen[at].mtime_ns = mtime_ns;
	ids->seen[at].id = ++ids->last_id;
	return ids->seen[at].id;
}

struct file *symbolize_jit_dump(struct maps *const *maps, size_t n)
{
	while (n-- > 0)
		if (maps[n] && maps[n]->jit_dump)
			return maps[n]->jit_dump;
	return NULL;
}

static struct named_file name_of(struct jit_ids *ids, enum protocol_file kind, int fd, const struct stat *st)
{
	return (struct named_file){.id = id_of(ids, st), .fd = fd, .kind = kind, .root_fd = -1, .path = ""};
}

int jit_sources_dump(struct jit_ids *ids, const struct file *dump, struct named_file *ret)
{
	struct stat st;
	if (!dump || dump->fd < 0 || fstat(dump->fd, &st) < 0)
		return -ENOENT;
	*ret = name_of(ids, PROTOCOL_JITDUMP, dump->fd, &st);
	return 0;
}

static void add_perf_map(struct jit_sources *sources, struct jit_ids *ids, struct opener *opener,
			 const struct profile_target *target, uint64_t deadline_ns)
{
	char path[PATH_BYTES];
	struct stat st;
	if (target->root_fd < 0 || target->inner_pid == 0)
		return;
	snprintf(path, sizeof(path), "/tmp/perf-%" PRIu32 ".map", target->inner_pid);
	if (opener_open(opener, target->root_fd, path, target->user, deadline_ns, &sources->map_fd) < 0)
		return;
	/* One of an earlier process of the same number is left behind at times. */
	if (fstat(sources->map_fd, &st) == 0 && mtime_of(&st) + SLACK_NS >= target->started_unix_ns)
		sources->files[sources->n++] = name_of(ids, PROTOCOL_PERF_MAP, sources->map_fd, &st);
}

void jit_sources_find(struct jit_ids *ids, struct opener *opener, const struct profile_target *target,
		      uint64_t deadline_ns, struct jit_sources *ret)
{
	*ret = (struct jit_sources){.map_fd = -1};
	if (jit_sources_dump(ids, target->jit_dump, &ret->files[0]) == 0)
		ret->n = 1;
	add_perf_map(ret, ids, opener, target, deadline_ns);
}

void jit_sources_release(struct jit_sources *sources)
{
	if (sources->map_fd >= 0)
		close(sources->map_fd);
	sources->map_fd = -1;
	sources->n = 0;
}
