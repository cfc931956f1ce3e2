/* 11_rot_cold: what disks do to shards. At most two servers are hit at a time, as many as a set can do without: bits flip, also of heads
 * and tables, and with the block's checksum (forged); blocks of other places and other shards, sound; files that are gone; reads that fail;
 * writes that the disk reported done, lost or somewhere else, while shards are made; one of the two is killed, and stays away until others
 * have made anew what it held.
 *
 * First while clients write and the operator has chunks made cold and hot; then at rest, all of them cold: no read fails any more, and
 * within one scrub every shard is right again, and nothing is reported damaged. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chunk_index.h"
#include "chunkserver/chunkserver.h"
#include "chunkserver/scrub.h"
#include "chunkserver/service.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "master/replica.h"
#include "tests/sim/cluster_shards.h"
#include "tests/sim/scenarios.h"

#define HIT 2u /* servers: 2 + 2 and 4 + 2 shards can do without two of a set */
#define ROUNDS 3u
#define SHARDS_OF_SERVER 256u
#define ROUND_US 90000000u
#define LOOK_US 500000u
#define LOOKS_PER_SCRUB 20u

struct shard {
	uint64_t id, owner;
	unsigned place;
};

struct victim {
	struct run *run;
	struct node *node;
	uint64_t server;
	bool rests; /* no chunk is becoming cold or hot */
	struct shard shards[SHARDS_OF_SERVER];
	unsigned count;
};

/* ---- shards of a server */

static bool take_shard(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct victim *victim = arg;
	if (chunk->kind != GRANARY__CHUNK_KIND__CHUNK_SHARD || chunk->replicas[0] != victim->server || chunk->rebuilding != 0)
		return true;
	victim->shards[victim->count++] = (struct shard){ .id = id, .owner = chunk->owner, .place = chunk->index };
	return victim->count < SHARDS_OF_SERVER;
}

static struct meta *leaders_meta(struct run *run)
{
	return replica_meta(node_replica(scenario_leader(run)));
}

static struct chunk_store *store_of(const struct node *node)
{
	return chunkserver_service(node->chunkserver)->store;
}

static void choose_victims(struct run *run, struct victim victims[HIT], bool rests)
{
	unsigned count = world_chunkservers(&run->world);
	unsigned first = (unsigned)scenario_roll(run, count), further = 1 + (unsigned)scenario_roll(run, count - 1);
	for (unsigned i = 0; i < HIT; i++) {
		struct node *node = scenario_node(run, NODE_CHUNKSERVER, (first + i * further) % count);
		victims[i] = (struct victim){ .run = run, .node = node, .server = chunkserver_id(node->chunkserver), .rests = rests };
		check(meta_each_chunk(leaders_meta(run), 0, take_shard, &victims[i]) == OK);
	}
}

static char *path_of(uint64_t shard)
{
	return store_files_path(&(struct store_files){ .root = "data" }, shard, KIND_REPLICATED);
}

/* ---- what is done to them */

static uint32_t blocks_of(const struct victim *victim, const char *path)
{
	uint8_t byte;
	uint32_t blocks = 0;
	while (sim_host_read_file(victim->node->host, path, CHUNK_DATA_OFFSET + (uint64_t)blocks * BLOCK_BYTES, &byte, 1))
		blocks++;
	return blocks;
}

static void flip(struct victim *victim, const struct shard *shard)
{
	char *path = path_of(shard->id);
	uint32_t blocks = blocks_of(victim, path);
	for (unsigned i = 0; i < 4 && blocks > 0; i++) {
		bool data = scenario_roll(victim->run, 4) != 0;
		uint64_t offset = data ? CHUNK_DATA_OFFSET + scenario_roll(victim->run, (uint64_t)blocks * BLOCK_BYTES) :
					 scenario_roll(victim->run, CHUNK_CRCS_OFFSET + 4ull * blocks);
		(void)sim_host_flip_bit(victim->node->host, path, offset, (unsigned)scenario_roll(victim->run, 8));
	}
	free(path);
}

/* The block and its entry in the file's table. The first one of the first parity shard is left: without a head there the scrub does not
 * see that it is one (chunkserver/README.md). */
static void put_block(struct victim *victim, const struct shard *shard, uint32_t block, const uint8_t *bytes)
{
	static const uint8_t zeros[BLOCK_BYTES];
	char *path = path_of(shard->id);
	uint8_t entry[4];
	put_le32(entry, crc32c(bytes, BLOCK_BYTES) ^ crc32c(zeros, BLOCK_BYTES));
	if (block > 0)
		(void)(sim_host_put(victim->node->host, path, CHUNK_DATA_OFFSET + (uint64_t)block * BLOCK_BYTES, bytes, BLOCK_BYTES) &&
		       sim_host_put(victim->node->host, path, CHUNK_CRCS_OFFSET + 4ull * block, entry, sizeof entry));
	free(path);
}

