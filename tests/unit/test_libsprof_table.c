/* Opening a table, its bounds, and what is left when something is denied. */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sprof/sprof.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_main.h"

static struct sprof_status status_of(const struct sprof_table *table)
{
	struct sprof_status status = {.size = sizeof(status)};
	ck_assert_int_eq(sprof_status(table, &status), 0);
	return status;
}

static struct sprof_table *open_table(struct sprof_options options)
{
	struct sprof_table *table = NULL;
	options.size = sizeof(options);
	ck_assert_int_eq(sprof_open(&options, &table), 0);
	ck_assert_ptr_nonnull(table);
	return table;
}

/* The line of /proc/self/maps of the mapping that begins at address. */
static bool find_mapping(const void *address, char *ret_line, size_t size)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	bool found = false;
	ck_assert_ptr_nonnull(maps);
	while (!found && fgets(ret_line, (int)size, maps))
		found = strtoull(ret_line, NULL, 16) == (uintptr_t)address;
	ck_assert_int_eq(fclose(maps), 0);
	return found;
}

START_TEST(an_open_table_describes_itself)
{
	struct sprof_table *table =
		open_table((struct sprof_options){.threads = 100, .stacks = 50, .barriers = 10, .ranges = 7});
	const struct sprof_header *h = sprof_table_address(table);
	ck_assert_mem_eq(&h->magic, "SPRFBLT1", 8);
	ck_assert_uint_eq(h->abi, 1);
	ck_assert_uint_eq(h->hdr_size, 128);
	ck_assert_uint_eq(h->thread_size, 256);
	ck_assert_uint_eq(h->stack_size, 128);
	ck_assert_uint_eq(h->barrier_size, 16);
	ck_assert_uint_eq(h->range_size, 32);
	ck_assert_uint_eq(h->self_va, (uintptr_t)h);
	ck_assert_uint_eq(h->tgid, (uint32_t)getpid());
	ck_assert_uint_gt(h->proc_starttime, 0);
	ck_assert_uint_eq(h->cap_thread, 100);
	ck_assert_uint_eq(h->cap_stack, 50);
	ck_assert_uint_eq(h->cap_range, 7);
	ck_assert_uint_eq(h->off_thread % 256, 0);
	ck_assert_uint_eq(h->off_stack % 128, 0);
	ck_assert_uint_eq(h->off_range % 32, 0);
	ck_assert_uint_ge(h->off_range, 128);
	ck_assert_uint_ge(h->off_thread, h->off_range + 7 * 32);
	ck_assert_uint_ge(h->off_stack, h->off_thread + 100 * 256);
	const struct sprof_stack *stacks = (const struct sprof_stack *)((const char *)h + h->off_stack);
	for (uint32_t i = 0; i < 50; i++) {
		ck_assert_uint_eq(stacks[i].self.index, i);
		ck_assert_uint_eq(stacks[i].self.gen, 1);
		ck_assert_uint_eq(stacks[i].cap, 10);
		ck_assert_uint_ge(stacks[i].off_barrier, h->off_stack + 50 * 128 + i * 160);
		ck_assert_uint_le(stacks[i].off_barrier + 160, h->total_size);
	}
	sprof_close(table);
}
END_TEST

START_TEST(readers_find_it_by_its_name)
{
	struct sprof_table *table = open_table((struct sprof_options){.flags = 0});
	char line[512];
	ck_assert(find_mapping(sprof_table_address(table), line, sizeof(line)));
	ck_assert_ptr_nonnull(strstr(line, "rw-s 00000000"));
	ck_assert_ptr_nonnull(strstr(line, "/memfd:SPROF_BLT (deleted)\n"));
	const struct sprof_header *h = sprof_table_address(table);
	ck_assert_uint_eq(strtoull(strchr(line, '-') + 1, NULL, 16) - h->self_va, h->total_size);
	ck_assert_uint_ne(status_of(table).flags & SPROF_STATUS_PUBLISHED, 0);
	const void *address = h;
	sprof_close(table);
	ck_assert(!find_mapping(address, line, sizeof(line)) || !strstr(line, "SPROF_BLT"));
}
END_TEST

