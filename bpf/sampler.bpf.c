/* The sampling program: runs when a perf event of a target fires, in interrupt context, and writes one record.
 * Every entry is counted, and so is what became of it: see outcome.h. Nothing here takes a lock or updates a hash.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <linux/perf_event.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define __bpf__ 1
#include "bpf/kernel.h"
#include "bpf/record.h"

static long unwind_read(void *to, __u32 bytes, __u64 address, void *memory __attribute__((unused)))
{
	return bpf_probe_read_user(to, bytes, (void *)address);
}
#include "bpf/unwind.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	CLAIM_PROBES = 16,
	MAX_FRAMES = RECORD_MAX_KERNEL_FRAMES + RECORD_MAX_USER_FRAMES,
	MAX_PID_NAMESPACE_LEVEL = 32, /* MAX_PID_NS_LEVEL */
	USER32_CS = 0x23,
	MAX_UNBOOKED_NS = 1000000000, /* the scheduler books at every tick */
};

const volatile __u32 daemon_pid_namespace;               /* inum of the daemon's */
const volatile __u64 ring_wakeup_bytes;                  /* fuller than that, and the daemon is woken */
__u32 pid_namespace_level = MAX_PID_NAMESPACE_LEVEL + 1; /* of the daemon's, learned at the first sample */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* set by the daemon */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_TARGET_SLOTS);
	__type(key, __u32);
	__type(value, struct target_counters);
} counters SEC(".maps");

__u64 targets[MAX_TARGET_SLOTS]; /* struct target_config, written and read as one word */

/* Threads that may carry two events: the first event to fire claims the thread. */
struct claim claims[CLAIMS];

struct scratch {
	struct unwind_window window;
	__u64 record[sizeof(struct record) / sizeof(__u64)];
	__u64 frames[MAX_FRAMES]; /* record.frames: right behind the header */
};
_Static_assert(sizeof(struct record) % sizeof(__u64) == 0, "frames follow without a gap");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static struct perf_event *event_of(struct bpf_perf_event_data *ctx)
{
	struct bpf_perf_event_data_kern kern = {};
	bpf_probe_read_kernel(&kern, sizeof(kern), ctx);
	return kern.event;
}

/* CPU time of the thread up to now: what the scheduler has booked, and what it has not yet. The cpu-clock's own reading, taken
 * just before this program, is the scheduler's clock; the run queue says how much of that clock (interrupts, a stealing
 * hypervisor) it does not book to tasks. The run queue is found through the task, since few kernels export its symbol. */
static __u64 runtime_of(struct task_struct *task, struct perf_event *event, bool cpu_clock)
{
	__u64 clock = 0, clock_task = 0, now;
	if (bpf_core_field_exists(task->se.cfs_rq)) {
		struct rq *rq = task->se.cfs_rq->rq; /* loads that the verifier follows: a fault reads 0 */
		clock = rq->clock;
		clock_task = rq->clock_task;
	}
	now = clock;
	if (cpu_clock) {
		long reading = 0;
		bpf_core_read(&reading, sizeof(reading), &event->hw.prev_count);
		now = (__u64)reading;
	}
	__u64 unbooked = now - (clock - clock_task) - task->se.exec_start;
	return task->se.sum_exec_runtime + (unbooked < MAX_UNBOOKED_NS ? unbooked : 0); /* else the clocks disagree */
}

static __u32 number_at(struct task_struct *task, __u32 level, bool *matches)
{
	/* numbers[] is as long as the level: its elements lie behind the declared end, so the address is made by hand, from a
	 * pointer that was read as a plain number: Linux 6.1 allows no variable offset on one whose type it knows. */
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct upid number = {};
	bpf_probe_read_kernel(&number, sizeof(number),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid));
	*matches = BPF_CORE_READ(number.ns, ns.inum) == daemon_pid_namespace;
	return (__u32)number.nr;
}

