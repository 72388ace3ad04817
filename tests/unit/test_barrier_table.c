#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_main.h"
#include "collect/barrier_table.h"
#include "collect/proc_maps.h"
#include "collect/process.h"

enum { TABLE_BYTES = 16384, START = 0x7f0000000000 };
#define AT ((uint64_t)START)

static struct sprof_header valid(uint64_t start)
{
	return (struct sprof_header){
		.magic = SPROF_TABLE_MAGIC,
		.abi = 1,
		.hdr_size = 128,
		.thread_size = 256,
		.stack_size = 128,
		.barrier_size = 16,
		.range_size = 32,
		.total_size = TABLE_BYTES,
		.self_va = start,
		.proc_starttime = 1000,
		.tgid = 42,
		.off_thread = 4096,
		.off_stack = 8192,
		.off_range = 128,
		.cap_thread = 16,
		.cap_stack = 32,
		.cap_range = 64,
		.n_range = 2,
		.n_probe = 1,
	};
}

START_TEST(a_valid_header)
{
	struct sprof_header header = valid(AT);
	struct error err = {0};
	ck_assert_int_eq(barrier_table_check(&header, AT, TABLE_BYTES, &err), 0);
	ck_assert_int_eq(err.code, 0);
}
END_TEST

/* What is sound at its very bounds. */
START_TEST(bounds_that_are_permitted)
{
	struct sprof_header h = valid(AT);
	h.hdr_size = h.thread_size = h.stack_size = h.range_size = 4096;
	h.cap_thread = h.cap_stack = h.cap_range = h.n_range = 1;
	h.off_thread = 4096, h.off_stack = 8192, h.off_range = 12288;
	ck_assert_int_eq(barrier_table_check(&h, AT, TABLE_BYTES, NULL), 0);
	h = valid(AT);
	h.cap_thread = h.cap_stack = 1 << 20;
	h.off_stack = h.off_thread + ((uint64_t)h.cap_thread << 8);
	h.total_size = SPROF_MAX_TABLE_BYTES;
	h.n_probe = 16, h.n_range = 64;
	ck_assert_int_eq(barrier_table_check(&h, AT, SPROF_MAX_TABLE_BYTES, NULL), 0);
	h = valid(AT);
	h.n_probe = h.n_range = 0;
	h.flags = h.reserved = 0xffffffff; /* for people, and to be ignored */
	ck_assert_int_eq(barrier_table_check(&h, AT, TABLE_BYTES, NULL), 0);
}
END_TEST

struct mistake {
	const char *field; /* that must be named */
	size_t offset, bytes;
	uint64_t value;
};
#define MISTAKE(field, value)                                                                                  \
	{                                                                                                      \
#field, offsetof(struct sprof_header, field), sizeof(((struct sprof_header *)0)->field), value \
	}

static const struct mistake mistakes[] = {
	MISTAKE(magic, 1),
	MISTAKE(magic, 0x53505246424c5431), /* big-endian */
	MISTAKE(abi, 0),
	MISTAKE(abi, 2),
	MISTAKE(hdr_size, 0),
	MISTAKE(hdr_size, 120),
	MISTAKE(hdr_size, 129),
	MISTAKE(hdr_size, 4104),
	MISTAKE(thread_size, 128),
	MISTAKE(thread_size, 260),
	MISTAKE(thread_size, 8192),
	MISTAKE(thread_size, 0xffffff00),
	MISTAKE(stack_size, 0),
	MISTAKE(stack_size, 120),
	MISTAKE(stack_size, 132),
	MISTAKE(barrier_size, 8),
	MISTAKE(barrier_size, 20),
	MISTAKE(barrier_size, 24), /* the one record that does not grow */
	MISTAKE(barrier_size, 4096),
	MISTAKE(range_size, 24),
	MISTAKE(range_size, 36),
	MISTAKE(total_size, 0),
	MISTAKE(total_size, TABLE_BYTES - 4096),
	MISTAKE(total_size, TABLE_BYTES + 4096),
	MISTAKE(self_va, 0),
	MISTAKE(self_va, START + 4096),
	MISTAKE(cap_thread, 0),
	MISTAKE(cap_thread, (1 << 20) + 1),
	MISTAKE(cap_thread, 0xffffffff),
	MISTAKE(cap_stack, 0),
	MISTAKE(cap_stack, (1 << 20) + 1),
	MISTAKE(cap_range, 0),
	MISTAKE(cap_range, 65),
	MISTAKE(n_range, 65),
	MISTAKE(n_probe, 17),
	MISTAKE(n_probe, 0xffffffff),
	MISTAKE(off_thread, 0),
	MISTAKE(off_thread, 120),
	MISTAKE(off_thread, TABLE_BYTES - 16 * 256 + 8),
	MISTAKE(off_thread, TABLE_BYTES),
	MISTAKE(off_thread, UINT64_MAX - 4095),
	MISTAKE(off_thread, UINT64_MAX),
	MISTAKE(off_stack, 64),
	MISTAKE(off_stack, TABLE_BYTES - 32 * 128 + 1),
	MISTAKE(off_stack, UINT64_MAX - 4095),
	MISTAKE(off_range, 0),
	MISTAKE(off_range, TABLE_BYTES - 64 * 32 + 1),
	MISTAKE(off_range, UINT64_MAX),
};

