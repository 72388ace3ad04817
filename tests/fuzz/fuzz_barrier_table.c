/* The barrier-lock table of a hostile process: first its header by itself, then the whole table, as this process publishes it, looked at and judged.
 * Input: 8 bytes start and 8 bytes length of a mapping, for the header by itself; then the table's bytes, which a header that says where it is and whose
 * may precede. */
#undef NDEBUG /* a check that is left out checks nothing */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "collect/table_judge.h"
#include "collect/table_look_parts.h"

enum { TABLE_BYTES = 65536 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* An array of a table that was accepted lies inside it, behind the header. */
static void require_inside(const struct sprof_header *h, uint64_t bytes, uint64_t offset, uint64_t n, uint64_t stride)
{
	assert(stride >= 16 && stride <= 4096 && stride % 8 == 0);
	assert(n >= 1 && n <= 1 << 20);
	assert(offset >= h->hdr_size && offset <= bytes);
	assert(n * stride <= bytes - offset);
}

static void check_header(const uint8_t *data)
{
	struct sprof_header header;
	struct error err = {0};
	uint64_t start, length;
	memcpy(&start, data, 8);
	memcpy(&length, data + 8, 8);
	memcpy(&header, data + 16, sizeof(header));
	int r = barrier_table_check(&header, start, length, &err);
	assert(r == 0 || ((r == -EPROTO || r == -EAGAIN) && err.code == -r && err.text[0]));
	if (r < 0)
		return;
	assert(header.total_size == length && length <= SPROF_MAX_TABLE_BYTES && header.self_va == start);
	require_inside(&header, length, header.off_thread, header.cap_thread, header.thread_size);
	require_inside(&header, length, header.off_stack, header.cap_stack, header.stack_size);
	require_inside(&header, length, header.off_range, header.cap_range, header.range_size);
	assert(header.n_range <= SPROF_MAX_RANGES && header.n_probe <= SPROF_THREAD_PROBES);
}

static int table_fd; /* reads what publish made */

static uint8_t *publish(void)
{
	static uint8_t *memory;
	if (memory)
		return memory;
	int fd = (int)syscall(SYS_memfd_create, SPROF_TABLE_NAME, 0);
	assert(fd >= 0 && ftruncate(fd, TABLE_BYTES) == 0);
	memory = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert(memory != MAP_FAILED);
	table_fd = fd;
	return memory;
}

/* As table_look_take does, but that what is not the table's is looked at once: a fuzzer needs speed. */
static bool take(const uint8_t *memory, const struct table_look *surroundings, struct table_look *ret)
{
	const struct sprof_header *header = (const struct sprof_header *)(const void *)memory;
	*ret = *surroundings;
	ret->table = (struct barrier_table){.header = *header,
					    .n_ranges = header->n_range,
					    .start = (uintptr_t)memory,
					    .end = (uintptr_t)memory + TABLE_BYTES,
					    .tid = getpid()};
	ret->table_fd = table_fd;
	if (barrier_table_check(header, (uintptr_t)memory, TABLE_BYTES, NULL) < 0)
		return false;
	for (uint32_t i = 0; i < header->n_range; i++)
		memcpy(&ret->table.ranges[i], memory + header->off_range + (uint64_t)i * header->range_size,
		       sizeof(ret->table.ranges[i]));
	assert(look_take_records(ret) == 0);
	return true;
}

static void look(const uint8_t *data, size_t bytes)
{
	static struct table_look surroundings;
	struct table_look seen;
	struct findings findings = {0};
	uint8_t *memory = publish();
	struct sprof_header *header = (struct sprof_header *)(void *)memory;
	if (!surroundings.n_mappings)
		assert(look_take_mappings(&surroundings, getpid()) == 0 &&
		       look_take_tasks(&surroundings, getpid()) == 0);
	memset(memory, 0, TABLE_BYTES);
	memcpy(memory, data, bytes < TABLE_BYTES ? bytes : TABLE_BYTES);
	/* What a fuzzer cannot guess. */
	header->self_va = (uintptr_t)memory;
	header->total_size = TABLE_BYTES;
	if (!take(memory, &surroundings, &seen))
		return;
	assert(seen.n_threads <= LOOK_MAX_THREADS && seen.n_stacks <= LOOK_MAX_STACKS &&
	       seen.n_barriers <= LOOK_MAX_BARRIERS);
	for (size_t i = 0; i < seen.n_stacks; i++)
		assert(seen.stacks[i].first_barrier + seen.stacks[i].n_barriers <= seen.n_barriers);
	table_judge(&seen, &findings);
	assert(!findings.out_of_memory && findings.n <= FINDING_COUNT * FINDINGS_OF_A_CODE);
	findings_free(&findings);
	seen.mappings = NULL, seen.tasks = NULL; /* of surroundings */
	table_look_free(&seen);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes < 16 + sizeof(struct sprof_header))
		return 0;
	check_header(data);
	look(data + 16, bytes - 16);
	return 0;
}
