/* hostile_table MODE [--seed=N]: publishes a barrier-lock table that lies, in the way that MODE names, and keeps threads busy that the table is
 * about. Never links libsprof: every word of the table is made here, and so is every mistake.
 *
 *   records   threads, stacks, barriers and ranges change to anything while they are read; the header holds still
 *   header    the header too, with good moments in between
 *   loops     stacks and resumers that lead to themselves and to one another, under locks that are free
 *   counts    every count, index and offset at its bounds and beyond
 *   shrinks   the memory object is not sealed: it is cut short and grown again
 *   churns    tables come and go by the dozen, at changing places, some mapped in pieces or privately
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sprof/barrier_abi.h>

#include "target.h"

enum { THREADS = 64, STACKS = 64, BARRIERS = 32, RANGES = 16, BUSY = 2, DEPTH = 30, STACK_BYTES = 256 * 1024 };

/* Laid out as libsprof would. */
struct table {
	struct sprof_header header;
	struct sprof_range ranges[RANGES];
	char fill[4096 - sizeof(struct sprof_header) - RANGES * sizeof(struct sprof_range)];
	struct sprof_thread threads[THREADS];
	struct sprof_stack stacks[STACKS];
	struct sprof_barrier barriers[STACKS][BARRIERS];
};
_Static_assert(offsetof(struct table, threads) == 4096, "records do not lie across pages");
enum { TABLE_BYTES = (sizeof(struct table) + 4095) / 4096 * 4096 };

static struct table *table;
static int table_fd;
static struct table honest; /* what would be right */
static char *stack_memory[BUSY];
static volatile int over; /* never: they have nowhere to return to */
static volatile int tids[BUSY];
static volatile uint64_t leaf_fp[BUSY];
static uint64_t records[BUSY][DEPTH]; /* frame records, youngest first */
static uint64_t state;

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* --- The threads that it is about ---------------------------------------------------------------------------------------------- */

TARGET_NOINLINE static void hostile_leaf(int which)
{
	leaf_fp[which] = (uintptr_t)__builtin_frame_address(0);
	while (!over)
		target_burn(100000);
	TARGET_OWN_FRAME(hostile_leaf);
}

TARGET_NOINLINE static void hostile_frame(int which, int depth) // NOLINT(misc-no-recursion)
{
	if (depth > 0)
		hostile_frame(which, depth - 1);
	else
		hostile_leaf(which);
	TARGET_OWN_FRAME(hostile_frame);
}

static void *stay_busy(void *which)
{
	tids[(intptr_t)which] = target_tid();
	hostile_frame((int)(intptr_t)which, DEPTH);
	return NULL;
}

/* Where hijacked returns lead, or would, if any of these threads ever returned. */
TARGET_NOINLINE static void hostile_trampoline(void)
{
	TARGET_OWN_FRAME(hostile_trampoline);
}

static void start_threads(void)
{
	for (intptr_t i = 0; i < BUSY; i++) {
		pthread_t id;
		pthread_attr_t attr;
		stack_memory[i] = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		pthread_attr_init(&attr);
		if (stack_memory[i] == MAP_FAILED || pthread_attr_setstack(&attr, stack_memory[i], STACK_BYTES) != 0 ||
		    pthread_create(&id, &attr, stay_busy, (void *)i) != 0) // NOLINT(performance-no-int-to-ptr)
			target_die("thread");
		while (!leaf_fp[i])
			target_sleep_us(100);
	}
}

/* --- A table that would be right ----------------------------------------------------------------------------------------------- */

static uint64_t starttime(void)
{
	char text[1024] = "";
	FILE *file = fopen("/proc/self/stat", "re");
	size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
	if (file)
		(void)fclose(file);
	text[n] = '\0';
	char *p = strrchr(text, ')'); /* then the fields from 3 on */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p, NULL, 10) : 0;
}

