/* What others' sampling programs do at the least, to be timed beside ours. SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

enum { MAX_BYTES = 127 * 8, RING_BYTES = 4 << 20 }; /* PERF_MAX_STACK_DEPTH */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[MAX_BYTES / 8]);
} frames SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

/* The floor of any profiler that samples by a perf event and BPF. */
SEC("perf_event")
int noop(void *ctx __attribute__((unused)))
{
	return 0;
}

/* The kernel's own walk of the user stack, by frame pointers; without who, when or why. */
SEC("perf_event")
int get_stack(struct bpf_perf_event_data *ctx)
{
	__u32 zero = 0;
	__u64 *to = bpf_map_lookup_elem(&frames, &zero);
	if (!to)
		return 0;
	long bytes = bpf_get_stack(ctx, to, MAX_BYTES, BPF_F_USER_STACK);
	if (bytes > 0 && bytes <= MAX_BYTES)
		bpf_ringbuf_output(&ring, to, (__u64)bytes, BPF_RB_NO_WAKEUP);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
