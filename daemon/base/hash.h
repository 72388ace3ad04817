/* The seeded hash for tables whose keys a target, a file or a client can choose (XXH3, 64 bits, random seed per daemon).
 * Thread: any. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* A random seed from getrandom(2), drawn once per process. */
uint64_t hash_seed(void);
uint64_t hash_bytes(const void *data, size_t bytes, uint64_t seed);
