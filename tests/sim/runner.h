/* Runs a simulation over many seeds, on all processors, each failure in a process of its own: nothing but the seed is needed to see it
 * again.
 *
 *	PROGRAM [SEED [COUNT]] [--seed N] [--seeds COUNT] [--jobs J] [--hours H] [--trace] [--expect-failure]
 *
 * One seed: in this process, with --trace every line of it on standard error. --hours: from the seed on, until the time is over or one
 * fails. --expect-failure: a build with a planted bug; 0 as soon as a seed has found it. */
#ifndef GRANARY_TESTS_SIM_RUNNER_H
#define GRANARY_TESTS_SIM_RUNNER_H

#include <stdint.h>

struct runner {
	const char *name;
	uint64_t standard; /* seeds without arguments */
	/* One seed. What it finds wrong it prints, then it aborts. Adds to sum[counts]; gives a digest of the run: equal seeds give
	 * equal runs. */
	uint64_t (*run)(uint64_t seed, uint64_t *sum);
	const char *const *counts; /* names of what is summed up; at most RUNNER_COUNTS_MAX, ends with NULL */
	/* After `standard` seeds or more: there was this much of each, or the run says nothing. */
	const uint64_t *least;
};

#define RUNNER_COUNTS_MAX 24u
#define RUNNER_JOBS_MAX 64u
#define RUNNER_SEED_S_MAX 300u /* a seed that takes longer hangs */

/* For programs with a main of their own: each seed in a process of its own, until one fails: 0, a planted bug is found. */
int runner_expect_failure(uint64_t first, uint64_t count, void (*run)(uint64_t seed));
int runner_main(const struct runner *runner, int argc, char **argv);

#endif