static void make_header(struct sprof_header *header, uint64_t at)
{
	*header = (struct sprof_header){
		.magic = SPROF_TABLE_MAGIC,
		.abi = SPROF_ABI,
		.hdr_size = sizeof(struct sprof_header),
		.thread_size = sizeof(struct sprof_thread),
		.stack_size = sizeof(struct sprof_stack),
		.barrier_size = sizeof(struct sprof_barrier),
		.range_size = sizeof(struct sprof_range),
		.total_size = TABLE_BYTES,
		.self_va = at,
		.proc_starttime = starttime(),
		.tgid = (uint32_t)getpid(),
		.off_thread = offsetof(struct table, threads),
		.off_stack = offsetof(struct table, stacks),
		.off_range = offsetof(struct table, ranges),
		.cap_thread = THREADS,
		.cap_stack = STACKS,
		.cap_range = RANGES,
		.n_range = 3,
		.n_probe = 1,
	};
}

/* Every return address of the thread's own frames is hijacked, and rightly so. */
static void hijack(struct table *t, uint32_t i)
{
	uint64_t fp = leaf_fp[i];
	for (uint32_t n = 0; n < DEPTH; n++) {
		uint64_t *record = (uint64_t *)(uintptr_t)fp; // NOLINT(performance-no-int-to-ptr)
		records[i][n] = fp;
		if (record[1] != (uintptr_t)hostile_trampoline)
			t->barriers[i][n] = (struct sprof_barrier){.slot = fp + 8, .original_pc = record[1]};
		record[1] = (uintptr_t)hostile_trampoline;
		fp = record[0];
	}
	t->stacks[i].n = DEPTH;
}

static void make_thread(struct table *t, uint32_t i)
{
	struct sprof_ref user = {.index = i, .gen = 1}, other = {.index = BUSY + i, .gen = 1};
	uint64_t lo = (uintptr_t)stack_memory[i];
	hijack(t, i);
	struct sprof_context context = {
		.pc = t->barriers[i][9].original_pc, .sp = records[i][9] + 16, .fp = records[i][10]};
	t->threads[(uint32_t)tids[i] % THREADS] = (struct sprof_thread){.tid = (uint32_t)tids[i],
									.current = user,
									.user = user,
									.system = other,
									.foreign = other,
									.libcall = other,
									.foreign_context = context,
									.jump_context = context,
									.libcall_context = context};
	t->stacks[i].lo = lo;
	t->stacks[i].hi = lo + STACK_BYTES;
	t->stacks[BUSY + i].lo = lo;
	t->stacks[BUSY + i].hi = lo + STACK_BYTES / 2;
	t->stacks[i].owner_tid = t->stacks[BUSY + i].owner_tid = (uint32_t)tids[i];
}

static void make_honest(uint64_t at)
{
	make_header(&honest.header, at);
	honest.ranges[0] = (struct sprof_range){
		.lo = (uintptr_t)hostile_trampoline, .hi = (uintptr_t)hostile_trampoline + 8, .kind = 1};
	honest.ranges[1] = (struct sprof_range){.lo = (uintptr_t)starttime, .hi = (uintptr_t)starttime + 8, .kind = 2};
	honest.ranges[2] =
		(struct sprof_range){.lo = (uintptr_t)stay_busy, .hi = (uintptr_t)stay_busy + 256, .kind = 3};
	for (uint32_t i = 0; i < STACKS; i++) {
		honest.stacks[i].self = (struct sprof_ref){.index = i, .gen = 1};
		honest.stacks[i].cap = BARRIERS;
		honest.stacks[i].off_barrier = offsetof(struct table, barriers) + i * sizeof(honest.barriers[0]);
	}
	for (uint32_t i = 0; i < BUSY; i++)
		make_thread(&honest, i);
}

static struct table *map_table(int *ret_fd, bool sealed, int flags)
{
	int fd = memfd_create(SPROF_TABLE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, TABLE_BYTES) < 0)
		target_die("memfd");
	if (sealed && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		target_die("seal");
	struct table *t = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (t == MAP_FAILED)
		target_die("mmap");
	if (ret_fd)
		*ret_fd = fd;
	else
		close(fd);
	return t;
}

