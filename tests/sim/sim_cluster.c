/* A whole cluster under faults: masters, chunkservers and clients, all of them production code, while processes are killed or stand
 * still, hosts lose power or are cut off, links and disks are slow or fail, clocks jump (cluster_faults.h: a seed is a storm); and clients
 * change the same blocks, names and locks meanwhile (cluster_load.h).
 *
 * Some seeds begin with one copy more of everything, which leaves during the storm.
 *
 * Checked: all that clients were told is linearizable (history.h), nothing acknowledged is lost, nothing is there in part; what must
 * hold of the masters and of what is on disks (cluster_check.h), all along and when it is quiet; and when the faults end everything
 * is answered within a bounded time.
 *
 *	sim_cluster [SEED [COUNT]] ...		see runner.h; SIM_STORM=NAME in the environment: all seeds are that storm; SIM_COLD=1: there are
 *					cold chunks in all of them */
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/storage_class.h"
#include "master/replica.h"
#include "tests/sim/cluster_run.h"
#include "tests/sim/runner.h"

#define STORM_US 3000000u
#define MORE_US 30000000u
#define STORM_LONG_US 6000000u
#define SEEDS 1000u

static const uint64_t least[] = { 5000, 100000, 10000, 10000, 1000, 1000, 1000, 1000, 0, 500, 0, 0, 0 };

static bool cools(uint64_t seed)
{
	return seed % 9 == 1 || getenv("SIM_COLD");
}

/* For 2 + 2 shards, which one may be lost of; for 4 + 2 and none besides; for 4 + 2 and one more. */
static unsigned servers_of(uint64_t seed)
{
	if (!cools(seed))
		return 0;
	return seed % 10 == 0 ? 5 + 2 * (unsigned)(seed / 30 % 2) : 5 + (unsigned)(seed / 3 % 3);
}

/* ---- more copies than are wanted leave while they are written and read */

static void answered(void *arg, enum err err, const ProtobufCMessage *reply)
{
	(void)arg;
	(void)err;
	(void)reply;
}

static void want_copies(struct run *run, uint32_t copies, uint64_t revision)
{
	const struct program *program = world_node(&run->world, NODE_CLIENT, 0)->program;
	Granary__ClassesRequest request = GRANARY__CLASSES_REQUEST__INIT;
	Granary__SetClass change = GRANARY__SET_CLASS__INIT;
	Granary__StorageClass storage = GRANARY__STORAGE_CLASS__INIT;
	storage.name = (char *)(uintptr_t)STORAGE_CLASS_DEFAULT;
	storage.copies = copies;
	change.class_ = &storage;
	change.revision = revision;
	request.change = &change;
	client_call_leader(program->client, MESSAGE_CLASSES, &request.base, answered, NULL);
}

static bool has_more(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	(void)id;
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD || chunk->cold)
		return true;
	*(bool *)arg = chunk->n_replicas > REPLICAS_DEFAULT && !chunk->joining;
	return *(bool *)arg;
}

static bool has_more_copies(void *arg)
{
	struct node *leader = world_leader(&((struct run *)arg)->world);
	bool all = false;
	return leader && meta_each_chunk(replica_meta(node_replica(leader)), 0, has_more, &all) == OK && all;
}

static bool begins_to_leave(void *arg)
{
	return !has_more_copies(arg);
}

static uint64_t run_seed(uint64_t seed, uint64_t *sum)
{
	const char *wanted = getenv("SIM_STORM");
	const struct storm *storm = wanted ? storm_named(wanted) : storm_of(seed);
	struct run *run = cluster_run_begin(&(struct cluster_run_options){
		.seed = seed, .break_per_million = seed % 3 == 0 ? 500 : 20, .late_per_million = 500000, .never_sync = seed % 11 == 0,
		.balances = seed % 20 == 3, .loses_one = seed % 10 == 0, .cools = cools(seed), .chunkservers = servers_of(seed) });
	check(storm != NULL);
	if (seed % 16 == 9) {
		want_copies(run, REPLICAS_DEFAULT + 1, 0);
		cluster_run_until(run, has_more_copies, run, MORE_US, "one copy more of everything");
		want_copies(run, REPLICAS_DEFAULT, 1);
		cluster_run_until(run, begins_to_leave, run, MORE_US, "it begins to leave");
	}
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
