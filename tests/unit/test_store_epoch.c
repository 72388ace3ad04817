#include <check.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store/epoch.h"
#include "store_samples.h"

enum { PLENTY = 16 << 20 };

static struct sample simple_sample(const uint64_t *user, uint16_t n_user)
{
	return (struct sample){.time_ns = 5,
			       .cpu_ns = 10,
			       .tid = 1,
			       .maps_version = 1,
			       .comm = "a",
			       .user_end = STACK_END_ROOT,
			       .n_user = n_user,
			       .user = user};
}

static size_t cells_of(const struct epoch *epoch)
{
	return epoch->cells.n;
}

START_TEST(same_stack_thread_and_name_make_one_cell)
{
	struct epoch *epoch = epoch_new(PLENTY);
	uint64_t frames[] = {1, 2, 3};
	struct sample sample = simple_sample(frames, 3);
	bool new_stack = false;
	ck_assert_int_eq(epoch_add(epoch, &sample, &new_stack), 0);
	ck_assert(new_stack);
	ck_assert_int_eq(epoch_add(epoch, &sample, &new_stack), 0);
	ck_assert(!new_stack);
	ck_assert_uint_eq(cells_of(epoch), 1);
	const struct cell *cell = (const struct cell *)epoch->cells.first;
	ck_assert_uint_eq(cell->count, 2);
	ck_assert_uint_eq(cell->cpu_ns, 20);
	epoch_unref(epoch);
}
END_TEST

START_TEST(each_part_of_the_key_tells_apart)
{
	struct epoch *epoch = epoch_new(PLENTY);
	uint64_t frames[] = {1, 2, 3};
	struct sample sample = simple_sample(frames, 3);
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	sample.tid = 2;
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	sample.comm[0] = 'b';
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	sample.code_ns = 5;
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	ck_assert_uint_eq(epoch->stacks.n, 1);
	ck_assert_uint_eq(cells_of(epoch), 4);
	sample.maps_version = 2;
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	sample.n_user = 2;
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	/* The same addresses in sequence, divided elsewhere. */
	sample.n_user = 1;
	sample.user = frames + 1;
	sample.n_kernel = 1;
	sample.kernel = frames;
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	ck_assert_uint_eq(epoch->stacks.n, 4);
	ck_assert_uint_eq(cells_of(epoch), 7);
	epoch_unref(epoch);
}
END_TEST

START_TEST(what_follows_the_end_of_a_name_is_ignored)
{
	struct epoch *epoch = epoch_new(PLENTY);
	struct sample sample = simple_sample(NULL, 0);
	memcpy(sample.comm, "abc\0garbage.....", SAMPLE_COMM_BYTES);
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	memcpy(sample.comm, "abc\0other stuff!", SAMPLE_COMM_BYTES);
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	ck_assert_uint_eq(cells_of(epoch), 1);
	memcpy(sample.comm, "sixteen letters!", SAMPLE_COMM_BYTES); /* no room for the NUL */
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	ck_assert_int_eq(memcmp(((struct cell *)epoch->cells.last)->comm, "sixteen letters!", SAMPLE_COMM_BYTES), 0);
	epoch_unref(epoch);
}
END_TEST

START_TEST(refuses_what_makes_no_sense)
{
	struct epoch *epoch = epoch_new(PLENTY);
	static uint64_t frames[UINT16_MAX];
	struct sample sample = simple_sample(frames, UINT16_MAX);
	sample.n_kernel = 1;
	sample.kernel = frames;
	bool new_stack = true;
	ck_assert_int_eq(epoch_add(epoch, &sample, &new_stack), -EINVAL);
	sample.n_kernel = 0;
	sample.user_end = STACK_END_COUNT;
	ck_assert_int_eq(epoch_add(epoch, &sample, &new_stack), -EINVAL);
	struct epoch_totals totals;
	epoch_totals(epoch, &totals);
	ck_assert_uint_eq(totals.samples, 0);
	sample.user_end = STACK_END_TOO_DEEP;
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0); /* as deep as can be */
	epoch_unref(epoch);
}
END_TEST

