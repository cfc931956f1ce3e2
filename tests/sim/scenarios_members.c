/* Masters' disks and membership, under load. sim_raft and sim_master do the same at random (README.md). */
#include <stdio.h>
#include <string.h>

#include "chunkserver/chunkserver.h"
#include "chunkserver/service.h"
#include "common/base/check.h"
#include "master/replica.h"
#include "tests/sim/scenarios.h"

#define WHOLE_US 60000000u
#define STATES_MAX 16u
#define ELECTIONS_MAX 8u
#define OLD_US 2500000u /* not so long that copies are made anew, which the masters of last find by the hour */

static struct node *master(struct run *run, unsigned number)
{
	return scenario_node(run, NODE_MASTER, number % WORLD_MASTERS);
}

static bool are_whole(void *arg)
{
	struct run *run = arg;
	struct replica *replicas[MASTERS];
	for (unsigned i = 0; i < MASTERS; i++)
		replicas[i] = node_replica(master(run, i));
	return masters_are_whole(replicas);
}

static void wait_whole(struct run *run)
{
	cluster_run_until(run, are_whole, run, WHOLE_US, "three masters that have caught up");
}

/* ---- 05 ---- */

struct logs {
	struct run *run;
	struct sim_host *host;
	unsigned flipped;
};

static bool flip(void *arg, const char *path, uint64_t size)
{
	struct logs *logs = arg;
	if (strstr(path, "wal-") && size > 0 && scenario_roll(logs->run, 3) > 0)
		logs->flipped += sim_host_flip_bit(logs->host, path, scenario_roll(logs->run, size), (unsigned)scenario_roll(logs->run, 8));
	return true;
}

static bool damage_database(struct run *run, const struct node *node)
{
	bool at_open = scenario_roll(run, 2) == 0, any = false;
	char path[32] = "data/state";
	for (unsigned i = 0; i < STATES_MAX; i++) {
		if (i > 0)
			snprintf(path, sizeof path, "data/state-%u", i);
		any = sim_host_damage_store(node->host, path, at_open) || any;
	}
	return any;
}

/* One after the other, each when the one before is whole again: at no time less than two have anything. */
void play_rot_master(struct run *run)
{
	unsigned first = (unsigned)scenario_roll(run, WORLD_MASTERS);
	for (unsigned i = 0; i < WORLD_MASTERS; i++) {
		struct node *node = master(run, first + i);
		struct logs logs = { .run = run, .host = node->host };
		scenario_wait(run, scenario_roll(run, 300000));
		node->faulty = true;
		node_stop(node, scenario_roll(run, 2) == 0);
		/* After a power cut there may be no database yet. */
		if (scenario_roll(run, 2) == 0 || !damage_database(run, node))
			sim_host_each_file(node->host, flip, &logs);
		scenario_goes_on(run, 10, 10000000, "work without the master whose disk rots");
		node_start(node);
		wait_whole(run);
		node->faulty = false;
		scenario_goes_on(run, 10, 10000000, "work with the master whose disk was mended");
	}
}

/* ---- 06, 16 ---- */

static bool is_leading(void *arg)
{
	struct replica *replica = node_replica(arg);
	return replica && replica_is_leading(replica);
}

static void replace_disk(const struct run *run, struct node *node)
{
	node_stop(node, true);
	sim_host_wipe(node->host);
	cluster_check_empty_disk(run->check, node);
	node_start(node);
}

/* What was acknowledged is at the old leader alone, besides the disk that is gone. */
void play_disk_replaced(struct run *run)
{
	for (unsigned i = 0; i < 2; i++) {
		struct node *leader = scenario_leader(run), *empty = master(run, leader->number + 1), *lags = master(run, leader->number + 2);
		scenario_cut_both(run, lags, leader, true);
		scenario_cut_both(run, lags, empty, true);
		scenario_goes_on(run, 50, 10000000, "work of two of three");
		scenario_cut_both(run, leader, empty, true);
		replace_disk(run, empty);
		scenario_cut_both(run, lags, empty, false);
		scenario_wait(run, 500000 + scenario_roll(run, 3000000));
		check(!node_replica(lags) || !replica_can_read(node_replica(lags)));
		sim_heal(run->world.sim);
		wait_whole(run);
		scenario_goes_on(run, 10, 10000000, "work with the new disk");
	}
}

static bool is_installing(void *arg)
{
	const struct node *node = arg;
	struct install_view view;
	return node_replica(node) && replica_install_view(node_replica(node), &view);
}

