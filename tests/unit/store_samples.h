/* Samples for the tests of the store: made from a random state, with few enough different ones that they repeat. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "model/sample.h"

static inline uint64_t random_next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

enum { SAMPLE_FRAMES = 64, SAMPLE_SHAPES = 300, SAMPLE_TIDS = 4, SAMPLE_COMMS = 3, SAMPLE_VERSIONS = 3 };

struct made_sample {
	struct sample sample;
	uint64_t kernel[SAMPLE_FRAMES], user[SAMPLE_FRAMES];
};

/* The frames of a shape are always the same. Addresses lie in 0x1000 .. 0x8fff, so that some are in no mapping of the tests. */
static inline void make_sample(struct made_sample *made, uint64_t shape, uint64_t tid, uint64_t comm, uint64_t version)
{
	static const char *const comms[SAMPLE_COMMS] = {"worker", "fifteen letters", "sixteen letters!"};
	uint64_t state = shape * 77 + 5;
	uint16_t n_kernel = shape % 3 == 0 ? (uint16_t)(random_next(&state) % 6) : 0;
	uint16_t n_user = shape % 10 == 0 ? 0 : (uint16_t)(1 + random_next(&state) % 40);
	for (size_t i = 0; i < n_kernel; i++)
		made->kernel[i] = UINT64_C(0xffffffff81000000) + random_next(&state) % 500;
	for (size_t i = 0; i < n_user; i++)
		made->user[i] = 0x1000 + random_next(&state) % 40 * 0x330;
	made->sample = (struct sample){.tid = (uint32_t)(100 + tid),
				       .maps_version = (uint32_t)version,
				       .user_end = n_user ? STACK_END_ROOT : STACK_END_NONE,
				       .n_kernel = n_kernel,
				       .n_user = n_user,
				       .kernel = made->kernel,
				       .user = made->user};
	memcpy(made->sample.comm, comms[comm], strlen(comms[comm]));
}
