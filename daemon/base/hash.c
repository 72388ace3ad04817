#include "base/hash.h"

#include <pthread.h>
#include <sys/random.h>
#include <xxhash.h>

#include "base/clock.h"

static uint64_t seed_value;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

static void draw_seed(void)
{
	if (getrandom(&seed_value, sizeof(seed_value), GRND_NONBLOCK) != sizeof(seed_value))
		seed_value =
			clock_realtime_ns() ^ (uint64_t)(uintptr_t)&seed_value; /* early boot: better than a constant */
}

uint64_t hash_seed(void)
{
	pthread_once(&seed_once, draw_seed);
	return seed_value;
}

uint64_t hash_bytes(const void *data, size_t bytes, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, bytes, seed);
}