/* --- Lies ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t any_address(void)
{
	uint64_t stack = (uintptr_t)stack_memory[draw() % BUSY];
	switch (draw() % 6) {
	case 0:
		return stack + draw() % STACK_BYTES;
	case 1:
		return stack + STACK_BYTES - draw() % 4096;
	case 2:
		return (uintptr_t)table + draw() % TABLE_BYTES;
	case 3:
		return (draw() % 2 ? (uintptr_t)hostile_frame : (uintptr_t)hostile_trampoline) + draw() % 64;
	case 4:
		return 0xffffffff81000000u + draw() % 4096; /* the kernel's */
	default:
		return 0x00007fffffffffffu - draw() % 4096;
	}
}

static uint64_t any_word(void)
{
	switch (draw() % 8) {
	case 0:
		return 0;
	case 1:
		return draw() % 128;
	case 2:
		return ~0ull - draw() % 16;
	case 3:
		return 1ull << draw() % 64;
	case 4:
		return draw();
	case 5:
		return draw() << 32 | (uint32_t)draw();
	default:
		return any_address();
	}
}

static void spoil(void *where, size_t bytes, unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		__atomic_store_n((uint64_t *)where + draw() % (bytes / 8), any_word(), __ATOMIC_RELAXED);
}

static void restore_header(void)
{
	memcpy(&table->header, &honest.header, sizeof(honest.header));
}

/* Seldom: with other ranges than those that it knows, a profiler believes nothing. */
static void lie_in_ranges(void)
{
	memcpy(table->ranges, honest.ranges, sizeof(table->ranges));
	table->ranges[0].kind = draw() % 5;
	table->ranges[0].entry_offset = (int32_t)(draw() % 64);
	spoil(table->ranges, sizeof(table->ranges), draw() % 2);
	table->header.range_begin = table->header.range_end = draw() % 4;
}

/* Mostly right, so that the walk gets far, and one thing or three wrong. */
static void lie_in_records(void)
{
	struct table *t = table;
	uint32_t i = (uint32_t)(draw() % BUSY);
	memcpy(t->threads, honest.threads, sizeof(t->threads));
	memcpy(t->stacks, honest.stacks, sizeof(t->stacks));
	if (draw() % 2)
		t->threads[(uint32_t)tids[i] % THREADS].foreign_depth = 1;
	spoil(&t->threads[(uint32_t)tids[i] % THREADS].seq, 144, draw() % 3);
	spoil(t->stacks, sizeof(t->stacks[0]) * 2 * BUSY, draw() % 4);
	if (draw() % 4)
		memcpy(t->barriers, honest.barriers, sizeof(t->barriers));
	else
		spoil(t->barriers, BUSY * sizeof(t->barriers[0]), 8);
	if (draw() % 10000 == 0)
		lie_in_ranges();
}

static void lie_in_header(void)
{
	restore_header();
	target_sleep_us(30000); /* time enough to be believed */
	for (int i = 0; i < 200; i++) {
		lie_in_records();
		lie_in_ranges();
		spoil(&table->header, sizeof(table->header), draw() % 3);
		target_burn(1000);
	}
}

static void lie_in_loops(void)
{
	struct sprof_thread *thread = &table->threads[(uint32_t)tids[draw() % BUSY] % THREADS];
	struct sprof_context context = honest.threads[(uint32_t)tids[0] % THREADS].jump_context;
	for (uint32_t i = 0; i < STACKS; i++) {
		struct sprof_stack *stack = &table->stacks[i];
		stack->lo = (uintptr_t)stack_memory[i % BUSY];
		stack->hi = stack->lo + STACK_BYTES;
		stack->owner_tid = (uint32_t)tids[i % BUSY];
		stack->resumer = (struct sprof_ref){.index = draw() % 3 ? (uint32_t)(draw() % STACKS) : i, .gen = 1};
		stack->resumer_context = context;
		stack->resumer_context.fp = draw() % 2 ? 0 : (uintptr_t)stack_memory[i % BUSY] + STACK_BYTES / 2;
	}
	/* A frame record that leads to itself. */
	uint64_t *record = (uint64_t *)(void *)(stack_memory[0] + STACK_BYTES / 2);
	record[0] = (uintptr_t)record;
	record[1] = (uintptr_t)hostile_frame + 8;
	thread->foreign_depth = draw() % 2;
	thread->foreign = thread->user = thread->system = thread->libcall = thread->current;
	thread->foreign_context = thread->jump_context = context;
}

