/* The rules of docs/BARRIER-TABLE.md, section 9, in the user-mode build of the walk: the table is libsprof's, and what other threads do in the middle
 * of a walk is done in between two of its reads. The numbers are those of the rules; T1 to T5 are the cases that Go's first version had wrong. */
#include <stdio.h>

#include "check_main.h"
#include "walk_world.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static struct world_stack *user, *other, *sys, *below, *above; /* the last two not in the table */

static const uint64_t leaf_chain[] = {FUNCTION(1), FUNCTION(2), FUNCTION(3), FUNCTION(4)};
static const uint64_t caller_chain[] = {FUNCTION(11), FUNCTION(12), FUNCTION(13)};
static const uint64_t native_chain[] = {FUNCTION(21), FUNCTION(22)};
#define LEAF_FRAMES   FUNCTION(1), FUNCTION(2), FUNCTION(3), FUNCTION(4)
#define CALLER_FRAMES FUNCTION(11), FUNCTION(12), FUNCTION(13)
#define NATIVE_FRAMES FUNCTION(21), FUNCTION(22)

static void begin(void)
{
	world_open();
	below = world_stack_new(false);
	user = world_stack_new(true);
	other = world_stack_new(true);
	sys = world_stack_new(true);
	above = world_stack_new(false);
	world_on(user, user, sys);
}

/* On the user stack, in the leaf of leaf_chain. */
static struct unwind_registers on_user(void)
{
	begin();
	return world_chain(user, leaf_chain, LENGTH(leaf_chain));
}

/* In foreign code on the system stack, called by the leaf of caller_chain on `stack`. */
static struct unwind_registers in_foreign(struct world_stack *stack)
{
	struct sprof_context c = world_context(stack, caller_chain, LENGTH(caller_chain));
	world_on(sys, user, sys);
	sprof_foreign_enter(world_thread, stack->record, c.pc, c.sp, c.fp);
	return world_chain(sys, native_chain, LENGTH(native_chain));
}

/* On the system stack, which the user stack has been left for in the leaf of caller_chain. */
static struct unwind_registers on_system(void)
{
	struct sprof_context c = world_context(user, caller_chain, LENGTH(caller_chain));
	sprof_system_begin(world_thread, c.pc, c.sp, c.fp);
	sprof_switch_end(world_thread);
	return world_chain(sys, native_chain, LENGTH(native_chain));
}

static void libcall_on(struct world_stack *stack)
{
	struct sprof_context c = world_context(stack, caller_chain, LENGTH(caller_chain));
	sprof_libcall_enter(world_thread, stack->record, c.pc, c.sp, c.fp);
}

/* --- what happens in between --- */

static struct sprof_stack *to_change;
static uint64_t on_address, on_bytes;
static unsigned after;

static bool is_time(uint64_t address)
{
	return address >= on_address && address < on_address + on_bytes && after-- == 0;
}

static void change(uint64_t address)
{
	if (!is_time(address))
		return;
	sprof_lock(to_change);
	sprof_unlock(to_change);
}

static void hold(uint64_t address)
{
	if (is_time(address))
		sprof_lock(to_change);
}

static void release(uint64_t address)
{
	if (is_time(address))
		sprof_unlock(to_change);
}

/* From the n-th read of this memory on. */
static void when_read(const void *memory, size_t bytes, unsigned n, void (*what)(uint64_t), struct sprof_stack *stack)
{
	on_address = (uintptr_t)memory;
	on_bytes = bytes;
	after = n;
	to_change = stack;
	world.before_read = what;
}

/* --- starting on the user stack --- */

START_TEST(walks_under_the_lock)
{
	struct unwind_registers r = on_user();
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
	ck_assert_uint_eq(world_walk.n_segments, 1);
	ck_assert_int_eq(world_walk.segments[0].lock, SEGMENT_LOCKED);
	ck_assert_uint_eq(world_walk.segments[0].version_begin, world_walk.segments[0].version_end);
}
END_TEST

START_TEST(without_a_record_a_thread_is_native)
{
	struct unwind_registers r = on_user();
	sprof_thread_detach(world_thread);
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
	ck_assert_int_eq(world_walk.segments[0].kind, SEGMENT_NATIVE);
}
END_TEST

START_TEST(rule_1_sp_at_the_end_of_the_stack)
{
	begin();
	struct unwind_registers r = {.pc = FUNCTION(1), .sp = user->record->hi, .fp = 0};
	expect_stack(world_sample(r), STACK_END_ROOT, FUNCTION(1));
	ck_assert_int_eq(world_walk.segments[0].kind, SEGMENT_START);
}
END_TEST

