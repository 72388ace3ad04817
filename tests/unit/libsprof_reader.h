/* A reader of the barrier-lock table, by the letter of docs/BARRIER-TABLE.md: each version in a read of its own, payload in between. Where
 * the words come from is the caller's: another thread's memory, or another process's. */
#pragma once
#include <sprof/barrier_abi.h>
#include <stdbool.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct table_source {
	pid_t pid; /* 0: this process */
};

/* Memory of this process that other threads write: only atomic accesses. */
static inline bool read_own(uint64_t address, void *to, size_t bytes)
{
	char *out = to;
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t word = __atomic_load_n((const uint64_t *)(uintptr_t)(address + i), __ATOMIC_ACQUIRE);
		memcpy(out + i, &word, 8);
	}
	return true;
}

static inline bool read_table(const struct table_source *source, uint64_t address, void *to, size_t bytes)
{
	if (source->pid == 0)
		return read_own(address, to, bytes);
	struct iovec local = {.iov_base = to, .iov_len = bytes};
	struct iovec remote = {.iov_base = (void *)(uintptr_t)address,
			       .iov_len = bytes}; // NOLINT(performance-no-int-to-ptr)
	return process_vm_readv(source->pid, &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}

enum read_result { READ_ACCEPTED, READ_BUSY, READ_CHANGED, READ_UNREADABLE };

/* Copies stack number i and up to max of its barriers, if nobody changed them meanwhile. */
static inline enum read_result read_stack(const struct table_source *source, uint64_t table,
					  const struct sprof_header *header, uint32_t i, struct sprof_stack *ret,
					  struct sprof_barrier *ret_barriers, uint32_t max)
{
	uint64_t address = table + header->off_stack + (uint64_t)i * header->stack_size, begin = 0, end = 0, again = 0;
	if (!read_table(source, address + offsetof(struct sprof_stack, seq_begin), &begin, 8) ||
	    !read_table(source, address + offsetof(struct sprof_stack, seq_end), &end, 8))
		return READ_UNREADABLE;
	if (begin != end)
		return READ_BUSY;
	if (!read_table(source, address, ret, sizeof(*ret)))
		return READ_UNREADABLE;
	uint32_t n = ret->n < max ? ret->n : max;
	if (ret->off_barrier <= header->total_size - n * sizeof(*ret_barriers) &&
	    !read_table(source, table + ret->off_barrier, ret_barriers, n * sizeof(*ret_barriers)))
		return READ_UNREADABLE;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (!read_table(source, address + offsetof(struct sprof_stack, seq_begin), &again, 8))
		return READ_UNREADABLE;
	return again == end ? READ_ACCEPTED : READ_CHANGED;
}

static inline enum read_result read_thread(const struct table_source *source, uint64_t address,
					   struct sprof_thread *ret)
{
	uint32_t before[2], after[2]; /* tid, seq: one word */
	if (!read_table(source, address, before, 8))
		return READ_UNREADABLE;
	if (before[1] & 1)
		return READ_BUSY;
	if (!read_table(source, address, ret, sizeof(*ret)))
		return READ_UNREADABLE;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (!read_table(source, address, after, 8))
		return READ_UNREADABLE;
	return before[0] == after[0] && before[1] == after[1] ? READ_ACCEPTED : READ_CHANGED;
}
