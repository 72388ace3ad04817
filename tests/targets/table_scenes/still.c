/* Scenes in which nothing moves once the actor is in place. What a profile must show of each is in tests/system/test_table.py; the
 * rules are those of docs/BARRIER-TABLE.md, section 9. */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"

#include "target.h"

static void hold_a(void)
{
	sprof_lock(a.stack);
}

static void hold_b(void)
{
	sprof_lock(b.stack);
}

static void hijack_everything(void)
{
	hijack_all(&a);
	hijack_all(&b);
	hijack_all(&c);
}

/* --- On a user stack ----------------------------------------------------------------------------------------------------------- */

static void on_user(void)
{
	set_refs(&a, &a, &system_stack);
	run_in(&a, scene_a_leaf);
}

static void on_user_with_barriers(void)
{
	hijack_all(&a);
	on_user();
}

static void on_user_with_one_barrier(void)
{
	hijack(&a, 1);
	on_user();
}

static void on_user_after_a_return(void)
{
	hijack_all(&a);
	*word_at(slot(&a, 0)) = return_into(scene_a_mid); /* another call of mid's */
	SPROF_STORE(a.stack->pos, 1);
	on_user();
}

static void wrong_slot(void)
{
	hijack_all(&a);
	sprof_barriers(scene_table, a.stack)[1].slot += 16;
	on_user();
}

static void unknown_barrier(void)
{
	*word_at(slot(&a, 1)) = address_of(scene_trampoline);
	on_user();
}

static void for_the_collector(void)
{
	sprof_gc(scene_record, 1);
	on_user();
}

/* Nothing is on c any more, so that b, which resumed it, is next; but not from elsewhere. */
static void alone_at(uint64_t sp)
{
	set_resumer(&c, &b, scene_b_leaf);
	set_refs(&c, &c, &system_stack);
	scene_in_place();
	scene_run(address_of(scene_alone), sp, 0);
}

static void at_the_very_top(void)
{
	alone_at(c.hi);
}

static void beyond_the_top(void)
{
	alone_at(c.hi + 8);
}

static void at_the_very_bottom(void)
{
	alone_at(c.lo);
}

static void below_the_bottom(void)
{
	alone_at(c.lo - 8);
}

/* The code of scene_alone, where no file is. */
static void in_no_file(bool managed)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		target_die("mmap");
	memcpy(page, scene_alone, 24);
	struct sprof_range range = {
		.lo = address_of(page), .hi = address_of(page) + 4096, .kind = SPROF_RANGE_MANAGED_TEXT};
	if (managed && sprof_range_add(scene_table, &range) < 0)
		target_die("sprof_range_add");
	set_refs(&a, &a, &system_stack);
	scene_in_place();
	scene_run(address_of(page), a.record[0] - 128, a.record[0]);
}

static void in_anonymous_code(void)
{
	in_no_file(false);
}

static void in_managed_code(void)
{
	in_no_file(true);
}

/* --- In the trampoline --------------------------------------------------------------------------------------------------------- */

/* leaf has returned through slot 0: sp is pushed below the caller's. */
static void in_trampoline(enum trampoline_part part, uint64_t pushed, uint64_t fp, uint64_t pos)
{
	hijack_all(&a);
	SPROF_STORE(a.stack->pos, pos);
	set_refs(&a, &a, &system_stack);
	scene_in_place();
	scene_run(scene_trampoline_parts[part], slot(&a, 0) + 8 - pushed, fp);
}

static void at_trampoline_entry(void)
{
	in_trampoline(AT_ENTRY, 0, a.record[1], 0);
}

static void at_trampoline_entry_advanced(void)
{
	in_trampoline(AT_ENTRY, 0, a.record[1], 1);
}

static void in_trampoline_after_pushes(void)
{
	in_trampoline(PUSHED_TWO, 16, a.record[1], 0);
}

static void in_trampoline_after_pushes_advanced(void)
{
	in_trampoline(PUSHED_TWO, 16, a.record[1], 1);
}

/* It has pushed the caller's frame pointer, over the slot. */
static void in_trampoline_fp_saved(void)
{
	hijack_all(&a);
	*word_at(slot(&a, 0)) = a.record[1];
	SPROF_STORE(a.stack->pos, 1);
	set_refs(&a, &a, &system_stack);
	scene_in_place();
	scene_run(scene_trampoline_parts[SAVED_FP], slot(&a, 0), 0x1234);
}