/* A handler on an alternate stack, whose frame pointer leads to the frame of the function that was interrupted: wherever the one lies to the other. */
static void enters_from(bool from_below, unsigned reads_before_the_lock)
{
	struct unwind_registers interrupted = on_user();
	struct world_stack *alternate = from_below ? below : above;
	world_hijack(user, interrupted, 1);
	struct unwind_registers r = world_chain(alternate, native_chain, LENGTH(native_chain));
	*(uint64_t *)(uintptr_t)r.fp = interrupted.fp; // NOLINT(performance-no-int-to-ptr)
	expect_stack(world_sample(r), STACK_END_ROOT, NATIVE_FRAMES, FUNCTION(2), FUNCTION(3), FUNCTION(4));
	ck_assert_int_eq(world_walk.segments[0].kind, SEGMENT_NATIVE);
	ck_assert_int_eq(world_walk.segments[1].kind, SEGMENT_ENTERED);
	ck_assert_int_eq(world_walk.segments[1].lock, SEGMENT_LOCKED);
	ck_assert_uint_eq(world_walk.segments[1].first, 2);
	/* The stack changes after its lock was taken. */
	when_read(user->words, sizeof(user->words), reads_before_the_lock, change, user->record);
	expect_stack(world_sample(r), STACK_END_STACK_CHANGED, NATIVE_FRAMES);
	/* It is locked from the moment of the entry on: the first look is that at where the thread says it runs. */
	when_read(&user->record->seq_end, 8, 1, hold, user->record);
	expect_stack(world_sample(r), STACK_END_SYSTEM_ONLY, NATIVE_FRAMES);
	/* It is locked at the sample. */
	world.before_read = NULL;
	expect_stack(world_sample(r), STACK_END_SYSTEM_ONLY, NATIVE_FRAMES);
}

START_TEST(rule_1_an_unknown_start_stack_is_native_and_enters_a_known_one)
{
	enters_from(true, 1);
}
END_TEST

START_TEST(rule_1_from_above_too)
{
	enters_from(false, 0);
}
END_TEST

START_TEST(rule_1_nowhere_in_the_middle_of_a_switch)
{
	struct unwind_registers r = on_user();
	r.pc = SETS_SP + 4;
	expect_stack(world_sample(r), STACK_END_SETS_SP, SETS_SP + 4, SAMPLE_FRAME_SYSTEM);
	r.pc = SETS_SP_END; /* behind it */
	expect_stack(world_sample(r), STACK_END_ROOT, SETS_SP_END, FUNCTION(2), FUNCTION(3), FUNCTION(4));
}
END_TEST

START_TEST(rule_6_a_locked_user_stack_is_not_walked)
{
	struct unwind_registers r = on_user();
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_USER_LOCKED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
	sprof_gc(world_thread, 1); /* rule 9 */
	expect_stack(world_sample(r), STACK_END_USER_LOCKED, FUNCTION(1), SAMPLE_FRAME_GC);
	sprof_unlock(user->record);
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
}
END_TEST