static bool get_block(struct victim *victim, const struct shard *shard, uint32_t *block, uint8_t *bytes)
{
	char *path = path_of(shard->id);
	uint32_t blocks = blocks_of(victim, path);
	*block = blocks > 0 ? (uint32_t)scenario_roll(victim->run, blocks) : 0;
	bool is_there = blocks > 0 &&
			sim_host_read_file(victim->node->host, path, CHUNK_DATA_OFFSET + (uint64_t)*block * BLOCK_BYTES, bytes, BLOCK_BYTES);
	free(path);
	return is_there;
}

/* Its process is down: it would know the table. */
static void forge(struct victim *victim, const struct shard *shard)
{
	uint8_t bytes[BLOCK_BYTES];
	uint32_t block;
	if (!get_block(victim, shard, &block, bytes))
		return;
	bytes[scenario_roll(victim->run, BLOCK_BYTES)] ^= (uint8_t)(1u << scenario_roll(victim->run, 8));
	put_block(victim, shard, block, bytes);
}

static void misplace(struct victim *victim, const struct shard *shard)
{
	uint8_t bytes[BLOCK_BYTES], other[BLOCK_BYTES];
	uint32_t from, to;
	const struct shard *source = &victim->shards[scenario_roll(victim->run, victim->count)];
	if (get_block(victim, source, &from, bytes) && get_block(victim, shard, &to, other))
		put_block(victim, shard, to, bytes);
}

/* If all trace of it goes between the proof and the master's word, only the next inventory finds that, within the hour. */
static void lose(struct victim *victim, const struct shard *shard)
{
	struct chunk_index index;
	char *path = path_of(shard->id);
	struct loop *loop = sim_process_open(victim->node->host, "hand");
	(void)!store_files_remove(loop, path, NULL); /* it may not have been made yet */
	if (victim->rests && scenario_roll(victim->run, 2) == 0) {
		check(chunk_index_open(loop, "data/index", &index) == OK);
		check(chunk_index_delete(&index, shard->id) == OK);
		chunk_index_close(&index);
	}
	loop_close(loop);
	free(path);
}

typedef void hurt_fn(struct victim *victim, const struct shard *shard);

static void hurt_some(struct victim *victim, hurt_fn *hurt)
{
	for (unsigned i = 0; i < victim->count; i++)
		if (scenario_roll(victim->run, 3) != 0)
			hurt(victim, &victim->shards[i]);
}

static void hurt_down(struct victim *victim, hurt_fn *hurt)
{
	node_stop(victim->node, false);
	hurt_some(victim, hurt);
	node_start(victim->node);
}

static void fail_reads(const struct victim *victim)
{
	struct node *node = victim->node;
	sim_host_set_disk(node->host, &(struct sim_disk_faults){ .read_error_per_million = 200000 });
	scenario_wait(victim->run, 2000000);
	sim_host_set_disk(node->host, &(struct sim_disk_faults){ 0 });
	if (chunk_store_failed(store_of(node))) { /* as main.c does */
		node_stop(node, false);
		node_start(node);
	}
}

enum { HURT_ROT, HURT_ROT_DOWN, HURT_FORGED, HURT_MISPLACED, HURT_LOST, HURT_READS, HURTS };

static void hurt(struct victim *victim)
{
	static const char *const names[HURTS] = { "rot", "rot while it is down", "forged blocks", "misplaced blocks", "lost files", "failed reads" };
	static hurt_fn *const fns[] = { flip, flip, forge, misplace, lose };
	unsigned kind = (unsigned)scenario_roll(victim->run, HURTS);
	sim_trace(victim->run->world.sim, "%s: %s, of %u shards", victim->node->name, names[kind], victim->count);
	if (kind == HURT_READS)
		fail_reads(victim);
	else if (kind == HURT_ROT)
		hurt_some(victim, fns[kind]);
	else
		hurt_down(victim, fns[kind]);
}

/* ---- after each round */

_Noreturn static void in_vain(const struct run *run, const char *what, const char *why)
{
	sim_print_trace(run->world.sim, stderr);
	fprintf(stderr, "in vain: %s: %s\n", what, why);
	abort();
}

struct round {
	struct run *run;
	struct meta *meta;
	uint64_t scrub;
	char why[160];
};

static bool is_scrubbed(struct round *round, const struct node *node)
{
	Granary__DiskHealth health = GRANARY__DISK_HEALTH__INIT;
	struct chunk_store_counts counts;
	scrub_report(chunkserver_service(node->chunkserver)->scrub, &health);
	chunk_store_counts(store_of(node), &counts);
	snprintf(round->why, sizeof round->why, "%s: scrub %" PRIu64 " ended: %d, uncertain %u, damaged %" PRIu64 ", repaired %" PRIu64 ", lost %" PRIu64, node->name,
		 health.scrub_id, health.scrub_ended, (unsigned)counts.uncertain, counts.damage_found, counts.damage_repaired, counts.damage_lost);
	return health.scrub_id == round->scrub && health.scrub_ended && counts.uncertain == 0 &&
	       counts.damage_repaired >= counts.damage_found && counts.damage_lost == 0;
}