START_TEST(each_field_wrong_in_turn)
{
	for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
		const struct mistake *mistake = &mistakes[i];
		struct sprof_header header = valid(AT);
		struct error err = {0};
		memcpy((char *)&header + mistake->offset, &mistake->value, mistake->bytes);
		int r = barrier_table_check(&header, AT, TABLE_BYTES, &err);
		if (r != -EPROTO || err.code != EPROTO || !strstr(err.text, mistake->field))
			ck_abort_msg("%s = %#lx: %d \"%s\"", mistake->field, mistake->value, r, err.text);
		if (strlen(err.text) > ERROR_TEXT_BYTES - 50)
			ck_abort_msg("cut: %s", err.text);
	}
}
END_TEST

START_TEST(capacities_that_do_not_fit)
{
	struct sprof_header header = valid(AT);
	struct error err;
	header.cap_thread = 1 << 20; /* within bounds by itself */
	ck_assert_int_eq(barrier_table_check(&header, AT, TABLE_BYTES, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "off_thread"));
	header = valid(AT);
	header.total_size = SPROF_MAX_TABLE_BYTES + 4096;
	ck_assert_int_eq(barrier_table_check(&header, AT, SPROF_MAX_TABLE_BYTES + 4096, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "1 GiB"));
}
END_TEST

START_TEST(one_that_is_being_made)
{
	struct sprof_header header = {.magic = 0};
	struct error err;
	ck_assert_int_eq(barrier_table_check(&header, AT, TABLE_BYTES, &err), -EAGAIN);
}
END_TEST

START_TEST(whose_it_is)
{
	struct sprof_header header = valid(AT);
	struct barrier_table_process process = {.tgid = 42, .start_ticks = 1000, .shares_time = true};
	static const struct {
		uint32_t tgid;
		uint64_t start_ticks;
		bool shares_time, belongs;
	} cases[] = {
		{42, 1000, true, true},  {42, 1001, true, true},   {42, 999, true, true},
		{42, 1002, true, false}, {42, 998, true, false},   {42, 99999, false, true},
		{43, 1000, true, false}, {43, 1000, false, false}, {42, 0, true, false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		process.tgid = cases[i].tgid;
		process.start_ticks = cases[i].start_ticks;
		process.shares_time = cases[i].shares_time;
		if (barrier_table_belongs_to(&header, &process) != cases[i].belongs)
			ck_abort_msg("case %zu", i);
	}
	header.proc_starttime = 0; /* not known to the writer */
	process = (struct barrier_table_process){.tgid = 42, .start_ticks = 5, .shares_time = true};
	ck_assert(barrier_table_belongs_to(&header, &process));
}
END_TEST

START_TEST(which_mappings_are_looked_at)
{
	static const struct {
		const char *line;
		bool is;
	} cases[] = {
		{"7f0000000000-7f0000004000 rw-s 00000000 00:01 7 /memfd:SPROF_BLT (deleted)", true},
		{"7f0000000000-7f0000004000 r--s 00000000 00:01 7 /memfd:SPROF_BLT (deleted)", true},
		{"7f0000000000-7f0000004000 rw-p 00000000 00:01 7 /memfd:SPROF_BLT (deleted)", false},
		{"7f0000000000-7f0000004000 -w-s 00000000 00:01 7 /memfd:SPROF_BLT (deleted)", false},
		{"7f0000000000-7f0000004000 rw-s 00001000 00:01 7 /memfd:SPROF_BLT (deleted)", false},
		{"7f0000000000-7f0000004000 rw-s 00000000 08:01 7 /memfd:SPROF_BLT", false},
		{"7f0000000000-7f0000004000 rw-s 00000000 00:01 7 /memfd:SPROF_BLT2 (deleted)", false},
		{"7f0000000000-7f0000004000 rw-s 00000000 00:01 7 /memfd:SPROF_BLT (deleted) (deleted)", false},
		{"7f0000000000-7f0000004000 rw-s 00000000 00:01 7 /x/memfd:SPROF_BLT (deleted)", false},
		{"7f0000000000-7f0000004000 rw-s 00000000 00:00 0 /memfd:SPROF_BLT (deleted)", false},
		{"7f0000000000-7f0000004000 rw-s 00000000 00:00 0 [anon:SPROF_BLT]", false},
		{"7f0000000000-7f0000004000 rw-s 00000000 00:00 0", false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char line[200];
		struct proc_maps_line parsed;
		snprintf(line, sizeof(line), "%s", cases[i].line);
		ck_assert_int_eq(proc_maps_parse_line(line, &parsed), 0);
		if (barrier_table_is_mapping(&parsed) != cases[i].is)
			ck_abort_msg("%s", cases[i].line);
	}
}
END_TEST

/* --- tables that this very process publishes --- */

static void *map_named(const char *name, size_t file_bytes, int flags)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)file_bytes), 0);
	void *memory = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	close(fd);
	return memory;
}

