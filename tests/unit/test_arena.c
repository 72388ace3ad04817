#include <check.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "check_main.h"

START_TEST(pieces_are_aligned_and_apart)
{
	struct arena arena;
	arena_init(&arena, 1 << 20);
	enum { PIECES = 1000 };
	unsigned char *pieces[PIECES];
	for (size_t i = 0; i < PIECES; i++) {
		pieces[i] = arena_alloc(&arena, i);
		ck_assert_ptr_nonnull(pieces[i]);
		ck_assert_uint_eq((uintptr_t)pieces[i] % 8, 0);
		memset(pieces[i], (int)(i & 0xff), i);
	}
	for (size_t i = 0; i < PIECES; i++)
		for (size_t k = 0; k < i; k++)
			if (pieces[i][k] != (i & 0xff))
				ck_abort_msg("piece %zu is not what was written to it", i);
	ck_assert_uint_ge(arena.used_bytes, PIECES * (PIECES - 1) / 2);
	ck_assert_uint_le(arena.used_bytes, arena.held_bytes);
	arena_free(&arena);
	ck_assert_uint_eq(arena.held_bytes, 0);
	ck_assert_uint_eq(arena.budget_bytes, 1 << 20);
}
END_TEST

START_TEST(budget_is_never_exceeded)
{
	static const size_t budgets[] = {0, 1, 64, 4095, 4096, 5000, 100000};
	for (size_t b = 0; b < sizeof(budgets) / sizeof(budgets[0]); b++) {
		struct arena arena;
		arena_init(&arena, budgets[b]);
		size_t pieces = 0;
		while (pieces < 100000 && arena_alloc(&arena, 40) && arena.held_bytes <= budgets[b])
			pieces++;
		ck_assert_uint_lt(pieces, 100000);
		ck_assert_uint_le(arena.held_bytes, budgets[b]);
		/* Chunk headers and ends cost little of it. */
		ck_assert_uint_ge(pieces * 40 + budgets[b] / 10 + 128, budgets[b]);
		arena_free(&arena);
		if (pieces)
			ck_assert_ptr_nonnull(arena_alloc(&arena, 40)); /* usable again */
		arena_free(&arena);
	}
}
END_TEST

START_TEST(absurd_sizes_are_refused)
{
	struct arena arena;
	arena_init(&arena, SIZE_MAX);
	for (size_t less = 0; less < 8; less++) /* rounding up would overflow */
		ck_assert_ptr_null(arena_alloc(&arena, SIZE_MAX - less));
	ck_assert_ptr_null(arena_strndup(&arena, "x", SIZE_MAX));
	ck_assert_uint_eq(arena.held_bytes, 0);
	arena_init(&arena, 8192);
	ck_assert_ptr_null(arena_alloc(&arena, 8193));
	ck_assert_ptr_null(arena_alloc(&arena, 8192)); /* no room for the chunk's header */
	ck_assert_ptr_nonnull(arena_alloc(&arena, 8192 - 64));
	arena_free(&arena);
}
END_TEST

START_TEST(copies_of_text_end_in_nul)
{
	struct arena arena;
	arena_init(&arena, 1 << 16);
	const char *copy = arena_strndup(&arena, "frames of a stack", 6);
	ck_assert_str_eq(copy, "frames");
	ck_assert_str_eq(arena_strndup(&arena, "", 0), "");
	ck_assert_str_eq(copy, "frames");
	arena_free(&arena);
}
END_TEST

CHECK_MAIN("arena", 20, pieces_are_aligned_and_apart, budget_is_never_exceeded, absurd_sizes_are_refused,
	   copies_of_text_end_in_nul)