/* The task's number in the daemon's pid namespace; 0 when it has none there. */
static __u32 number_in_daemon_namespace(struct task_struct *task)
{
	if (daemon_pid_namespace == INIT_PID_NAMESPACE_INUM)
		return (__u32)task->pid;
	bool matches = false;
	if (pid_namespace_level <= MAX_PID_NAMESPACE_LEVEL) {
		__u32 number = number_at(task, pid_namespace_level, &matches);
		return matches ? number : 0;
	}
	__u32 level = task->thread_pid->level;
	for (__u32 i = 0; i <= MAX_PID_NAMESPACE_LEVEL; i++) {
		if (i > level)
			break;
		__u32 number = number_at(task, i, &matches);
		if (matches) {
			pid_namespace_level = i;
			return number;
		}
	}
	return 0;
}

/* Whether this event is the one that counts for the thread. Claims of another rate or target are taken over. */
static enum outcome claim_thread(struct task_struct *task, __u64 cookie)
{
	__u64 thread = CLAIM_THREAD(number_in_daemon_namespace(task), task->start_boottime);
	__u64 mine = cookie & ~COOKIE_CPU_CLOCK;
	__u32 hash = (__u32)((thread * 0x9E3779B97F4A7C15ull) >> 40);
	for (__u32 i = 0; i < CLAIM_PROBES; i++) {
		struct claim *claim = &claims[(hash + i) & (CLAIMS - 1)];
		__u64 found = __sync_val_compare_and_swap(&claim->thread, 0, thread);
		if (found && found != thread)
			continue;
		__u64 owner = __sync_val_compare_and_swap(&claim->event, 0, mine);
		if (owner && owner >> 32 != mine >> 32) {
			__u64 before = __sync_val_compare_and_swap(&claim->event, owner, mine);
			owner = before == owner ? mine : before;
		}
		return owner == 0 || owner == mine ? OUTCOME_CAPTURED : OUTCOME_DUPLICATE_EVENT;
	}
	return OUTCOME_CLAIM_TABLE_FULL;
}

struct walk {
	struct scratch *scratch;
	struct unwind_registers registers;
	__u32 n; /* frames written so far, kernel's included */
	int end;
};

static long walk_step(__u32 index __attribute__((unused)), struct walk *walk)
{
	struct scratch *scratch = walk->scratch;
	__u32 n = walk->n;
	if (n >= MAX_FRAMES)
		return 1;
	scratch->frames[n] = walk->registers.pc;
	walk->n = n + 1;
	walk->end = unwind_step_frame_pointer(&walk->registers, &scratch->window, NULL);
	return walk->end != UNWIND_GOES_ON;
}

/* The registers with which the thread entered the kernel, or was interrupted. false: it has no user side. */
static bool user_registers(struct bpf_perf_event_data *ctx, struct task_struct *task, bool kernel_mode,
			   struct unwind_registers *ret, __u64 *ret_cs)
{
	if (!kernel_mode) {
		*ret = (struct unwind_registers){ctx->regs.rip, ctx->regs.rsp, ctx->regs.rbp};
		struct pt_regs___kernel *regs = (void *)bpf_task_pt_regs(task);
		*ret_cs = regs->cs;
		return true;
	}
	if (!task->mm || (task->flags & TASK_PF_KTHREAD))
		return false;
	struct pt_regs___kernel *regs = (void *)bpf_task_pt_regs(task);
	*ret = (struct unwind_registers){regs->ip, regs->sp, regs->bp};
	*ret_cs = regs->cs;
	return ret->pc != 0;
}

static void walk_user(struct bpf_perf_event_data *ctx, struct task_struct *task, struct scratch *scratch,
		      __u32 n_kernel)
{
	struct record *record = (void *)scratch->record;
	struct walk walk = {.scratch = scratch, .n = n_kernel, .end = UNWIND_GOES_ON};
	__u64 cs = 0;
	record->n_user = 0;
	record->user_end = STACK_END_NONE;
	if (!user_registers(ctx, task, record->flags & RECORD_KERNEL_MODE, &walk.registers, &cs))
		return;
	if ((__u16)cs == USER32_CS) {
		if (n_kernel >= MAX_FRAMES)
			return;
		scratch->frames[n_kernel] = walk.registers.pc;
		record->n_user = 1;
		record->user_end = STACK_END_COMPAT;
		return;
	}
	scratch->window.n = 0;
	bpf_loop(RECORD_MAX_USER_FRAMES, walk_step, &walk, 0);
	record->n_user = (__u16)(walk.n - n_kernel);
	record->user_end = walk.end == UNWIND_GOES_ON ? STACK_END_TOO_DEEP : (__u8)walk.end;
}

