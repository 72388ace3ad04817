/* Stacks: places, generations, the lock, moving; barriers. */
#include <errno.h>
#include <sprof/sprof.h>
#include <stdbool.h>
#include <string.h>

#include "check_main.h"

enum { STACKS = 130, BARRIERS = 8 };

static struct sprof_table *table;
static struct sprof_stack *stack;

static void setup(void)
{
	const struct sprof_options options = {
		.size = sizeof(options), .stacks = STACKS, .barriers = BARRIERS, .threads = 32};
	ck_assert_int_eq(sprof_open(&options, &table), 0);
	stack = sprof_stack_add(table, 0x10000, 0x20000);
	ck_assert_ptr_nonnull(stack);
}

static void teardown(void)
{
	sprof_close(table);
}

static uint64_t refused(size_t offset)
{
	struct sprof_status status = {.size = sizeof(status)};
	uint64_t value;
	ck_assert_int_eq(sprof_status(table, &status), 0);
	memcpy(&value, (char *)&status + offset, 8);
	return value;
}

START_TEST(full_and_emptied_again)
{
	struct sprof_stack *all[STACKS] = {stack};
	for (uint32_t i = 1; i < STACKS; i++) {
		all[i] = sprof_stack_add(table, i * 0x1000, i * 0x1000 + 0x800);
		ck_assert_ptr_nonnull(all[i]);
		ck_assert_uint_eq(all[i]->self.index, i);
	}
	ck_assert_ptr_null(sprof_stack_add(table, 1, 2));
	ck_assert_uint_eq(refused(offsetof(struct sprof_status, stacks_refused)), 1);
	sprof_stack_remove(table, all[77]);
	ck_assert_uint_eq(all[77]->lo | all[77]->hi, 0);
	struct sprof_stack *again = sprof_stack_add(table, 5, 6);
	ck_assert_ptr_eq(again, all[77]);
	ck_assert_uint_eq(again->self.gen, 2);
	ck_assert_ptr_null(sprof_stack_add(table, 2, 2));
	ck_assert_uint_eq(refused(offsetof(struct sprof_status, stacks_refused)), 1);
}
END_TEST

START_TEST(versions_never_reset)
{
	uint64_t before = stack->seq_end;
	sprof_stack_remove(table, stack);
	ck_assert_uint_eq(stack->seq_end, before + 1);
	ck_assert_ptr_eq(sprof_stack_add(table, 1, 9), stack);
	ck_assert_uint_eq(stack->seq_end, before + 2);
	ck_assert_uint_eq(stack->seq_begin, before + 2);
}
END_TEST

START_TEST(generation_zero_is_passed_over)
{
	stack->self.gen = 0xffffffff;
	sprof_stack_remove(table, stack);
	ck_assert_uint_eq(stack->self.gen, 1);
}
END_TEST

START_TEST(the_lock_is_seen)
{
	sprof_lock(stack);
	ck_assert_uint_eq(stack->seq_begin, stack->seq_end + 1);
	ck_assert_int_eq(sprof_trylock(stack), 0);
	ck_assert_uint_eq(stack->seq_begin, stack->seq_end + 1);
	sprof_unlock(stack);
	ck_assert_uint_eq(stack->seq_begin, stack->seq_end);
	ck_assert_int_eq(sprof_trylock(stack), 1);
	sprof_unlock(stack);
}
END_TEST

static void expect_barriers(size_t n, const uint64_t *slots)
{
	const struct sprof_barrier *barriers = sprof_barriers(table, stack);
	ck_assert_uint_eq(stack->n - stack->pos, n);
	ck_assert_uint_le(stack->n, BARRIERS);
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_eq(barriers[stack->pos + i].slot, slots[i]);
		ck_assert_uint_eq(barriers[stack->pos + i].original_pc, slots[i] + 1);
	}
}
#define EXPECT(...) expect_barriers(sizeof((uint64_t[]){__VA_ARGS__}) / 8, (uint64_t[]){__VA_ARGS__})

static int append(uint64_t slot)
{
	return sprof_barrier_append(table, stack, slot, slot + 1);
}

static int push(uint64_t slot)
{
	return sprof_barrier_push(table, stack, slot, slot + 1);
}

