#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chunk_format.h"
#include "chunkserver/chunkserver.h"
#include "chunkserver/service.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "master/replica.h"
#include "tests/sim/scenarios.h"

static void stop_all(struct run *run, enum node_kind kind, bool power)
{
	for (unsigned i = 0; i < world_node_count(&run->world); i++)
		if (run->world.nodes[i].kind == kind)
			node_stop(&run->world.nodes[i], power);
}

static void start_all(struct run *run)
{
	for (unsigned i = 0; i < world_node_count(&run->world); i++)
		node_start(&run->world.nodes[i]);
}

void play_power_cut(struct run *run)
{
	for (unsigned i = 0; i < 2; i++) {
		scenario_wait(run, 50000 + scenario_roll(run, 600000));
		stop_all(run, NODE_MASTER, true);
		stop_all(run, NODE_CHUNKSERVER, true);
		scenario_wait(run, scenario_roll(run, 200000));
		start_all(run);
	}
	scenario_goes_on(run, 10, 10000000, "work after the power is back");
}

/* Of a chunk file: its name contains "/chunks/". */
struct victim {
	struct sim_host *host;
	char path[64];
	uint64_t number;
};

static bool choose(void *arg, const char *path, uint64_t size)
{
	struct victim *victim = arg;
	(void)size;
	if (strstr(path, "/chunks/") && strlen(path) < sizeof victim->path) {
		snprintf(victim->path, sizeof victim->path, "%s", path);
		return victim->number-- > 0;
	}
	return true;
}

void play_failed_sync_chunkserver(struct run *run)
{
	struct node *node = scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS));
	struct victim victim = { .host = node->host, .number = scenario_roll(run, 4) };
	scenario_wait(run, 100000 + scenario_roll(run, 300000));
	sim_host_each_file(node->host, choose, &victim);
	node->faulty = true;
	if (victim.path[0])
		sim_host_break_file(node->host, victim.path, &(struct sim_file_faults){ .sync_fails = true });
	scenario_wait(run, 300000);
	scenario_goes_on(run, 30, 15000000, "work without the store whose sync failed");
	/* Started anew it has what it had acknowledged, and loses the power at once. */
	if (victim.path[0])
		sim_host_break_file(node->host, victim.path, &(struct sim_file_faults){ .sync_fails = false });
	node_stop(node, false);
	node_start(node);
	scenario_wait(run, 200000 + scenario_roll(run, 500000));
}

/* The chain is slow at one place; when it is full of writes the server before that place dies, and the clients too. */
void play_half_written(struct run *run)
{
	struct world *world = &run->world;
	struct node *node = scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS));
	scenario_wait(run, 100000 + scenario_roll(run, 200000));
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		sim_set_link(world->sim, node->host, scenario_node(run, NODE_CHUNKSERVER, i)->host,
			     &(struct sim_link){ .delay_us = 30000 + scenario_roll(run, 60000) });
	scenario_wait(run, 20000 + scenario_roll(run, 60000));
	node_stop(node, scenario_roll(run, 2) == 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		if (scenario_roll(run, 2) == 0)
			node_stop(scenario_node(run, NODE_CLIENT, i), false);
	scenario_wait(run, scenario_roll(run, 100000));
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		sim_set_link(world->sim, node->host, scenario_node(run, NODE_CHUNKSERVER, i)->host, NULL);
	for (unsigned i = 0; i < CLIENTS; i++)
		node_start(scenario_node(run, NODE_CLIENT, i));
	scenario_wait(run, scenario_roll(run, 2000000));
	node_start(node);
	scenario_goes_on(run, 30, 15000000, "work with the replicas that are left");
}

void play_stale_replica(struct run *run)
{
	struct node *node = scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS));
	for (unsigned i = 0; i < 2; i++) {
		scenario_wait(run, 100000 + scenario_roll(run, 200000));
		node_stop(node, scenario_roll(run, 2) == 0);
		scenario_goes_on(run, 100, 15000000, "overwrites without it");
		node_start(node);
		scenario_goes_on(run, 30, 15000000, "work with it");
	}
}

/* Then the others go, until the end: what it could not know is not read from it. */
void play_stale_last_replica(struct run *run)
{
	unsigned last = (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS);
	struct node *node = scenario_node(run, NODE_CHUNKSERVER, last);
	scenario_wait(run, 100000 + scenario_roll(run, 200000));
	node_stop(node, false);
	scenario_goes_on(run, 100, 15000000, "overwrites without it");
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		if (i != last)
			node_stop(scenario_node(run, NODE_CHUNKSERVER, i), false);
	node_start(node);
	scenario_wait(run, 3000000);
	start_all(run);
	scenario_goes_on(run, 30, 15000000, "work when the others are back");
}

static void fill(struct node *node, bool full)
{
	uint64_t used = sim_host_pages_used(node->host) * 4096;
	node->faulty = node->kind == NODE_MASTER;
	sim_host_set_disk(node->host, &(struct sim_disk_faults){ .space_bytes = full ? used + DISK_RESERVED_BYTES / 2 : 0 });
}

void play_no_space(struct run *run)
{
	unsigned reads = run->counts.reads, removes;
	scenario_wait(run, 100000);
	fill(scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS)), true);
	scenario_wait(run, 1000000);
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		fill(scenario_node(run, NODE_CHUNKSERVER, i), true);
	reads = run->counts.reads;
	removes = run->counts.removes;
	scenario_wait(run, 3000000);
	check(run->counts.reads > reads && run->counts.removes > removes); /* they go on */
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		fill(scenario_node(run, NODE_CHUNKSERVER, i), false);
	scenario_goes_on(run, 30, 15000000, "work when there is space again");
	struct node *leader = scenario_leader(run);
	fill(leader, true);
	reads = run->counts.reads;
	scenario_wait(run, 2000000);
	check(run->counts.reads > reads);
	fill(leader, false);
	scenario_goes_on(run, 30, 15000000, "work when the leader has space again");
}