static struct sprof_header *publish(void)
{
	struct barrier_table_process self;
	struct sprof_header *header = map_named("SPROF_BLT", TABLE_BYTES, MAP_SHARED);
	ck_assert_int_eq(barrier_table_process_read(getpid(), &self), 0);
	*header = valid((uintptr_t)header);
	header->tgid = (uint32_t)getpid();
	header->proc_starttime = self.start_ticks;
	struct sprof_range *ranges = (void *)((char *)header + header->off_range);
	ranges[0] = (struct sprof_range){.lo = 1, .hi = 2, .kind = SPROF_RANGE_STACK_TOP};
	ranges[1] = (struct sprof_range){.lo = 3, .hi = 4, .kind = 77};
	return header;
}

START_TEST(a_table_and_its_ranges)
{
	struct barrier_table table;
	struct sprof_header *header = publish();
	header->range_begin = header->range_end = 7;
	ck_assert_int_eq(barrier_table_read(getpid(), &table, NULL), 0);
	ck_assert_uint_eq(table.start, (uintptr_t)header);
	ck_assert_uint_eq(table.end - table.start, TABLE_BYTES);
	ck_assert(!table.foreign_process);
	ck_assert_uint_eq(table.ranges_version, 7);
	ck_assert_uint_eq(table.n_ranges, 2);
	ck_assert_uint_eq(table.ranges[0].hi, 2);
	ck_assert_uint_eq(table.ranges[1].kind, 77);
	ck_assert_mem_eq(&table.header, header, sizeof(*header));
}
END_TEST

/* Of a later writer of the same ABI, whose records are longer. */
START_TEST(ranges_that_are_longer)
{
	struct barrier_table table;
	struct sprof_header *header = publish();
	header->range_size = 40;
	memmove((char *)header + 128 + 40, (char *)header + 128 + 32, 32);
	memset((char *)header + 128 + 32, 0x5a, 8);
	ck_assert_int_eq(barrier_table_read(getpid(), &table, NULL), 0);
	ck_assert_uint_eq(table.ranges[0].hi, 2);
	ck_assert_uint_eq(table.ranges[1].lo, 3);
}
END_TEST

START_TEST(ranges_that_stay_locked)
{
	struct barrier_table table = {.n_ranges = 99};
	struct error err;
	struct sprof_header *header = publish();
	header->range_begin = 8, header->range_end = 7;
	ck_assert_int_eq(barrier_table_read(getpid(), &table, &err), -EAGAIN);
	ck_assert_ptr_nonnull(strstr(err.text, "range_end"));
	ck_assert_uint_eq(table.n_ranges, 99);
}
END_TEST

static void *change_ranges(void *context)
{
	struct sprof_header *header = context;
	struct sprof_range *ranges = (void *)((char *)header + header->off_range);
	for (uint64_t i = 1; header->reserved == 0; i++) {
		__atomic_store_n(&header->range_begin, i, __ATOMIC_SEQ_CST);
		for (unsigned r = 0; r < 64; r++)
			__atomic_store_n(&ranges[r].lo, i, __ATOMIC_SEQ_CST);
		__atomic_store_n(&header->range_end, i, __ATOMIC_SEQ_CST);
		for (unsigned nap = 0; nap < 2000; nap++)
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
	}
	return NULL;
}

