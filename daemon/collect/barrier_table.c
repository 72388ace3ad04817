#include "collect/barrier_table.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "collect/proc_maps.h"
#include "collect/process.h"
#include "collect/table_memory.h"

enum {
	MAX_CANDIDATES = 16, /* mappings that have the name */
	READ_TRIES = 10,
	NAP_NS = 500000, /* between tries: a writer that was preempted gets to run */
};

/* --- validation --- */

static int wrong(struct error *err, const char *field, uint64_t is, const char *should)
{
	return error_set(err, EPROTO, "the table's %s is %" PRIu64 " (0x%" PRIx64 "): it must be %s", field, is, is,
			 should);
}

/* Strides: records only grow, so that a longer one is of a later writer and may be read as far as we know it. Barriers do not: the BPF program reads them by the
 * dozen in one piece. */
static int check_sizes(const struct sprof_header *header, struct error *err)
{
	const struct {
		const char *field, *should;
		uint32_t is, least;
	} sizes[] = {
		{"hdr_size", "128, or more for a later writer: at most 4096, a multiple of 8", header->hdr_size,
		 sizeof(struct sprof_header)},
		{"thread_size", "256, or more for a later writer: at most 4096, a multiple of 8", header->thread_size,
		 sizeof(struct sprof_thread)},
		{"stack_size", "128, or more for a later writer: at most 4096, a multiple of 8", header->stack_size,
		 sizeof(struct sprof_stack)},
		{"range_size", "32, or more for a later writer: at most 4096, a multiple of 8", header->range_size,
		 sizeof(struct sprof_range)},
	};
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (sizes[i].is < sizes[i].least || sizes[i].is > SPROF_MAX_RECORD_BYTES || sizes[i].is % 8 != 0)
			return wrong(err, sizes[i].field, sizes[i].is, sizes[i].should);
	if (header->barrier_size != sizeof(struct sprof_barrier))
		return wrong(err, "barrier_size", header->barrier_size, "16");
	return 0;
}

static int check_counts(const struct sprof_header *header, struct error *err)
{
	if (header->cap_thread < 1 || header->cap_thread > SPROF_MAX_THREADS)
		return wrong(err, "cap_thread", header->cap_thread, "1 to 1048576");
	if (header->cap_stack < 1 || header->cap_stack > SPROF_MAX_STACKS)
		return wrong(err, "cap_stack", header->cap_stack, "1 to 1048576");
	if (header->cap_range < 1 || header->cap_range > SPROF_MAX_RANGES)
		return wrong(err, "cap_range", header->cap_range, "1 to 64");
	if (header->n_range > header->cap_range)
		return wrong(err, "n_range", header->n_range, "cap_range at most");
	if (header->n_probe > SPROF_THREAD_PROBES)
		return wrong(err, "n_probe", header->n_probe, "0 to 16");
	return 0;
}

/* The sizes and counts are bounded already, so that their products stay far below 2^64. */
static int check_arrays(const struct sprof_header *header, struct error *err)
{
	const struct {
		const char *offset;
		uint64_t at, bytes;
	} arrays[] = {
		{"off_thread", header->off_thread, (uint64_t)header->cap_thread * header->thread_size},
		{"off_stack", header->off_stack, (uint64_t)header->cap_stack * header->stack_size},
		{"off_range", header->off_range, (uint64_t)header->cap_range * header->range_size},
	};
	for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) {
		if (arrays[i].at < header->hdr_size)
			return wrong(err, arrays[i].offset, arrays[i].at,
				     "hdr_size or more: no array lies on the header");
		if (arrays[i].bytes > header->total_size || arrays[i].at > header->total_size - arrays[i].bytes)
			return error_set(err, EPROTO,
					 "the table's %s is %" PRIu64 ", and its array of %" PRIu64
					 " bytes ends beyond total_size, %" PRIu64
					 ": lay it out inside the mapping, or make that larger",
					 arrays[i].offset, arrays[i].at, arrays[i].bytes, header->total_size);
	}
	return 0;
}

static int check_place(const struct sprof_header *header, uint64_t start, uint64_t bytes, struct error *err)
{
	if (header->total_size != bytes)
		return error_set(err, EPROTO,
				 "the table's total_size is %" PRIu64 ", and its mapping has %" PRIu64
				 " bytes: map it whole, at offset 0, in one mapping, and store the length of that",
				 header->total_size, bytes);
	if (header->total_size > SPROF_MAX_TABLE_BYTES)
		return wrong(err, "total_size", header->total_size, "1 GiB at most: make room for less");
	if (header->self_va != start)
		return error_set(err, EPROTO,
				 "the table's self_va is 0x%" PRIx64 ", and it is mapped at 0x%" PRIx64
				 ": store the address that mmap returned",
				 header->self_va, start);
	return 0;
}

