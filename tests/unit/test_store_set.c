#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "base/hash.h"
#include "store/set.h"

struct item {
	struct set_entry entry;
	uint64_t key;
};

static bool item_equal(const struct set_entry *entry, const void *key)
{
	return ((const struct item *)entry)->key == *(const uint64_t *)key;
}

static struct item *add(struct set *set, struct heap *heap, uint64_t key, uint32_t hash)
{
	if (set_reserve(set, heap) < 0)
		return NULL;
	struct item *item = arena_alloc(heap->arena, sizeof(*item));
	if (!item)
		return NULL;
	item->key = key;
	set_insert(set, &item->entry, hash);
	return item;
}

START_TEST(finds_what_was_inserted_in_order)
{
	struct arena arena;
	struct heap heap;
	struct set set = {0};
	arena_init(&arena, 0);
	heap_init(&heap, &arena, 1 << 20);
	uint64_t key = 7;
	ck_assert_ptr_null(set_find(&set, 7, item_equal, &key));
	for (uint64_t i = 0; i < 1000; i++)
		ck_assert_ptr_nonnull(add(&set, &heap, i, (uint32_t)(i % 50))); /* twenty of each hash */
	for (uint64_t i = 0; i < 1000; i++) {
		const struct item *found = set_find(&set, (uint32_t)(i % 50), item_equal, &i);
		ck_assert_ptr_nonnull(found);
		ck_assert_uint_eq(found->key, i);
	}
	key = 1000;
	ck_assert_ptr_null(set_find(&set, 0, item_equal, &key));
	uint64_t expected = 0;
	for (struct set_entry *entry = set.first; entry; entry = entry->next)
		ck_assert_uint_eq(((struct item *)entry)->key, expected++);
	ck_assert_uint_eq(expected, 1000);
	set_free(&set, &heap);
	ck_assert_uint_eq(heap.table_bytes, 0);
	arena_free(&arena);
}
END_TEST

START_TEST(growth_counts_old_and_new_slots)
{
	struct arena arena;
	struct heap heap;
	struct set set = {0};
	static struct item items[11];
	arena_init(&arena, 0);
	/* 16 slots fit, and 32 would; 16 and 32 at once do not. */
	heap_init(&heap, &arena, (16 + 32) * sizeof(void *) - 1);
	for (uint32_t i = 0; i < 10; i++) {
		ck_assert_int_eq(set_reserve(&set, &heap), 0);
		items[i].key = i;
		set_insert(&set, &items[i].entry, i);
	}
	ck_assert_int_eq(set_reserve(&set, &heap), -ENOMEM);
	ck_assert_uint_eq(heap_bytes(&heap), 16 * sizeof(void *));
	ck_assert_uint_eq(set.n, 10);
	for (uint64_t i = 0; i < 10; i++)
		ck_assert_ptr_eq(set_find(&set, (uint32_t)i, item_equal, &i), &items[i]);
	set_free(&set, &heap);
}
END_TEST

START_TEST(tables_and_arena_share_one_budget)
{
	struct arena arena;
	struct heap heap;
	arena_init(&arena, 0);
	heap_init(&heap, &arena, 10000);
	void *table = heap_table(&heap, 6000);
	ck_assert_ptr_nonnull(table);
	ck_assert_ptr_null(heap_table(&heap, 4001));
	ck_assert_ptr_null(arena_alloc(&arena, 4000)); /* its chunk has a header */
	ck_assert_ptr_nonnull(arena_alloc(&arena, 3000));
	ck_assert_uint_le(heap_bytes(&heap), 10000);
	ck_assert_ptr_null(heap_table(&heap, 1000));
	heap_table_free(&heap, table, 6000);
	table = heap_table(&heap, 10000 - heap_bytes(&heap));
	ck_assert_ptr_nonnull(table);
	ck_assert_uint_eq(heap_bytes(&heap), 10000);
	heap_table_free(&heap, table, heap.table_bytes);
	arena_free(&arena);
}
END_TEST

/* The distance that a look-up of all items walks, over the number of items. */
static double mean_probes(const struct set *set)
{
	size_t probes = 0;
	for (size_t i = 0; i < set->capacity; i++)
		if (set->slots[i])
			probes += ((i - set->slots[i]->hash) & (set->capacity - 1)) + 1;
	return (double)probes / (double)set->n;
}

/* Keys that would all fall into one slot of a table that took them, or their low bits, for hashes. */
START_TEST(seeded_hash_spreads_chosen_keys)
{
	for (unsigned shift = 0; shift <= 48; shift += 16) {
		struct arena arena;
		struct heap heap;
		struct set set = {0};
		arena_init(&arena, 0);
		heap_init(&heap, &arena, 64 << 20);
		for (uint64_t i = 0; i < 20000; i++) {
			uint64_t key = i << shift;
			ck_assert_ptr_nonnull(
				add(&set, &heap, key, (uint32_t)hash_bytes(&key, sizeof(key), hash_seed())));
		}
		ck_assert_double_lt(mean_probes(&set), 3.0);
		set_free(&set, &heap);
		arena_free(&arena);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store/set");
	TCase *tests = tcase_create("set");
	tcase_add_test(tests, finds_what_was_inserted_in_order);
	tcase_add_test(tests, growth_counts_old_and_new_slots);
	tcase_add_test(tests, tables_and_arena_share_one_budget);
	tcase_add_test(tests, seeded_hash_spreads_chosen_keys);
	suite_add_tcase(suite, tests);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
