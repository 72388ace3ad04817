/* The sampling program: runs when a perf event of a target fires, in interrupt context, and writes one record.
 * Every entry is counted, and so is what became of it: see outcome.h. Nothing here takes a lock or updates a hash.
 * SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define __bpf__ 1
#include "bpf/cfi_table.h"
#include "bpf/kernel.h"
#include "bpf/mapping_list.h"
#include "bpf/record.h"

struct mapping_list {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__uint(value_size, UNWIND_LIST_PAGE_BYTES);
};
/* One for each target slot. Made, and replaced, by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_TARGET_SLOTS);
	__type(key, __u32);
	__array(values, struct mapping_list);
} mapping_lists SEC(".maps");

struct unwind_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__uint(value_size, CFI_PAGE_BYTES);
};
/* One for each file that some target maps. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, UNWIND_MAX_TABLES);
	__type(key, __u32);
	__array(values, struct unwind_table);
} unwind_tables SEC(".maps");

enum { URETPROBES = 64 }; /* MAX_URETPROBE_DEPTH */

/* The return address that the kernel replaced at that address of the stack. 0: it has none there. */
__attribute__((noinline)) __u64 original_return(__u64 slot)
{
	struct task_struct *task = bpf_get_current_task_btf();
	if (!bpf_core_field_exists(task->utask))
		return 0;
	struct return_instance *instance = BPF_CORE_READ(task, utask, return_instances);
	for (int i = 0; i < URETPROBES && instance; i++) {
		if (BPF_CORE_READ(instance, stack) == slot)
			return BPF_CORE_READ(instance, orig_ret_vaddr);
		instance = BPF_CORE_READ(instance, next);
	}
	return 0;
}
#define UNWIND_ORIGINAL(slot, memory) original_return(slot)

static __always_inline const void *unwind_list_page(__u32 list, __u32 page, void *memory __attribute__((unused)))
{
	void *pages = bpf_map_lookup_elem(&mapping_lists, &list);
	return pages ? bpf_map_lookup_elem(pages, &page) : NULL;
}

static __always_inline void *unwind_table_open(__u32 table, void *memory __attribute__((unused)))
{
	return bpf_map_lookup_elem(&unwind_tables, &table);
}

static __always_inline const void *unwind_table_page(void *table, __u32 page)
{
	return bpf_map_lookup_elem(table, &page);
}

static long unwind_read(void *to, __u32 bytes, __u64 address, void *memory __attribute__((unused)))
{
	return bpf_probe_read_user(to, bytes, (void *)address);
}
#include "bpf/walk.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	CLAIM_PROBES = 16,
	MAX_PID_NAMESPACE_LEVEL = 32, /* MAX_PID_NS_LEVEL */
	USER32_CS = 0x23,
	MAX_UNBOOKED_NS = 1000000000, /* the scheduler books at every tick */
	NS_PER_TICK = 10000000,       /* USER_HZ is 100 */
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

struct news news[MAX_TARGET_SLOTS];

/* Threads that may carry two events: the first event to fire claims the thread. */
struct claim claims[CLAIMS];

/* The state of a walk, one for each CPU. (A value of a per-CPU array may have 32 KiB at the most.) */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* the number of CPUs: set by the daemon */
	__type(key, __u32);
	__type(value, struct walk);
} walks SEC(".maps");

/* Of targets with TARGET_HAS_TABLE. Replaced as a whole, so that a walk has one or the other. */
struct table_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct table_config);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_TARGET_SLOTS);
	__type(key, __u32);
	__array(values, struct table_map);
} tables SEC(".maps");

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

/* What bpf_loop hands on: pointers that cannot be kept in a map. */
struct walking {
	struct walk *walk;
	const struct table_config *table;
};

static long step(__u32 index __attribute__((unused)), struct walking *walking)
{
	return walk_step(walking->walk, walking->table, NULL);
}

static long read_version(__u32 i, struct walking *walking)
{
	if (walking->table)
		walk_read_version(walking->walk, walking->table, walking->walk->n_segments - 1 - i, NULL);
	return 0;
}