static void in_trampoline_own_fp(void)
{
	hijack_all(&a);
	*word_at(slot(&a, 0)) = a.record[1];
	SPROF_STORE(a.stack->pos, 1);
	set_refs(&a, &a, &system_stack);
	scene_in_place();
	scene_run(scene_trampoline_parts[OWN_FP], slot(&a, 0) - 240, slot(&a, 0));
}

static void in_helper(uint64_t pos)
{
	uint64_t cfa = slot(&a, 0) + 8;
	hijack_all(&a);
	SPROF_STORE(a.stack->pos, pos);
	*word_at(cfa - 32) = a.record[1];
	*word_at(cfa - 24) = scene_trampoline_parts[PUSHED_TWO] + 8;
	set_refs(&a, &a, &system_stack);
	scene_in_place();
	scene_run(address_of(scene_helper), cfa - 64, cfa - 32);
}

static void in_helper_before(void)
{
	in_helper(0);
}

static void in_helper_after(void)
{
	in_helper(1);
}

static void in_trampoline_unknown_slot(void)
{
	in_trampoline(AT_ENTRY, 0, a.record[1], 2);
}

/* --- On the system stack ------------------------------------------------------------------------------------------------------- */

/* The user stack waits in its leaf. */
static void on_system(void)
{
	hijack_everything();
	set_refs(&system_stack, &a, &system_stack);
	set_jump(&a, scene_a_leaf);
	run_in(&system_stack, scene_system_leaf);
}

static void on_system_library_free(void)
{
	enter_libcall(&b, scene_b_leaf);
	on_system();
}

static void on_system_alone(void)
{
	set_refs(&system_stack, &a, &system_stack);
	run_in(&system_stack, scene_system_leaf);
}

static void in_foreign(const struct made_stack *s, const char *leaf)
{
	hijack_everything();
	set_refs(&system_stack, &a, &system_stack);
	set_jump(&a, scene_a_leaf);
	enter_foreign(s, leaf);
	run_in(&system_stack, scene_system_leaf);
}

static void in_foreign_of_a(void)
{
	in_foreign(&a, scene_a_leaf);
}

static void in_foreign_of_a_library_free(void)
{
	enter_libcall(&c, scene_c_leaf);
	in_foreign(&a, scene_a_leaf);
}

static void in_foreign_of_b(void)
{
	enter_libcall(&c, scene_c_leaf);
	in_foreign(&b, scene_b_leaf);
}

/* The collector has hijacked the return of the foreign call itself. */
static void in_foreign_own_slot(void)
{
	uint64_t own_slot = context_in(&a, scene_a_leaf).sp - 8;
	sprof_lock(a.stack);
	*word_at(own_slot) = address_of(scene_trampoline);
	if (sprof_barrier_append(scene_table, a.stack, own_slot, return_into(scene_a_leaf)) != 0)
		target_die("sprof_barrier_append");
	sprof_unlock(a.stack);
	in_foreign(&a, scene_a_leaf);
}

static void in_foreign_same_stack(void)
{
	hijack_all(&a);
	set_refs(&a, &a, &system_stack);
	enter_foreign(&a, scene_a_leaf);
	scene_in_place();
	scene_run(address_of(scene_native_top), a.record[0] - 1024, 0x1234); /* a register like any other to it */
}

/* The native code keeps frame pointers, which lead on into its caller's frames. */
static void in_foreign_same_chain(void)
{
	uint64_t fp = a.record[0] - 1024;
	hijack_all(&a);
	set_refs(&a, &a, &system_stack);
	enter_foreign(&a, scene_a_leaf);
	*word_at(fp) = a.record[0];
	*word_at(fp + 8) = return_into(scene_native_root);
	scene_in_place();
	scene_run(address_of(scene_native_leaf), fp - 256, fp);
}

static void in_foreign_outside(void)
{
	struct sprof_context at = context_in(&a, scene_a_leaf);
	set_refs(&system_stack, &a, &system_stack);
	sprof_foreign_enter(scene_record, a.stack, at.pc, b.record[0] - 128, b.record[0]);
	run_in(&system_stack, scene_system_leaf);
}

static void in_foreign_stale(void)
{
	set_refs(&system_stack, NULL, &system_stack);
	enter_foreign(&b, scene_b_leaf);
	sprof_stack_remove(scene_table, b.stack);
	b.stack = sprof_stack_add(scene_table, b.lo, b.hi);
	own(&b);
	run_in(&system_stack, scene_system_leaf);
}

