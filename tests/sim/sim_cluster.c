/* A whole cluster under faults: masters, chunkservers and clients, all of them production code, while processes are killed or stand
 * still, hosts lose power or are cut off, links and disks are slow or fail, clocks jump (cluster_faults.h: a seed is a storm); and clients
 * change the same blocks, names and locks meanwhile (cluster_load.h).
 *
 * Checked: all that clients were told is linearizable (history.h), nothing acknowledged is lost, nothing is there in part; what must
 * hold of the masters and of what is on disks (cluster_check.h), all along and when it is quiet; and when the faults end everything
 * is answered within a bounded time.
 *
 *	sim_cluster [SEED [COUNT]] ...		see runner.h; SIM_STORM=NAME in the environment: all seeds are that storm */
#include <stdlib.h>

#include "common/base/check.h"
#include "tests/sim/cluster_run.h"
#include "tests/sim/runner.h"

#define STORM_US 3000000u
#define STORM_LONG_US 6000000u
#define SEEDS 3000u

static const uint64_t least[] = { 10000, 100000, 10000, 10000, 1000, 1000, 1000, 1000, 0, 0, 0 };

static uint64_t run_seed(uint64_t seed, uint64_t *sum)
{
	const char *wanted = getenv("SIM_STORM");
	const struct storm *storm = wanted ? storm_named(wanted) : storm_of(seed);
	struct run *run = cluster_run_begin(&(struct cluster_run_options){
		.seed = seed, .break_per_million = seed % 3 == 0 ? 500 : 20, .late_per_million = 500000, .never_sync = seed % 11 == 0,
		.balances = seed % 20 == 3, .loses_one = seed % 10 == 0 });
	check(storm != NULL);
	storm_begin(&run->world, storm);
	sim_run(run->world.sim, run->operator ? STORM_LONG_US : STORM_US, NULL, NULL); /* a leader moves nothing at first */
	return cluster_run_end(run, sum);
}

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_cluster", .standard = SEEDS, .run = run_seed, .counts = cluster_run_counts, .least = least
	};
	return runner_main(&runner, argc, argv);
}