START_TEST(nobody_can_shrink_it)
{
	struct sprof_table *table = open_table((struct sprof_options){.flags = 0});
	const struct sprof_header *h = sprof_table_address(table);
	char path[128];
	(void)snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)h->self_va,
		       (unsigned long)(h->self_va + h->total_size));
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 && errno == EPERM) { /* map_files need CAP_CHECKPOINT_RESTORE */
		sprof_close(table);
		return;
	}
	ck_assert_int_ge(fd, 0);
	int seals = fcntl(fd, F_GET_SEALS);
	ck_assert_int_eq(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
			 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	ck_assert_int_eq(ftruncate(fd, 0), -1);
	close(fd);
	sprof_close(table);
}
END_TEST

START_TEST(no_file_descriptor_stays_open)
{
	int before = dup(0);
	close(before);
	struct sprof_table *table = open_table((struct sprof_options){.flags = 0});
	int after = dup(0);
	ck_assert_int_eq(after, before);
	close(after);
	sprof_close(table);
}
END_TEST

START_TEST(options_are_bounded)
{
	const struct sprof_options bad[] = {
		{.size = 4},
		{.size = sizeof(bad[0]), .flags = 1u << 31},
		{.size = sizeof(bad[0]), .threads = SPROF_MAX_THREADS + 1},
		{.size = sizeof(bad[0]), .stacks = SPROF_MAX_STACKS + 1},
		{.size = sizeof(bad[0]), .barriers = SPROF_MAX_BARRIERS + 1},
		{.size = sizeof(bad[0]), .ranges = SPROF_MAX_RANGES + 1},
		{.size = sizeof(bad[0]), .stacks = SPROF_MAX_STACKS, .barriers = SPROF_MAX_BARRIERS},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct sprof_table *table = (struct sprof_table *)&i;
		ck_assert_int_eq(sprof_open(&bad[i], &table), -EINVAL);
		ck_assert_ptr_null(table);
	}
}
END_TEST

START_TEST(one_table_a_process)
{
	struct sprof_table *table = NULL, *second = NULL;
	ck_assert_int_eq(sprof_open(NULL, &table), 0);
	ck_assert_int_eq(sprof_open(NULL, &second), -EEXIST);
	ck_assert_ptr_null(second);
	sprof_close(table);
	ck_assert_int_eq(sprof_open(NULL, &second), 0);
	sprof_close(second);
}
END_TEST

/* All that a program may do, on whatever handle it has. */
static void use(struct sprof_table *table)
{
	struct sprof_thread *thread = sprof_thread_attach(table);
	ck_assert_ptr_eq(sprof_thread_self(table), thread);
	struct sprof_stack *a = sprof_stack_add(table, 0x1000, 0x2000), *b = sprof_stack_add(table, 0x3000, 0x4000);
	uint32_t step = sprof_begin(thread);
	sprof_set_system(thread, b);
	sprof_end(thread, step);
	sprof_set_current(thread, a);
	sprof_switch_begin(thread, b, a);
	sprof_switch_end(thread);
	sprof_resume_begin(thread, a, b, 1, 2, 3);
	sprof_switch_end(thread);
	sprof_yield_begin(thread, b, a);
	sprof_switch_end(thread);
	sprof_system_begin(thread, 1, 2, 3);
	sprof_switch_end(thread);
	sprof_user_begin(thread);
	sprof_switch_end(thread);
	sprof_foreign_enter(thread, a, 1, 2, 3);
	sprof_callback_enter(thread);
	sprof_callback_leave(thread, a, 1, 2, 3);
	sprof_foreign_leave(thread);
	sprof_libcall_enter(thread, a, 1, 2, 3);
	sprof_libcall_leave(thread);
	sprof_gc(thread, 1);
	sprof_gc(thread, 0);
	struct sprof_barrier barrier;
	ck_assert_int_eq(sprof_trylock(a), 1);
	ck_assert_int_eq(sprof_barrier_append(table, a, 0x1800, 7), a ? 0 : -ENOSPC);
	ck_assert_int_eq(sprof_barrier_push(table, a, 0x1700, 6), a ? 0 : -ENOSPC);
	ck_assert_int_eq(sprof_barrier_peek(table, a, &barrier), a != NULL);
	ck_assert_int_eq(sprof_barrier_replace(table, a, 8), a ? 0 : -ENOENT);
	ck_assert_int_eq(sprof_barrier_pop(table, a, &barrier), a != NULL);
	ck_assert_uint_eq(sprof_barrier_unwind(table, a, 0x1900), a != NULL);
	sprof_stack_move(table, a, 0x5000, 0x6000);
	sprof_barrier_clear(a);
	sprof_unlock(a);
	sprof_lock(a);
	sprof_unlock(a);
	ck_assert_uint_eq(sprof_barrier_hit(a, sprof_barriers(table, a), 0x1800), 0);
	const struct sprof_range range = {.lo = 1, .hi = 2, .kind = SPROF_RANGE_STACK_TOP};
	int r = sprof_range_add(table, &range);
	ck_assert_int_eq(r, table ? 0 : -ENOSPC);
	sprof_range_remove(table, r);
	sprof_stack_remove(table, a);
	sprof_stack_remove(table, b);
	sprof_thread_detach(thread);
}

