/* A whole cluster under faults: masters, chunkservers and clients, all of them production code, while processes are killed or stand
 * still, hosts lose power or are cut off, links and disks are slow or fail, clocks jump (cluster_faults.h: a seed is a storm); and clients
 * change the same blocks, names and locks meanwhile (cluster_load.h).
 *
 * Checked: all that clients were told is linearizable (history.h), nothing acknowledged is lost, nothing is there in part; what must
 * hold of the masters and of what is on disks (cluster_check.h), all along and when it is quiet; and when the faults end everything
 * is answered within a bounded time.
 *
 *	sim_cluster [SEED [COUNT]] ...		see runner.h; SIM_STORM=NAME in the environment: all seeds are that storm */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "tests/sim/cluster_check.h"
#include "tests/sim/cluster_faults.h"
#include "tests/sim/cluster_load.h"
#include "tests/sim/runner.h"

#define START_US 10000000u /* until everything is made, at most */
#define STORM_US 3000000u
#define CALM_US 60000000u
#define SEEDS 3000u

enum { SUM_FAULTS, SUM_OPERATIONS, SUM_WRITES, SUM_READS, SUM_LINKS, SUM_GETS, SUM_LOCKS, SUM_ERRORS, SUM_UNDECIDED, SUM_STATES, SUM_MS };

static const char *const counts[] = { "faults", "operations", "writes", "reads", "links", "gets", "locks", "errors",
				      "registers undecided", "states", "ms of simulated time", NULL };
static const uint64_t least[] = { 10000, 100000, 10000, 10000, 1000, 1000, 1000, 1000, 0, 0, 0 };

static void run_until(struct run *run, bool (*done)(void *arg), uint64_t limit_us, const char *what)
{
	if (sim_run(run->world.sim, limit_us, done, run))
		return;
	sim_print_trace(run->world.sim, stderr);
	fprintf(stderr, "in vain: %s\n", what);
	abort();
}

static void check_history(const struct run *run, uint64_t *sum)
{
	struct history_report report;
	if (!history_check(run->history, &report, stderr)) {
		sim_print_trace(run->world.sim, stderr);
		abort();
	}
	sum[SUM_OPERATIONS] += report.operations;
	sum[SUM_UNDECIDED] += report.undecided;
	if (sum[SUM_STATES] < report.states_max)
		sum[SUM_STATES] = report.states_max;
}

static uint64_t add(const struct run *run, uint64_t *sum)
{
	const struct counts *counted = &run->counts;
	sum[SUM_FAULTS] += run->world.faults;
	sum[SUM_WRITES] += counted->writes;
	sum[SUM_READS] += counted->reads;
	sum[SUM_LINKS] += counted->links;
	sum[SUM_GETS] += counted->gets;
	sum[SUM_LOCKS] += counted->locks;
	sum[SUM_ERRORS] += counted->errors;
	sum[SUM_MS] += sim_now_us(run->world.sim) / 1000;
	return sim_trace_digest(run->world.sim) ^ sim_steps(run->world.sim) ^ (uint64_t)counted->reads << 32;
}

static uint64_t run_seed(uint64_t seed, uint64_t *sum)
{
	struct run *run = mem_zero(1, sizeof *run);
	const char *wanted = getenv("SIM_STORM");
	const struct storm *storm = wanted ? storm_named(wanted) : storm_of(seed);
	check(storm != NULL);
	run->world = (struct world){ .clients = CLIENTS,
				     .break_per_million = seed % 3 == 0 ? 500 : 20,
				     .late_per_million = 500000,
				     .client_start = load_start,
				     .client_stop = load_stop,
				     .power_lost = load_power_lost,
				     .arg = run };
	run->history = history_open(REGISTERS);
	world_open(&run->world, seed);
	struct check *check_all = check_begin(&run->world);
	for (unsigned i = 0; i < CLIENTS; i++)
		node_start(world_node(&run->world, NODE_CLIENT, i));
	load_make(run);
	run_until(run, load_is_made, START_US, "the tables are made");
	storm_begin(&run->world, storm);
	for (unsigned i = 0; i < CLIENTS; i++)
		load_go(world_node(&run->world, NODE_CLIENT, i)->program);
	sim_run(run->world.sim, STORM_US, NULL, NULL);
	world_calm(&run->world);
	run->ending = true;
	run->ending_us = sim_now_us(run->world.sim);
	run_until(run, load_is_checked, CALM_US, "all work is done when nothing is broken any more");
	check_end(check_all, &(struct check_want){ .may_be_damaged = run->may_lose }, CALM_US);
	check_history(run, sum);
	uint64_t digest = add(run, sum);
	world_close(&run->world);
	check_close(check_all);
	load_free(run);
	free(run);
	return digest;
}

int main(int argc, char **argv)
{
	const struct runner runner = { .name = "sim_cluster", .standard = SEEDS, .run = run_seed, .counts = counts, .least = least };
	return runner_main(&runner, argc, argv);
}