START_TEST(rule_7_whose_stack_it_is)
{
	struct unwind_registers r = on_user();
	user->record->owner_tid = world_who.tid + 1;
	expect_stack(world_sample(r), STACK_END_STACK_NOT_TRUSTED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
}
END_TEST

START_TEST(rule_10_a_held_lock_is_not_tried_again)
{
	struct unwind_registers r = on_user();
	sprof_lock(user->record);
	/* The holder lets go right after the first look. */
	when_read(user->record, sizeof(*user->record), 2, release, user->record);
	expect_stack(world_sample(r), STACK_END_USER_LOCKED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
}
END_TEST

START_TEST(rule_16_a_stack_that_changed_is_dropped)
{
	struct unwind_registers r = on_user();
	when_read(user->words, sizeof(user->words), 0, change, user->record);
	expect_stack(world_sample(r), STACK_END_STACK_CHANGED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
	/* A writer who is still inside at the end has left seq_end as it was. */
	when_read(user->words, sizeof(user->words), 0, hold, user->record);
	expect_stack(world_sample(r), STACK_END_STACK_CHANGED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
}
END_TEST

/* --- barriers --- */

START_TEST(rule_12_hijacked_return_addresses)
{
	struct unwind_registers r = on_user();
	for (size_t i = 0; i < 3; i++)
		world_hijack(user, r, i);
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
	ck_assert_uint_eq(world_walk.n_barriers, 3);
	/* Two of them have been returned to. */
	*(uint64_t *)(uintptr_t)(r.fp + 8) = FUNCTION(2); // NOLINT(performance-no-int-to-ptr)
	user->record->pos = 1;
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
	ck_assert_uint_eq(world_walk.n_barriers, 2);
}
END_TEST

START_TEST(rule_12_by_slot_or_not_at_all)
{
	struct unwind_registers r = on_user();
	world_hijack(user, r, 1);
	struct sprof_barrier *barriers = sprof_barriers(world_table, user->record);
	barriers[0].slot += 8;
	expect_stack(world_sample(r), STACK_END_BARRIER_MISMATCH, FUNCTION(1), FUNCTION(2));
	barriers[0].slot -= 8;
	user->record->n = 0; /* a trampoline that the table does not know */
	expect_stack(world_sample(r), STACK_END_BARRIER_MISMATCH, FUNCTION(1), FUNCTION(2));
	user->record->n = 1;
	barriers[0].original_pc = TRAMPOLINE_DEEP + 4; /* rule 14 */
	expect_stack(world_sample(r), STACK_END_BARRIER_MISMATCH, FUNCTION(1), FUNCTION(2));
	barriers[0].original_pc = 0;
	expect_stack(world_sample(r), STACK_END_BARRIER_MISMATCH, FUNCTION(1), FUNCTION(2));
}
END_TEST

START_TEST(rule_12_trampolines_of_several_entries)
{
	enum { OTHER = 0x700080 };
	const struct sprof_range range = {.lo = OTHER, .hi = OTHER + 0x10, .kind = SPROF_RANGE_TRAMPOLINE};
	struct unwind_registers r = on_user();
	ck_assert_int_ge(sprof_range_add(world_table, &range), 0);
	world_configure();
	for (size_t i = 0; i < 3; i++)
		world_hijack(user, r, i);
	const uint64_t *frame = (const uint64_t *)(uintptr_t)r.fp; // NOLINT(performance-no-int-to-ptr)
	*(uint64_t *)(uintptr_t)(*frame + 8) = OTHER;              // NOLINT(performance-no-int-to-ptr)
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
	ck_assert_uint_eq(world_walk.n_barriers, 3);
	ck_assert_uint_eq(world_walk.table.entry, TRAMPOLINE);
	walk_reset(&world_walk); /* the next may be of a process where other code is there */
	ck_assert_uint_eq(world_walk.table.entry, ~0ull);
}
END_TEST

START_TEST(rule_12_many_barriers)
{
	enum { DEPTH = 190 };
	uint64_t pcs[DEPTH];
	begin();
	for (size_t i = 0; i < DEPTH; i++)
		pcs[i] = FUNCTION(i + 1);
	struct unwind_registers r = world_chain(user, pcs, DEPTH);
	for (size_t i = 0; i + 1 < DEPTH; i++)
		world_hijack(user, r, i);
	struct segments_stack stack = world_sample(r);
	ck_assert_int_eq((int)stack.end, STACK_END_ROOT);
	ck_assert_uint_eq(stack.n, DEPTH);
	ck_assert_mem_eq(stack.user, pcs, sizeof(pcs));
	/* All whose rules have not the same place to be remembered. */
	ck_assert_uint_gt(world_quick_frames, DEPTH / 2);
}
END_TEST

START_TEST(rule_12_deeper_than_the_record)
{
	enum { DEPTH = WALK_FRAMES + 10 };
	static uint64_t pcs[DEPTH];
	begin();
	for (size_t i = 0; i < DEPTH; i++)
		pcs[i] = FUNCTION(i % 500 + 1);
	struct unwind_registers r = world_chain(user, pcs, DEPTH);
	for (size_t i = 0; i + 1 < DEPTH; i++)
		world_hijack(user, r, i);
	struct segments_stack stack = world_sample(r);
	ck_assert_int_eq((int)stack.end, STACK_END_TOO_DEEP);
	ck_assert_uint_eq(stack.n, WALK_FRAMES);
	ck_assert_mem_eq(stack.user, pcs, WALK_FRAMES * sizeof(uint64_t));
}
END_TEST

/* longjmp: pos is where it was, and more barriers than one read brings are below the stack pointer. */
START_TEST(rule_12_after_a_jump_over_many_frames)
{
	enum { DEPTH = 400, PASSED = 300 };
	static uint64_t pcs[DEPTH];
	begin();
	for (size_t i = 0; i < DEPTH; i++)
		pcs[i] = FUNCTION(i % 300 + 1);
	struct unwind_registers r = world_chain(user, pcs, DEPTH);
	for (size_t i = 0; i + 1 < DEPTH; i++)
		world_hijack(user, r, i);
	for (size_t passed = BARRIER_WINDOW - 2; passed <= PASSED; passed++) {
		user->record->pos = passed % 3;
		struct unwind_registers there = r;
		for (size_t i = 0; i < passed; i++) {
			const uint64_t *frame =
				(const uint64_t *)(uintptr_t)there.fp; // NOLINT(performance-no-int-to-ptr)
			there.sp = there.fp + 16;
			there.fp = frame[0];
		}
		there.pc = pcs[passed];
		struct segments_stack stack = world_sample(there);
		ck_assert_int_eq((int)stack.end, STACK_END_ROOT);
		ck_assert_uint_eq(stack.n, DEPTH - passed);
		ck_assert_mem_eq(stack.user, pcs + passed, (DEPTH - passed) * sizeof(uint64_t));
	}
}
END_TEST

START_TEST(rule_12_on_the_system_stack)
{
	begin();
	struct unwind_registers r = on_system();
	world_hijack(sys, r, 0);
	sprof_barriers(world_table, sys->record)[0].slot += 8;
	expect_stack(world_sample(r), STACK_END_BARRIER_MISMATCH, FUNCTION(21));
}
END_TEST

/* The function of FUNCTION(1) has returned through its barrier: sp is where its caller will have it. */
static struct unwind_registers in_trampoline(struct unwind_registers r, uint64_t pc)
{
	const uint64_t *frame = (const uint64_t *)(uintptr_t)r.fp; // NOLINT(performance-no-int-to-ptr)
	return (struct unwind_registers){.pc = pc, .sp = r.fp + 16, .fp = frame[0]};
}

START_TEST(rule_13_in_the_trampoline)
{
	struct unwind_registers r = on_user();
	world_hijack(user, r, 0);
	world_hijack(user, r, 1);
	struct unwind_registers t = in_trampoline(r, TRAMPOLINE);
	expect_stack(world_sample(t), STACK_END_ROOT, FUNCTION(2), FUNCTION(3), FUNCTION(4));
	user->record->pos = 1; /* it has advanced pos */
	expect_stack(world_sample(t), STACK_END_ROOT, FUNCTION(2), FUNCTION(3), FUNCTION(4));
	/* Two words pushed, the caller's frame pointer among them. */
	uint64_t *pushed = (uint64_t *)(uintptr_t)t.sp; // NOLINT(performance-no-int-to-ptr)
	pushed[-1] = t.fp;
	t = (struct unwind_registers){.pc = TRAMPOLINE_DEEP + 8, .sp = t.sp - 16, .fp = 0};
	expect_stack(world_sample(t), STACK_END_ROOT, FUNCTION(2), FUNCTION(3), FUNCTION(4));
	t.sp += 8; /* not where it says */
	expect_stack(world_sample(t), STACK_END_BARRIER_MISMATCH, SAMPLE_FRAME_EXTERNAL_CODE, SAMPLE_FRAME_SYSTEM);
}
END_TEST

/* The part of the table that has these bytes is not in memory. */
static void page_out(const void *bytes, size_t n)
{
	uint64_t at = (uintptr_t)bytes, end = world.regions[0].hi;
	ck_assert_uint_ge(at, world.regions[0].lo);
	ck_assert_uint_lt(at + n, end);
	world.regions[0].hi = at;
	world_add_region(at + n, end - at - n);
}

START_TEST(rule_13_in_the_trampoline_of_a_table_that_is_not_there)
{
	struct unwind_registers r = on_user();
	world_hijack(user, r, 0);
	page_out(sprof_barriers(world_table, user->record), sizeof(struct sprof_barrier));
	struct unwind_registers t = in_trampoline(r, TRAMPOLINE);
	expect_stack(world_sample(t), STACK_END_TABLE_NOT_RESIDENT, SAMPLE_FRAME_EXTERNAL_CODE, SAMPLE_FRAME_SYSTEM);
	user->record->pos = 1;
	expect_stack(world_sample(t), STACK_END_TABLE_NOT_RESIDENT, SAMPLE_FRAME_EXTERNAL_CODE, SAMPLE_FRAME_SYSTEM);
}
END_TEST

START_TEST(rule_13_in_a_helper_of_the_trampoline)
{
	struct unwind_registers r = on_user();
	world_hijack(user, r, 0);
	world_hijack(user, r, 1);
	struct unwind_registers t = in_trampoline(r, TRAMPOLINE_END - 0x10);
	/* Right below the two pushed words: the return address into the trampoline, and the helper's frame. */
	uint64_t *words = (uint64_t *)(uintptr_t)(t.sp - 16); // NOLINT(performance-no-int-to-ptr)
	words[1] = t.fp;
	words[-1] = TRAMPOLINE_END; /* the call is the last thing in the range */
	words[-2] = 0;
	struct unwind_registers helper = {
		.pc = FUNCTION(9), .sp = (uintptr_t)(words - 4), .fp = (uintptr_t)(words - 2)};
	expect_stack(world_sample(helper), STACK_END_ROOT, FUNCTION(9), FUNCTION(2), FUNCTION(3), FUNCTION(4));
}
END_TEST

START_TEST(rule_14_no_trampoline_in_two_frames)
{
	struct unwind_registers r = on_user();
	r.pc = TRAMPOLINE + 2;
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_USER_LOCKED, SAMPLE_FRAME_EXTERNAL_CODE, SAMPLE_FRAME_SYSTEM);
}
END_TEST

/* --- foreign code --- */

START_TEST(rule_2_foreign_code_and_its_managed_caller)
{
	begin();
	struct unwind_registers r = in_foreign(user);
	expect_stack(world_sample(r), STACK_END_ROOT, NATIVE_FRAMES, CALLER_FRAMES);
	r.sp = 0x10; /* whatever it does to sp and fp */
	r.fp = 0x3331;
	expect_stack(world_sample(r), STACK_END_ROOT, FUNCTION(21), CALLER_FRAMES);
}
END_TEST

START_TEST(T1_a_locked_foreign_stack_is_not_walked)
{
	begin();
	struct unwind_registers r = in_foreign(user);
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_FOREIGN_LOCKED, NATIVE_FRAMES);
	/* Rule 3: nor from anywhere else. */
	sprof_libcall_enter(world_thread, other->record, FUNCTION(11), world_address(other, 0), 0);
	expect_stack(world_sample(r), STACK_END_FOREIGN_LOCKED, NATIVE_FRAMES);
}
END_TEST

START_TEST(T2_the_lock_of_the_stack_that_is_walked)
{
	begin();
	struct unwind_registers r = in_foreign(other);
	sprof_lock(other->record); /* that of the user stack is free */
	expect_stack(world_sample(r), STACK_END_FOREIGN_LOCKED, NATIVE_FRAMES);
	sprof_unlock(other->record);
	sprof_foreign_leave(world_thread);
	world_on(user, user, sys);
	libcall_on(other);
	sprof_lock(other->record);
	r = world_chain(user, leaf_chain, LENGTH(leaf_chain));
	r.pc = SETS_SP;
	expect_stack(world_sample(r), STACK_END_SETS_SP, SETS_SP, SAMPLE_FRAME_SYSTEM);
}
END_TEST

START_TEST(T3_and_of_no_other)
{
	begin();
	struct unwind_registers r = in_foreign(other);
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_ROOT, NATIVE_FRAMES, CALLER_FRAMES);
	sprof_foreign_leave(world_thread);
	other->top = 0;
	libcall_on(other);
	world_on(user, user, sys);
	r = world_chain(user, leaf_chain, LENGTH(leaf_chain));
	expect_stack(world_sample(r), STACK_END_ROOT, FUNCTION(1), CALLER_FRAMES);
}
END_TEST

static struct sprof_context moved_to;
static void move_context(uint64_t address)
{
	if (!is_time(address))
		return;
	sprof_lock(to_change);
	world_thread->foreign_context = moved_to;
	sprof_unlock(to_change);
}

START_TEST(a_context_that_moves_before_the_lock)
{
	begin();
	struct unwind_registers r = in_foreign(user);
	moved_to = world_context(user, leaf_chain, LENGTH(leaf_chain));
	when_read(&user->record->seq_end, 8, 0, move_context, user->record);
	expect_stack(world_sample(r), STACK_END_ROOT, NATIVE_FRAMES, LEAF_FRAMES);
}
END_TEST

START_TEST(foreign_code_on_the_caller_s_own_stack)
{
	begin();
	struct sprof_context c = world_context(user, caller_chain, LENGTH(caller_chain));
	struct unwind_registers r = world_chain(user, native_chain, LENGTH(native_chain));
	/* The outer native frame returns to the managed caller, through a barrier even. */
	uint64_t *outer = (uint64_t *)(uintptr_t) * (uint64_t *)(uintptr_t)r.fp; // NOLINT(performance-no-int-to-ptr)
	ck_assert_ptr_null(outer);
	uint64_t *slot = (uint64_t *)(uintptr_t)(c.sp - 8); // NOLINT(performance-no-int-to-ptr)
	slot[-1] = c.fp;
	slot[0] = TRAMPOLINE;
	*(uint64_t *)(uintptr_t)r.fp = (uintptr_t)(slot - 1); // NOLINT(performance-no-int-to-ptr)
	sprof_foreign_enter(world_thread, user->record, c.pc, c.sp, c.fp);
	ck_assert_int_eq(sprof_barrier_append(world_table, user->record, (uintptr_t)slot, c.pc), 0);
	expect_stack(world_sample(r), STACK_END_ROOT, NATIVE_FRAMES, CALLER_FRAMES);
	/* Whose lock is held. */
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_FOREIGN_LOCKED, NATIVE_FRAMES);
}
END_TEST