START_TEST(totals_add_up)
{
	struct epoch *epoch = epoch_new(PLENTY);
	struct epoch_totals totals;
	epoch_totals(epoch, &totals);
	ck_assert_uint_eq(totals.first_ns, 0);
	ck_assert_uint_eq(totals.last_ns, 0);
	uint64_t frames[] = {1};
	struct sample sample = simple_sample(frames, 1);
	const uint64_t times[] = {50, 40, 60}; /* CPUs do not agree on the order */
	for (size_t i = 0; i < 3; i++) {
		sample.time_ns = times[i];
		sample.maps_version = 9 - (uint32_t)i;
		sample.user_end = i == 1 ? STACK_END_UNREADABLE : STACK_END_ROOT;
		ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	}
	epoch_totals(epoch, &totals);
	ck_assert_uint_eq(totals.samples, 3);
	ck_assert_uint_eq(totals.cpu_ns, 30);
	ck_assert_uint_eq(totals.first_ns, 40);
	ck_assert_uint_eq(totals.last_ns, 60);
	ck_assert_uint_eq(totals.n_stacks, 3);
	ck_assert_uint_eq(totals.oldest_maps_version, 7);
	ck_assert_uint_eq(totals.stack_ends[STACK_END_ROOT], 2);
	ck_assert_uint_eq(totals.stack_ends[STACK_END_UNREADABLE], 1);
	epoch_unref(epoch);
}
END_TEST

/* Adds distinct stacks until the budget is spent; at each step what is held must be within it. */
START_TEST(budget_is_never_exceeded)
{
	const size_t budgets[] = {0, 100, 1000, 5000, 20000, 100000, 1000003};
	struct epoch_totals totals;
	struct epoch *empty = epoch_new(0);
	epoch_totals(empty, &totals);
	epoch_unref(empty);
	const size_t empty_bytes = totals.bytes;
	for (size_t b = 0; b < sizeof(budgets) / sizeof(budgets[0]); b++) {
		struct epoch *epoch = epoch_new(budgets[b]);
		uint64_t frames[30] = {0};
		uint64_t added = 0;
		int r = 0;
		while (r == 0) {
			frames[0] = added;
			struct sample sample = simple_sample(frames, (uint16_t)(added % 30 + 1));
			bool new_stack = false;
			r = epoch_add(epoch, &sample, &new_stack);
			ck_assert(r == 0 ? new_stack : !new_stack);
			added += r == 0;
			epoch_totals(epoch, &totals);
			ck_assert_uint_le(totals.bytes, budgets[b] > empty_bytes ? budgets[b] : empty_bytes);
			ck_assert_uint_eq(totals.samples, added);
			ck_assert_uint_eq(totals.n_stacks, added);
		}
		ck_assert_int_eq(r, -ENOMEM);
		if (budgets[b] >= 100000)
			ck_assert_uint_gt(totals.bytes, budgets[b] / 2); /* it was put to use */
		if (added > 0) {                                         /* what is known still counts */
			frames[0] = 0;
			struct sample sample = simple_sample(frames, 1);
			ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
			epoch_totals(epoch, &totals);
			ck_assert_uint_eq(totals.samples, added + 1);
		}
		epoch_unref(epoch);
	}
}
END_TEST

START_TEST(idle_epochs_are_small)
{
	struct epoch *epoch = epoch_new(PLENTY);
	struct epoch_totals totals;
	epoch_totals(epoch, &totals);
	ck_assert_uint_lt(totals.bytes, 512);
	uint64_t frames[40] = {1};
	struct sample sample = simple_sample(frames, 40);
	ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	epoch_totals(epoch, &totals);
	ck_assert_uint_lt(totals.bytes, 5 * 1024);
	epoch_unref(epoch);
}
END_TEST

/* bytes against what malloc says it gave. */
START_TEST(accounting_is_exact)
{
#if defined(SPROF_SANITIZE)
	return; /* mallinfo2 knows nothing of the sanitizer's allocator */
#endif
	size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
	struct epoch *epoch = epoch_new(PLENTY);
	uint64_t frames[40] = {0};
	for (uint64_t i = 0; i < 20000; i++) {
		frames[0] = i;
		struct sample sample = simple_sample(frames, 40);
		ck_assert_int_eq(epoch_add(epoch, &sample, NULL), 0);
	}
	struct epoch_totals totals;
	epoch_totals(epoch, &totals);
	size_t held = mallinfo2().uordblks + mallinfo2().hblkhd - before;
	ck_assert_uint_ge(held, totals.bytes);
	ck_assert_uint_le(held, totals.bytes + 64 * 1024); /* malloc's own headers, and pages it rounds up to */
	epoch_unref(epoch);
}
END_TEST

struct model_cell {
	uint64_t count, cpu_ns;
};
static size_t model_index(uint64_t shape, uint64_t tid, uint64_t comm, uint64_t version)
{
	return ((shape * SAMPLE_TIDS + tid) * SAMPLE_COMMS + comm) * SAMPLE_VERSIONS + version;
}

static bool cell_is(const struct cell *cell, const struct made_sample *made)
{
	const struct stack *stack = cell->stack;
	const struct sample *sample = &made->sample;
	return cell->tid == sample->tid && memcmp(cell->comm, sample->comm, SAMPLE_COMM_BYTES) == 0 &&
	       stack->maps_version == sample->maps_version && stack->n_kernel == sample->n_kernel &&
	       stack->n_user == sample->n_user &&
	       memcmp(stack->frames, made->kernel, sample->n_kernel * sizeof(uint64_t)) == 0 &&
	       memcmp(stack->frames + sample->n_kernel, made->user, sample->n_user * sizeof(uint64_t)) == 0;
}

