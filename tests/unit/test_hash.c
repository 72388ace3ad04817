#include <check.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hash.h"
#include "check_main.h"

static void *read_seed(void *ret)
{
	*(uint64_t *)ret = hash_seed();
	return NULL;
}

START_TEST(one_seed_for_all_threads)
{
	enum { THREADS = 8 };
	pthread_t threads[THREADS];
	uint64_t seeds[THREADS];
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, read_seed, &seeds[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < THREADS; i++)
		ck_assert_uint_eq(seeds[i], hash_seed());
}
END_TEST

START_TEST(another_process_draws_another_seed)
{
	int fds[2];
	uint64_t theirs = 0;
	ck_assert_int_eq(pipe(fds), 0);
	pid_t child = fork(); /* before we have drawn ours */
	if (child == 0) {
		uint64_t seed = hash_seed();
		_exit(write(fds[1], &seed, sizeof(seed)) != sizeof(seed));
	}
	ck_assert_int_eq(read(fds[0], &theirs, sizeof(theirs)), sizeof(theirs));
	waitpid(child, NULL, 0);
	ck_assert_uint_ne(theirs, hash_seed());
}
END_TEST

START_TEST(depends_on_every_byte_and_the_seed)
{
	unsigned char data[64] = {0};
	uint64_t plain = hash_bytes(data, sizeof(data), 1);
	ck_assert_uint_eq(plain, hash_bytes(data, sizeof(data), 1));
	ck_assert_uint_ne(plain, hash_bytes(data, sizeof(data), 2));
	ck_assert_uint_ne(plain, hash_bytes(data, sizeof(data) - 1, 1));
	for (size_t i = 0; i < sizeof(data); i++) {
		data[i] = 1;
		ck_assert_uint_ne(plain, hash_bytes(data, sizeof(data), 1));
		data[i] = 0;
	}
}
END_TEST

CHECK_MAIN("hash", 10, one_seed_for_all_threads, another_process_draws_another_seed, depends_on_every_byte_and_the_seed)