struct retiring {
	struct run *run;
	uint64_t server; /* whose chunks are looked at */
	bool found;
};

/* Retired, and still a member of the chunk as far as the master knows. */
static bool is_retiring(void *arg, const Granary__ChunkLocation *held)
{
	struct retiring *retiring = arg;
	struct node *leader = world_leader(&retiring->run->world);
	Granary__Chunk *chunk = NULL;
	if (held->copy != COPY_RETIRED || !leader || meta_chunk(replica_meta(node_replica(leader)), held->chunk, &chunk))
		return true;
	for (size_t i = 0; i < chunk->n_replicas; i++)
		retiring->found = retiring->found || chunk->replicas[i] == retiring->server;
	message_free(&chunk->base);
	return !retiring->found;
}

static bool has_retiring(void *arg)
{
	struct retiring *retiring = arg;
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS && !retiring->found; i++) {
		struct node *node = scenario_node(retiring->run, NODE_CHUNKSERVER, i);
		if (!node->loop)
			continue;
		retiring->server = chunkserver_id(node->chunkserver);
		check(chunk_store_each(chunkserver_service(node->chunkserver)->store, 0, is_retiring, retiring) == OK);
	}
	return retiring->found;
}

/* The next leader does not know why a copy has retired, and the reason is gone. */
void play_leader_lost_retiring(struct run *run)
{
	struct node *full = scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS));
	struct retiring retiring = { .run = run };
	scenario_wait(run, 500000 + scenario_roll(run, 500000));
	fill(full, true);
	if (sim_run(run->world.sim, 3000000, has_retiring, &retiring)) {
		struct node *leader = scenario_leader(run);
		node_stop(leader, scenario_roll(run, 2) == 0);
		fill(full, false);
		scenario_goes_on(run, 10, 15000000, "work under the next leader");
		node_start(leader);
	}
	fill(full, false);
	scenario_goes_on(run, 30, 15000000, "work when there is space again");
}

void play_collection(struct run *run)
{
	for (unsigned i = 0; i < 4; i++) {
		struct node *node = scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS));
		unsigned removes = run->counts.removes;
		if (i % 2 == 0)
			node_stop(node, false);
		for (unsigned steps = 0; run->counts.removes == removes && steps < 500; steps++)
			scenario_wait(run, 1000);
		scenario_wait(run, scenario_roll(run, 3000));
		node_stop(scenario_leader(run), scenario_roll(run, 2) == 0);
		scenario_goes_on(run, 10, 15000000, "work after the failover");
		start_all(run);
	}
	scenario_goes_on(run, 20, 15000000, "work when all are back");
}

/* It is left out, which nobody can tell it: by its own clock alone it knows that it no longer speaks for its chunks. Clients that stood still
 * meanwhile ask it: they can reach it, and know of no other chain. */
void play_lease_ran_out(struct run *run)
{
	for (unsigned i = 0; i < 2; i++) {
		struct node *node = scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS));
		struct node *writer = scenario_node(run, NODE_CLIENT, (unsigned)scenario_roll(run, CLIENTS));
		scenario_wait(run, 100000 + scenario_roll(run, 300000));
		sim_host_set_clock(node->host, scenario_roll(run, 2) == 0 ? -3600000 : 3600000, 0);
		for (unsigned j = 0; j < world_node_count(&run->world); j++) {
			struct node *other = &run->world.nodes[j];
			if (other != node && (other->kind != NODE_CLIENT || other == writer))
				scenario_cut_both(run, node, other, true);
			if (other->kind == NODE_CLIENT && other != writer)
				sim_process_pause(other->loop, true);
		}
		scenario_wait(run, CHUNKSERVER_LEASE_MS * 1000);
		scenario_goes_on(run, 100, 15000000, "work without a chunkserver that masters cannot reach");
		for (unsigned j = 0; j < CLIENTS; j++)
			sim_process_pause(scenario_node(run, NODE_CLIENT, j)->loop, false);
		scenario_goes_on(run, 50, 15000000, "work of clients that had not heard of it");
		sim_host_set_clock(node->host, 0, 0);
		sim_heal(run->world.sim);
		scenario_goes_on(run, 10, 15000000, "work with all chunkservers");
	}
}

/* Members of chains are left out and come back; nobody else notices for long, and masters not at all. */
void play_gray_failure(struct run *run)
{
	static const enum fault faults[] = { FAULT_SLOW_DISK, FAULT_STUCK_DISK, FAULT_SLOW_LINK, FAULT_FLAP };
	struct raft_view before, after;
	replica_view(node_replica(scenario_leader(run)), &before);
	for (unsigned i = 0; i < 2; i++) {
		struct node *node = scenario_node(run, NODE_CHUNKSERVER, (unsigned)scenario_roll(run, WORLD_CHUNKSERVERS));
		fault_do(&run->world, faults[scenario_roll(run, 4)], node, 3000000);
		for (unsigned second = 0; second < 3; second++) {
			scenario_goes_on(run, 5, 6000000, "work beside a chunkserver that is sick");
			scenario_wait(run, 1000000);
		}
	}
	replica_view(node_replica(scenario_leader(run)), &after);
	if (after.term == before.term)
		return;
	sim_print_trace(run->world.sim, stderr);
	fprintf(stderr, "a sick chunkserver made masters elect another leader\n");
	abort();
}
