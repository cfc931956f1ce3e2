/* sim_scenarios NAME [SEED [COUNT]] ...: one scenario, see runner.h; --list: their names. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "tests/sim/runner.h"
#include "tests/sim/scenarios.h"

static const struct scenario scenarios[] = {
	{ .name = "01_power_cut", .what = "power cut of everything at a random instant", .play = play_power_cut, .seeds = 40 },
	{ .name = "01_power_cut_cold", .what = "the same while chunks become cold and hot", .play = play_power_cut, .seeds = 15, .cools = true },
	{ .name = "02_leader_killed_each_step", .what = "the leader dies at each step of an operation, clients retry",
	  .play = play_leader_killed_each_step, .seeds = 40 },
	{ .name = "03_figure_8", .what = "an entry of an older term on a majority is not committed by counting", .play = play_figure_8,
	  .seeds = 40 },
	{ .name = "04_failed_sync_master", .what = "one failed sync of a master's log: it stops, service goes on",
	  .play = play_failed_sync_master, .seeds = 20 },
	{ .name = "04_failed_sync_chunkserver", .what = "one failed sync of a chunk file: that store stops, service goes on",
	  .play = play_failed_sync_chunkserver, .seeds = 20 },
	{ .name = "05_rot_master", .what = "bits flip in the log of one master, its database is damaged, then those of the others",
	  .play = play_rot_master, .seeds = 10 },
	{ .name = "06_disk_replaced", .what = "an empty disk and a member that lags: they do not elect one another", .play = play_disk_replaced,
	  .seeds = 12 },
	{ .name = "07_partitions", .what = "one-way cuts and bridges between masters", .play = play_partitions, .seeds = 30 },
	{ .name = "07_lease_ran_out", .what = "a chunkserver is left out and hears only clients that do not know; its wall clock jumps",
	  .play = play_lease_ran_out, .seeds = 12 },
	{ .name = "08_leader_paused", .what = "the leader stands still past lease and election, then wakes", .play = play_leader_paused,
	  .seeds = 30 },
	{ .name = "09_half_written", .what = "chunkserver and client die when one or two of three replicas have an overwrite",
	  .play = play_half_written, .seeds = 40, .late_per_million = 500000 },
	{ .name = "10_stale_replica", .what = "a replica returns after overwrites and deletions", .play = play_stale_replica, .seeds = 20 },
	{ .name = "10_stale_last_replica", .what = "a stale replica returns as the only one left: it is never served",
	  .play = play_stale_last_replica, .seeds = 20 },
	{ .name = "11_rot_cold", .what = "shards rot, are forged, misplaced and lost, two of a set at most; scrubs find it, readers do not",
	  .play = play_rot_cold, .seeds = 8, .cools = true },
	{ .name = "12_holders_lost", .what = "two holders of shards are lost while chunks are made cold, mended, and made hot",
	  .play = play_holders_lost, .seeds = 10, .late_per_million = 500000, .cools = true },
	{ .name = "12_rebuilt_twice", .what = "who makes a shard anew is cut off while it does, and another makes it, too", .play = play_rebuilt_twice,
	  .seeds = 4, .late_per_million = 500000, .cools = true, .chunkservers = 7, .made_twice = 6 },
	{ .name = "12_cooled_twice", .what = "who makes a chunk cold, or hot, is cut off while it does, and another does it, too",
	  .play = play_cooled_twice, .seeds = 2, .late_per_million = 500000, .cools = true, .chunkservers = 7, .made_twice = 6 },
	{ .name = "13_no_space", .what = "no space on one chunkserver, on all, on the leader", .play = play_no_space, .seeds = 20 },
	{ .name = "13_leader_lost_retiring", .what = "a copy retires because its disk is full, and the leader is lost before the master has left it out",
	  .play = play_leader_lost_retiring, .seeds = 10 },
	{ .name = "14_gray_failure", .what = "a disk of 2 s, a link of 1 Mbit/s, a link that flaps, at one chunkserver",
	  .play = play_gray_failure, .seeds = 6 },
	{ .name = "15_collection", .what = "failover between removal and making anew, chunkservers that were away", .play = play_collection,
	  .seeds = 30 },
	{ .name = "15_old_masters_cold", .what = "masters of a snapshot from before chunks became cold and hot, for a while",
	  .play = play_old_masters, .seeds = 4, .cools = true },
	{ .name = "16_snapshot", .what = "who sends its state to an empty disk is killed on the way", .play = play_snapshot, .seeds = 6 },
	{ .name = "16_behind_cold", .what = "a master is away while chunks become cold and hot, and leads when it has been brought up",
	  .play = play_behind, .seeds = 6, .cools = true },
	{ .name = "18_membership", .what = "a member is removed while it is cut off, comes back, and is added with an empty disk",
	  .play = play_membership, .seeds = 6 },
	{ .name = "19_clocks", .what = "clocks jump an hour either way; a clock at half speed", .play = play_clocks, .seeds = 30 },
};

const struct scenario *scenario_at(unsigned number)
{
	return number < sizeof scenarios / sizeof scenarios[0] ? &scenarios[number] : NULL;
}

/* ---- for the parts ---- */

