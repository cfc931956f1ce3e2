#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "master/replica.h"
#include "tests/sim/scenarios.h"

static struct node *master(struct run *run, unsigned number)
{
	return scenario_node(run, NODE_MASTER, number % WORLD_MASTERS);
}

/* Before, within or after each of its next disk operations: append, sync, apply; or between two messages. */
void play_leader_killed_each_step(struct run *run)
{
	for (unsigned step = 1; step <= 6; step++) {
		struct node *leader = scenario_leader(run);
		scenario_wait(run, scenario_roll(run, 50000));
		if (scenario_roll(run, 3) > 0) {
			sim_host_power_cut_after(leader->host, step);
			scenario_wait(run, 100000);
			node_stop(leader, true);
		} else {
			for (uint64_t events = scenario_roll(run, 40); events > 0; events--)
				sim_step(run->world.sim);
			node_stop(leader, false);
		}
		scenario_goes_on(run, 10, 10000000, "work under the next leader");
		node_start(leader);
	}
}

static bool leads(void *arg)
{
	const struct node *node = arg;
	struct replica *replica = node_replica(node);
	return replica && replica_is_leading(replica);
}

/* Of one of the two, and not of the third: each in a term of its own. */
void play_figure_8(struct run *run)
{
	struct node *first = scenario_leader(run);
	struct node *second = master(run, first->number + 1), *third = master(run, first->number + 2);
	/* Entries that are only at the first. */
	scenario_cut_both(run, first, second, true);
	scenario_cut_both(run, first, third, true);
	scenario_wait(run, 5000 + scenario_roll(run, 100000));
	node_stop(first, scenario_roll(run, 2) == 0);
	/* The second (or third) leads, and its entries stay with it alone. */
	struct node *next = scenario_leader(run), *other = next == second ? third : second;
	scenario_cut(run, next, other, true);
	scenario_wait(run, scenario_roll(run, 30000));
	node_stop(next, false);
	sim_heal(run->world.sim);
	/* The first again, with the third: its old entries reach a majority. It dies soon after. */
	node_start(first);
	if (sim_run(run->world.sim, 3000000, leads, first))
		scenario_wait(run, scenario_roll(run, 4000));
	node_stop(first, scenario_roll(run, 2) == 0);
	/* The second, whose last entry is of a later term, may win and write over them. */
	node_start(next);
	scenario_goes_on(run, 10, 10000000, "work of two of three");
	node_start(first);
	scenario_goes_on(run, 10, 10000000, "work of all");
}

void play_failed_sync_master(struct run *run)
{
	struct node *leader = scenario_leader(run), *node = scenario_roll(run, 2) == 0 ? leader : master(run, leader->number + 1);
	scenario_wait(run, scenario_roll(run, 300000));
	node->faulty = true;
	sim_host_set_disk(node->host, &(struct sim_disk_faults){ .sync_error_per_million = 1000000 });
	scenario_wait(run, 100000);
	check(!node->loop); /* it has stopped */
	node->held = true;
	scenario_goes_on(run, 20, 10000000, "work without the master whose sync failed");
	sim_host_set_disk(node->host, &(struct sim_disk_faults){ 0 });
	node->held = false;
	node_start(node);
	scenario_wait(run, 300000 + scenario_roll(run, 300000));
	/* What was not written by that sync may be lost now; the others have it. */
	node_stop(node, true);
	scenario_goes_on(run, 10, 10000000, "work meanwhile");
	node_start(node);
}

void play_partitions(struct run *run)
{
	for (unsigned i = 0; i < 5; i++) {
		struct node *leader = scenario_leader(run), *a = master(run, leader->number + 1), *b = master(run, leader->number + 2);
		switch (scenario_roll(run, 5)) {
		case 0: /* it hears, and is not heard */
			scenario_cut(run, leader, a, true);
			scenario_cut(run, leader, b, true);
			break;
		case 1: /* it is heard, and does not hear */
			scenario_cut(run, a, leader, true);
			scenario_cut(run, b, leader, true);
			break;
		case 2: /* one is the bridge between the leader and the other */
			scenario_cut_both(run, leader, a, true);
			break;
		case 3: /* the leader is the bridge */
			scenario_cut_both(run, a, b, true);
			break;
		default: /* a ring of one-way links */
			scenario_cut(run, leader, a, true);
			scenario_cut(run, a, b, true);
			scenario_cut(run, b, leader, true);
			break;
		}
		struct raft_view before, after;
		replica_view(master_replica(a->master), &before);
		scenario_wait(run, 500000 + scenario_roll(run, 1500000));
		replica_view(master_replica(a->master), &after);
		if (after.term > before.term + 12) {
			sim_print_trace(run->world.sim, stderr);
			fprintf(stderr, "elections without end: term %u became %u\n", (unsigned)before.term, (unsigned)after.term);
			abort();
		}
		sim_heal(run->world.sim);
		scenario_goes_on(run, 10, 10000000, "work after a partition");
	}
}

void play_leader_paused(struct run *run)
{
	for (unsigned i = 0; i < 3; i++) {
		struct node *leader = scenario_leader(run);
		scenario_wait(run, scenario_roll(run, 100000));
		if (scenario_roll(run, 2) == 0) /* chunk grants in flight: a replica has just gone */
			node_stop(scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS)), false);
		sim_process_pause(leader->loop, true);
		scenario_goes_on(run, 20, 15000000, "work under another leader");
		scenario_wait(run, scenario_roll(run, 1500000));
		sim_process_pause(leader->loop, false);
		scenario_goes_on(run, 20, 15000000, "work after it woke");
		for (unsigned j = 0; j < WORLD_CHUNKSERVERS; j++)
			node_start(scenario_node(run, NODE_CHUNKSERVER, j));
	}
}

/* Wall clocks may say anything. A clock at half speed is beyond what leases allow for: it is of one node, and no link is cut then. */
void play_clocks(struct run *run)
{
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned j = 0; j < world_node_count(&run->world); j++)
			sim_host_set_clock(run->world.nodes[j].host, ((int64_t)scenario_roll(run, 3) - 1) * 3600000, 0);
		struct node *leader = scenario_leader(run);
		scenario_wait(run, scenario_roll(run, 300000));
		if (scenario_roll(run, 2) == 0) {
			scenario_cut_both(run, leader, master(run, leader->number + 1), true);
			scenario_cut_both(run, leader, master(run, leader->number + 2), true);
		} else {
			node_stop(leader, true);
		}
		scenario_goes_on(run, 10, 15000000, "work whatever the clocks say");
		sim_heal(run->world.sim);
		node_start(leader);
	}
	struct node *slow = &run->world.nodes[scenario_roll(run, world_node_count(&run->world))];
	sim_host_set_clock(slow->host, 0, -500000);
	scenario_goes_on(run, 100, 15000000, "work with a clock at half speed");
	scenario_wait(run, 1000000);
	sim_host_set_clock(slow->host, 0, 0);
}
