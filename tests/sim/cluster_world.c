#include "tests/sim/cluster_world.h"

#include <stdio.h>
#include <stdlib.h>

#include "chunkserver/chunkserver.h"
#include "common/base/check.h"
#include "master/replica.h"
#include "tests/sim/masters.h"

static void on_failed(void *arg, enum err err)
{
	struct node *node = arg;
	sim_print_trace(node->world->sim, stderr);
	fprintf(stderr, "master %u: its store failed: %s\n", node->number + 1, err_name(err));
	check(false);
}

static void start_chunkserver(struct node *node)
{
	static const char *const addresses[WORLD_CHUNKSERVERS] = { "k1:7101", "k2:7101", "k3:7101", "k4:7101" };
	static const char *const hosts[WORLD_CHUNKSERVERS] = { "k1", "k2", "k3", "k4" };
	struct chunkserver_options options = { .data = "data",
					       .listen = addresses[node->number],
					       .masters = WORLD_MASTER_ADDRESSES,
					       .host = hosts[node->number] };
	check(chunkserver_open(node->loop, &options, &node->chunkserver) == OK);
}

void node_start(struct node *node)
{
	static const char *const names[] = { "master", "chunkserver", "client" };
	char name[24];
	if (node->loop)
		return;
	if (!sim_host_is_up(node->host))
		sim_host_start(node->host);
	snprintf(name, sizeof name, "%s%u", names[node->kind], node->number + 1);
	node->loop = sim_process_open(node->host, name);
	node->world->starts++;
	if (node->kind == NODE_MASTER)
		node->master = master_on(node->loop, node->number + 1, on_failed, node);
	else if (node->kind == NODE_CHUNKSERVER)
		start_chunkserver(node);
	else
		node->program = node->world->client_start(node->world, node->number, node->loop);
}

void node_stop(struct node *node, bool power)
{
	if (!node->loop)
		return;
	if (power)
		sim_host_power_cut(node->host);
	else
		sim_process_kill(node->loop);
	if (power && node->kind == NODE_CHUNKSERVER && node->world->power_lost)
		node->world->power_lost(node->world);
	if (node->kind == NODE_MASTER)
		master_close(node->master);
	else if (node->kind == NODE_CHUNKSERVER)
		chunkserver_close(node->chunkserver);
	else
		node->world->client_stop(node->program);
	node->master = NULL;
	node->chunkserver = NULL;
	node->program = NULL;
	sim_process_drop_work(node->loop);
	loop_close(node->loop);
	node->loop = NULL;
}

static unsigned node_count(const struct world *world)
{
	return WORLD_MASTERS + WORLD_CHUNKSERVERS + world->clients;
}

struct node *world_node(struct world *world, enum node_kind kind, unsigned number)
{
	unsigned first = kind == NODE_MASTER ? 0 : kind == NODE_CHUNKSERVER ? WORLD_MASTERS : WORLD_MASTERS + WORLD_CHUNKSERVERS;
	check(first + number < node_count(world));
	return &world->nodes[first + number];
}

void world_open(struct world *world, uint64_t seed)
{
	const unsigned counts[] = { WORLD_MASTERS, WORLD_CHUNKSERVERS, world->clients };
	check(world->clients <= WORLD_CLIENTS_MAX);
	world->sim = sim_open(&(struct sim_options){ .seed = seed,
						     .break_per_million = world->break_per_million ? world->break_per_million : 20,
						     .verbose = getenv("SIM_VERBOSE") != NULL });
	for (unsigned kind = NODE_MASTER; kind <= NODE_CLIENT; kind++)
		for (unsigned i = 0; i < counts[kind]; i++) {
			struct node *node = world_node(world, kind, i);
			char name[3] = { "mkc"[kind], (char)('1' + i), 0 };
			*node = (struct node){ .world = world, .kind = kind, .number = i, .host = sim_host_open(world->sim, name) };
			if (kind != NODE_CLIENT)
				node_start(node);
		}
}