START_TEST(barriers_from_both_ends)
{
	ck_assert_int_eq(append(500), 0);
	ck_assert_int_eq(append(500), -EINVAL);
	ck_assert_int_eq(append(600), 0);
	ck_assert_int_eq(push(500), -EINVAL);
	ck_assert_int_eq(push(400), 0);
	ck_assert_int_eq(push(300), 0);
	EXPECT(300, 400, 500, 600);
	for (uint64_t slot = 700; slot < 1100; slot += 100)
		ck_assert_int_eq(append(slot), 0);
	ck_assert_int_eq(append(2000), -ENOSPC);
	ck_assert_int_eq(push(1), -ENOSPC);
	ck_assert_uint_eq(refused(offsetof(struct sprof_status, barriers_refused)), 2);
	EXPECT(300, 400, 500, 600, 700, 800, 900, 1000);
	sprof_barrier_clear(stack);
	ck_assert_uint_eq(stack->n + stack->pos, 0);
	for (uint64_t slot = 1000; slot > 200; slot -= 100)
		ck_assert_int_eq(push(slot), 0);
	EXPECT(300, 400, 500, 600, 700, 800, 900, 1000);
}
END_TEST

/* Against an array: whatever is done at either end. */
START_TEST(barriers_at_random)
{
	uint64_t slots[64], first = 32, last = 32, low = 1000000, high = 1000000, random = (uint64_t)_i * 2 + 1;
	for (int step = 0; step < 2000; step++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		bool room = last - first < BARRIERS;
		if ((first == 0 || last == 64) && room) { /* to the middle of our array */
			memmove(slots + 28, slots + first, (last - first) * sizeof(slots[0]));
			last = 28 + (last - first);
			first = 28;
		}
		switch (random >> 62) {
		case 0:
			ck_assert_int_eq(append(high += 8), room ? 0 : -ENOSPC);
			if (room)
				slots[last++] = high;
			break;
		case 1:
			ck_assert_int_eq(push(low -= 8), room ? 0 : -ENOSPC);
			if (room)
				slots[--first] = low;
			break;
		case 2:
			if (first < last) {
				ck_assert_uint_eq(sprof_barrier_hit(stack, sprof_barriers(table, stack), slots[first]),
						  slots[first] + 1);
				first++;
			}
			break;
		default: {
			struct sprof_barrier popped;
			ck_assert_int_eq(sprof_barrier_pop(table, stack, &popped), first < last);
			if (first < last)
				ck_assert_uint_eq(popped.slot, slots[first++]);
		}
		}
		expect_barriers(last - first, slots + first);
	}
}
END_TEST

START_TEST(a_hit_is_found_by_its_slot)
{
	const struct sprof_barrier *barriers = sprof_barriers(table, stack);
	for (uint64_t slot = 100; slot <= 500; slot += 100)
		ck_assert_int_eq(append(slot), 0);
	uint64_t version = stack->seq_end;
	ck_assert_uint_eq(sprof_barrier_hit(stack, barriers, 100), 101);
	ck_assert_uint_eq(sprof_barrier_hit(stack, barriers, 100), 0);
	ck_assert_uint_eq(stack->pos, 1);
	ck_assert_uint_eq(sprof_barrier_hit(stack, barriers, 300), 301); /* past 200, which a longjmp went by */
	ck_assert_uint_eq(stack->pos, 3);
	ck_assert_uint_eq(sprof_barrier_hit(stack, barriers, 450), 0);
	ck_assert_uint_eq(stack->pos, 3);
	ck_assert_uint_eq(barriers[2].slot, 300); /* the one just returned to stays readable */
	ck_assert_uint_eq(stack->seq_end, version);
}
END_TEST

START_TEST(unwinding_and_replacing)
{
	struct sprof_barrier next;
	for (uint64_t slot = 100; slot <= 500; slot += 100)
		ck_assert_int_eq(append(slot), 0);
	ck_assert_uint_eq(sprof_barrier_unwind(table, stack, 300), 2); /* the slot at sp itself is not gone */
	EXPECT(300, 400, 500);
	ck_assert_int_eq(sprof_barrier_replace(table, stack, 99), 0);
	ck_assert_int_eq(sprof_barrier_peek(table, stack, &next), 1);
	ck_assert_uint_eq(next.slot, 300);
	ck_assert_uint_eq(next.original_pc, 99);
	ck_assert_uint_eq(sprof_barrier_unwind(table, stack, ~0ull), 3);
	ck_assert_int_eq(sprof_barrier_replace(table, stack, 99), -ENOENT);
	ck_assert_int_eq(sprof_barrier_pop(table, stack, &next), 0);
}
END_TEST

