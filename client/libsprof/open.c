/* Making and taking away a table. */
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum { PAGE = 4096, DEFAULT_THREADS = 1024, DEFAULT_STACKS = 1024, DEFAULT_BARRIERS = 32 };

struct layout {
	uint32_t threads, stacks, barriers, ranges;
	size_t off_range, off_thread, off_stack, off_barrier, total;
};

static uint32_t option(uint32_t value, uint32_t by_default)
{
	return value ? value : by_default;
}

static size_t page_up(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	return (bytes + page - 1) / page * page;
}

static int lay_out(const struct sprof_options *given, struct layout *ret)
{
	static const struct sprof_options none = {0, 0, 0, 0, 0, 0};
	if (given && given->size < sizeof(*given))
		return -EINVAL;
	const struct sprof_options *o = given ? given : &none;
	struct layout l = {.threads = option(o->threads, DEFAULT_THREADS),
			   .stacks = option(o->stacks, DEFAULT_STACKS),
			   .barriers = option(o->barriers, DEFAULT_BARRIERS),
			   .ranges = option(o->ranges, SPROF_MAX_RANGES)};
	if (l.threads > SPROF_MAX_THREADS || l.stacks > SPROF_MAX_STACKS || l.barriers > SPROF_MAX_BARRIERS ||
	    l.ranges > SPROF_MAX_RANGES ||
	    (o->flags & ~(SPROF_OPEN_NO_LOCK | SPROF_OPEN_NO_ATFORK | SPROF_OPEN_PRIVATE)))
		return -EINVAL;
	l.off_range = sizeof(struct sprof_header);
	l.off_thread = PAGE;
	_Static_assert(sizeof(struct sprof_header) + SPROF_MAX_RANGES * sizeof(struct sprof_range) <= PAGE, "one page");
	l.off_stack = l.off_thread + (size_t)l.threads * sizeof(struct sprof_thread);
	l.off_barrier = l.off_stack + (size_t)l.stacks * sizeof(struct sprof_stack);
	l.total = page_up(l.off_barrier + (size_t)l.stacks * l.barriers * sizeof(struct sprof_barrier));
	if (l.total > SPROF_MAX_TABLE_BYTES)
		return -EINVAL;
	*ret = l;
	return 0;
}

static struct sprof_table *handle_new(const struct layout *l)
{
	size_t words = (l->stacks + 63) / 64;
	size_t bytes = page_up(sizeof(struct sprof_table) + 2 * words * sizeof(uint64_t));
	struct sprof_table *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (table == MAP_FAILED)
		return NULL;
	table->handle_bytes = bytes;
	table->held = table->used + words;
	table->cap_thread = l->threads;
	table->cap_stack = l->stacks;
	table->cap_range = l->ranges;
	table->table_bytes = l->total;
	return table;
}

void table_init_stack(const struct sprof_table *table, struct sprof_stack *stacks, uint32_t i)
{
	struct sprof_stack *first = table->stacks, *stack = &stacks[i];
	/* The first place says where the barriers begin: all places have as many. */
	*stack = (struct sprof_stack){.off_barrier = first->off_barrier +
						     (uint64_t)i * first->cap * sizeof(struct sprof_barrier),
				      .cap = first->cap,
				      .self = {.index = i, .gen = 1}};
}

/* One that no table had which this one may take the place of: ranges change more slowly than the clock. */
static uint64_t first_ranges_version(void)
{
	struct timespec now = {.tv_sec = 0};
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void table_fill(struct sprof_table *table, const struct layout *l, void *memory)
{
	struct sprof_header *header = memory;
	table->header = header;
	table->threads = (struct sprof_thread *)((char *)memory + l->off_thread);
	table->stacks = (struct sprof_stack *)((char *)memory + l->off_stack);
	table->ranges = (struct sprof_range *)((char *)memory + l->off_range);
	*header = (struct sprof_header){.abi = SPROF_ABI,
					.hdr_size = sizeof(struct sprof_header),
					.thread_size = sizeof(struct sprof_thread),
					.stack_size = sizeof(struct sprof_stack),
					.barrier_size = sizeof(struct sprof_barrier),
					.range_size = sizeof(struct sprof_range),
					.total_size = l->total,
					.self_va = (uint64_t)(uintptr_t)memory,
					.proc_starttime = read_starttime("/proc/self/stat"),
					.tgid = (uint32_t)getpid(),
					.off_thread = l->off_thread,
					.off_stack = l->off_stack,
					.off_range = l->off_range,
					.cap_thread = l->threads,
					.cap_stack = l->stacks,
					.cap_range = l->ranges};
	header->range_begin = header->range_end = first_ranges_version();
	table->stacks[0].off_barrier = l->off_barrier;
	table->stacks[0].cap = l->barriers;
	for (uint32_t i = 0; i < l->stacks; i++)
		table_init_stack(table, table->stacks, i);
}

static int table_new(const struct sprof_options *options, struct sprof_table **ret)
{
	struct layout l;
	int r = lay_out(options, &l);
	if (r < 0)
		return r;
	struct sprof_table *table = handle_new(&l);
	if (!table)
		return -ENOMEM;
	bool private = options && options->flags & SPROF_OPEN_PRIVATE;
	void *memory = table_map(l.total, private, &table->publish_error);
	if (!memory) {
		munmap(table, table->handle_bytes);
		return -ENOMEM;
	}
	table->open_flags = options ? options->flags : 0;
	table_fill(table, &l, memory);
	*ret = table;
	return 0;
}

static void table_free(struct sprof_table *table)
{
	table_unmap(table->header, table->table_bytes);
	munmap(table, table->handle_bytes);
}

static void table_publish(struct sprof_table *table)
{
	if (!(table->open_flags & SPROF_OPEN_NO_LOCK) && table->publish_error == 0) {
		table->lock_error = table_lock_pages(table->header, table->table_bytes);
		if (table->lock_error == 0) {
			table->status |= SPROF_STATUS_LOCKED;
			table->header->flags |= SPROF_HEADER_LOCKED;
		}
	}
	if (table->publish_error == 0)
		table->status |= SPROF_STATUS_PUBLISHED;
	__atomic_store_n(&table->header->magic, SPROF_TABLE_MAGIC, __ATOMIC_RELEASE);
}

int sprof_open(const struct sprof_options *options, struct sprof_table **ret_table)
{
	int saved = errno;
	struct sprof_table *table = NULL;
	*ret_table = NULL;
	int r = table_new(options, &table);
	if (r == 0) {
		r = fork_register(table);
		if (r < 0)
			table_free(table);
	}
	if (r == 0) {
		table_publish(table);
		*ret_table = table;
	}
	errno = saved;
	return r;
}

void sprof_close(struct sprof_table *table)
{
	if (!table)
		return;
	int saved = errno;
	__atomic_store_n(&table->header->magic, 0, __ATOMIC_RELEASE);
	fork_unregister(table);
	table_free(table);
	errno = saved;
}