void scenario_wait(struct run *run, uint64_t us)
{
	sim_run(run->world.sim, us, NULL, NULL);
}

uint64_t scenario_roll(struct run *run, uint64_t bound)
{
	return rng_below(sim_rng(run->world.sim), bound);
}

static bool has_leader(void *arg)
{
	return world_leader(&((struct run *)arg)->world) != NULL;
}

struct node *scenario_leader(struct run *run)
{
	cluster_run_until(run, has_leader, run, 20000000, "a leader");
	return world_leader(&run->world);
}

struct node *scenario_node(struct run *run, enum node_kind kind, unsigned number)
{
	return world_node(&run->world, kind, number);
}

struct goal {
	const struct run *run;
	uint64_t work;
};

static bool is_reached(void *arg)
{
	const struct goal *goal = arg;
	return cluster_run_work(goal->run) >= goal->work;
}

void scenario_goes_on(struct run *run, uint64_t work, uint64_t limit_us, const char *what)
{
	struct goal goal = { run, cluster_run_work(run) + work };
	cluster_run_until(run, is_reached, &goal, limit_us, what);
}

void scenario_cut(struct run *run, struct node *from, struct node *to, bool cut)
{
	sim_cut(run->world.sim, from->host, to->host, cut);
}

void scenario_cut_both(struct run *run, struct node *one, struct node *other, bool cut)
{
	scenario_cut(run, one, other, cut);
	scenario_cut(run, other, one, cut);
}

/* ---- main ---- */

static const struct scenario *chosen;

static uint64_t run_seed(uint64_t seed, uint64_t *sum)
{
	unsigned chunkservers = chosen->cools ? 5 + (unsigned)(seed % 2) * 2 : 0;
	struct run *run = cluster_run_begin(&(struct cluster_run_options){
		.seed = seed, .break_per_million = 20, .late_per_million = chosen->late_per_million, .never_sync = chosen->never_sync,
		.cools = chosen->cools, .chunkservers = chosen->chunkservers ? chosen->chunkservers : chunkservers });
	sim_trace(run->world.sim, "scenario: %s", chosen->name);
	chosen->play(run);
	return cluster_run_end(run, sum);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	if (strcmp(name, "--list") == 0) {
		for (unsigned i = 0; scenario_at(i); i++)
			printf("%-28s %s\n", scenario_at(i)->name, scenario_at(i)->what);
		return 0;
	}
	for (unsigned i = 0; scenario_at(i) && !chosen; i++)
		if (strcmp(scenario_at(i)->name, name) == 0)
			chosen = scenario_at(i);
	if (!chosen) {
		fprintf(stderr, "usage: sim_scenarios --list | NAME [SEED [COUNT]] ...\n");
		return 2;
	}
	uint64_t least[RUNNER_COUNTS_MAX] = { [CLUSTER_RUN_TWICE] = chosen->made_twice };
	const struct runner runner = {
		.name = chosen->name, .standard = chosen->seeds, .run = run_seed, .counts = cluster_run_counts, .least = least
	};
	return runner_main(&runner, argc - 1, argv + 1);
}