void play_snapshot(struct run *run)
{
	for (unsigned i = 0; i < 3; i++) {
		struct node *leader = scenario_leader(run), *empty = master(run, leader->number + 1 + (unsigned)scenario_roll(run, 2));
		scenario_wait(run, scenario_roll(run, 200000));
		sim_set_link(run->world.sim, leader->host, empty->host, &(struct sim_link){ .bytes_per_second = 20000 + scenario_roll(run, 200000) });
		replace_disk(run, empty);
		if (sim_run(run->world.sim, 3000000, is_installing, empty))
			scenario_wait(run, scenario_roll(run, 100000));
		if (scenario_roll(run, 3) == 0)
			node_stop(empty, scenario_roll(run, 2) == 0);
		node_stop(leader, scenario_roll(run, 2) == 0);
		scenario_wait(run, scenario_roll(run, 500000));
		sim_set_link(run->world.sim, leader->host, empty->host, NULL);
		node_start(leader);
		node_start(empty);
		wait_whole(run);
		scenario_goes_on(run, 10, 10000000, "work with the state that was sent");
	}
}

static void away(struct run *run, struct node *late, bool cut)
{
	for (unsigned i = 1; i < MASTERS; i++)
		scenario_cut_both(run, late, master(run, late->number + i), cut);
}

/* The leader and it go on without the third, who then is behind when the leader dies. */
static void make_leader(struct run *run, struct node *node)
{
	for (unsigned i = 0; i < ELECTIONS_MAX && scenario_leader(run) != node; i++) {
		struct node *leader = scenario_leader(run), *third = master(run, 2 * MASTERS - leader->number - node->number);
		wait_whole(run);
		scenario_cut_both(run, leader, third, true);
		scenario_goes_on(run, 10, 15000000, "work without the third");
		node_stop(leader, scenario_roll(run, 2) == 0);
		scenario_cut_both(run, leader, third, false);
		scenario_leader(run);
		node_start(leader);
	}
	cluster_run_until(run, is_leading, node, 0, "a certain master leads");
}

/* It was stopped, or could not hear the others (chunkservers go on hearing it), while chunks became cold and hot, and shards were made anew; it leads
 * as soon as it has been brought up. */
void play_behind(struct run *run)
{
	for (unsigned i = 0; i < 3; i++) {
		struct node *late = scenario_roll(run, 2) == 0 ? scenario_leader(run) : master(run, (unsigned)scenario_roll(run, MASTERS));
		struct node *holder = scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, world_chunkservers(&run->world)));
		bool cut = scenario_roll(run, 2) == 0;
		if (cut)
			away(run, late, true);
		else
			node_stop(late, scenario_roll(run, 2) == 0);
		scenario_wait(run, scenario_roll(run, 1000000));
		node_stop(holder, false);
		scenario_goes_on(run, 20, 15000000, "work of two of three");
		scenario_wait(run, scenario_roll(run, 4000000));
		node_start(holder);
		if (cut)
			away(run, late, false);
		else
			node_start(late);
		make_leader(run, late);
		scenario_goes_on(run, 10, 15000000, "work under who was behind");
	}
}

/* ---- 15 ---- */

static void masters_image(struct run *run, struct sim_image *images[MASTERS])
{
	for (unsigned i = 0; i < MASTERS; i++) {
		node_stop(master(run, i), false);
		images[i] = sim_host_image(master(run, i)->host);
	}
}

static void masters_put_back(struct run *run, struct sim_image *images[MASTERS])
{
	for (unsigned i = 0; i < MASTERS; i++) {
		node_stop(master(run, i), false);
		sim_host_restore(master(run, i)->host, images[i]);
		sim_image_close(images[i]);
	}
}

static void start_all(struct run *run, enum node_kind kind, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		node_start(scenario_node(run, kind, i));
}

static void stop_all(struct run *run, enum node_kind kind, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		node_stop(scenario_node(run, kind, i), false);
}

static bool is_converting(void *arg)
{
	struct run *run = arg;
	for (unsigned i = 0; i < world_chunkservers(&run->world); i++) {
		const struct node *node = scenario_node(run, NODE_CHUNKSERVER, i);
		if (node->loop && chunkserver_service(node->chunkserver)->cold_tasks)
			return true;
	}
	return false;
}

struct past {
	struct run *run;
	uint64_t newest; /* chunk then */
	bool found;
};

static bool is_newer(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct past *past = arg;
	(void)id;
	past->found = chunk->cold && chunk->n_replicas == 0 && chunk->coding->shards[0] > past->newest;
	return !past->found;
}

/* By that masters of the past can see that they are. */
static bool has_newer(void *arg)
{
	struct past *past = arg;
	struct node *leader = world_leader(&past->run->world);
	past->found = false;
	if (leader && replica_can_read(node_replica(leader)))
		check(meta_each_chunk(replica_meta(node_replica(leader)), 0, is_newer, past) == OK);
	return past->found;
}

/* As sim_gc does it: somebody puts the masters back to what they were before chunks became cold and hot, and to what they had been last when it
 * is noticed that there are chunks that they have not heard of. */
