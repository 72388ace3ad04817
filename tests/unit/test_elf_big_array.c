/* Arrays that grow and shrink across the size from which they are mappings of their own: what is in them stays. */
#include <stdint.h>

#include "check_main.h"
#include "elf/big_array.h"

static uint8_t value_of(size_t i)
{
	return (uint8_t)(i * 31 + i / 4096);
}

START_TEST(content_stays)
{
	static const size_t sizes[] = {1,       4096,    (2 << 20) - 1, 2 << 20, (2 << 20) + 1,
				       5 << 20, 9 << 20, 3 << 20,       100,     6 << 20};
	uint8_t *array = NULL;
	size_t had = 0;
	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		array = big_resize(array, had, sizes[k]);
		ck_assert_ptr_nonnull(array);
		size_t wrong = 0;
		for (size_t i = 0; i < had && i < sizes[k]; i++)
			wrong += array[i] != value_of(i);
		ck_assert_uint_eq(wrong, 0);
		for (size_t i = 0; i < sizes[k]; i++)
			array[i] = value_of(i);
		had = sizes[k];
	}
	big_free(array, had);
	big_free(NULL, 9 << 20);
	big_free(NULL, 0);
}
END_TEST

START_TEST(too_much)
{
#ifndef SPROF_SANITIZE                       /* whose malloc ends the program */
	volatile size_t most = SIZE_MAX / 2; /* the compiler need not know */
	ck_assert_ptr_null(big_alloc(most));
	uint8_t *array = big_alloc(3 << 20);
	ck_assert_ptr_nonnull(array);
	array[0] = 7;
	ck_assert_ptr_null(big_resize(array, 3 << 20, most));
	ck_assert_uint_eq(array[0], 7);
	big_free(array, 3 << 20);
#endif
}
END_TEST

CHECK_MAIN("elf_big_array", 30, content_stays, too_much)