/* Rule 11. */
static void in_callback(void)
{
	hijack_all(&a);
	set_refs(&a, &a, &system_stack);
	enter_foreign(&a, scene_a_leaf);
	sprof_callback_enter(scene_record);
	run_in(&a, scene_a_leaf);
}

/* --- While the stack pointer is set -------------------------------------------------------------------------------------------- */

static void switching_libcall(struct made_stack *s, const char *leaf)
{
	hijack_all(&b);
	set_refs(&a, &a, &system_stack);
	enter_libcall(s, leaf);
	run_in(&a, scene_switch);
}

static void switching_libcall_a(void)
{
	switching_libcall(&a, scene_a_leaf);
}

static void switching_libcall_b(void)
{
	switching_libcall(&b, scene_b_leaf);
}

static void switching(void)
{
	set_refs(&a, &a, &system_stack);
	run_in(&a, scene_switch);
}

static void libcall_of_b(void)
{
	hijack_everything();
	set_refs(&a, &a, &system_stack);
	enter_libcall(&b, scene_b_leaf);
	run_in(&a, scene_a_leaf);
}

static void version_odd(void)
{
	set_refs(&a, &a, &system_stack);
	enter_foreign(&b, scene_b_leaf);
	(void)sprof_begin(scene_record);
	run_in(&a, scene_a_leaf);
}

static void version_odd_with_barriers(void)
{
	hijack(&a, 1);
	version_odd();
}

/* --- Fibers -------------------------------------------------------------------------------------------------------------------- */

static void resume_three(void)
{
	hijack_everything();
	set_resumer(&b, &a, scene_a_leaf);
	set_resumer(&c, &b, scene_b_leaf);
	set_refs(&c, &c, &system_stack);
	run_in(&c, scene_c_leaf);
}

static void resumed_on_system(void)
{
	hijack_everything();
	set_resumer(&b, &a, scene_a_leaf);
	set_refs(&system_stack, &b, &system_stack);
	set_jump(&b, scene_b_leaf);
	run_in(&system_stack, scene_system_leaf);
}

static void resumed_in_foreign(void)
{
	set_resumer(&b, &a, scene_a_leaf);
	in_foreign(&b, scene_b_leaf);
}

static void resumer_stale(void)
{
	set_resumer(&c, &b, scene_b_leaf);
	sprof_stack_remove(scene_table, b.stack);
	b.stack = sprof_stack_add(scene_table, b.lo, b.hi);
	own(&b);
	set_refs(&c, &c, &system_stack);
	run_in(&c, scene_c_leaf);
}

static void resumer_of_another(void)
{
	set_resumer(&c, &b, scene_b_leaf);
	SPROF_STORE(b.stack->owner_tid, 1);
	set_refs(&c, &c, &system_stack);
	run_in(&c, scene_c_leaf);
}

static void resumers_in_a_loop(void)
{
	set_resumer(&b, &c, scene_c_leaf);
	set_resumer(&c, &b, scene_b_leaf);
	set_refs(&c, &c, &system_stack);
	run_in(&c, scene_c_leaf);
}

/* --- Stacks that nobody told of ------------------------------------------------------------------------------------------------ */

static void native_with_record(void)
{
	set_refs(&a, &a, &system_stack);
	run_in(&native, scene_native_leaf);
}

/* The chain of frame records goes from an unknown stack straight to a known one. */
static void into_user_from(struct made_stack *from)
{
	hijack_all(&a);
	set_refs(&a, &a, &system_stack);
	*word_at(from->record[1]) = a.record[0];
	*word_at(slot(from, 1)) = return_into(scene_a_leaf);
	run_in(from, scene_native_leaf);
}

static void from_below_into_user(void)
{
	into_user_from(&native);
}

static void from_above_into_user(void)
{
	into_user_from(&above);
}

/* --- Records that are not to be believed --------------------------------------------------------------------------------------- */

static void without_record(void)
{
	sprof_thread_detach(scene_record);
	run_in(&a, scene_a_leaf);
}

static void without_record_barriers(void)
{
	hijack(&a, 1);
	without_record();
}

