#include "tests/sim/cluster_world.h"

#include <stdio.h>
#include <stdlib.h>

#include "chunkserver/chunkserver.h"
#include "common/base/check.h"
#include "master/replica.h"
#include "tests/sim/masters.h"

#define TRY_AGAIN_US 300000u /* to start what did not start */
#define LATE_US_MAX 2500000u

static void on_stopped_by_itself(void *arg)
{
	struct node *node = arg;
	if (!node->loop)
		return;
	node_stop(node, false);
	sim_after(node->world->sim, TRY_AGAIN_US, world_on_restart, node);
}

static void on_failed(void *arg, enum err err)
{
	struct node *node = arg;
	if (sim_process_is_dead(node->loop)) /* its host lost power just now */
		return;
	if (node->faulty) {
		sim_after(node->world->sim, 0, on_stopped_by_itself, node);
		return;
	}
	sim_print_trace(node->world->sim, stderr);
	fprintf(stderr, "%s: its store failed: %s\n", node->name, err_name(err));
	check(false);
}

static void start_chunkserver(struct node *node)
{
	char address[16];
	char host[4] = { 'k', (char)('1' + node->number), 0 };
	snprintf(address, sizeof address, "%s:7101", host);
	char rack[16] = "";
	if (node->world->racks)
		snprintf(rack, sizeof rack, "r%u", node->number % node->world->racks);
	struct chunkserver_options options = {
		.data = "data", .listen = address, .masters = WORLD_MASTER_ADDRESSES, .host = host, .location = rack
	};
	enum err err = chunkserver_open(node->loop, &options, &node->chunkserver);
	if (err)
		sim_trace(node->world->sim, "%s does not start: %s", node->name, err_name(err));
}

static void loop_end(struct node *node)
{
	if (!sim_process_is_dead(node->loop))
		sim_process_kill(node->loop);
	sim_process_drop_work(node->loop);
	loop_close(node->loop);
	node->loop = NULL;
}

void node_start(struct node *node)
{
	if (node->loop || node->held)
		return;
	if (!sim_host_is_up(node->host))
		sim_host_start(node->host);
	node->loop = sim_process_open(node->host, node->name);
	node->world->starts++;
	if (node->kind == NODE_MASTER)
		node->master = master_try(node->loop, node->number + 1, on_failed, node);
	else if (node->kind == NODE_CHUNKSERVER)
		start_chunkserver(node);
	else
		node->program = node->world->client_start(node->world, node->number, node->loop);
	if (node->master || node->chunkserver || node->program)
		return;
	bool excused = node->faulty || sim_process_is_dead(node->loop);
	loop_end(node);
	if (!excused) {
		sim_print_trace(node->world->sim, stderr);
		fprintf(stderr, "%s does not start\n", node->name);
		check(false);
	}
	sim_after(node->world->sim, TRY_AGAIN_US, world_on_restart, node);
}

void node_stop(struct node *node, bool power)
{
	if (power)
		sim_host_power_cut(node->host);
	if (!node->loop)
		return;
	if (!sim_process_is_dead(node->loop))
		sim_process_kill(node->loop);
	if (node->kind == NODE_MASTER)
		master_close(node->master);
	else if (node->kind == NODE_CHUNKSERVER)
		chunkserver_close(node->chunkserver);
	else
		node->world->client_stop(node->program);
	node->master = NULL;
	node->chunkserver = NULL;
	node->program = NULL;
	loop_end(node);
}

unsigned world_chunkservers(const struct world *world)
{
	return world->chunkservers ? world->chunkservers : WORLD_CHUNKSERVERS;
}

unsigned world_node_count(const struct world *world)
{
	return WORLD_MASTERS + world_chunkservers(world) + world->clients;
}

struct node *world_node(struct world *world, enum node_kind kind, unsigned number)
{
	unsigned first = kind == NODE_MASTER ? 0 : kind == NODE_CHUNKSERVER ? WORLD_MASTERS : WORLD_MASTERS + world_chunkservers(world);
	check(first + number < world_node_count(world));
	return &world->nodes[first + number];
}

struct node *world_node_of_host(struct world *world, const struct sim_host *host)
{
	for (unsigned i = 0; i < world_node_count(world); i++)
		if (world->nodes[i].host == host)
			return &world->nodes[i];
	return NULL;
}

