/* Scenarios with a name: scripted schedules on the real cluster of sim_cluster, each with its neighbours over seeds (times and victims
 * vary). What must hold is checked as in sim_cluster, all along and at the end; a scenario adds what it is about. */
#ifndef GRANARY_TESTS_SIM_SCENARIOS_H
#define GRANARY_TESTS_SIM_SCENARIOS_H

#include "tests/sim/cluster_run.h"

struct scenario {
	const char *name; /* as in faults.md */
	const char *what;
	void (*play)(struct run *run);
	uint64_t seeds; /* in the test run */
	bool never_sync;
	uint32_t late_per_million;
	bool cools; /* with five chunkservers or seven */
	unsigned chunkservers; /* not 0: with so many */
	uint64_t made_twice; /* shards or chunks, after all seeds, at least */
};

/* NULL: there is none of that number. */
const struct scenario *scenario_at(unsigned number);

/* scenarios_masters.c */
void play_leader_killed_each_step(struct run *run);
void play_figure_8(struct run *run);
void play_failed_sync_master(struct run *run);
void play_partitions(struct run *run);
void play_leader_paused(struct run *run);
void play_clocks(struct run *run);
/* scenarios_members.c */
void play_rot_master(struct run *run);
void play_disk_replaced(struct run *run);
void play_snapshot(struct run *run);
void play_behind(struct run *run);
void play_old_masters(struct run *run);
void play_membership(struct run *run);
/* scenarios_data.c */
void play_power_cut(struct run *run);
void play_failed_sync_chunkserver(struct run *run);
void play_half_written(struct run *run);
void play_stale_replica(struct run *run);
void play_stale_last_replica(struct run *run);
void play_no_space(struct run *run);
void play_leader_lost_retiring(struct run *run);
void play_collection(struct run *run);
void play_lease_ran_out(struct run *run);
void play_gray_failure(struct run *run);
/* scenarios_cold.c */
void play_holders_lost(struct run *run);
void play_rebuilt_twice(struct run *run);
void play_cooled_twice(struct run *run);
/* scenarios_rot.c */
void play_rot_cold(struct run *run);

/* ---- for the parts */
void scenario_wait(struct run *run, uint64_t us);
uint64_t scenario_roll(struct run *run, uint64_t bound);
struct node *scenario_leader(struct run *run); /* waits for one */
struct node *scenario_node(struct run *run, enum node_kind kind, unsigned number);
/* Clients get so much more done within the time; else the program ends. */
void scenario_goes_on(struct run *run, uint64_t work, uint64_t limit_us, const char *what);
void scenario_cut(struct run *run, struct node *from, struct node *to, bool cut);
void scenario_cut_both(struct run *run, struct node *one, struct node *other, bool cut);

#endif