START_TEST(rule_11_a_callback_has_no_foreign_context)
{
	struct unwind_registers r = on_user();
	struct sprof_context c = {.pc = FUNCTION(11), .sp = world_address(user, 0), .fp = 0};
	sprof_foreign_enter(world_thread, user->record, c.pc, c.sp, c.fp);
	sprof_callback_enter(world_thread);
	ck_assert_uint_eq(world_thread->foreign_depth, 1);
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_USER_LOCKED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
}
END_TEST

/* --- the system stack --- */

START_TEST(rule_4_from_the_system_to_the_user_stack)
{
	begin();
	struct unwind_registers r = on_system();
	expect_stack(world_sample(r), STACK_END_ROOT, NATIVE_FRAMES, CALLER_FRAMES);
}
END_TEST

START_TEST(guard_rule_5_a_locked_user_stack_leaves_the_system_stack)
{
	begin();
	struct unwind_registers r = on_system();
	libcall_on(other);
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_SYSTEM_ONLY, NATIVE_FRAMES);
}
END_TEST

START_TEST(rule_16_back_to_the_jump)
{
	begin();
	struct unwind_registers r = on_system();
	when_read(user->words, sizeof(user->words), 0, change, user->record);
	expect_stack(world_sample(r), STACK_END_STACK_CHANGED, NATIVE_FRAMES);
}
END_TEST