static void on_power_cut(void *arg, struct sim_host *host)
{
	struct world *world = arg;
	const struct node *node = world_node_of_host(world, host);
	if (node && node->kind == NODE_CHUNKSERVER && world->power_lost)
		world->power_lost(world, node->number);
}

void world_open(struct world *world, uint64_t seed)
{
	static const char *const kinds[] = { "master", "chunkserver", "client" };
	const unsigned counts[] = { WORLD_MASTERS, world_chunkservers(world), world->clients };
	check(world->clients <= WORLD_CLIENTS_MAX && counts[1] <= WORLD_CHUNKSERVERS_MAX);
	world->sim = sim_open(&(struct sim_options){ .seed = seed,
						     .break_per_million = world->break_per_million ? world->break_per_million : 20,
						     .late_per_million = world->late_per_million,
						     .late_us_max = LATE_US_MAX,
						     .verbose = getenv("SIM_VERBOSE") != NULL });
	sim_on_power_cut(world->sim, on_power_cut, world);
	for (unsigned kind = NODE_MASTER; kind <= NODE_CLIENT; kind++)
		for (unsigned i = 0; i < counts[kind]; i++) {
			struct node *node = world_node(world, kind, i);
			char name[3] = { "mkc"[kind], (char)('1' + i), 0 };
			*node = (struct node){ .world = world, .kind = kind, .number = i, .host = sim_host_open(world->sim, name) };
			snprintf(node->name, sizeof node->name, "%s%u", kinds[kind], i + 1);
			if (kind != NODE_CLIENT)
				node_start(node);
		}
}

void world_close(struct world *world)
{
	sim_on_power_cut(world->sim, NULL, NULL);
	for (unsigned i = world_node_count(world); i-- > 0;)
		node_stop(&world->nodes[i], false);
	sim_close(world->sim);
}

struct replica *node_replica(const struct node *node)
{
	return node->master && !sim_process_is_dead(node->loop) ? master_replica(node->master) : NULL;
}

struct node *world_leader(struct world *world)
{
	for (unsigned i = 0; i < WORLD_MASTERS; i++) {
		struct node *node = world_node(world, NODE_MASTER, i);
		struct replica *replica = node_replica(node);
		if (replica && replica_is_leading(replica))
			return node;
	}
	return NULL;
}

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

void world_calm(struct world *world)
{
	world->quiet = true;
	sim_heal(world->sim);
	for (unsigned i = 0; i < world_node_count(world); i++) {
		struct node *node = &world->nodes[i];
		sim_host_power_cut_after(node->host, 0);
		sim_host_set_disk(node->host, &(struct sim_disk_faults){ 0 });
		sim_host_stick_disk(node->host, false);
		for (unsigned j = 0; j < world_node_count(world); j++)
			sim_set_link(world->sim, node->host, world->nodes[j].host, NULL);
		world_on_resume(node);
		/* A store that has failed stays out of service until its process starts anew. */
		if (node->loop && (sim_process_is_dead(node->loop) || node->faulty))
			node_stop(node, false);
		node->held = node->faulty = false;
		node_start(node);
	}
}

/* ---- redundancy ---- */

struct redundancy {
	const struct world *world;
	bool settled; /* asked for: none is being made in another place, or another form */
	bool all;
};

static bool runs(const struct world *world, uint64_t server)
{
	for (unsigned i = 0; i < world_chunkservers(world); i++) {
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
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD)
		redundancy->all = complete == 1 && (chunk->rebuilding == 0 || !redundancy->settled);
	else if (chunk->cold)
		redundancy->all = chunk->n_replicas == 0 || !redundancy->settled;
	else
		redundancy->all = complete >= REPLICAS_DEFAULT && (!chunk->frozen || !redundancy->settled);
	return redundancy->all;
}

static bool look_at_copies(struct world *world, bool settled)
{
	struct redundancy redundancy = { .world = world, .settled = settled };
	for (unsigned i = 0; i < WORLD_MASTERS && !redundancy.all; i++) {
		const struct node *node = &redundancy.world->nodes[i];
		struct replica *replica = node_replica(node);
		if (!replica || !replica_can_read(replica))
			continue;
		redundancy.all = true;
		check(meta_each_chunk(replica_meta(replica), 0, count_copies, &redundancy) == OK);
		return redundancy.all;
	}
	return false;
}

bool world_has_all_copies(void *world)
{
	return look_at_copies(world, false);
}

bool world_is_replicated(void *world)
{
	return look_at_copies(world, true);
}