/* The registers with which the thread entered the kernel: all of them, as the entry code saves them all (PUSH_AND_CLEAR_REGS). */
static void take_entry_registers(struct unwind_registers *to, const struct pt_regs___kernel *from)
{
	to->rax = from->ax, to->rdx = from->dx, to->rcx = from->cx, to->rbx = from->bx;
	to->rsi = from->si, to->rdi = from->di, to->fp = from->bp, to->sp = from->sp;
	to->r8 = from->r8, to->r9 = from->r9, to->r10 = from->r10, to->r11 = from->r11;
	to->r12 = from->r12, to->r13 = from->r13, to->r14 = from->r14, to->r15 = from->r15;
	to->pc = from->ip;
}

static void take_interrupted_registers(struct unwind_registers *to, const volatile bpf_user_pt_regs_t *from)
{
	to->rax = from->rax, to->rdx = from->rdx, to->rcx = from->rcx, to->rbx = from->rbx;
	to->rsi = from->rsi, to->rdi = from->rdi, to->fp = from->rbp, to->sp = from->rsp;
	to->r8 = from->r8, to->r9 = from->r9, to->r10 = from->r10, to->r11 = from->r11;
	to->r12 = from->r12, to->r13 = from->r13, to->r14 = from->r14, to->r15 = from->r15;
	to->pc = from->rip;
}

/* The registers of the user's leaf frame. false: the thread has no user side. */
static bool user_registers(struct bpf_perf_event_data *ctx, struct task_struct *task, bool kernel_mode,
			   struct unwind_registers *ret, __u64 *ret_cs)
{
	if (!task->mm || (task->flags & TASK_PF_KTHREAD))
		return false;
	struct pt_regs___kernel *entry = (void *)bpf_task_pt_regs(task);
	if (kernel_mode)
		take_entry_registers(ret, entry);
	else
		take_interrupted_registers(ret, &ctx->regs);
	*ret_cs = entry->cs;
	ret->known = UNWIND_KNOWN_ALL;
	ret->pc_is_exact = 1;
	return ret->pc != 0;
}

/* What is known of the target's code, if it is of the program that runs now. */
static struct unwind_tables tables_of(struct task_struct *task, __u32 slot)
{
	struct unwind_tables tables = {.list = slot};
	struct mm_struct *mm = task->mm;
	const struct unwind_list_header *header = unwind_list_page(slot, 0, NULL);
	if (bpf_core_field_exists(task->utask) && task->utask && mm)
		tables.hijacker = BPF_CORE_READ(mm, uprobes_state.xol_area, vaddr);
	tables.ready = header && mm && header->program == mm->start_stack;
	return tables;
}

/* The number of a task in its innermost pid namespace: what gettid() returns there. */
static __u32 innermost_number(struct task_struct *task)
{
	__u32 level = task->thread_pid->level;
	bool matches;
	return level == 0 || level > MAX_PID_NAMESPACE_LEVEL ? (__u32)task->pid : number_at(task, level, &matches);
}

static const struct table_config *table_of(struct task_struct *task, __u32 slot, __u16 target_flags, __u32 *ret_flags)
{
	__u32 zero = 0;
	if (!(target_flags & TARGET_HAS_TABLE))
		return NULL;
	void *inner = bpf_map_lookup_elem(&tables, &slot);
	const struct table_config *table = inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
	if (table && table->exec_id && table->exec_id != task->self_exec_id && !MUTANT(exec_id)) {
		*ret_flags |= RECORD_TABLE_AGED;
		return NULL;
	}
	return table;
}

/* A walk, and what rule 8 lets follow it. In a loop, so that the verifier looks at a walk once. */
static long attempt(__u32 i, struct walking *walking)
{
	struct walk *walk = walking->walk;
	if (i > 0 && (!walking->table || !walk_again(walk)))
		return 1;
	bpf_loop(WALK_STEPS, step, walking, 0);
	if (walking->table) {
		bpf_loop(walk->n_segments, read_version, walking, 0);
		walk_read_ranges(walk, walking->table, NULL);
	}
	return 0;
}