static void lie_in_counts(void)
{
	static const uint32_t counts[] = {0,     1,     31,         32,         33,         65535,
					  65536, 65537, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
	enum { N = sizeof(counts) / sizeof(counts[0]) };
	lie_in_records();
	for (uint32_t i = 0; i < 2 * BUSY; i++) {
		table->stacks[i].cap = counts[draw() % N];
		table->stacks[i].n = counts[draw() % N];
		table->stacks[i].pos = counts[draw() % N];
		table->stacks[i].off_barrier =
			draw() % 2 ? honest.stacks[i].off_barrier : TABLE_BYTES - 16 * (draw() % 4);
		table->stacks[i].resumer.index = counts[draw() % N];
	}
	restore_header();
	table->header.n_probe = draw() % 16 ? (uint32_t)(draw() % 17) : counts[draw() % N];
	if (draw() % 1000 == 0) {
		table->header.n_range = counts[draw() % N];
		target_sleep_us(10000);
	}
}

static void lie_about_size(void)
{
	static const off_t sizes[] = {0, 1, 4095, 4096, 8192, TABLE_BYTES - 4096, TABLE_BYTES};
	if (ftruncate(table_fd, TABLE_BYTES) < 0 || pwrite(table_fd, &honest, sizeof(honest), 0) != sizeof(honest))
		target_die("grow");
	target_sleep_us(draw() % 4 ? 500 : 30000);
	if (ftruncate(table_fd, sizes[draw() % 7]) < 0)
		target_die("shrink");
	target_sleep_us(500);
}

static void come_and_go(void)
{
	enum { N = 40 };
	static struct table *all[N];
	uint32_t i = (uint32_t)(draw() % N);
	if (all[i])
		munmap(all[i], TABLE_BYTES);
	all[i] = map_table(NULL, draw() % 2, draw() % 4 ? MAP_SHARED : MAP_PRIVATE);
	make_honest((uintptr_t)all[i]);
	memcpy(all[i], &honest, sizeof(honest));
	if (draw() % 4 == 0)
		spoil(&all[i]->header, sizeof(all[i]->header), 1);
	if (draw() % 8 == 0)
		(void)mmap((char *)all[i] + 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	target_sleep_us(draw() % 16 ? 300 : 30000);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*lie)(void);
	} modes[] = {{"records", lie_in_records}, {"header", lie_in_header},   {"loops", lie_in_loops},
		     {"counts", lie_in_counts},   {"shrinks", lie_about_size}, {"churns", come_and_go}};
	long seed = 1;
	const struct target_flag flags[] = {{"seed", &seed}};
	size_t mode = 0;
	if (argc >= 2)
		while (mode < 6 && strcmp(modes[mode].name, argv[1]) != 0)
			mode++;
	if (argc < 2 || mode == 6 || target_parse(argc - 1, argv + 1, flags, 1) < argc - 1) {
		(void)fprintf(stderr, "usage: hostile_table records|header|loops|counts|shrinks|churns [--seed=N]\n");
		return 2;
	}
	state = 0x9E3779B97F4A7C15u * ((uint64_t)seed + 1);
	target_begin(0);
	start_threads();
	table = map_table(&table_fd, modes[mode].lie != lie_about_size, MAP_SHARED);
	make_honest((uintptr_t)table);
	memcpy(table, &honest, sizeof(honest));
	target_ready(NULL);
	uint64_t lies = 0;
	for (; !target_over(); lies++) {
		modes[mode].lie();
		target_burn(draw() % 3000);
	}
	printf("{\"lies\": %lu}\n", (unsigned long)lies);
	(void)fflush(stdout);
	_Exit(0);
}
