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

/* As the kernel was told by arch_prctl or clone: whoever sets it by an instruction of his own (wrfsbase) is not followed. */
static __always_inline __u64 thread_pointer(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	return task->thread.fsbase;
}
#define UNWIND_THREAD_POINTER(memory) thread_pointer()

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
#include "bpf/output.h"
#include "bpf/sampler_python.h"
#include "bpf/uprobes.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	CLAIM_PROBES = 16,
	USER32_CS = 0x23,
	NS_PER_TICK = 10000000, /* USER_HZ is 100 */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_TARGET_SLOTS);
	__type(key, __u32);
	__type(value, struct target_counters);
} counters SEC(".maps");

__u64 targets[MAX_TARGET_SLOTS]; /* struct target_config, written and read as one word */

/* Threads that may carry two events: the first event to fire claims the thread. */
struct claim claims[CLAIMS];

/* The state of a walk, one for each CPU, and nobody else's meanwhile: the kernel runs no program of a perf event while one runs on the same CPU, not even in
 * an NMI (bpf_prog_active). (A value of a per-CPU array may have 32 KiB at the most.) */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* nobody does: but then values begin at a line of the cache */
	__uint(max_entries, 1);            /* the number of CPUs: set by the daemon */
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

/* What is known of the target's code, if it is of the program that runs now. */
static void take_tables(struct unwind_tables *tables, struct task_struct *task, __u32 slot)
{
	struct mm_struct *mm = task->mm;
	const struct unwind_list_header *header = unwind_list_page(slot, 0, NULL);
	tables->list = slot;
	tables->hijacker = 0;
	tables->stack_lo = tables->stack_hi = 0;
	if (mm && uprobes_met(task))
		tables->hijacker = BPF_CORE_READ(mm, uprobes_state.xol_area, vaddr);
	tables->ready = header && mm && header->program == mm->start_stack;
	tables->outdated = tables->ready && header->exec_pages != mm->exec_vm;
	tables->serial = header ? header->serial : 0;
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
		walk_check_table(walk, walking->table);
	}
	return 0;
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
	if (table) {
		walk->who.tid = innermost_number(task);
		walk->who.start_ticks = task->start_boottime / NS_PER_TICK;
		walk->who.leader_ticks = task->group_leader->start_boottime / NS_PER_TICK;
	}
	take_tables(&walk->tables, task, slot);
	if (uprobes_met(task))
		(void)uprobes_leave(&walk->registers, walk->tables.hijacker, record->flags & RECORD_KERNEL_MODE);
	walk_python(task, walk, slot, target_flags);
	walk_start(walk, table, &walk->who, NULL);
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

static enum outcome capture(struct bpf_perf_event_data *ctx, struct perf_event *event, __u64 cookie, __u64 config_word,
			    __u64 *ret_now_ns)
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
	*ret_now_ns = bpf_ktime_get_ns();
	return output(walk, n_kernel, *ret_now_ns);
}

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	struct perf_event *event = event_of(ctx);
	__u64 cookie = event_word(event, attr.sig_data);
	__u32 slot = COOKIE_SLOT(cookie) & (MAX_TARGET_SLOTS - 1);
	struct target_counters *count = bpf_map_lookup_elem(&counters, &slot);
	if (!count)
		return 0; /* never: slot is below the map's size */
	count->entries++;
	/* Linux 6.1 forgets the bounds of what has been on the stack, so they are said again. */
	__u64 config_word = *(volatile __u64 *)&targets[slot & (MAX_TARGET_SLOTS - 1)];
	__u64 now_ns = 0;
	enum outcome outcome = capture(ctx, event, cookie, config_word, &now_ns);
	if (outcome < OUTCOME_COUNT) /* always; said for the verifier */
		count->outcomes[outcome]++;
	/* By the record's time, which is taken after the walk: what we take ourselves may make it late. */
	count->late_periods += late_periods(event, cookie, now_ns ? now_ns : bpf_ktime_get_ns());
	return 0;
}