START_TEST(ranges_are_of_one_version)
{
	pthread_t thread;
	struct barrier_table table;
	struct sprof_header *header = publish();
	unsigned accepted = 0, different = 0;
	uint64_t last = 0;
	header->n_range = 64;
	ck_assert_int_eq(pthread_create(&thread, NULL, change_ranges, header), 0);
	for (unsigned i = 0; i < 100000 && accepted < 300; i++) {
		int r = barrier_table_read(getpid(), &table, NULL);
		ck_assert(r == 0 || r == -EAGAIN);
		if (r < 0 || table.ranges_version == 0)
			continue;
		accepted++;
		different += table.ranges_version != last;
		last = table.ranges_version;
		for (unsigned n = 0; n < 64; n++)
			ck_assert_uint_eq(table.ranges[n].lo, table.ranges_version);
	}
	__atomic_store_n(&header->reserved, 1, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	ck_assert_uint_ge(accepted, 300);
	ck_assert_uint_ge(different, 10);
}
END_TEST

START_TEST(no_table)
{
	struct barrier_table table;
	struct error err;
	map_named("SPROF_BLT", TABLE_BYTES, MAP_PRIVATE); /* not looked at */
	map_named("SPROF_BLT2", TABLE_BYTES, MAP_SHARED);
	ck_assert_int_eq(barrier_table_read(getpid(), &table, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "SPROF_BLT"));
}
END_TEST

START_TEST(tables_that_are_none)
{
	struct barrier_table table;
	struct error err;
	struct sprof_header *header = map_named("SPROF_BLT", TABLE_BYTES, MAP_SHARED);
	ck_assert_int_eq(barrier_table_read(getpid(), &table, &err), -EAGAIN);
	*header = valid((uintptr_t)header);
	header->cap_stack = 0;
	ck_assert_int_eq(barrier_table_read(getpid(), &table, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "cap_stack"));
	struct sprof_header *mine = publish();
	ck_assert_int_eq(barrier_table_read(getpid(), &table, &err), 0);
	ck_assert_uint_eq(table.start, (uintptr_t)mine);
}
END_TEST

START_TEST(a_file_that_is_too_short)
{
	struct barrier_table table;
	struct error err;
	map_named("SPROF_BLT", 0, MAP_SHARED);
	ck_assert_int_eq(barrier_table_read(getpid(), &table, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.text, "F_SEAL_SHRINK"));
}
END_TEST

START_TEST(the_lowest_of_several)
{
	struct barrier_table table;
	struct sprof_header *a = publish(), *b = publish();
	ck_assert_int_eq(barrier_table_read(getpid(), &table, NULL), 0);
	ck_assert_uint_eq(table.start, (uintptr_t)(a < b ? a : b));
	(a < b ? a : b)->tgid++; /* another process's: not before its own */
	ck_assert_int_eq(barrier_table_read(getpid(), &table, NULL), 0);
	ck_assert(!table.foreign_process);
	ck_assert_uint_eq(table.start, (uintptr_t)(a < b ? b : a));
	(a < b ? b : a)->abi = 9;
	ck_assert_int_eq(barrier_table_read(getpid(), &table, NULL), 0);
	ck_assert(table.foreign_process);
}
END_TEST

START_TEST(a_forked_child_has_its_parents)
{
	struct barrier_table table;
	int ends[2];
	struct sprof_header *header = publish();
	ck_assert_int_eq(pipe(ends), 0);
	pid_t child = fork();
	if (child == 0) {
		char c;
		close(ends[1]);
		_exit(read(ends[0], &c, 1) != 0);
	}
	close(ends[0]);
	int r = barrier_table_read(child, &table, NULL);
	close(ends[1]);
	waitpid(child, NULL, 0);
	ck_assert_int_eq(r, 0);
	ck_assert(table.foreign_process);
	ck_assert_uint_eq(table.start, (uintptr_t)header);
}
END_TEST

static void *stay(void *context)
{
	char c;
	_exit(read(*(int *)context, &c, 1) != 0);
}

/* Its leader has ended, and shows neither mappings nor memory. */
START_TEST(a_process_without_a_leader)
{
	struct barrier_table table;
	struct process process = {.state = '?'};
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	pid_t child = fork();
	if (child == 0) {
		pthread_t thread;
		close(ends[1]);
		publish();
		if (pthread_create(&thread, NULL, stay, &ends[0]) != 0)
			_exit(9);
		syscall(SYS_exit, 0);
	}
	close(ends[0]);
	while (process_read(child, &process) == 0 && process.state != 'Z')
		usleep(1000);
	int r = barrier_table_read(child, &table, NULL);
	close(ends[1]);
	waitpid(child, NULL, 0);
	ck_assert_int_eq(r, 0);
	ck_assert(!table.foreign_process);
	ck_assert_int_ne(table.tid, child);
}
END_TEST

START_TEST(a_process_that_is_gone)
{
	struct barrier_table table;
	struct error err;
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
	ck_assert_int_eq(barrier_table_read(child, &table, &err), -ESRCH);
}
END_TEST

CHECK_MAIN("barrier_table", 30, a_valid_header, bounds_that_are_permitted, each_field_wrong_in_turn,
	   capacities_that_do_not_fit, one_that_is_being_made, whose_it_is, which_mappings_are_looked_at,
	   a_table_and_its_ranges, ranges_that_are_longer, ranges_that_stay_locked, ranges_are_of_one_version, no_table,
	   tables_that_are_none, a_file_that_is_too_short, the_lowest_of_several, a_forked_child_has_its_parents,
	   a_process_without_a_leader, a_process_that_is_gone)