void world_close(struct world *world)
{
	for (unsigned i = node_count(world); i-- > 0;)
		node_stop(&world->nodes[i], false);
	sim_close(world->sim);
}

/* ---- faults ---- */

void world_on_restart(void *arg)
{
	node_start(arg);
}

void world_on_resume(void *arg)
{
	struct node *node = arg;
	if (node->loop)
		sim_process_pause(node->loop, false);
}

void world_on_heal(void *arg)
{
	sim_heal(((struct world *)arg)->sim);
}

static void stop_for_a_while(struct node *node, bool power)
{
	sim_trace(node->world->sim, "fault: %s of %u.%u", power ? "power cut" : "kill", node->kind, node->number + 1);
	node_stop(node, power);
	sim_after(node->world->sim, 50000 + rng_below(sim_rng(node->world->sim), 3000000), world_on_restart, node);
}

static void on_fault(void *arg)
{
	struct world *world = arg;
	struct rng *rng = sim_rng(world->sim);
	struct node *node = &world->nodes[rng_below(rng, node_count(world))];
	struct node *other = &world->nodes[rng_below(rng, node_count(world))];
	if (world->quiet)
		return;
	world->faults++;
	switch (rng_below(rng, 6)) {
	case 0:
	case 1:
		stop_for_a_while(node, false);
		break;
	case 2:
		stop_for_a_while(node, node->kind != NODE_CHUNKSERVER || world->power_cuts);
		break;
	case 3:
		if (node->loop) {
			sim_trace(world->sim, "fault: pause of %u.%u", node->kind, node->number + 1);
			sim_process_pause(node->loop, true);
			sim_after(world->sim, 100000 + rng_below(rng, 4000000), world_on_resume, node);
		}
		break;
	default:
		sim_trace(world->sim, "fault: cut %u.%u - %u.%u", node->kind, node->number + 1, other->kind, other->number + 1);
		sim_cut(world->sim, node->host, other->host, true);
		if (rng_below(rng, 2) == 0)
			sim_cut(world->sim, other->host, node->host, true);
		sim_after(world->sim, 100000 + rng_below(rng, 4000000), world_on_heal, world);
		break;
	}
	sim_after(world->sim, 300000 + rng_below(rng, 2000000), on_fault, world);
}

void world_break(struct world *world)
{
	sim_after(world->sim, 100000, on_fault, world);
}

void world_calm(struct world *world)
{
	world->quiet = true;
	sim_heal(world->sim);
	for (unsigned i = 0; i < node_count(world); i++) {
		world_on_resume(&world->nodes[i]);
		node_start(&world->nodes[i]);
	}
}

/* ---- redundancy ---- */

struct redundancy {
	const struct world *world;
	bool all;
};

static bool runs(const struct world *world, uint64_t server)
{
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++) {
		const struct node *node = &world->nodes[WORLD_MASTERS + i];
		if (node->loop && chunkserver_id(node->chunkserver) == server)
			return true;
	}
	return false;
}

static bool count_copies(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct redundancy *redundancy = arg;
	size_t complete = 0;
	(void)id;
	for (size_t i = 0; i < chunk->n_replicas; i++)
		complete += chunk->replicas[i] != chunk->joining && runs(redundancy->world, chunk->replicas[i]);
	redundancy->all = complete >= REPLICAS_DEFAULT;
	return redundancy->all;
}

bool world_is_replicated(void *arg)
{
	struct redundancy redundancy = { .world = arg };
	for (unsigned i = 0; i < WORLD_MASTERS && !redundancy.all; i++) {
		const struct node *node = &redundancy.world->nodes[i];
		struct replica *replica = node->master ? master_replica(node->master) : NULL;
		if (!replica || !replica_can_read(replica))
			continue;
		redundancy.all = true;
		check(meta_each_chunk(replica_meta(replica), 0, count_copies, &redundancy) == OK);
		return redundancy.all;
	}
	return false;
}
