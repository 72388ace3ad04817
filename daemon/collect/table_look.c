#include "collect/table_look.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "collect/process.h"
#include "collect/table_look_parts.h"
#include "collect/table_memory.h"

void *look_grow(void *elements, size_t n, size_t element_bytes)
{
	if (n & (n - 1)) /* rooms are powers of two, and 0 */
		return elements;
	return reallocarray(elements, n ? 2 * n : 1, element_bytes);
}

const struct look_mapping *table_look_mapping(const struct table_look *look, uint64_t address)
{
	size_t low = 0, high = look->n_mappings;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (look->mappings[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < look->n_mappings && look->mappings[low].start <= address ? &look->mappings[low] : NULL;
}

const struct look_task *table_look_task(const struct table_look *look, uint32_t inner_tid)
{
	size_t low = 0, high = look->n_tasks;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (look->tasks[middle].inner_tid < inner_tid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < look->n_tasks && look->tasks[low].inner_tid == inner_tid ? &look->tasks[low] : NULL;
}

static int take_table(struct table_look *look, pid_t pid, struct error *err)
{
	int r = barrier_table_read(pid, &look->table, &look->why);
	switch (r) {
	case 0:
		look->state = LOOK_VALID;
		return 0;
	case -ENOENT:
		look->state = LOOK_NONE;
		return 0;
	case -EAGAIN:
		look->state = LOOK_UNSETTLED;
		return 0;
	case -EPROTO:
		look->state = LOOK_INVALID;
		return 0;
	default:
		*err = look->why;
		return r;
	}
}

/* A table that cannot be read to its end is none; that it was only unmapped meanwhile a second look will tell. */
static int take_records(struct table_look *look)
{
	int r = look_take_records(look);
	if (r != -EFAULT)
		return r;
	look->state = LOOK_INVALID;
	error_set(&look->why, EPROTO,
		  "the table at 0x%" PRIx64 " to 0x%" PRIx64 " cannot be read in whole: is its file shorter than the "
		  "mapping? Set the size with ftruncate, then seal "
		  "it with F_SEAL_SHRINK",
		  look->table.start, look->table.end);
	return 0;
}

static int take_contents(struct table_look *look)
{
	_cleanup_close_ int fd = -1;
	int r = table_memory_open(look->table.tid, look->table.start, look->table.end, &fd);
	if (r == -EAGAIN) {
		look->state = LOOK_UNSETTLED;
		error_set(&look->why, EAGAIN, "the table at 0x%" PRIx64 " was taken away while it was looked at",
			  look->table.start);
		return 0;
	}
	if (r < 0)
		return r;
	look->table_fd = fd;
	look_take_memory(look);
	r = take_records(look);
	look->table_fd = -1;
	return r;
}

static int take(pid_t pid, struct table_look *look, struct error *err)
{
	int r = take_table(look, pid, err);
	if (r < 0)
		return r;
	r = barrier_table_process_read(pid, &look->process);
	if (r == 0)
		r = look_take_mappings(look, process_living_thread(pid));
	if (r == 0 && look->state == LOOK_VALID)
		r = take_contents(look);
	/* Tasks last: a thread that claimed a record is there, or has ended. */
	if (r == 0)
		r = look_take_tasks(look, pid);
	if (r == -ESRCH)
		return error_set(err, ESRCH, "process %d ended while it was looked at", (int)pid);
	if (r < 0)
		return error_set(err, -r, "cannot look at process %d: %s", (int)pid, strerror(-r));
	look->other_pid_namespace = look->process.tgid != (uint32_t)pid;
	return 0;
}

int table_look_take(pid_t pid, struct table_look *ret, struct error *err)
{
	struct table_look look = {.table_fd = -1};
	struct error problem = {0};
	int r = take(pid, &look, &problem);
	if (r < 0) {
		if (err)
			*err = problem;
		table_look_free(&look);
		return r;
	}
	*ret = look;
	return 0;
}

void table_look_free(struct table_look *look)
{
	free(look->mappings);
	free(look->tasks);
	free(look->threads);
	free(look->stacks);
	free(look->barriers);
	*look = (struct table_look){.table_fd = -1};
}