int barrier_table_check(const struct sprof_header *header, uint64_t start, uint64_t bytes, struct error *err)
{
	if (header->magic == 0)
		return error_set(err, EAGAIN,
				 "the table's magic is 0: it is being made or taken away (a writer stores it last)");
	if (header->magic != SPROF_TABLE_MAGIC)
		return error_set(err, EPROTO,
				 "the table's magic is 0x%016" PRIx64 ": it must be 0x%016llx, the bytes \"SPRFBLT1\"",
				 header->magic, SPROF_TABLE_MAGIC);
	if (header->abi != SPROF_ABI)
		return error_set(err, EPROTO,
				 "the table's abi is %" PRIu32 ": sprofd " SPROF_VERSION " knows 1 and no other",
				 header->abi);
	int r = check_sizes(header, err);
	if (r == 0)
		r = check_place(header, start, bytes, err);
	if (r == 0)
		r = check_counts(header, err);
	return r < 0 ? r : check_arrays(header, err);
}

static bool within_one(uint64_t a, uint64_t b)
{
	return (a > b ? a - b : b - a) <= 1;
}

bool barrier_table_belongs_to(const struct sprof_header *header, const struct barrier_table_process *process)
{
	if (header->tgid != process->tgid)
		return false;
	return header->proc_starttime == 0 || !process->shares_time ||
	       within_one(header->proc_starttime, process->start_ticks);
}

int barrier_table_process_read(pid_t pid, struct barrier_table_process *ret)
{
	struct process process;
	struct barrier_table_process found;
	int r = process_read(pid, &process);
	if (r == 0)
		r = process_inner_tid(pid, pid, &found.tgid);
	if (r < 0)
		return r;
	found.start_ticks = process.start_ticks;
	found.shares_time = process_shares_time(pid);
	*ret = found;
	return 0;
}

/* --- finding --- */

struct candidates {
	bool device_known;
	uint32_t device_major,
		device_minor; /* of all memfds: a file that only has the name may be of a file system that never answers */
	struct {
		uint64_t start, end;
	} mappings[MAX_CANDIDATES];
	size_t n;
};

bool barrier_table_is_mapping(const struct proc_maps_line *line)
{
	return line->inode && line->deleted && !strcmp(line->name, "/memfd:" SPROF_TABLE_NAME) && line->offset == 0 &&
	       line->protection[0] == 'r' && line->protection[3] == 's';
}

static int find(void *context, const struct proc_maps_line *line)
{
	struct candidates *candidates = context;
	if (!barrier_table_is_mapping(line))
		return 0;
	if (candidates->device_known &&
	    (line->device_major != candidates->device_major || line->device_minor != candidates->device_minor))
		return 0;
	if (candidates->n && line->start < candidates->mappings[candidates->n - 1].end)
		return 0; /* seen already */
	candidates->mappings[candidates->n].start = line->start;
	candidates->mappings[candidates->n].end = line->end;
	return ++candidates->n == MAX_CANDIDATES; /* by address: the rest lies higher */
}

/* --- reading --- */

/* A table in the making. */
struct reading {
	struct barrier_table table;
	int fd; /* of its memory */
};

static int unreadable(const struct barrier_table *table, int r, struct error *err)
{
	switch (r) {
	case -ESRCH:
		return error_set(err, ESRCH, "the process has ended");
	case -EPERM:
	case -EACCES:
		return error_set(err, EPERM,
				 "the process may not be looked into: sprofd needs CAP_SYS_PTRACE, "
				 "CAP_CHECKPOINT_RESTORE and CAP_DAC_READ_SEARCH (start it as root or by systemctl)");
	case -EAGAIN:
		return error_set(err, EAGAIN, "the table at 0x%" PRIx64 " was taken away while it was looked at",
				 table->start);
	case -EFAULT:
		return error_set(err, EPROTO,
				 "the table at 0x%" PRIx64 " to 0x%" PRIx64
				 " cannot be read in whole: is its file shorter than the mapping? Set the size with "
				 "ftruncate, then seal it with F_SEAL_SHRINK",
				 table->start, table->end);
	default:
		return error_set(err, -r, "cannot read the table at 0x%" PRIx64 ": %s", table->start, strerror(-r));
	}
}

static int read_bytes(const struct reading *reading, uint64_t offset, void *ret, size_t bytes, struct error *err)
{
	int r = table_memory_read(reading->fd, offset, ret, bytes);
	return r < 0 ? unreadable(&reading->table, r, err) : 0;
}

/* All in it but n_range, the ranges' versions and n_probe is constant while magic stands. */
static int read_header(struct reading *reading, struct error *err)
{
	struct barrier_table *table = &reading->table;
	uint64_t before = 0, after = 0;
	int r = read_bytes(reading, offsetof(struct sprof_header, magic), &before, sizeof(before), err);
	if (r == 0)
		r = read_bytes(reading, 0, &table->header, sizeof(table->header), err);
	if (r == 0)
		r = read_bytes(reading, offsetof(struct sprof_header, magic), &after, sizeof(after), err);
	if (r < 0)
		return r;
	if (before == 0 || after == 0) /* whatever was between may be of two tables */
		table->header.magic = 0;
	return barrier_table_check(&table->header, table->start, table->end - table->start, err);
}