static bool set_is_right(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct round *round = arg;
	char why[80];
	if (!chunk->cold || cluster_shards_look(&round->run->world, round->meta, chunk, 0, why, sizeof why))
		return true;
	snprintf(round->why, sizeof round->why, "cold chunk %016" PRIx64 ": %s", id, why);
	return false;
}

static bool all_is_right(struct round *round)
{
	round->why[0] = 0;
	for (unsigned i = 0; i < world_chunkservers(&round->run->world); i++)
		if (!is_scrubbed(round, scenario_node(round->run, NODE_CHUNKSERVER, i)))
			return false;
	round->why[0] = 0;
	round->meta = leaders_meta(round->run);
	check(meta_each_chunk(round->meta, 0, set_is_right, round) == OK);
	return round->why[0] == 0;
}

static void scrub_all(struct round *round)
{
	Granary__ScrubCommand command = GRANARY__SCRUB_COMMAND__INIT;
	command.id = ++round->scrub;
	for (unsigned i = 0; i < world_chunkservers(&round->run->world); i++)
		scrub_demand(chunkserver_service(scenario_node(round->run, NODE_CHUNKSERVER, i)->chunkserver)->scrub, &command);
}

/* once: what was there to be found when it began. While servers are busy with cold chunks a scrub leaves sets for the next one. */
static void repair_all(struct round *round, bool once)
{
	struct run *run = round->run;
	uint64_t end = sim_now_us(run->world.sim) + ROUND_US;
	scrub_all(round);
	for (unsigned looks = 1; !all_is_right(round); looks++) {
		if (sim_now_us(run->world.sim) >= end)
			in_vain(run, "all shards are right after a scrub", round->why);
		if (!once && looks % LOOKS_PER_SCRUB == 0)
			scrub_all(round);
		scenario_wait(run, LOOK_US);
	}
}

/* ---- the rounds */

/* One is away, and what it held is made anew, of shards of which more are hurt. */
static void lose_server(struct run *run, struct victim victims[HIT])
{
	sim_trace(run->world.sim, "%s is killed", victims[0].node->name);
	node_stop(victims[0].node, false);
	hurt(&victims[1]);
	cluster_run_until(run, world_has_all_copies, &run->world, ROUND_US, "what a lost server held is made anew though more is damaged");
	node_start(victims[0].node);
	scenario_wait(run, 3000000);
}

static bool is_converted(void *arg)
{
	return ((struct cold_actor *)arg)->converted;
}

/* Nobody writes: of all that the disks are told to keep only shards are wanted later. */
static void make_anew(struct run *run, struct victim victims[HIT])
{
	cluster_run_convert(run, true);
	for (unsigned i = 0; i < HIT; i++) {
		sim_trace(run->world.sim, "%s: writes are lost, and go elsewhere", victims[i].node->name);
		sim_host_set_disk(victims[i].node->host,
				  &(struct sim_disk_faults){ .lost_per_million = 50000, .misdirected_per_million = 50000 });
	}
	struct cold_actor *operator = &((struct program *)scenario_node(run, NODE_CLIENT, 0)->program)->cold;
	cold_convert(operator, false);
	scenario_wait(run, 200000 + scenario_roll(run, 1500000));
	for (unsigned i = 0; i < HIT; i++)
		sim_host_set_disk(victims[i].node->host, &(struct sim_disk_faults){ 0 });
	cluster_run_until(run, is_converted, operator, ROUND_US, "all chunks are cold after writes were lost");
}

static void play_round(struct run *run, bool rests)
{
	struct victim *victims = mem_alloc(HIT * sizeof *victims);
	uint64_t kind = scenario_roll(run, 6);
	choose_victims(run, victims, rests);
	if (rests && kind == 0) {
		make_anew(run, victims);
	} else if (rests && kind == 1) {
		lose_server(run, victims);
	} else {
		for (unsigned i = 0; i < HIT; i++)
			hurt(&victims[i]);
	}
	free(victims);
}

void play_rot_cold(struct run *run)
{
	struct round round = { .run = run };
	play_round(run, false);
	scrub_all(&round);
	scenario_wait(run, 500000 + scenario_roll(run, 1500000));
	cluster_run_rest(run);
	repair_all(&round, false);
	cluster_run_convert(run, false);
	for (unsigned i = 0; i < ROUNDS; i++) {
		play_round(run, true);
		cluster_run_read_again(run, "everything can be read though shards are damaged");
		repair_all(&round, true);
	}
}