/* A thread that is on its way through the kernel's trampoline for a uretprobe is in its caller again. */
static void leave_hijacker(struct task_struct *task, struct unwind_registers *registers, __u64 hijacker)
{
	enum { TRAMPOLINE_BYTES = 128 }; /* UPROBE_XOL_SLOT_BYTES */
	if (!hijacker || registers->pc - hijacker >= TRAMPOLINE_BYTES || !bpf_core_field_exists(task->utask))
		return;
	struct return_instance *instance = BPF_CORE_READ(task, utask, return_instances);
	if (!instance)
		return;
	registers->sp = BPF_CORE_READ(instance, stack) + sizeof(__u64);
	registers->pc = BPF_CORE_READ(instance, orig_ret_vaddr);
	registers->known &= UNWIND_KNOWN_PRESERVED;
	registers->pc_is_exact = 0;
}

static void walk_user(struct bpf_perf_event_data *ctx, struct task_struct *task, struct walk *walk, __u32 slot,
		      __u16 target_flags)
{
	struct record *record = (void *)walk->record;
	__u64 cs = 0;
	record->user_end = STACK_END_NONE;
	if (!user_registers(ctx, task, record->flags & RECORD_KERNEL_MODE, &walk->registers, &cs))
		return;
	if ((__u16)cs == USER32_CS) {
		walk_add_frame(walk, walk->registers.pc);
		record->user_end = STACK_END_COMPAT;
		return;
	}
	const struct table_config *table = table_of(task, slot, target_flags, &walk->flags);
	struct barrier_thread who = {};
	if (table) {
		who.tid = innermost_number(task);
		who.start_ticks = task->start_boottime / NS_PER_TICK;
		who.leader_ticks = task->group_leader->start_boottime / NS_PER_TICK;
	}
	walk->tables = tables_of(task, slot);
	leave_hijacker(task, &walk->registers, walk->tables.hijacker);
	walk_start(walk, table, &who, NULL);
	struct walking walking = {.walk = walk, .table = table};
	bpf_loop(2, attempt, &walking, 0);
	record->user_end = (__u8)walk->end;
}

static __u32 walk_kernel(struct bpf_perf_event_data *ctx, struct walk *walk)
{
	if (!(((struct record *)walk->record)->flags & RECORD_KERNEL_MODE))
		return 0;
	long bytes = bpf_get_stack(ctx, walk->frames, RECORD_MAX_KERNEL_FRAMES * sizeof(__u64), 0);
	if (bytes <= 0)
		return 0;
	__u32 n = (__u32)bytes / sizeof(__u64);
	return n > RECORD_MAX_KERNEL_FRAMES ? RECORD_MAX_KERNEL_FRAMES : n;
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
	if (words > WALK_WORDS + RECORD_MAX_SEGMENTS * sizeof(struct record_segment) / sizeof(__u64))
		return 0;
	if (barriers)
		bpf_probe_read_kernel(&walk->frames[words], barriers * sizeof(__u64), walk->barriers);
	return words + barriers;
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
	record->n_segments = 0;
	record->thread_flags = 0;
	record->n_barriers = 0;
	bpf_get_current_comm(record->comm, sizeof(record->comm));
}

/* Whether the daemon should look at this record soon. A target that changes all the time cannot wake it all the time. */
static bool is_news(const struct record *record)
{
	struct news *last = &news[record->slot & (MAX_TARGET_SLOTS - 1)];
	__u64 seen = NEWS_SEEN(record->exec_id, record->exec_pages, record->map_count);
	__u64 changed = seen ^ last->seen, now = record->time_ns;
	bool aged = record->flags & RECORD_TABLE_AGED && now >= last->woken_ns + NEWS_AGED_REST_NS;
	if ((!changed && !aged) || now < last->woken_ns + NEWS_REST_NS)
		return false;
	if (!aged && !NEWS_IS_EXEC(changed) && now < last->quiet_until_ns)
		return false;
	if (!aged && !NEWS_IS_EXECUTABLE(changed) && now < last->woken_ns + NEWS_MAPPINGS_REST_NS)
		return false;
	last->seen = seen;
	last->woken_ns = now;
	return true;
}