START_TEST(rule_15_a_jump_takes_the_barriers_along)
{
	begin();
	struct sprof_context c = world_context(user, caller_chain, LENGTH(caller_chain));
	struct unwind_registers caller = {.pc = c.pc, .sp = c.sp, .fp = c.fp};
	world_hijack(user, caller, 0);
	world_hijack(user, caller, 1);
	sprof_system_begin(world_thread, c.pc, c.sp, c.fp);
	sprof_switch_end(world_thread);
	struct unwind_registers r = world_chain(sys, leaf_chain, LENGTH(leaf_chain));
	world_hijack(sys, r, 1); /* on the system stack as well */
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES, CALLER_FRAMES);
	ck_assert_uint_eq(world_walk.n_barriers, 3);
	/* A barrier below the sp that is jumped to belongs to nobody who is walked: the slot of the call itself. */
	struct sprof_barrier *barriers = sprof_barriers(world_table, user->record);
	barriers[2] = barriers[1];
	barriers[1] = barriers[0];
	barriers[0] = (struct sprof_barrier){.slot = c.sp - 8, .original_pc = c.pc};
	user->record->n = 3;
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES, CALLER_FRAMES);
}
END_TEST

/* --- the libcall context --- */

START_TEST(T4_from_the_libcall_context_on_the_same_stack)
{
	struct unwind_registers r = on_user();
	libcall_on(user);
	r.pc = SETS_SP + 1;
	expect_stack(world_sample(r), STACK_END_ROOT, SETS_SP + 1, CALLER_FRAMES);
}
END_TEST