START_TEST(without_a_table_everything_is_nothing)
{
	use(NULL);
	struct sprof_status status = status_of(NULL);
	ck_assert_int_eq(status.publish_error, -ENOENT);
	ck_assert_uint_eq(status.flags, 0);
	ck_assert_ptr_nonnull(strstr(sprof_status_text(NULL), "no table"));
	ck_assert_ptr_null(sprof_table_address(NULL));
	sprof_close(NULL);
	sprof_fork_prepare();
	sprof_fork_parent();
}
END_TEST

static void expect_private(int error, const char *text)
{
	errno = 12345;
	struct sprof_table *table = open_table((struct sprof_options){.flags = 0});
	ck_assert_int_eq(errno, 12345);
	struct sprof_status status = status_of(table);
	ck_assert_int_eq(status.publish_error, error);
	ck_assert_uint_eq(status.flags & SPROF_STATUS_PUBLISHED, 0);
	ck_assert_ptr_nonnull(strstr(sprof_status_text(table), text));
	char line[512];
	ck_assert(find_mapping(sprof_table_address(table), line, sizeof(line)));
	ck_assert_ptr_null(strstr(line, "SPROF_BLT"));
	use(table);
	sprof_close(table);
}

START_TEST(private_on_demand)
{
	struct sprof_table *table = open_table((struct sprof_options){.flags = SPROF_OPEN_PRIVATE});
	char line[512];
	ck_assert(find_mapping(sprof_table_address(table), line, sizeof(line)));
	ck_assert_ptr_null(strstr(line, "SPROF_BLT"));
	ck_assert_int_eq(status_of(table).publish_error, -ECANCELED);
	ck_assert_ptr_nonnull(strstr(sprof_status_text(table), "as the program asked"));
	use(table);
	sprof_close(table);
}
END_TEST

static void deny(int syscall_number, int error)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	ck_assert_ptr_nonnull(filter);
	ck_assert_int_eq(seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)error), syscall_number, 0), 0);
	ck_assert_int_eq(seccomp_load(filter), 0);
	seccomp_release(filter);
}

START_TEST(memfd_denied)
{
	deny(SCMP_SYS(memfd_create), EPERM);
	expect_private(-EPERM, "seccomp");
}
END_TEST

START_TEST(size_denied)
{
	deny(SCMP_SYS(ftruncate), EACCES);
	expect_private(-EACCES, "seccomp");
}
END_TEST

START_TEST(file_size_limited)
{
	const struct rlimit limit = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	expect_private(-EFBIG, "RLIMIT_FSIZE"); /* and SIGXFSZ did not come */
	const struct rlimit none = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
}
END_TEST

static void *attach_and_use_fds(void *table)
{
	/* The start time cannot be read without a descriptor. */
	struct sprof_thread *thread = sprof_thread_attach(table);
	ck_assert_ptr_nonnull(thread);
	ck_assert_uint_eq(thread->starttime, 0);
	ck_assert_ptr_eq(sprof_thread_attach(table), thread);
	sprof_thread_detach(thread);
	return NULL;
}