static enum outcome output(struct walk *walk, __u32 n_kernel)
{
	struct record *record = (void *)walk->record;
	record->n_kernel = (__u16)n_kernel;
	record->n_user = (__u16)walk->n;
	record->n_segments = (__u8)walk->n_segments;
	record->n_barriers = (__u16)walk->n_barriers;
	record->thread_flags = walk->thread_at ? (__u8)walk->table.thread.flags : 0; /* else of an earlier sample */
	record->flags |= (__u8)walk->flags;
	__u32 words = add_tail(walk, n_kernel + walk->n);
	__u32 bytes = sizeof(*record) + words * sizeof(__u64);
	if (bytes > sizeof(*record) + sizeof(walk->frames))
		return OUTCOME_NO_SCRATCH; /* never; said for the verifier */
	record->bytes = bytes;
	/* Waking the daemon for each record would cost more than the record: it is woken when there is much to read, or something new. */
	bool wake = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > ring_wakeup_bytes || is_news(record);
	__u64 wakeup = wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
	return bpf_ringbuf_output(&ring, record, bytes, wakeup) == 0 ? OUTCOME_CAPTURED : OUTCOME_RING_FULL;
}

static enum outcome capture(struct bpf_perf_event_data *ctx, struct perf_event *event, __u64 cookie, __u64 config_word)
{
	struct target_config config = {
		.serial = (__u32)config_word,
		.generation = (__u16)(config_word >> 32),
		.flags = (__u16)(config_word >> 48),
	};
	if (!config.serial)
		return OUTCOME_UNKNOWN_TARGET;
	if (config.generation != COOKIE_GENERATION(cookie))
		return OUTCOME_NOT_CURRENT_RATE;
	struct task_struct *task = bpf_get_current_task_btf();
	if (config.flags & TARGET_CHECK_CLAIMS) {
		enum outcome outcome = claim_thread(task, cookie);
		if (outcome != OUTCOME_CAPTURED)
			return outcome;
	}
	__u32 cpu = bpf_get_smp_processor_id();
	struct walk *walk = bpf_map_lookup_elem(&walks, &cpu);
	if (!walk)
		return OUTCOME_NO_SCRATCH;

	struct record *record = (void *)walk->record;
	walk_reset(walk);
	fill_header(record, task, event, cookie, config.serial);
	record->flags = (long)ctx->regs.rip < 0 ? RECORD_KERNEL_MODE : 0;
	__u32 n_kernel = walk_kernel(ctx, walk);
	walk->first = n_kernel;
	walk_user(ctx, task, walk, COOKIE_SLOT(cookie), config.flags);
	return output(walk, n_kernel);
}

/* How many whole periods the event's timer is late: with interrupts off for so long, or while a hypervisor ran something else. The kernel
 * counts them as time of the event, and goes on with the next (kernel/events/core.c, perf_swevent_hrtimer). */
static __u64 late_periods(struct perf_event *event, __u64 cookie)
{
	__s64 due_ns = 0;
	__u64 period_ns = 0;
	if (!(cookie & COOKIE_CPU_CLOCK))
		return 0;
	bpf_core_read(&due_ns, sizeof(due_ns), &event->hw.hrtimer.node.expires);
	bpf_core_read(&period_ns, sizeof(period_ns), &event->hw.sample_period);
	__u64 now_ns = bpf_ktime_get_ns();
	return period_ns && now_ns > (__u64)due_ns ? (now_ns - (__u64)due_ns) / period_ns : 0;
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
	count->late_periods += late_periods(event, cookie); /* last: what we take ourselves may make it late */
	return 0;
}