void play_old_masters(struct run *run)
{
	struct sim_image *old[MASTERS], *last[MASTERS];
	struct past past = { .run = run };
	scenario_wait(run, scenario_roll(run, 2000000));
	cluster_run_until(run, is_converting, run, 10000000, "a chunk is becoming cold or hot");
	past.newest = meta_newest_chunk(replica_meta(node_replica(scenario_leader(run))));
	masters_image(run, old);
	start_all(run, NODE_MASTER, MASTERS);
	scenario_wait(run, scenario_roll(run, 2) == 0 ? scenario_roll(run, 500000) : scenario_roll(run, 4000000));
	cluster_run_until(run, has_newer, &past, 15000000, "a chunk has newer shards");
	stop_all(run, NODE_CLIENT, CLIENTS);
	masters_image(run, last);
	masters_put_back(run, old);
	cluster_check_end_looks(run->check);
	sim_trace(run->world.sim, "masters of an older snapshot");
	start_all(run, NODE_MASTER, MASTERS);
	if (scenario_roll(run, 2) == 0) {
		stop_all(run, NODE_CHUNKSERVER, world_chunkservers(&run->world));
		start_all(run, NODE_CHUNKSERVER, world_chunkservers(&run->world));
	}
	scenario_wait(run, OLD_US + scenario_roll(run, OLD_US / 4));
	masters_put_back(run, last);
	sim_trace(run->world.sim, "masters as they were last");
	start_all(run, NODE_MASTER, MASTERS);
	start_all(run, NODE_CLIENT, CLIENTS);
	scenario_goes_on(run, 30, 15000000, "work under the masters of last");
}

/* ---- 18 ---- */

enum { ADD = 1, REMOVE };

struct operator {
	struct run *run;
	struct rpc_peer *peers[MASTERS];
	struct timer again;
	Granary__MembersChange change;
	unsigned asked;
	bool done;
};

static void on_answer(void *arg, const struct rpc_result *result)
{
	struct operator *operator= arg;
	sim_trace(operator->run->world.sim, "operator: %s", err_name(result->err));
	operator->done = result->err == OK || result->err == ERR_NOT_FOUND || result->err == ERR_EXISTS;
	if (!operator->done)
		operator->asked = leader_after(operator->asked, result);
	if (!operator->done)
		timer_start(&operator->again, 100);
}

static void on_ask(void *arg)
{
	struct operator *operator= arg;
	rpc_peer_call(operator->peers[operator->asked], MESSAGE_MEMBERS_CHANGE, &operator->change.base, NULL, 3000, on_answer, operator);
}

static bool is_done(void *arg)
{
	return ((struct operator *)arg)->done;
}

static void change_members(struct run *run, struct sim_host *host, uint32_t kind, const struct node *node)
{
	static const struct rpc_identity identity = { .role = RPC_TOOL, .id = 8 };
	struct loop *loop = sim_process_open(host, "operator");
	struct rpc *rpc;
	struct operator operator= { .run = run };
	char address[16] = "";
	check(rpc_open(loop, &identity, NULL, NULL, &rpc) == OK);
	for (unsigned i = 0; i < MASTERS; i++)
		operator.peers[i] = rpc_peer_open(rpc, master_addresses[i]);
	granary__members_change__init(&operator.change);
	operator.change.kind = kind;
	operator.change.id = node->number + 1;
	if (kind == ADD)
		snprintf(address, sizeof address, "%s", master_addresses[node->number]);
	operator.change.address = address;
	timer_init(&operator.again, loop, on_ask, &operator);
	timer_start(&operator.again, 0);
	cluster_run_until(run, is_done, &operator, 30000000, kind == ADD ? "a master is added" : "a master is removed");
	timer_stop(&operator.again);
	rpc_close(rpc);
	loop_close(loop);
}

/* It does not know that it was removed, with all that it had: whom it asks for votes nobody listens to. */
void play_membership(struct run *run)
{
	struct sim_host *host = sim_host_open(run->world.sim, "op");
	for (unsigned i = 0; i < 2; i++) {
		struct node *leader = scenario_leader(run), *node = master(run, leader->number + (unsigned)scenario_roll(run, 3));
		scenario_cut_both(run, node, master(run, node->number + 1), true);
		scenario_cut_both(run, node, master(run, node->number + 2), true);
		scenario_wait(run, scenario_roll(run, 1000000));
		change_members(run, host, REMOVE, node);
		sim_heal(run->world.sim);
		scenario_wait(run, scenario_roll(run, 2000000));
		scenario_goes_on(run, 20, 10000000, "work beside a master that was removed");
		replace_disk(run, node);
		change_members(run, host, ADD, node);
		wait_whole(run);
		scenario_goes_on(run, 10, 10000000, "work with a master that came back");
	}
}