START_TEST(no_descriptor_free)
{
	struct rlimit old;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	const struct rlimit limit = {.rlim_cur = 0, .rlim_max = old.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	struct sprof_table *table = open_table((struct sprof_options){.flags = 0});
	ck_assert_int_eq(status_of(table).publish_error, -EMFILE);
	ck_assert_ptr_nonnull(strstr(sprof_status_text(table), "RLIMIT_NOFILE"));
	attach_and_use_fds(table);
	sprof_close(table);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
}
END_TEST

#ifndef SPROF_SANITIZE /* AddressSanitizer makes mlock do nothing, and needs mmap */
START_TEST(mlock_denied)
{
	deny(SCMP_SYS(mlock), ENOMEM);
	struct sprof_table *table = open_table((struct sprof_options){.flags = 0});
	struct sprof_status status = status_of(table);
	ck_assert_int_eq(status.lock_error, -ENOMEM);
	ck_assert_int_eq(status.publish_error, 0);
	ck_assert_uint_eq(status.flags, SPROF_STATUS_PUBLISHED);
	ck_assert_ptr_nonnull(strstr(sprof_status_text(table), "RLIMIT_MEMLOCK"));
	use(table);
	sprof_close(table);
}
END_TEST

START_TEST(no_memory_at_all)
{
	deny(SCMP_SYS(mmap), ENOMEM);
	struct sprof_table *table = NULL;
	ck_assert_int_eq(sprof_open(NULL, &table), -ENOMEM);
	ck_assert_ptr_null(table);
}
END_TEST
#endif

START_TEST(a_status_of_an_older_caller)
{
	struct sprof_table *table = open_table((struct sprof_options){.flags = 0});
	struct sprof_status status;
	memset(&status, 0xee, sizeof(status));
	status.size = 16;
	ck_assert_int_eq(sprof_status(table, &status), 0);
	ck_assert_uint_eq(status.size, 16);
	ck_assert_uint_eq(status.threads_refused, 0xeeeeeeeeeeeeeeeeu);
	status.size = 8;
	ck_assert_int_eq(sprof_status(table, &status), -EINVAL);
	sprof_close(table);
}
END_TEST

START_TEST(ranges)
{
	struct sprof_table *table = open_table((struct sprof_options){.ranges = 3});
	const struct sprof_header *h = sprof_table_address(table);
	const struct sprof_range *published = (const struct sprof_range *)((const char *)h + h->off_range);
	struct sprof_range range = {
		.lo = 0x1000, .hi = 0x1010, .kind = SPROF_RANGE_TRAMPOLINE, .cfa_offset = 8, .fp_offset = -8};
	for (int i = 0; i < 3; i++, range.lo += 0x100, range.hi += 0x100)
		ck_assert_int_eq(sprof_range_add(table, &range), i);
	ck_assert_uint_eq(h->n_range, 3);
	ck_assert_uint_eq(published[1].lo, 0x1100);
	ck_assert_int_eq(published[1].fp_offset, -8);
	ck_assert_int_eq(sprof_range_add(table, &range), -ENOSPC);
	ck_assert_uint_eq(status_of(table).ranges_refused, 1);
	uint64_t version = h->range_end;
	sprof_range_remove(table, 1);
	ck_assert_uint_eq(h->range_end, version + 1);
	ck_assert_uint_eq(h->range_begin, version + 1);
	ck_assert_uint_eq(h->n_range, 3);
	ck_assert_uint_eq(published[1].kind, SPROF_RANGE_NONE);
	ck_assert_int_eq(sprof_range_add(table, &range), 1);
	sprof_range_remove(table, 1);
	sprof_range_remove(table, 2);
	ck_assert_uint_eq(h->n_range, 1);
	sprof_range_remove(table, 7);
	range.hi = range.lo;
	ck_assert_int_eq(sprof_range_add(table, &range), -EINVAL);
	sprof_close(table);
}
END_TEST

/* A reader compares versions to know whether its copy of the ranges still holds: of the table before, it must not. */
START_TEST(ranges_of_a_table_in_place_of_another)
{
	struct sprof_range range = {.lo = 0x1000, .hi = 0x1010, .kind = SPROF_RANGE_STACK_TOP};
	uint64_t last = 0;
	for (int round = 0; round < 3; round++) {
		struct sprof_table *table = open_table((struct sprof_options){.ranges = 3});
		const struct sprof_header *h = sprof_table_address(table);
		ck_assert_uint_eq(h->range_begin, h->range_end);
		ck_assert_uint_gt(h->range_end, last);
		ck_assert_int_eq(sprof_range_add(table, &range), 0);
		for (int changes = 0; changes < 50; changes++) {
			sprof_range_remove(table, 0);
			ck_assert_int_eq(sprof_range_add(table, &range), 0);
		}
		last = h->range_end;
		sprof_close(table);
	}
}
END_TEST

#ifdef SPROF_SANITIZE
#define DENIED
#else
#define DENIED mlock_denied, no_memory_at_all,
#endif
CHECK_MAIN("libsprof_table", 20, an_open_table_describes_itself, readers_find_it_by_its_name, nobody_can_shrink_it,
	   no_file_descriptor_stays_open, options_are_bounded, one_table_a_process,
	   without_a_table_everything_is_nothing, private_on_demand, memfd_denied, size_denied, file_size_limited,
	   no_descriptor_free, DENIED a_status_of_an_older_caller, ranges, ranges_of_a_table_in_place_of_another)
