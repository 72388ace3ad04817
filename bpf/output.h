/* Records: their header, what follows the frames, and the ring buffer. Part of sampler.bpf.c.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#pragma once
#include "bpf/sampler_python.h"
#include "bpf/task.h"

const volatile __u64 ring_wakeup_bytes; /* fuller than that, and the daemon is woken */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* set by the daemon */
} ring SEC(".maps");

enum {
	RING_PAGE_BYTES = 4096,
	RING_HEADER_BYTES = 8, /* BPF_RINGBUF_HDR_SZ: the kernel writes it before each record */
	RING_MAX_PAGES = 1 << 20,
};

/* A record that takes a whole page of the ring buffer, and is nothing. 1: there is no more room. */
static long touch_page(__u32 index __attribute__((unused)), void *unused __attribute__((unused)))
{
	void *page = bpf_ringbuf_reserve(&ring, RING_PAGE_BYTES - RING_HEADER_BYTES, 0);
	if (!page)
		return 1;
	bpf_ringbuf_discard(page, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Run once by the daemon, before any target. Where a hypervisor keeps its own page tables, the kernel's first write to each page of the ring buffer
 * costs microseconds: they are the daemon's, not the first samples'. */
SEC("raw_tp")
int touch_ring(void *ctx __attribute__((unused)))
{
	bpf_loop(RING_MAX_PAGES, touch_page, NULL, 0);
	return 0;
}

struct news news[MAX_TARGET_SLOTS];

/* The kernel keeps names padded with zeros; but another thread may be writing this one just now. */
static __always_inline void take_name(struct record *record, struct task_struct *task)
{
	__u64 *to = (__u64 *)record->comm;
	const __u64 *from = (const __u64 *)task->comm;
	to[0] = from[0];
	to[1] = from[1] & ~(0xffull << 56);
}

static void fill_header(struct record *record, struct task_struct *task, struct perf_event *event, __u64 cookie,
			__u32 serial)
{
	struct mm_struct *mm = task->mm;
	record->serial = serial;
	record->slot = COOKIE_SLOT(cookie);
	record->generation = COOKIE_GENERATION(cookie);
	record->pid = number_in_daemon_namespace(task->group_leader);
	record->tid = number_in_daemon_namespace(task);
	record->cpu = (__u16)bpf_get_smp_processor_id();
	record->thread_start_ns = task->start_boottime;
	record->task = (__u64)task;
	record->runtime_ns = runtime_of(task, event, cookie & COOKIE_CPU_CLOCK);
	record->exec_id = task->self_exec_id;
	record->exec_pages = mm ? (__u32)mm->exec_vm : 0;
	record->map_count = mm ? (__u32)mm->map_count : 0;
	record->n_segments = 0;
	record->thread_flags = 0;
	record->n_barriers = 0;
	take_name(record, task);
}

/* Segments and barriers go behind the frames. The words of the record's variable part, or 0: none can be (never; said for the verifier). */
static __u32 add_tail(struct walk *walk, __u32 words)
{
	__u32 segments = walk->n_segments, barriers = walk->n_barriers;
	if (segments == 0)
		return words;
	if (segments > RECORD_MAX_SEGMENTS || barriers > WALK_FRAMES || words > WALK_WORDS)
		return 0;
	bpf_probe_read_kernel(&walk->frames[words], segments * sizeof(struct record_segment), walk->segments);
	words += segments * (sizeof(struct record_segment) / sizeof(__u64));
	if (words > WALK_WORDS + WALK_SEGMENT_WORDS)
		return 0;
	if (barriers)
		bpf_probe_read_kernel(&walk->frames[words], barriers * sizeof(__u64), walk->barriers);
	return words + barriers;
}

/* Whether the daemon should look at this record soon. outdated: other code is mapped than the walk knew of. A target that changes all the time cannot wake it all the time. */
static bool is_news(const struct record *record, bool outdated)
{
	struct news *last = &news[record->slot & (MAX_TARGET_SLOTS - 1)];
	__u64 seen = NEWS_SEEN(record->exec_id, record->exec_pages, record->map_count);
	__u64 changed = seen ^ last->seen, now = record->time_ns;
	if (record->flags & RECORD_NEW_PYTHON)
		last->python_waits = 1;
	if (last->python_waits && now >= last->python_quiet_until_ns && now >= last->woken_ns + NEWS_REST_NS) {
		last->python_waits = 0;
		last->woken_ns = now;
		return true;
	}
	bool aged = record->flags & RECORD_TABLE_AGED && now >= last->woken_ns + NEWS_AGED_REST_NS;
	if (!changed && !aged)
		return false;
	/* Memory that is writable too the kernel does not count as executable: that a JIT runs code in it shows when a walk comes upon that. */
	__u64 rest_ns = NEWS_MAPPINGS_REST_NS;
	if (aged || NEWS_IS_EXEC(changed) || record->user_end == STACK_END_BAD_RETURN_ADDRESS)
		rest_ns = NEWS_REST_NS;
	else if (NEWS_IS_EXECUTABLE(changed) || (outdated && record->user_end == STACK_END_TABLES_NOT_READY))
		rest_ns = NEWS_CODE_REST_NS;
	if (now < last->woken_ns + rest_ns)
		return false;
	if (!aged && !NEWS_IS_EXEC(changed) && now < last->quiet_until_ns)
		return false;
	last->seen = seen;
	last->woken_ns = now;
	return true;
}

static enum outcome output(struct walk *walk, __u32 n_kernel, __u64 now_ns)
{
	struct record *record = (void *)walk->record;
	record->n_kernel = (__u16)n_kernel;
	record->n_left_out = (__u16)walk_keep_ends(walk);
	record->n_user = (__u16)walk->n;
	record->n_segments = (__u8)walk->n_segments;
	record->n_barriers = (__u16)walk->n_barriers;
	record->thread_flags = walk->thread_at ? (__u8)walk->table.thread.flags : 0; /* else of an earlier sample */
	record->flags |= (__u8)walk->flags;
	record->n_python = (__u16)walk->python.n_frames;
	record->n_python_runs = walk->python.n_frames ? (__u16)walk->python.n_runs : 0;
	record->python_end = (__u8)walk->python.end;
	__u32 words = add_python(walk, add_tail(walk, n_kernel + walk->n));
	__u32 bytes = sizeof(*record) + words * sizeof(__u64);
	if (bytes > sizeof(*record) + sizeof(walk->frames))
		return OUTCOME_NO_SCRATCH; /* never; said for the verifier */
	record->bytes = bytes;
	record->time_ns = now_ns;
	/* Waking the daemon for each record would cost more than the record: it is woken when there is much to read, or something new. */
	bool wake = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > ring_wakeup_bytes ||
		    is_news(record, walk->tables.outdated);
	__u64 wakeup = wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
	return bpf_ringbuf_output(&ring, record, bytes, wakeup) == 0 ? OUTCOME_CAPTURED : OUTCOME_RING_FULL;
}
