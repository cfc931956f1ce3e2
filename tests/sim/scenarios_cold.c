#include "common/base/limits.h"
#include "tests/sim/scenarios.h"

#define HOLDERS 2u /* as many as 2 + 2 and 4 + 2 shards can do without */
#define ROUNDS 3u

static void choose_two(struct run *run, struct node *two[HOLDERS])
{
	unsigned count = world_chunkservers(&run->world);
	unsigned first = (unsigned)scenario_roll(run, count), further = 1 + (unsigned)scenario_roll(run, count - 1);
	two[0] = scenario_node(run, NODE_CHUNKSERVER, first);
	two[1] = scenario_node(run, NODE_CHUNKSERVER, (first + further) % count);
}

/* The operator is at it all the time: each of the steps is hit. Some stay away until what they held has been made anew. */
void play_holders_lost(struct run *run)
{
	struct node *two[HOLDERS];
	for (unsigned round = 0; round < ROUNDS; round++) {
		scenario_wait(run, 100000 + scenario_roll(run, 600000));
		choose_two(run, two);
		for (unsigned i = 0; i < HOLDERS; i++) {
			scenario_wait(run, scenario_roll(run, 30000));
			node_stop(two[i], false);
		}
		scenario_wait(run, scenario_roll(run, round == 1 ? 2000000 + 2 * REPAIR_ALONE_MS * 1000 : 300000));
		for (unsigned i = 0; i < HOLDERS; i++)
			node_start(two[i]);
	}
	scenario_goes_on(run, 30, 15000000, "work when the holders are back");
}

static void cut_off(struct run *run, struct node *node, bool cut)
{
	for (unsigned i = 0; i < WORLD_MASTERS; i++)
		scenario_cut_both(run, node, scenario_node(run, NODE_MASTER, i), cut);
}

/* Two are lost: nothing more may be, so that what they held is made anew soon. One of the others after another does not hear the masters,
 * and they do not hear it: it makes what it was told to, and is not counted on any more. */
void play_rebuilt_twice(struct run *run)
{
	struct node *two[HOLDERS];
	scenario_wait(run, 800000 + scenario_roll(run, 400000));
	choose_two(run, two);
	for (unsigned i = 0; i < HOLDERS; i++)
		node_stop(two[i], false);
	scenario_wait(run, REPAIR_ALONE_MS * 1000 + CHUNKSERVER_LEASE_MS * 1000);
	for (unsigned i = 0; i < world_chunkservers(&run->world); i++) {
		struct node *node = scenario_node(run, NODE_CHUNKSERVER, i);
		if (node == two[0] || node == two[1])
			continue;
		cut_off(run, node, true);
		scenario_wait(run, scenario_roll(run, 2 * CHUNKSERVER_LEASE_MS * 1000));
		cut_off(run, node, false);
		scenario_wait(run, scenario_roll(run, 300000));
	}
	for (unsigned i = 0; i < HOLDERS; i++)
		node_start(two[i]);
	scenario_goes_on(run, 30, 15000000, "work when all are back");
}