START_TEST(rule_8_after_a_walk_that_was_dropped)
{
	struct unwind_registers r = on_user();
	libcall_on(other);
	when_read(user->words, sizeof(user->words), 0, change, user->record);
	expect_stack(world_sample(r), STACK_END_ROOT, FUNCTION(1), CALLER_FRAMES);
}
END_TEST

/* A run of CPython's frames is found by the second walk, or not at all: the frames of the first are no more. */
START_TEST(rule_8_and_the_frames_of_python)
{
	static struct python_walk python;
	struct unwind_registers r = on_user();
	libcall_on(other);
	when_read(user->words, sizeof(user->words), 0, change, user->record);
	python_reset(&python);
	ck_assert_int_eq(python_close_run(&python, r.sp), 0);
	world_python = &python;
	expect_stack(world_sample(r), STACK_END_ROOT, FUNCTION(1), CALLER_FRAMES);
	world_python = NULL;
	unsigned expected = (uintptr_t)other->words > r.sp ? 1 : RECORD_NO_C_FRAME;
	ck_assert_uint_eq(world_walk.python.runs[0].c_frame, expected);
	ck_assert_uint_eq(world_walk.python.n_passed, expected == 1);
}
END_TEST

START_TEST(rule_8_after_a_stack_whose_record_is_not_there)
{
	struct unwind_registers r = on_user();
	libcall_on(other);
	page_out(user->record, sizeof(*user->record));
	expect_stack(world_sample(r), STACK_END_ROOT, FUNCTION(1), CALLER_FRAMES);
}
END_TEST

START_TEST(native_code_on_the_system_stack_goes_on_at_the_libcall)
{
	begin();
	libcall_on(user);
	sprof_system_begin(world_thread, 0, 0, 0);
	sprof_switch_end(world_thread);
	struct unwind_registers r = world_chain(sys, native_chain, LENGTH(native_chain));
	expect_stack(world_sample(r), STACK_END_ROOT, NATIVE_FRAMES, CALLER_FRAMES);
}
END_TEST

/* --- which lock --- */

static void switch_to_other(uint64_t address)
{
	if (!is_time(address))
		return;
	uint32_t step = sprof_begin(world_thread);
	sprof_set_user(world_thread, other->record);
	sprof_set_current(world_thread, other->record);
	sprof_end(world_thread, step);
	if (to_change) {
		sprof_lock(to_change);
		sprof_unlock(to_change);
	}
}