static void earlier_thread(void)
{
	enter_foreign(&b, scene_b_leaf);
	SPROF_STORE(scene_record->starttime, scene_record->starttime + 1000);
	set_refs(&a, &a, &system_stack);
	run_in(&native, scene_native_leaf);
}

/* Within the tolerance. */
static void a_tick_apart(void)
{
	SPROF_STORE(scene_record->starttime, scene_record->starttime + 1);
	on_user_with_barriers();
}

/* The first three places of its tid belong to others. */
static void at_the_fourth_probe(void)
{
	uint32_t tid = scene_record->tid;
	const struct sprof_header *header = sprof_table_address(scene_table);
	struct sprof_thread *threads = (struct sprof_thread *)word_at(header->self_va + header->off_thread);
	sprof_thread_detach(scene_record);
	for (uint32_t i = 0; i < 3; i++)
		SPROF_STORE(threads[SPROF_THREAD_SLOT(tid, i, header->cap_thread)].tid, (uint32_t)getpid());
	scene_record = sprof_thread_attach(scene_table);
	on_user_with_barriers();
}

static void user_of_another(void)
{
	hijack(&a, 1);
	set_refs(&a, &a, &system_stack);
	SPROF_STORE(a.stack->owner_tid, 1);
	run_in(&a, scene_a_leaf);
}

static void jump_to_anothers(void)
{
	set_refs(&system_stack, &a, &system_stack);
	set_jump(&a, scene_a_leaf);
	SPROF_STORE(a.stack->owner_tid, 1);
	run_in(&system_stack, scene_system_leaf);
}

static void foreign_of_another(void)
{
	set_refs(&system_stack, &a, &system_stack);
	enter_foreign(&b, scene_b_leaf);
	SPROF_STORE(b.stack->owner_tid, 1);
	run_in(&system_stack, scene_system_leaf);
}

static void libcall_of_another(void)
{
	set_refs(&a, &a, &system_stack);
	enter_libcall(&b, scene_b_leaf);
	SPROF_STORE(b.stack->owner_tid, 1);
	run_in(&a, scene_switch);
}

static void user_stale(void)
{
	hijack(&a, 1);
	set_refs(&a, &a, &system_stack);
	sprof_lock(a.stack);
	SPROF_STORE(a.stack->self.gen, a.stack->self.gen + 1);
	sprof_unlock(a.stack);
	run_in(&a, scene_a_leaf);
}

/* Its pages are there, but not in the page table: as after being swapped out. Whoever reads the table, a profiler's daemon too, brings them back. */
static void *send_pages_away(void *unused)
{
	const struct sprof_header *header = sprof_table_address(scene_table);
	void *memory = word_at(header->self_va);
	size_t bytes = header->total_size;
	while (!target_stop) {
		if (munlock(memory, bytes) < 0 || madvise(memory, bytes, MADV_DONTNEED) < 0)
			target_die("madvise");
		target_sleep_us(1000);
	}
	return unused;
}

/* --- Many threads -------------------------------------------------------------------------------------------------------------- */

static pthread_barrier_t all_there;

static void *sleep_with_record(void *unused)
{
	if (!sprof_thread_attach(scene_table))
		target_die("no record");
	pthread_barrier_wait(&all_there);
	for (;;)
		target_sleep_us(1000000000);
	return unused;
}

static void among_ten_thousand(void)
{
	enum { N = 10000, SLEEPER_STACK = 16384 };
	pthread_attr_t attr;
	pthread_t id;
	scene_publish(16384);
	pthread_barrier_init(&all_there, NULL, N + 1);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, SLEEPER_STACK);
	for (int i = 0; i < N; i++)
		if (pthread_create(&id, &attr, sleep_with_record, NULL) != 0)
			target_die("pthread_create");
	pthread_barrier_wait(&all_there);
	scene_record = sprof_thread_attach(scene_table);
	on_user_with_barriers();
}

