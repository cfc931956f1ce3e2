/* A small deterministic generator: xoshiro256** (Blackman and Vigna, 2018), seeded with splitmix64.
 * For simulation, shuffling and jitter; never for secrets. */
#ifndef GRANARY_COMMON_BASE_RNG_H
#define GRANARY_COMMON_BASE_RNG_H

#include <stdint.h>

struct rng {
	uint64_t state[4];
};

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);
/* Uniform in [0, bound); bound is above 0. */
uint64_t rng_below(struct rng *rng, uint64_t bound);

#endif