START_TEST(T5_what_is_checked_is_what_was_taken)
{
	struct unwind_registers r = on_user();
	/* The thread's stack is another one at the end, which nobody changed: but the one that was walked was. */
	when_read(user->words, sizeof(user->words), 0, switch_to_other, user->record);
	expect_stack(world_sample(r), STACK_END_STACK_CHANGED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
	/* And the other way round. */
	world_on(user, user, sys);
	sprof_lock(other->record);
	when_read(user->words, sizeof(user->words), 0, switch_to_other, NULL);
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
}
END_TEST

/* --- fibers --- */

static struct unwind_registers in_fiber(struct world_stack *fiber, struct world_stack *resumer, const uint64_t *pcs,
					size_t n)
{
	struct sprof_context c = world_context(resumer, caller_chain, LENGTH(caller_chain));
	sprof_resume_begin(world_thread, resumer->record, fiber->record, c.pc, c.sp, c.fp);
	sprof_switch_end(world_thread);
	return world_chain(fiber, pcs, n);
}

START_TEST(a_fiber_goes_on_in_whoever_resumed_it)
{
	begin();
	struct unwind_registers r = in_fiber(other, user, leaf_chain, LENGTH(leaf_chain));
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES, CALLER_FRAMES);
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_RESUMER_LOCKED, LEAF_FRAMES);
	sprof_unlock(user->record);
	when_read(user->words, sizeof(user->words), 0, change, user->record);
	expect_stack(world_sample(r), STACK_END_STACK_CHANGED, LEAF_FRAMES);
	world.before_read = NULL;
	sprof_stack_remove(world_table, user->record); /* the reference is stale now */
	expect_stack(world_sample(r), STACK_END_STACK_NOT_TRUSTED, LEAF_FRAMES);
}
END_TEST

START_TEST(fibers_in_a_circle)
{
	begin();
	struct unwind_registers r = in_fiber(other, user, leaf_chain, LENGTH(leaf_chain));
	struct sprof_context c = {.pc = r.pc, .sp = r.sp, .fp = r.fp};
	sprof_set_resumer(user->record, other->record, c.pc, c.sp, c.fp);
	struct segments_stack stack = world_sample(r);
	ck_assert_int_eq((int)stack.end, STACK_END_TOO_MANY_STACKS);
	ck_assert_uint_eq(world_walk.n_segments, RECORD_MAX_SEGMENTS);
}
END_TEST

START_TEST(a_frame_at_the_top_is_the_last)
{
	static const uint64_t pcs[] = {FUNCTION(1), FUNCTION(2), TOP + 8, FUNCTION(4)};
	begin();
	struct unwind_registers r = world_chain(user, pcs, LENGTH(pcs));
	expect_stack(world_sample(r), STACK_END_TABLE_ROOT, FUNCTION(1), FUNCTION(2), TOP + 8);
}
END_TEST

/* --- the thread and the table --- */