static __u32 walk_kernel(struct bpf_perf_event_data *ctx, struct scratch *scratch)
{
	if (!(((struct record *)scratch->record)->flags & RECORD_KERNEL_MODE))
		return 0;
	long bytes = bpf_get_stack(ctx, scratch->frames, RECORD_MAX_KERNEL_FRAMES * sizeof(__u64), 0);
	if (bytes <= 0)
		return 0;
	__u32 n = (__u32)bytes / sizeof(__u64);
	return n > RECORD_MAX_KERNEL_FRAMES ? RECORD_MAX_KERNEL_FRAMES : n;
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
	record->cpu = bpf_get_smp_processor_id();
	record->time_ns = bpf_ktime_get_ns();
	record->thread_start_ns = task->start_boottime;
	record->task = (__u64)task;
	record->runtime_ns = runtime_of(task, event, cookie & COOKIE_CPU_CLOCK);
	record->exec_id = task->self_exec_id;
	record->exec_pages = mm ? (__u32)mm->exec_vm : 0;
	record->map_count = mm ? (__u32)mm->map_count : 0;
	record->reserved = 0;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
}

static enum outcome capture(struct bpf_perf_event_data *ctx, struct perf_event *event, __u64 cookie, __u64 config_word)
{
	struct target_config config = {
		.serial = (__u32)config_word,
		.generation = (__u16)(config_word >> 32),
		.check_claims = (__u16)(config_word >> 48),
	};
	if (!config.serial)
		return OUTCOME_UNKNOWN_TARGET;
	if (config.generation != COOKIE_GENERATION(cookie))
		return OUTCOME_NOT_CURRENT_RATE;
	struct task_struct *task = bpf_get_current_task_btf();
	if (config.check_claims) {
		enum outcome outcome = claim_thread(task, cookie);
		if (outcome != OUTCOME_CAPTURED)
			return outcome;
	}
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!scratch)
		return OUTCOME_NO_SCRATCH;

	struct record *record = (void *)scratch->record;
	fill_header(record, task, event, cookie, config.serial);
	record->flags = (long)ctx->regs.rip < 0 ? RECORD_KERNEL_MODE : 0;
	__u32 n_kernel = walk_kernel(ctx, scratch);
	record->n_kernel = (__u16)n_kernel;
	walk_user(ctx, task, scratch, n_kernel);

	__u32 bytes = sizeof(*record) + (n_kernel + record->n_user) * sizeof(__u64);
	if (bytes > sizeof(*record) + sizeof(scratch->frames))
		return OUTCOME_NO_SCRATCH; /* never; said for the verifier */
	record->bytes = bytes;
	/* The daemon drains on a timer, and is woken when the ring fills faster: waking it for each record would cost more than the record. */
	__u64 wakeup = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > ring_wakeup_bytes ? BPF_RB_FORCE_WAKEUP
										       : BPF_RB_NO_WAKEUP;
	return bpf_ringbuf_output(&ring, record, bytes, wakeup) == 0 ? OUTCOME_CAPTURED : OUTCOME_RING_FULL;
}

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	struct perf_event *event = event_of(ctx);
	__u64 cookie = BPF_CORE_READ(event, attr.sig_data);
	__u32 slot = COOKIE_SLOT(cookie) & (MAX_TARGET_SLOTS - 1);
	struct target_counters *count = bpf_map_lookup_elem(&counters, &slot);
	if (!count)
		return 0; /* never: slot is below the map's size */
	count->entries++;
	/* Linux 6.1 forgets the bounds of what has been on the stack, so they are said again. */
	__u64 config_word = *(volatile __u64 *)&targets[slot & (MAX_TARGET_SLOTS - 1)];
	enum outcome outcome = capture(ctx, event, cookie, config_word);
	if (outcome < OUTCOME_COUNT) /* always; said for the verifier */
		count->outcomes[outcome]++;
	return 0;
}