static void compare_with_model(const struct epoch *epoch, const struct model_cell *model, size_t n_model)
{
	size_t n_cells = 0;
	for (size_t i = 0; i < n_model; i++)
		n_cells += model[i].count > 0;
	/* Some shapes are the same stack (no frames at all): they share cells, so compare sums by what a cell looks like. */
	ck_assert_uint_le(cells_of(epoch), n_cells);
	for (const struct set_entry *entry = epoch->cells.first; entry; entry = entry->next) {
		const struct cell *cell = (const struct cell *)entry;
		uint64_t count = 0, cpu_ns = 0;
		for (size_t i = 0; i < n_model; i++) {
			if (model[i].count == 0)
				continue;
			struct made_sample made;
			make_sample(&made, i / SAMPLE_VERSIONS / SAMPLE_COMMS / SAMPLE_TIDS,
				    i / SAMPLE_VERSIONS / SAMPLE_COMMS % SAMPLE_TIDS,
				    i / SAMPLE_VERSIONS % SAMPLE_COMMS, i % SAMPLE_VERSIONS);
			if (cell_is(cell, &made)) {
				count += model[i].count;
				cpu_ns += model[i].cpu_ns;
			}
		}
		ck_assert_uint_eq(cell->count, count);
		ck_assert_uint_eq(cell->cpu_ns, cpu_ns);
	}
}

START_TEST(random_samples_agree_with_a_naive_model)
{
	enum { SHAPES = 25, N_MODEL = SHAPES * SAMPLE_TIDS * SAMPLE_COMMS * SAMPLE_VERSIONS };
	static struct model_cell model[N_MODEL];
	uint64_t state = (uint64_t)_i + 1, cpu_ns = 0;
	memset(model, 0, sizeof(model));
	struct epoch *epoch = epoch_new(PLENTY);
	for (size_t i = 0; i < 3000; i++) {
		struct made_sample made;
		uint64_t shape = random_next(&state) % SHAPES, tid = random_next(&state) % SAMPLE_TIDS;
		uint64_t comm = random_next(&state) % SAMPLE_COMMS, version = random_next(&state) % SAMPLE_VERSIONS;
		make_sample(&made, shape, tid, comm, version);
		made.sample.cpu_ns = random_next(&state) % 1000;
		ck_assert_int_eq(epoch_add(epoch, &made.sample, NULL), 0);
		struct model_cell *cell = &model[model_index(shape, tid, comm, version)];
		cell->count++;
		cell->cpu_ns += made.sample.cpu_ns;
		cpu_ns += made.sample.cpu_ns;
	}
	struct epoch_totals totals;
	epoch_totals(epoch, &totals);
	ck_assert_uint_eq(totals.samples, 3000);
	ck_assert_uint_eq(totals.cpu_ns, cpu_ns);
	compare_with_model(epoch, model, N_MODEL);
	struct epoch *copy = epoch_copy(epoch);
	epoch_unref(epoch);
	ck_assert_ptr_nonnull(copy);
	compare_with_model(copy, model, N_MODEL);
	struct epoch_totals of_copy;
	epoch_totals(copy, &of_copy);
	of_copy.bytes = totals.bytes;
	ck_assert_mem_eq(&of_copy, &totals, sizeof(totals));
	epoch_unref(copy);
}
END_TEST

static void *use_and_release(void *context)
{
	struct epoch *epoch = context;
	for (int i = 0; i < 10000; i++)
		epoch_unref(epoch_ref(epoch));
	epoch_unref(epoch);
	return NULL;
}

START_TEST(references_are_counted_across_threads)
{
	struct epoch *epoch = epoch_new(PLENTY);
	pthread_t threads[4];
	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, use_and_release, epoch_ref(epoch)), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(epoch->references, 1);
	epoch_unref(epoch);
	epoch_unref(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store/epoch");
	TCase *tests = tcase_create("epoch");
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, same_stack_thread_and_name_make_one_cell);
	tcase_add_test(tests, each_part_of_the_key_tells_apart);
	tcase_add_test(tests, what_follows_the_end_of_a_name_is_ignored);
	tcase_add_test(tests, refuses_what_makes_no_sense);
	tcase_add_test(tests, totals_add_up);
	tcase_add_test(tests, budget_is_never_exceeded);
	tcase_add_test(tests, idle_epochs_are_small);
	tcase_add_test(tests, accounting_is_exact);
	tcase_add_loop_test(tests, random_samples_agree_with_a_naive_model, 0, 5);
	tcase_add_test(tests, references_are_counted_across_threads);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
