/* stalling_table table|stack: publishes a barrier-lock table, and has whoever reads of its memory wait for good, by a userfaultfd that nobody serves. (It must be root:
 * others' userfaultfds fail the reads of the kernel.)
 *
 *   table   the table's own pages, none of which is there yet
 *   stack   the stack that a valid table names, and on which it has a barrier
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <sprof/barrier_abi.h>

#include "target.h"

enum { PAGE = 4096, TABLE_BYTES = 4 * PAGE, STACK_BYTES = 16 * PAGE };

static void make_wait(void *memory, size_t bytes)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register range = {.range = {(uintptr_t)memory, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &range) < 0)
		target_die("userfaultfd");
}

static void *make_memory(int fd, size_t bytes, int flags)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (memory == MAP_FAILED)
		target_die("mmap");
	return memory;
}

static void *map_table(void)
{
	int fd = memfd_create(SPROF_TABLE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, TABLE_BYTES) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		target_die(SPROF_TABLE_NAME);
	void *table = make_memory(fd, TABLE_BYTES, MAP_SHARED);
	close(fd);
	return table;
}

/* One stack in use, with one barrier. */
static void fill_table(void *table, const char *stack)
{
	struct sprof_header *header = table;
	struct sprof_stack *record = (void *)((char *)table + 2L * PAGE);
	struct sprof_barrier *barrier = (void *)((char *)table + 3L * PAGE);
	*barrier = (struct sprof_barrier){.slot = (uintptr_t)stack + STACK_BYTES / 2,
					  .original_pc = (uintptr_t)fill_table};
	*record = (struct sprof_stack){.lo = (uintptr_t)stack,
				       .hi = (uintptr_t)stack + STACK_BYTES,
				       .off_barrier = 3L * PAGE,
				       .cap = 1,
				       .n = 1,
				       .self = {.index = 0, .gen = 1}};
	*header = (struct sprof_header){
		.abi = SPROF_ABI,
		.hdr_size = sizeof(struct sprof_header),
		.thread_size = sizeof(struct sprof_thread),
		.stack_size = sizeof(struct sprof_stack),
		.barrier_size = sizeof(struct sprof_barrier),
		.range_size = sizeof(struct sprof_range),
		.total_size = TABLE_BYTES,
		.self_va = (uintptr_t)table,
		.tgid = (uint32_t)getpid(),
		.off_thread = PAGE,
		.off_stack = 2L * PAGE,
		.off_range = sizeof(struct sprof_header),
		.cap_thread = 16,
		.cap_stack = 1,
		.cap_range = 1,
	};
	__atomic_store_n(&header->magic, SPROF_TABLE_MAGIC, __ATOMIC_RELEASE);
}

int main(int argc, char **argv)
{
	int mode = target_parse(argc, argv, NULL, 0);
	if (mode + 1 != argc)
		return fprintf(stderr, "usage: stalling_table table|stack\n"), 2;
	void *table = map_table();
	if (!strcmp(argv[mode], "table")) {
		make_wait(table, TABLE_BYTES);
	} else {
		char *stack = make_memory(-1, STACK_BYTES, MAP_PRIVATE | MAP_ANONYMOUS);
		fill_table(table, stack);
		make_wait(stack, STACK_BYTES);
	}
	target_begin(0);
	target_ready(NULL);
	while (!target_over())
		target_sleep_us(1000);
	printf("{}\n");
	return 0;
}