START_TEST(a_thread_that_switches)
{
	struct unwind_registers r = on_user();
	sprof_switch_begin(world_thread, NULL, user->record);
	expect_stack(world_sample(r), STACK_END_TABLE_SWITCHING, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
	sprof_switch_end(world_thread);
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
}
END_TEST

START_TEST(another_thread_of_the_same_number)
{
	struct unwind_registers r = on_user();
	world_thread->starttime += 100;
	sprof_lock(user->record); /* of no concern to a thread that has no record */
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
	ck_assert_int_eq(world_walk.segments[0].kind, SEGMENT_NATIVE);
	world_thread->starttime -= 99; /* the roundings may differ by one */
	expect_stack(world_sample(r), STACK_END_USER_LOCKED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
}
END_TEST

START_TEST(a_stack_that_is_gone)
{
	struct unwind_registers r = on_user();
	user->record->self.gen++;
	expect_stack(world_sample(r), STACK_END_STACK_NOT_TRUSTED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
}
END_TEST

START_TEST(a_thread_beyond_its_first_place)
{
	struct unwind_registers r = on_user();
	/* Its place is another's; its own is the second. */
	struct sprof_thread *threads =
		(struct sprof_thread *)((char *)(uintptr_t)world_header + world_header->off_thread);
	struct sprof_thread *second = &threads[SPROF_THREAD_SLOT(world_who.tid, 1, world_header->cap_thread)];
	*second = *world_thread;
	world_thread->tid = world_who.tid + 1;
	((struct sprof_header *)(uintptr_t)world_header)->n_probe = 2;
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_USER_LOCKED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
	((struct sprof_header *)(uintptr_t)world_header)->n_probe = 1; /* nobody was ever there */
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
}
END_TEST

START_TEST(ranges_that_changed)
{
	struct unwind_registers r = on_user();
	world_add_range((struct sprof_range){.lo = 0x710000, .hi = 0x710010, .kind = SPROF_RANGE_SETS_SP});
	expect_stack(world_sample(r), STACK_END_TABLE_CHANGED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
	ck_assert_uint_ne(world_walk.flags & RECORD_TABLE_AGED, 0);
	world_configure();
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
}
END_TEST

START_TEST(another_table_in_the_place_of_one)
{
	struct unwind_registers r = on_user();
	sprof_gc(world_thread, 1);
	expect_stack(world_sample(r), STACK_END_ROOT, LEAF_FRAMES);
	world_config.off_thread += 256;
	/* Whose work it is is not known then either. */
	expect_stack(world_sample(r), STACK_END_TABLE_CHANGED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
	ck_assert_uint_ne(world_walk.flags & RECORD_TABLE_AGED, 0);
}
END_TEST

static void add_range(uint64_t address)
{
	if (is_time(address))
		world_add_range((struct sprof_range){.lo = 0x710000, .hi = 0x710010, .kind = SPROF_RANGE_TRAMPOLINE});
}

START_TEST(ranges_that_change_during_the_walk)
{
	struct unwind_registers r = on_user();
	when_read(user->words, sizeof(user->words), 0, add_range, NULL);
	expect_stack(world_sample(r), STACK_END_TABLE_CHANGED, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
	ck_assert_uint_ne(world_walk.flags & RECORD_TABLE_AGED, 0);
}
END_TEST

START_TEST(a_switch_that_is_announced_and_not_made)
{
	begin();
	/* The table says "system stack, come from the user stack"; a signal's handler runs, and sp has not changed yet. */
	struct sprof_context c = world_context(user, caller_chain, LENGTH(caller_chain));
	sprof_system_begin(world_thread, c.pc, c.sp, c.fp);
	sprof_switch_end(world_thread);
	struct unwind_registers r = world_chain(below, native_chain, LENGTH(native_chain));
	*(uint64_t *)(uintptr_t)r.fp = c.fp; // NOLINT(performance-no-int-to-ptr)
	expect_stack(world_sample(r), STACK_END_ROOT, NATIVE_FRAMES, FUNCTION(12), FUNCTION(13));
	sprof_lock(user->record);
	expect_stack(world_sample(r), STACK_END_SYSTEM_ONLY, NATIVE_FRAMES);
}
END_TEST

START_TEST(a_table_that_is_not_there)
{
	struct unwind_registers r = on_user();
	world.regions[0].hi = world.regions[0].lo;
	expect_stack(world_sample(r), STACK_END_TABLE_NOT_RESIDENT, FUNCTION(1), SAMPLE_FRAME_SYSTEM);
}
END_TEST

START_TEST(a_child_that_shares_memory)
{
	struct unwind_registers r = on_user();
	world_hijack(user, r, 1);
	world_config.flags = TABLE_FOREIGN_PROCESS;
	expect_stack(world_sample(r), STACK_END_TABLE_FOREIGN_PROCESS, FUNCTION(1), FUNCTION(2));
}
END_TEST

CHECK_MAIN("walk", 20, walks_under_the_lock, without_a_record_a_thread_is_native, rule_1_sp_at_the_end_of_the_stack,
	   rule_1_an_unknown_start_stack_is_native_and_enters_a_known_one, rule_1_from_above_too,
	   rule_1_nowhere_in_the_middle_of_a_switch, rule_6_a_locked_user_stack_is_not_walked, rule_7_whose_stack_it_is,
	   rule_10_a_held_lock_is_not_tried_again, rule_16_a_stack_that_changed_is_dropped,
	   rule_12_hijacked_return_addresses, rule_12_by_slot_or_not_at_all, rule_12_trampolines_of_several_entries,
	   rule_12_many_barriers, rule_12_deeper_than_the_record, rule_12_after_a_jump_over_many_frames,
	   rule_12_on_the_system_stack, rule_13_in_the_trampoline,
	   rule_13_in_the_trampoline_of_a_table_that_is_not_there, rule_13_in_a_helper_of_the_trampoline,
	   rule_14_no_trampoline_in_two_frames, rule_2_foreign_code_and_its_managed_caller,
	   T1_a_locked_foreign_stack_is_not_walked, T2_the_lock_of_the_stack_that_is_walked, T3_and_of_no_other,
	   a_context_that_moves_before_the_lock, foreign_code_on_the_caller_s_own_stack,
	   rule_11_a_callback_has_no_foreign_context, rule_4_from_the_system_to_the_user_stack,
	   guard_rule_5_a_locked_user_stack_leaves_the_system_stack, rule_16_back_to_the_jump,
	   rule_15_a_jump_takes_the_barriers_along, T4_from_the_libcall_context_on_the_same_stack,
	   rule_8_after_a_walk_that_was_dropped, rule_8_and_the_frames_of_python,
	   rule_8_after_a_stack_whose_record_is_not_there, native_code_on_the_system_stack_goes_on_at_the_libcall,
	   T5_what_is_checked_is_what_was_taken, a_fiber_goes_on_in_whoever_resumed_it, fibers_in_a_circle,
	   a_frame_at_the_top_is_the_last, a_thread_that_switches, another_thread_of_the_same_number,
	   a_stack_that_is_gone, a_thread_beyond_its_first_place, ranges_that_changed,
	   another_table_in_the_place_of_one, ranges_that_change_during_the_walk,
	   a_switch_that_is_announced_and_not_made, a_table_that_is_not_there, a_child_that_shares_memory)
