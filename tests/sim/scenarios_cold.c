#include <inttypes.h>

#include "chunkserver/chunkserver.h"
#include "chunkserver/cold_task.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/storage_class.h"
#include "master/replica.h"
#include "tests/sim/scenarios.h"

#define HOLDERS 2u /* as many as 2 + 2 and 4 + 2 shards can do without */
#define ROUNDS 3u
#define MAKING_US 6000000u
#define MAKER_US 60000u
#define TRIES 8u
#define TWICE 2u

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

static void answered(void *arg, enum err err, const ProtobufCMessage *reply)
{
	(void)arg;
	(void)err;
	(void)reply;
}

static void cut_off(struct run *run, struct node *node, bool cut)
{
	for (unsigned i = 0; i < WORLD_MASTERS; i++)
		scenario_cut_both(run, node, scenario_node(run, NODE_MASTER, i), cut);
}

static void slow_disk(const struct node *node, uint64_t us)
{
	sim_host_set_disk(node->host, &(struct sim_disk_faults){ .slow_us = us });
}

/* Making takes so long that the first one is heard again while the second is at it. */
static void slow_disks(struct run *run, uint64_t us)
{
	for (unsigned i = 0; i < world_chunkservers(&run->world); i++)
		slow_disk(scenario_node(run, NODE_CHUNKSERVER, i), us);
}

/* ---- who makes a shard anew, or a chunk cold or hot */

struct making {
	struct run *run;
	uint32_t task;
	struct node *maker, *other;
	struct cold_attempt attempt; /* of the maker */
};

static struct node *find_maker(struct making *making)
{
	struct run *run = making->run;
	for (unsigned i = 0; i < world_chunkservers(&run->world); i++) {
		struct node *node = scenario_node(run, NODE_CHUNKSERVER, i);
		const struct cold_task *task = node->loop && node != making->maker ? chunkserver_service(node->chunkserver)->cold_tasks : NULL;
		for (; task; task = task->next) {
			struct cold_attempt attempt = cold_task_attempt(task);
			if (attempt.task != making->task || (making->maker && attempt.chunk != making->attempt.chunk))
				continue;
			if (!making->maker)
				making->attempt = attempt;
			return node;
		}
	}
	return NULL;
}

static bool is_making(void *arg)
{
	struct making *making = arg;
	making->maker = find_maker(making);
	return making->maker != NULL;
}

/* The first one was quicker than the cut, or it is not wanted any more. */
static bool is_over(const struct making *making)
{
	struct node *leader = world_leader(&making->run->world);
	Granary__Chunk *chunk = NULL;
	if (!leader || !replica_can_read(node_replica(leader)))
		return false;
	if (meta_chunk(replica_meta(node_replica(leader)), making->attempt.chunk, &chunk) != OK)
		return true;
	bool over = making->task == COLD_REBUILD ? chunk->version >= making->attempt.version : chunk->cold == (making->task == COLD_COOL);
	message_free(&chunk->base);
	return over;
}

static bool is_made_by_another(void *arg)
{
	struct making *making = arg;
	making->other = find_maker(making);
	return making->other || is_over(making);
}

/* Who makes it does not hear the masters any more, and they do not hear it: it goes on, so slowly that it has noticed when it has done it, and another
 * makes it, too. While that one does, who is killed perhaps, the first is heard again, and says that it has. */
static bool make_twice(struct run *run, uint32_t task)
{
	struct making making = { .run = run, .task = task };
	if (!sim_run(run->world.sim, MAKING_US, is_making, &making))
		return false;
	sim_trace(run->world.sim, "%s makes %016" PRIx64 " and is cut off", making.maker->name, making.attempt.chunk);
	slow_disk(making.maker, MAKER_US + scenario_roll(run, MAKER_US));
	cut_off(run, making.maker, true);
	sim_run(run->world.sim, MAKING_US, is_made_by_another, &making);
	cut_off(run, making.maker, false);
	if (!making.other)
		return false;
	sim_trace(run->world.sim, "%016" PRIx64 " is made by %s, too", making.attempt.chunk, making.other->name);
	scenario_wait(run, scenario_roll(run, 1000000));
	if (scenario_roll(run, 2) == 0) {
		node_stop(making.other, false);
		node_start(making.other);
	}
	return true;
}

static void set_profile(struct run *run)
{
	const struct program *program = scenario_node(run, NODE_CLIENT, 0)->program;
	Granary__ClassesRequest request = GRANARY__CLASSES_REQUEST__INIT;
	Granary__SetClass change = GRANARY__SET_CLASS__INIT;
	Granary__StorageClass storage = GRANARY__STORAGE_CLASS__INIT;
	storage.name = (char *)(uintptr_t)STORAGE_CLASS_DEFAULT;
	check(storage_cold_parse("2+2", &storage.cold));
	change.class_ = &storage;
	request.change = &change;
	client_call_leader(program->client, MESSAGE_CLASSES, &request.base, answered, NULL);
}

static void make_some_twice(struct run *run, uint32_t task)
{
	unsigned twice = 0;
	slow_disks(run, 10000 + scenario_roll(run, 20000));
	for (unsigned try = 0; try < TRIES && twice < TWICE; try++)
		twice += make_twice(run, task);
	slow_disks(run, 0);
	run->counts.twice += twice;
}

/* Two are lost: nothing more may be, so that what they held is made anew soon. Of the seven servers enough are left that there are always others
 * who may make it. */
void play_rebuilt_twice(struct run *run)
{
	struct node *two[HOLDERS];
	set_profile(run);
	scenario_wait(run, 3000000 + scenario_roll(run, 400000));
	choose_two(run, two);
	for (unsigned i = 0; i < HOLDERS; i++)
		node_stop(two[i], false);
	make_some_twice(run, COLD_REBUILD);
	for (unsigned i = 0; i < HOLDERS; i++)
		node_start(two[i]);
	scenario_goes_on(run, 30, 15000000, "work when all are back");
}

void play_cooled_twice(struct run *run)
{
	set_profile(run);
	scenario_wait(run, scenario_roll(run, 400000));
	make_some_twice(run, COLD_COOL);
	make_some_twice(run, COLD_WARM);
	scenario_goes_on(run, 30, 15000000, "work when all are heard");
}
