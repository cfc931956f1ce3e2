/* Runs a simulation over many seeds, on all processors, each failure in a process of its own: nothing but the seed is needed to see it
 * again.
 *
 *	PROGRAM [SEED [COUNT]] [--seed N] [--seeds COUNT] [--jobs J] [--hours H] [--trace] [--expect-failure]
 *
 * One seed: in this process, with --trace every line of it on standard error. --hours: from the seed on, until the time is over, however
 * many fail; a line a minute. --expect-failure: a build with a planted bug; 0 as soon as a seed has found it. tests/sim/run does it with
 * all simulations, one after another. */
#ifndef GRANARY_TESTS_SIM_RUNNER_H
#define GRANARY_TESTS_SIM_RUNNER_H

#include <stddef.h>
#include <stdint.h>

/* Counts that tests/sim/run adds up over all simulations. */
#define RUNNER_STEPS "steps"
#define RUNNER_MS "ms of simulated time"

struct runner {
	const char *name;
	uint64_t standard; /* seeds without arguments, and: */
	const uint64_t *known; /* seeds that once found something; ends with 0, or NULL */
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

/* What one seed has seen. */
void runner_add(uint64_t *sum, const uint64_t *seen, size_t count);
int runner_main(const struct runner *runner, int argc, char **argv);

#endif