const struct scene scenes_still[] = {
	{.name = "user", .act = on_user},
	{.name = "user_barriers", .act = on_user_with_barriers},
	{.name = "user_one_barrier", .act = on_user_with_one_barrier},
	{.name = "user_after_a_return", .act = on_user_after_a_return},
	{.name = "user_locked", .act = on_user_with_barriers, .hold = hold_a},
	{.name = "user_locked_gc", .act = for_the_collector, .hold = hold_a},
	{.name = "user_locked_anonymous_code", .act = in_anonymous_code, .hold = hold_a},
	{.name = "user_locked_managed_code", .act = in_managed_code, .hold = hold_a},
	{.name = "wrong_slot", .act = wrong_slot},
	{.name = "unknown_barrier", .act = unknown_barrier},
	{.name = "sp_is_hi", .act = at_the_very_top},
	{.name = "sp_above_hi", .act = beyond_the_top},
	{.name = "sp_is_lo", .act = at_the_very_bottom},
	{.name = "sp_below_lo", .act = below_the_bottom},
	{.name = "trampoline_entry", .act = at_trampoline_entry},
	{.name = "trampoline_entry_advanced", .act = at_trampoline_entry_advanced},
	{.name = "trampoline_pushed", .act = in_trampoline_after_pushes},
	{.name = "trampoline_pushed_advanced", .act = in_trampoline_after_pushes_advanced},
	{.name = "trampoline_fp_saved", .act = in_trampoline_fp_saved},
	{.name = "trampoline_own_fp", .act = in_trampoline_own_fp},
	{.name = "trampoline_helper", .act = in_helper_before},
	{.name = "trampoline_helper_advanced", .act = in_helper_after},
	{.name = "trampoline_unknown_slot", .act = in_trampoline_unknown_slot},
	{.name = "trampoline_locked", .act = at_trampoline_entry, .hold = hold_a},
	{.name = "system_alone", .act = on_system_alone},
	{.name = "jump", .act = on_system},
	{.name = "guard", .act = on_system_library_free, .hold = hold_a},
	{.name = "foreign", .act = in_foreign_of_a},
	{.name = "foreign_of_b", .act = in_foreign_of_b},
	{.name = "foreign_own_slot", .act = in_foreign_own_slot},
	{.name = "foreign_same_stack", .act = in_foreign_same_stack},
	{.name = "foreign_same_chain", .act = in_foreign_same_chain},
	{.name = "foreign_outside", .act = in_foreign_outside},
	{.name = "foreign_stale", .act = in_foreign_stale},
	{.name = "t1", .act = in_foreign_of_a_library_free, .hold = hold_a},
	{.name = "t2_foreign", .act = in_foreign_of_b, .hold = hold_b},
	{.name = "t2_libcall", .act = switching_libcall_b, .hold = hold_b},
	{.name = "t3_foreign", .act = in_foreign_of_b, .hold = hold_a},
	{.name = "t3_libcall", .act = libcall_of_b, .hold = hold_a},
	{.name = "t4", .act = switching_libcall_a},
	{.name = "libcall_unused", .act = libcall_of_b},
	{.name = "libcall", .act = switching_libcall_b},
	{.name = "switching", .act = switching},
	{.name = "callback", .act = in_callback},
	{.name = "callback_locked", .act = in_callback, .hold = hold_a},
	{.name = "version_odd", .act = version_odd},
	{.name = "version_odd_barriers", .act = version_odd_with_barriers},
	{.name = "resumers", .act = resume_three},
	{.name = "resumers_locked", .act = resume_three, .hold = hold_b},
	{.name = "resumers_jump", .act = resumed_on_system},
	{.name = "resumers_foreign", .act = resumed_in_foreign},
	{.name = "resumer_stale", .act = resumer_stale},
	{.name = "resumer_of_another", .act = resumer_of_another},
	{.name = "resumer_loop", .act = resumers_in_a_loop},
	{.name = "native", .act = native_with_record},
	{.name = "native_into_user", .act = from_below_into_user},
	{.name = "native_into_user_locked", .act = from_below_into_user, .hold = hold_a},
	{.name = "above_into_user", .act = from_above_into_user},
	{.name = "no_record", .act = without_record},
	{.name = "no_record_barriers", .act = without_record_barriers},
	{.name = "earlier_thread", .act = earlier_thread},
	{.name = "a_tick_apart", .act = a_tick_apart},
	{.name = "fourth_probe", .act = at_the_fourth_probe},
	{.name = "user_of_another", .act = user_of_another},
	{.name = "jump_to_anothers", .act = jump_to_anothers},
	{.name = "foreign_of_another", .act = foreign_of_another},
	{.name = "libcall_of_another", .act = libcall_of_another},
	{.name = "user_stale", .act = user_stale},
	{.name = "not_resident", .act = on_user_with_barriers, .meddle = send_pages_away},
	{.name = "ten_thousand", .act = among_ten_thousand, .without_table = true},
	{.name = NULL},
};