/* Each range as far as we know it; they lie range_size bytes apart. */
static int read_records(struct reading *reading, uint32_t n, struct error *err)
{
	struct barrier_table *table = &reading->table;
	uint8_t bytes[SPROF_MAX_RANGES * sizeof(struct sprof_range)];
	uint32_t stride = table->header.range_size;
	if (stride == sizeof(struct sprof_range))
		return n ? read_bytes(reading, table->header.off_range, table->ranges, n * sizeof(table->ranges[0]),
				      err)
			 : 0;
	for (uint32_t i = 0; i < n; i++) {
		int r = read_bytes(reading, table->header.off_range + (uint64_t)i * stride, bytes,
				   sizeof(table->ranges[0]), err);
		if (r < 0)
			return r;
		memcpy(&table->ranges[i], bytes, sizeof(table->ranges[0]));
	}
	return 0;
}

/* Once, as section 8 says: each version by a read of its own. 0; -EAGAIN: held, or changed meanwhile. */
static int try_ranges(struct reading *reading, struct error *err)
{
	struct barrier_table *table = &reading->table;
	enum { BEGIN = offsetof(struct sprof_header, range_begin), END = offsetof(struct sprof_header, range_end) };
	uint64_t begin = 0, end = 0, again = 0;
	uint32_t n = 0;
	int r = read_bytes(reading, BEGIN, &begin, sizeof(begin), err);
	if (r == 0)
		r = read_bytes(reading, END, &end, sizeof(end), err);
	if (r < 0 || begin != end)
		return r < 0 ? r : -EAGAIN;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	r = read_bytes(reading, offsetof(struct sprof_header, n_range), &n, sizeof(n), err);
	if (r == 0)
		r = read_records(reading, n < table->header.cap_range ? n : table->header.cap_range, err);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (r == 0)
		r = read_bytes(reading, BEGIN, &again, sizeof(again), err);
	if (r < 0 || again != end)
		return r < 0 ? r : -EAGAIN;
	if (n > table->header.cap_range)
		return wrong(err, "n_range", n, "cap_range at most");
	table->header.n_range = table->n_ranges = n;
	table->header.range_begin = table->header.range_end = table->ranges_version = end;
	return 0;
}

static int read_ranges(struct reading *reading, struct error *err)
{
	for (unsigned i = 0; i < READ_TRIES; i++) {
		int r = try_ranges(reading, err);
		if (r != -EAGAIN)
			return r;
		nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
	}
	return error_set(
		err, EAGAIN,
		"the table's ranges were locked, or changed, each of %d times that they were looked at: a writer must "
		"release them (range_end = range_begin)",
		READ_TRIES);
}

/* What is at table->start, into *table. */
static int read_candidate(struct barrier_table *table, const struct barrier_table_process *process, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = table_memory_open(table->tid, table->start, table->end, &fd);
	if (r < 0)
		return unreadable(table, r, err);
	struct reading reading = {.table = *table, .fd = fd};
	r = read_header(&reading, err);
	if (r == 0)
		r = read_ranges(&reading, err);
	if (r < 0)
		return r;
	*table = reading.table;
	table->foreign_process = !barrier_table_belongs_to(&table->header, process);
	return 0;
}

/* The best of the candidates: its own before a foreign one before none. The first one's error is told when all fail. */
static int choose(pid_t tid, const struct candidates *candidates, const struct barrier_table_process *process,
		  struct barrier_table *ret, struct error *err)
{
	bool found = false;
	int first_r = 0;
	for (size_t i = 0; i < candidates->n; i++) {
		struct barrier_table table = {
			.start = candidates->mappings[i].start, .end = candidates->mappings[i].end, .tid = tid};
		int r = read_candidate(&table, process, first_r ? NULL : err);
		if (r == -ESRCH || r == -EPERM)
			return r;
		if (r < 0 && !first_r)
			first_r = r;
		if (r < 0 || (found && table.foreign_process))
			continue;
		*ret = table;
		if (!table.foreign_process)
			return 0;
		found = true;
	}
	return found ? 0 : first_r;
}

int barrier_table_read(pid_t pid, struct barrier_table *ret, struct error *err)
{
	struct barrier_table_process process;
	struct candidates candidates = {.n = 0};
	struct barrier_table table;
	pid_t tid = process_living_thread(pid);
	candidates.device_known = table_memory_device(&candidates.device_major, &candidates.device_minor) == 0;
	int r = barrier_table_process_read(pid, &process);
	if (r == 0)
		r = proc_maps_for_each(tid, find, &candidates);
	if (r == -ESRCH)
		return error_set(err, ESRCH, "no process %d: see `ps -e` for those that run", (int)pid);
	if (r < 0)
		return error_set(err, -r, "cannot read /proc/%d: %s", (int)pid, strerror(-r));
	if (candidates.n == 0)
		return error_set(err, ENOENT,
				 "process %d publishes no barrier-lock table: it has no shared mapping named "
				 "\"/memfd:" SPROF_TABLE_NAME " (deleted)\" at offset 0",
				 (int)pid);
	r = choose(tid, &candidates, &process, &table, err);
	if (r == 0)
		*ret = table;
	return r;
}