START_TEST(all_that_points_into_it_moves_with_it)
{
	struct sprof_thread *thread = sprof_thread_attach(table);
	struct sprof_stack *other = sprof_stack_add(table, 0x50000, 0x60000);
	sprof_switch_begin(thread, NULL, stack);
	sprof_switch_end(thread);
	sprof_foreign_enter(thread, stack, 1, 0x1fff0, 0x20000);
	sprof_system_begin(thread, 2, 0x1ff00, 0x77);
	sprof_switch_end(thread);
	sprof_libcall_enter(thread, other, 3, 0x5fff0, 0x5fff8);
	ck_assert_int_eq(append(0x1ff00), 0);
	ck_assert_int_eq(append(0x1fff8), 0);
	sprof_lock(stack);
	sprof_stack_move(table, stack, 0x80000, 0xa0000);
	sprof_unlock(stack);
	ck_assert_uint_eq(stack->lo, 0x80000);
	ck_assert_uint_eq(stack->hi, 0xa0000);
	const struct sprof_barrier *barriers = sprof_barriers(table, stack);
	ck_assert_uint_eq(barriers[0].slot, 0x9ff00);
	ck_assert_uint_eq(barriers[1].slot, 0x9fff8);
	ck_assert_uint_eq(thread->foreign_context.sp, 0x9fff0);
	ck_assert_uint_eq(thread->foreign_context.fp, 0xa0000);
	ck_assert_uint_eq(thread->foreign_context.pc, 1);
	ck_assert_uint_eq(thread->jump_context.sp, 0x9ff00);
	ck_assert_uint_eq(thread->jump_context.fp, 0x77); /* a register that did not point into the stack */
	ck_assert_uint_eq(thread->libcall_context.sp, 0x5fff0);
}
END_TEST

START_TEST(coroutines_chain_by_their_resumer)
{
	struct sprof_thread *thread = sprof_thread_attach(table);
	struct sprof_stack *inner = sprof_stack_add(table, 0x50000, 0x60000);
	sprof_switch_begin(thread, NULL, stack);
	sprof_switch_end(thread);
	sprof_resume_begin(thread, stack, inner, 10, 20, 30);
	ck_assert_uint_eq(thread->seq & 1, 1);
	sprof_switch_end(thread);
	ck_assert_uint_eq(thread->seq & 1, 0);
	ck_assert_mem_eq(&thread->current, &inner->self, 8);
	ck_assert_mem_eq(&thread->user, &inner->self, 8);
	ck_assert_mem_eq(&inner->resumer, &stack->self, 8);
	ck_assert_uint_eq(inner->resumer_context.sp, 20);
	ck_assert_uint_eq(inner->owner_tid, thread->tid);
	ck_assert_uint_eq(stack->owner_tid, thread->tid);
	sprof_yield_begin(thread, inner, stack);
	sprof_switch_end(thread);
	ck_assert_uint_eq(inner->resumer.gen | inner->resumer_context.pc | inner->resumer_context.sp, 0);
	ck_assert_uint_eq(inner->owner_tid, 0);
	ck_assert_mem_eq(&thread->current, &stack->self, 8);
}
END_TEST

static int run(const char *name, const TTest *const *tests, size_t n)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	tcase_add_checked_fixture(tcase, setup, teardown);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tcase, tests[i]);
	tcase_add_loop_test(tcase, barriers_at_random, 0, 20);
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}

int main(void)
{
	const TTest *const list[] = {full_and_emptied_again,           versions_never_reset,
				     generation_zero_is_passed_over,   the_lock_is_seen,
				     barriers_from_both_ends,          a_hit_is_found_by_its_slot,
				     unwinding_and_replacing,          all_that_points_into_it_moves_with_it,
				     coroutines_chain_by_their_resumer};
	return run("libsprof_stacks", list, sizeof(list) / sizeof(list[0]));
}
