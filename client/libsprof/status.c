/* What became of a table, for its program and the people behind it. */
#include <string.h>

#include "internal.h"

int sprof_status(const struct sprof_table *table, struct sprof_status *status)
{
	if (!status || status->size < 16)
		return -EINVAL;
	struct sprof_status s = {.size = sizeof(s), .publish_error = -ENOENT};
	if (table) {
		s.flags = SPROF_LOAD(table->status);
		s.publish_error = table->publish_error;
		s.lock_error = table->lock_error;
		s.threads_refused = SPROF_LOAD(table->threads_refused);
		s.stacks_refused = SPROF_LOAD(table->stacks_refused);
		s.barriers_refused = SPROF_LOAD(table->barriers_refused);
		s.ranges_refused = SPROF_LOAD(table->ranges_refused);
	}
	if (s.size > status->size)
		s.size = status->size;
	memcpy(status, &s, s.size);
	return 0;
}

static const char *publish_text(int error)
{
	switch (error) {
	case -ENOSYS:
	case -EPERM:
	case -EACCES:
		return "not published: memfd_create or sealing is denied; allow memfd_create, ftruncate and "
		       "fcntl(F_ADD_SEALS) in the "
		       "program's seccomp filter";
	case -ECANCELED:
		return "not published, as the program asked";
	case -EMFILE:
	case -ENFILE:
		return "not published: no file descriptor was free; raise RLIMIT_NOFILE or open the table earlier";
	case -EFBIG:
		return "not published: the table is larger than RLIMIT_FSIZE; raise it or open a smaller table";
	default:
		return "not published: shared memory could not be had; see publish_error";
	}
}

const char *sprof_status_text(const struct sprof_table *table)
{
	if (!table)
		return "no table: sprof_open failed or was not called";
	uint32_t flags = SPROF_LOAD(table->status);
	if (flags & SPROF_STATUS_FORK_LOST)
		return "empty: there was no memory for a copy of the table when this process was forked";
	if (table->publish_error < 0)
		return publish_text(table->publish_error);
	if (flags & SPROF_STATUS_FORK_BUSY)
		return "a stack's lock was held for a second while forking; do not fork while holding one";
	if (SPROF_LOAD(table->threads_refused))
		return "some threads have no slot; open the table with more threads";
	if (SPROF_LOAD(table->stacks_refused))
		return "some stacks have no place; open the table with more stacks";
	if (SPROF_LOAD(table->barriers_refused))
		return "some barriers were not installed; open the table with more barriers a stack";
	if (SPROF_LOAD(table->ranges_refused))
		return "some ranges of code have no place; merge neighbours";
	if (table->lock_error < 0)
		return "its pages are not locked: samples are lost when they are swapped out; raise RLIMIT_MEMLOCK";
	return "ok";
}

const void *sprof_table_address(const struct sprof_table *table)
{
	return table ? table->header : NULL;
}
