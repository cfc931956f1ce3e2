/* A Raft group (production core and write-ahead log) in a storm of faults for each seed; what must always hold is in raft_checker.c, what
 * goes wrong in raft_faults.c. A seed that fails is run a second time for its last events.
 *
 *	sim_raft [SEED [COUNT]] ...	see runner.h; SIM_STORM=leaders|links|disks|members|rot in the environment: all seeds are that storm */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "tests/sim/raft_cluster.h"
#include "tests/sim/runner.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 200
#else
#define SEEDS 2000
#endif

static enum storm storm_of_environment(void)
{
	static const char *const names[] = {"any", "leaders", "links", "disks", "members", "rot"};
	const char *wanted = getenv("SIM_STORM");
	for (size_t i = 0; wanted && i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(wanted, names[i]) == 0)
			return (enum storm)i;
	check(!wanted);
	return STORM_ANY;
}

/* True: the seed failed. */
static bool run_once(uint64_t seed, bool tracing, uint64_t *sum, uint64_t *digest)
{
	static struct cluster cluster;
	cluster_open(&cluster, seed, storm_of_environment(), tracing);
	cluster_run(&cluster);
	const struct counts *counts = &cluster.counts;
	const uint64_t seen[] = {counts->proposed, counts->acknowledged, counts->reads, counts->elections, counts->crashes, counts->cuts,
				 counts->torn, counts->disk_failures, counts->rotten, counts->refused, counts->holes, counts->filled,
				 counts->given_up, counts->mended, counts->snapshots, counts->changes, counts->removed, counts->replaced,
				 counts->strangers, sim_steps(cluster.sim), sim_now_us(cluster.sim) / 1000};
	runner_add(sum, seen, sizeof(seen) / sizeof(seen[0]));
	*digest = sim_trace_digest(cluster.sim) ^ sim_steps(cluster.sim) ^ counts->acknowledged << 32;
	bool failed = cluster.failed;
	if (failed && tracing)
		sim_print_trace(cluster.sim, stderr);
	if (failed)
		fprintf(stderr, "seed %" PRIu64 ": %s\n", seed, cluster.failure);
	cluster_close(&cluster);
	return failed;
}

/* To keep the last events of every seed would take half of the time. */
static uint64_t run_seed(uint64_t seed, uint64_t *sum)
{
	uint64_t ignored[RUNNER_COUNTS_MAX] = {0}, digest;
	bool tracing = getenv("SIM_VERBOSE") != NULL;
	if (!run_once(seed, tracing, sum, &digest))
		return digest;
	if (!tracing && !run_once(seed, true, ignored, &digest))
		fprintf(stderr, "the second run did not fail: not deterministic!\n");
	abort();
}

static const char *const counts[] = {"proposed", "acknowledged", "reads", "elections", "crashes", "of them power cuts", "torn logs",
				     "failed disks", "flipped bits", "refused", "holes", "filled", "given up", "logs mended by hand",
				     "snapshots", "changes of membership", "of them removals", "disks replaced", "strangers", RUNNER_STEPS,
				     RUNNER_MS, NULL};
static const uint64_t least[] = {0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0};

int main(int argc, char **argv)
{
	struct runner runner = {.name = "sim_raft", .standard = SEEDS, .run = run_seed, .counts = counts, .least = least};
	if (storm_of_environment() != STORM_ANY)
		runner.least = NULL;
	return runner_main(&runner, argc, argv);
}
