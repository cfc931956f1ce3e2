/* Chunkservers' disks that rot, lose power, fail and run full, under clients that write and read files through client.h.
 *
 * Each round: one chunkserver's files get flipped bits (data, tables, headers) while it runs or while it is down, or it loses power, or its
 * disk gives errors (of writes and syncs, of all of them, or of reads) until its store fails and is opened again, or a chunk's file and all
 * that was noted of it are gone, or the file of a pack, or that and what was noted of it, or writes that the disk reported done went to the
 * place of another block, or nowhere, without or with their entries in the table of CRCs. At most one of the copies of a block is hurt at a
 * time: before the next round all are whole again, which is checked.
 * Checked: no reader ever gets a wrong byte (but from a sound copy that is old, before the scrub), or an error for what other copies have;
 * what was acknowledged is there; after each round, within one scrub, nothing is damaged or uncertain any more. One seed in four ends with a server that is the only one to have some chunks,
 * damaged: the rest of them gets a second copy, and all is whole again when those come back that were left out.
 *
 *	sim_disks [SEED [COUNT]] ...	see runner.h */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chunkserver/chunkserver.h"
#include "chunkserver/scrub.h"
#include "chunkserver/service.h"
#include "client/client.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "master/meta/meta.h"
#include "master/replica.h"
#include "tests/sim/cluster_world.h"
#include "tests/sim/disks_blobs.h"
#include "tests/sim/runner.h"

#define FILES 3u
#define UNKNOWN_MAX 2u
#define BLOCKS 80u
#define ROUNDS 6u
#define SEEDS 6u
#define ROUND_US 120000000u
#define SCRUB_DUE_MS (400ll * 86400000ll)

/* A file of blocks, each full of its version; one thing is done to it at a time. */
struct actor {
	struct program *program;
	unsigned number;
	struct file_io *io;
	struct timer timer;
	uint64_t inode;
	uint64_t versions[BLOCKS]; /* as written last */
	uint64_t first, count;
	uint32_t cut; /* so much of the first block is not written */
	uint8_t *bytes;
	bool ending, done;
};

struct program {
	struct world *world;
	struct loop *loop;
	struct client *client;
	struct actor actors[FILES];
	struct blobs *blobs;
	unsigned writes, reads, made, unknown;
	bool rests;	  /* files are left alone */
	bool reads_nothing; /* one copy may give what was there before */
};

struct run {
	struct world world;
	struct program *program;
	unsigned rotten, astray, lies, power_cuts, failures, lost;
	uint64_t passed_ms[WORLD_CHUNKSERVERS]; /* when the last whole scrub had ended */
};

static uint64_t roll(const struct world *world, uint64_t bound)
{
	return rng_below(sim_rng(world->sim), bound);
}

_Noreturn static void failed(struct world *world, const char *what, unsigned number, uint64_t block, const char *why)
{
	sim_print_trace(world->sim, stderr);
	fprintf(stderr, "sim_disks: file %u, block %" PRIu64 ": %s: %s\n", number, block, what, why);
	abort();
}

/* ---- the client ---- */

static void fill(uint8_t *block, uint64_t version, unsigned file, uint64_t number)
{
	for (uint32_t i = 0; i < BLOCK_BYTES; i += 16) {
		put_le64(block + i, version);
		put_le64(block + i + 8, version == 0 ? 0 : (uint64_t)file << 40 | number << 16 | i);
	}
}

static void next(struct actor *actor)
{
	timer_start(&actor->timer, roll(actor->program->world, 150));
}

static void write_range(struct actor *actor);

static void flushed(void *arg, enum err err)
{
	struct actor *actor = arg;
	/* While a write waited for one server another one was hit, too: nobody knows any more whether it was done. */
	if (err == ERR_RETRY_UNKNOWN && ++actor->program->unknown <= UNKNOWN_MAX) {
		write_range(actor);
		return;
	}
	if (err != OK)
		failed(actor->program->world, "sync", actor->number, actor->first, err_name(err));
	actor->program->writes++;
	next(actor);
}

static void written(void *arg, enum err err)
{
	struct actor *actor = arg;
	check(err == OK);
	free(actor->bytes);
	actor->bytes = NULL;
	/* Also what is never synced survives the loss of one copy. */
	(roll(actor->program->world, 3) == 0 ? file_io_sync : file_io_flush)(actor->io, flushed, actor);
}

static void write_range(struct actor *actor)
{
	actor->bytes = mem_alloc(actor->count * BLOCK_BYTES);
	for (uint64_t i = 0; i < actor->count; i++)
		fill(actor->bytes + i * BLOCK_BYTES, actor->versions[actor->first + i], actor->number, actor->first + i);
	file_io_write(actor->io, actor->first * BLOCK_BYTES + actor->cut,
		      slice_of(actor->bytes + actor->cut, actor->count * BLOCK_BYTES - actor->cut), written, actor);
}

/* Sometimes in parts of blocks: the rest of each then stays as it is, in the same version. */
static void write_some(struct actor *actor)
{
	const struct world *world = actor->program->world;
	actor->first = roll(world, BLOCKS);
	actor->count = 1 + roll(world, roll(world, 4) == 0 ? 40 : 3);
	if (actor->count > BLOCKS - actor->first)
		actor->count = BLOCKS - actor->first;
	bool parts = roll(world, 3) == 0;
	actor->cut = parts ? 16 * (uint32_t)(1 + roll(world, 100)) : 0;
	for (uint64_t i = 0; i < actor->count && !parts; i++)
		actor->versions[actor->first + i]++;
	write_range(actor);
}

static void read_done(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct actor *actor = arg;
	struct world *world = actor->program->world;
	size_t size = actor->count * BLOCK_BYTES, at = 0;
	uint8_t *bytes = mem_zero(1, size), expected[BLOCK_BYTES];
	if (err != OK)
		failed(world, "read", actor->number, actor->first, err_name(err));
	for (size_t i = 0; i < part_count; at += parts[i++].size)
		memcpy(bytes + at, parts[i].bytes, parts[i].size);
	for (uint64_t i = 0; i < actor->count; i++) {
		fill(expected, actor->versions[actor->first + i], actor->number, actor->first + i);
		if (memcmp(expected, bytes + i * BLOCK_BYTES, BLOCK_BYTES) != 0)
			failed(world, "read", actor->number, actor->first + i, "not what was written last");
	}
	free(bytes);
	actor->program->reads++;
	actor->done = actor->ending;
	next(actor);
}

static void on_actor(void *arg)
{
	struct actor *actor = arg;
	const struct world *world = actor->program->world;
	if (actor->done)
		return;
	if (actor->program->rests) {
		next(actor);
		return;
	}
	if (!actor->ending && (actor->program->reads_nothing || roll(world, 3) == 0)) {
		write_some(actor);
		return;
	}
	actor->first = actor->ending ? 0 : roll(world, BLOCKS);
	actor->count = actor->ending ? BLOCKS : 1 + roll(world, BLOCKS - actor->first);
	file_io_read(actor->io, actor->first * BLOCK_BYTES, actor->count * BLOCK_BYTES, read_done, actor);
}

static void made(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	check(err == OK && reply->n_results == FILES);
	for (unsigned i = 0; i < FILES; i++) {
		struct actor *actor = &program->actors[i];
		check(reply->results[i]->error == 0);
		actor->inode = reply->results[i]->inode;
		client_note_opened(program->client, actor->inode);
		actor->io = file_io_open(program->client, actor->inode, reply->results[i]->attr);
		next(actor);
	}
}

static void *client_start(struct world *world, unsigned number, struct loop *loop)
{
	struct program *program = mem_zero(1, sizeof *program);
	struct client_options options = { .cluster = WORLD_MASTER_ADDRESSES };
	Granary__MetaOp ops[FILES], *pointers[FILES];
	Granary__Create creates[FILES];
	char names[FILES][2];
	check(number == 0);
	program->world = world;
	program->loop = loop;
	check(client_open(loop, &options, &program->client) == OK);
	for (unsigned i = 0; i < FILES; i++) {
		program->actors[i] = (struct actor){ .program = program, .number = i };
		timer_init(&program->actors[i].timer, loop, on_actor, &program->actors[i]);
		granary__meta_op__init(&ops[i]);
		granary__create__init(&creates[i]);
		names[i][0] = (char)('A' + i);
		names[i][1] = 0;
		creates[i].parent = 1;
		creates[i].name = message_borrow(slice_text(names[i]));
		creates[i].mode = MODE_FILE | 0600;
		ops[i].op_case = GRANARY__META_OP__OP_CREATE;
		ops[i].create = &creates[i];
		pointers[i] = &ops[i];
	}
	client_meta(program->client, pointers, FILES, made, program);
	program->blobs = blobs_start(world, program->client, loop);
	((struct run *)world->arg)->program = program;
	return program;
}

static void client_stop(void *arg)
{
	struct program *program = arg;
	for (unsigned i = 0; i < FILES; i++)
		program->actors[i].done = true;
	client_close(program->client);
	for (unsigned i = 0; i < FILES; i++) {
		timer_stop(&program->actors[i].timer);
		free(program->actors[i].bytes);
	}
	blobs_stop(program->blobs);
	free(program);
}

/* ---- the disks ---- */

/* Where a simulated chunkserver keeps the chunks of our files. */
static char *path_of(uint64_t chunk, enum chunk_kind kind)
{
	struct store_files files = { .root = "data" };
	return store_files_path(&files, chunk, kind);
}

static void rot_chunk(struct run *run, struct node *node, const Granary__ChunkLocation *location)
{
	bool pack = location->kind == GRANARY__CHUNK_KIND__CHUNK_PACK;
	uint32_t data_offset = pack ? PACK_DATA_OFFSET : CHUNK_DATA_OFFSET;
	char *path = path_of(location->chunk, pack ? KIND_PACK : KIND_REPLICATED);
	for (unsigned i = 0; i < 6; i++) {
		uint64_t offset = roll(&run->world, 10) == 0 ? roll(&run->world, data_offset) :
							       data_offset + roll(&run->world, pack ? 20000 : BLOCKS * BLOCK_BYTES);
		run->rotten += sim_host_flip_bit(node->host, path, offset, (unsigned)roll(&run->world, 8));
	}
	free(path);
	if (pack)
		blobs_note_rot(run->program->blobs, location->chunk);
}

struct rot {
	struct run *run;
	struct node *node;
};

static bool rot_one(void *arg, const Granary__ChunkLocation *location)
{
	struct rot *rot = arg;
	rot_chunk(rot->run, rot->node, location);
	return true;
}

static struct chunk_store *store_of(const struct node *node)
{
	return chunkserver_service(node->chunkserver)->store;
}

/* ---- writes that the disk reported done: some went to the place of another block, some nowhere ---- */

#define STRAY_MAX 32u

struct stray {
	uint64_t chunk;
	uint32_t block; /* its place; of a lost write: what it had before */
	uint8_t bytes[BLOCK_BYTES], entry[4];
};

struct strays {
	struct run *run;
	struct node *node;
	bool lost;
	unsigned count;
	struct stray strays[STRAY_MAX];
};

static bool take_strays(void *arg, const Granary__ChunkLocation *location)
{
	struct strays *strays = arg;
	if (location->kind != GRANARY__CHUNK_KIND__CHUNK_REPLICATED)
		return true;
	char *path = path_of(location->chunk, KIND_REPLICATED);
	for (unsigned i = 0; i < 4 && strays->count < STRAY_MAX; i++) {
		struct stray *stray = &strays->strays[strays->count];
		uint64_t from = roll(&strays->run->world, BLOCKS);
		stray->chunk = location->chunk;
		stray->block = (uint32_t)(strays->lost ? from : roll(&strays->run->world, BLOCKS));
		strays->count +=
			sim_host_read_file(strays->node->host, path, CHUNK_DATA_OFFSET + from * BLOCK_BYTES, stray->bytes, BLOCK_BYTES) &&
			sim_host_read_file(strays->node->host, path, CHUNK_CRCS_OFFSET + from * 4, stray->entry, sizeof stray->entry);
	}
	free(path);
	return true;
}

static unsigned put_strays(const struct strays *strays, bool entries)
{
	struct sim_host *host = strays->node->host;
	unsigned put = 0;
	for (unsigned i = 0; i < strays->count; i++) {
		const struct stray *stray = &strays->strays[i];
		char *path = path_of(stray->chunk, KIND_REPLICATED);
		put += sim_host_put(host, path, CHUNK_DATA_OFFSET + (uint64_t)stray->block * BLOCK_BYTES, stray->bytes, BLOCK_BYTES) &&
		       (!entries || sim_host_put(host, path, CHUNK_CRCS_OFFSET + (uint64_t)stray->block * 4, stray->entry, sizeof stray->entry));
		free(path);
	}
	return put;
}

static void lead_astray(struct run *run, struct node *node, bool lost)
{
	struct strays *strays = mem_zero(1, sizeof *strays);
	*strays = (struct strays){ .run = run, .node = node, .lost = lost };
	sim_trace(run->world.sim, "%s at server %u", lost ? "lost writes" : "misdirected writes", node->number + 1);
	check(chunk_store_each(store_of(node), 0, take_strays, strays) == OK);
	if (lost) /* what is written until then is lost */
		sim_run(run->world.sim, 500000 + roll(&run->world, 2000000), NULL, NULL);
	run->astray += put_strays(strays, false);
	free(strays);
}

/* Both: a sound copy of what was there before. The process has to have forgotten the table, and the chunk to be clean: who returns with
 * a dirty one compares it with its successor's. */
static void lie(struct run *run, struct node *node)
{
	struct strays *strays = mem_zero(1, sizeof *strays);
	*strays = (struct strays){ .run = run, .node = node, .lost = true };
	sim_trace(run->world.sim, "writes lost with their checksums at server %u", node->number + 1);
	check(chunk_store_each(store_of(node), 0, take_strays, strays) == OK);
	sim_run(run->world.sim, 500000 + roll(&run->world, 2000000), NULL, NULL);
	run->program->rests = true;
	sim_run(run->world.sim, CHUNK_IDLE_SYNC_MS * 2000ull, NULL, NULL);
	run->program->rests = false;
	run->program->reads_nothing = true;
	node_stop(node, false);
	run->lies += put_strays(strays, true);
	free(strays);
	node_start(node);
}

static void restart(struct node *node, bool power)
{
	struct world *world = node->world;
	node_stop(node, power);
	sim_run(world->sim, 200000 + roll(world, 500000), NULL, NULL);
	node_start(node);
}

/* ---- a file and what the index says of it are gone ---- */

struct loss {
	struct run *run;
	struct node *node;
	uint64_t chunk;
	unsigned candidates;
};

static bool choose_lost(void *arg, const Granary__ChunkLocation *location)
{
	struct loss *loss = arg;
	if (location->kind == GRANARY__CHUNK_KIND__CHUNK_REPLICATED && location->copy == COPY_COMPLETE &&
	    roll(&loss->run->world, ++loss->candidates) == 0)
		loss->chunk = location->chunk;
	return true;
}

static void remove_file(const struct loss *loss, enum chunk_kind kind)
{
	struct chunk_index index;
	char *path = path_of(loss->chunk, kind);
	struct loop *loop = sim_process_open(loss->node->host, "hand");
	check(store_files_remove(loop, path, NULL) == OK && chunk_index_open(loop, "data/index", &index) == OK);
	check(chunk_index_delete(&index, loss->chunk) == OK);
	chunk_index_close(&index);
	loop_close(loop);
	free(path);
}

/* It is there again, or the chunk has gone on without that server. */
static bool is_made_good(void *arg)
{
	const struct loss *loss = arg;
	struct world *world = &loss->run->world;
	const struct node *leader = world_leader(world);
	Granary__Chunk *chunk = NULL;
	bool good = false;
	if (leader == NULL || meta_chunk(replica_meta(node_replica(leader)), loss->chunk, &chunk) != OK)
		return false;
	const struct chunk *copy = chunk_store_find(store_of(loss->node), loss->chunk);
	good = copy != NULL && copy->state == CHUNK_READY && !copy->uncertain;
	bool member = false;
	for (size_t i = 0; i < chunk->n_replicas; i++)
		member = member || chunk->replicas[i] == chunkserver_id(loss->node->chunkserver);
	message_free(&chunk->base);
	return good || !member;
}

static void lose_file(struct run *run, struct node *node)
{
	struct loss loss = { .run = run, .node = node };
	check(chunk_store_each(store_of(node), 0, choose_lost, &loss) == OK);
	if (loss.candidates == 0)
		return;
	sim_trace(run->world.sim, "chunk %016" PRIx64 " is gone from server %u", loss.chunk, node->number + 1);
	run->lost++;
	node_stop(node, false);
	remove_file(&loss, KIND_REPLICATED);
	node_start(node);
	if (!sim_run(run->world.sim, ROUND_US, is_made_good, &loss))
		failed(&run->world, "a chunk whose file was lost", 0, 0, "is not made good though it is written to");
}

static bool choose_pack(void *arg, const Granary__ChunkLocation *location)
{
	struct loss *loss = arg;
	if (location->kind == GRANARY__CHUNK_KIND__CHUNK_PACK && location->copy == COPY_COMPLETE &&
	    roll(&loss->run->world, ++loss->candidates) == 0)
		loss->chunk = location->chunk;
	return true;
}

/* The file of a pack goes while the server has it open, or is down; then what the index says of it may be gone, too. */
static void lose_pack(struct run *run, struct node *node)
{
	struct loss loss = { .run = run, .node = node };
	bool down = roll(&run->world, 2) == 0;
	check(chunk_store_each(store_of(node), 0, choose_pack, &loss) == OK);
	if (loss.candidates == 0)
		return;
	sim_trace(run->world.sim, "the file of pack %016" PRIx64 " is gone from server %u", loss.chunk, node->number + 1);
	run->lost++;
	if (down)
		node_stop(node, false);
	if (down && roll(&run->world, 2) == 0) {
		remove_file(&loss, KIND_PACK);
		node_start(node);
		return;
	}
	char *path = path_of(loss.chunk, KIND_PACK);
	struct loop *loop = sim_process_open(node->host, "hand");
	check(store_files_remove(loop, path, NULL) == OK);
	loop_close(loop);
	free(path);
	if (down)
		node_start(node);
}

static bool has_two_others(void *arg, const Granary__ChunkLocation *location)
{
	*(bool *)arg = *(bool *)arg && (location->n_replicas >= 3 || location->kind == GRANARY__CHUNK_KIND__CHUNK_PACK);
	return true;
}

static bool has_others(void *arg, const Granary__ChunkLocation *location)
{
	*(bool *)arg = *(bool *)arg && location->n_replicas >= 2;
	return true;
}

/* Chains get shorter as servers fail: the last copy is not hurt, nothing could be right then. */
static bool may_be_hurt(const struct node *node)
{
	bool may = true;
	check(chunk_store_each(store_of(node), 0, has_others, &may) == OK);
	return may;
}

static void hurt(struct run *run, struct node *node)
{
	struct rot rot = { run, node };
	struct sim_disk_faults faults = { .sync_error_per_million = 500000, .write_error_per_million = 100000 };
	bool may_lie = true;
	if (!may_be_hurt(node))
		return;
	switch (roll(&run->world, 9)) {
	case 0:
		sim_trace(run->world.sim, "rot while server %u runs", node->number + 1);
		check(chunk_store_each(store_of(node), 0, rot_one, &rot) == OK);
		break;
	case 1:
		sim_trace(run->world.sim, "rot, then a kill of server %u", node->number + 1);
		check(chunk_store_each(store_of(node), 0, rot_one, &rot) == OK);
		restart(node, false);
		break;
	case 2:
		sim_trace(run->world.sim, "power cut of server %u", node->number + 1);
		run->power_cuts++;
		restart(node, true);
		break;
	case 3:
		lose_file(run, node);
		break;
	case 4:
		lose_pack(run, node);
		break;
	case 5:
		lead_astray(run, node, true);
		break;
	case 6:
		lead_astray(run, node, false);
		break;
	case 7:
		check(chunk_store_each(store_of(node), 0, has_two_others, &may_lie) == OK);
		if (may_lie)
			lie(run, node);
		break;
	default:
		if (roll(&run->world, 3) == 0) /* as after a read-only remount */
			faults = (struct sim_disk_faults){ .sync_error_per_million = 1000000, .write_error_per_million = 1000000 };
		else if (roll(&run->world, 2) == 0)
			faults = (struct sim_disk_faults){ .read_error_per_million = 200000 };
		sim_trace(run->world.sim, "disk errors at server %u", node->number + 1);
		sim_host_set_disk(node->host, &faults);
		sim_run(run->world.sim, 2000000, NULL, NULL);
		sim_host_set_disk(node->host, &(struct sim_disk_faults){ 0 });
		/* As main.c does with a store that has failed. */
		if (chunk_store_failed(store_of(node))) {
			run->failures++;
			restart(node, false);
		}
		break;
	}
}

/* ---- the run ---- */

static bool is_scrubbed(const struct node *node)
{
	Granary__DiskHealth health = GRANARY__DISK_HEALTH__INIT;
	struct chunk_store_counts counts;
	scrub_report(chunkserver_service(node->chunkserver)->scrub, &health);
	chunk_store_counts(store_of(node), &counts);
	return health.scrub_ended && counts.uncertain == 0 && counts.damage_repaired >= counts.damage_found;
}

static bool scrubbed(void *arg)
{
	struct run *run = arg;
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		if (!is_scrubbed(world_node(&run->world, NODE_CHUNKSERVER, i)))
			return false;
	return true;
}

static void scrub_all(struct run *run, uint64_t id)
{
	Granary__ScrubCommand command = GRANARY__SCRUB_COMMAND__INIT;
	command.id = id;
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		scrub_demand(chunkserver_service(world_node(&run->world, NODE_CHUNKSERVER, i)->chunkserver)->scrub, &command);
	if (!sim_run(run->world.sim, ROUND_US, scrubbed, run))
		failed(&run->world, "scrub", 0, id, "something is damaged or uncertain for ever");
}

/* ---- the scrub that nobody asked for */

static uint64_t passed_ms(const struct node *node)
{
	Granary__DiskHealth health = GRANARY__DISK_HEALTH__INIT;
	scrub_report(chunkserver_service(node->chunkserver)->scrub, &health);
	return health.scrub_passed_ms;
}

static bool passed_by_itself(void *arg)
{
	struct run *run = arg;
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++) {
		const struct node *node = world_node(&run->world, NODE_CHUNKSERVER, i);
		struct chunk_store_counts counts;
		chunk_store_counts(store_of(node), &counts);
		if (passed_ms(node) == run->passed_ms[i] || counts.damage_repaired < counts.damage_found)
			return false;
	}
	return true;
}

/* As after weeks. */
static void wait_for_schedule(struct run *run)
{
	struct node *rotten = NULL;
	struct chunk_store_counts before = { 0 }, after;
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++) { /* the one with most chunks: some of the bits hit what counts */
		struct node *node = world_node(&run->world, NODE_CHUNKSERVER, i);
		chunk_store_counts(store_of(node), &after);
		if (rotten == NULL || after.chunks > before.chunks) {
			rotten = node;
			before = after;
		}
	}
	if (!may_be_hurt(rotten))
		return;
	struct rot rot = { run, rotten };
	sim_trace(run->world.sim, "rot at server %u, and the scrubs are due", rotten->number + 1);
	unsigned bits = run->rotten;
	check(chunk_store_each(store_of(rotten), 0, rot_one, &rot) == OK);
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++) {
		const struct node *node = world_node(&run->world, NODE_CHUNKSERVER, i);
		run->passed_ms[i] = passed_ms(node);
		sim_host_set_clock(node->host, SCRUB_DUE_MS, 0);
	}
	if (!sim_run(run->world.sim, ROUND_US, passed_by_itself, run))
		failed(&run->world, "scheduled scrub", 0, 0, "it has not ended, or something is damaged");
	chunk_store_counts(store_of(rotten), &after);
	check(run->rotten == bits || after.damage_found > before.damage_found);
}

static bool all_read(void *arg)
{
	const struct run *run = arg;
	for (unsigned i = 0; i < FILES; i++)
		if (!run->program->actors[i].done)
			return false;
	return blobs_finished(run->program->blobs);
}

/* ---- the only copy is damaged ---- */

struct alone {
	struct run *run;
	struct node *last, *spare;
	uint64_t chunks[FILES * 4];
	unsigned count;
};

static bool find_copy(const struct node *node, uint64_t chunk, Granary__ChunkLocation **out)
{
	return chunk_index_get(chunk_store_index(store_of(node)), chunk, out) == OK;
}

/* A block of each chunk that only `last` will have. */
static bool rot_alone(void *arg, const Granary__ChunkLocation *location)
{
	struct alone *alone = arg;
	struct world *world = &alone->run->world;
	Granary__ChunkLocation *there = NULL;
	/* Of a pack the copies that were left out are deleted (master/README.md): nobody would bring back what is hurt. */
	bool pack = location->kind == GRANARY__CHUNK_KIND__CHUNK_PACK;
	if (pack || location->copy != COPY_COMPLETE || find_copy(alone->spare, location->chunk, &there) || alone->count == FILES * 4) {
		if (there != NULL)
			message_free(&there->base);
		return true;
	}
	char *path = path_of(location->chunk, KIND_REPLICATED);
	uint64_t offset = CHUNK_DATA_OFFSET + roll(world, 40) * BLOCK_BYTES;
	if (sim_host_flip_bit(alone->last->host, path, offset, 3))
		alone->chunks[alone->count++] = location->chunk;
	free(path);
	return true;
}

static bool spare_has_all(void *arg)
{
	struct alone *alone = arg;
	bool all = true;
	for (unsigned i = 0; i < alone->count; i++) {
		Granary__ChunkLocation *there = NULL;
		all = all && find_copy(alone->spare, alone->chunks[i], &there) && there->copy == COPY_COMPLETE;
		if (there != NULL)
			message_free(&there->base);
	}
	return all;
}

/* The rest of it gets a second copy; and when a server comes back that was left out, and has the same, all is good again. */
static void lose_blocks(struct run *run)
{
	struct alone alone = { .run = run };
	unsigned first = (unsigned)roll(&run->world, WORLD_CHUNKSERVERS);
	struct node *servers[WORLD_CHUNKSERVERS];
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		servers[i] = world_node(&run->world, NODE_CHUNKSERVER, (first + i) % WORLD_CHUNKSERVERS);
	sim_run(run->world.sim, 10000000, NULL, NULL);
	alone.last = servers[0];
	for (unsigned i = 1; i < WORLD_CHUNKSERVERS && alone.count == 0; i++) {
		alone.spare = servers[i];
		check(chunk_store_each(store_of(alone.last), 0, rot_alone, &alone) == OK);
	}
	sim_trace(run->world.sim, "%u chunks are left on one server, and damaged there", alone.count);
	for (unsigned i = 1; i < WORLD_CHUNKSERVERS; i++)
		if (servers[i] != alone.spare)
			node_stop(servers[i], false);
	if (!sim_run(run->world.sim, ROUND_US, spare_has_all, &alone))
		failed(&run->world, "lost blocks", 0, 0, "the others of the chunk get no second copy");
	for (unsigned i = 1; i < WORLD_CHUNKSERVERS; i++)
		if (servers[i] != alone.spare)
			node_start(servers[i]);
	sim_run(run->world.sim, 10000000, NULL, NULL);
	scrub_all(run, ROUNDS + 1);
}

static uint64_t run_seed(uint64_t seed, uint64_t *sum)
{
	struct run *run = mem_zero(1, sizeof *run);
	run->world = (struct world){ .clients = 1, .client_start = client_start, .client_stop = client_stop, .arg = run };
	world_open(&run->world, seed);
	sim_run(run->world.sim, 2000000, NULL, NULL);
	node_start(world_node(&run->world, NODE_CLIENT, 0));
	sim_run(run->world.sim, 5000000, NULL, NULL);
	for (unsigned round = 1; round <= ROUNDS; round++) {
		hurt(run, world_node(&run->world, NODE_CHUNKSERVER, (unsigned)roll(&run->world, WORLD_CHUNKSERVERS)));
		sim_run(run->world.sim, 3000000, NULL, NULL);
		scrub_all(run, round);
		run->program->reads_nothing = false;
	}
	for (unsigned i = 0; i < FILES; i++)
		run->program->actors[i].ending = true;
	blobs_finish(run->program->blobs);
	if (!sim_run(run->world.sim, ROUND_US, all_read, run))
		failed(&run->world, "the end", 0, 0, "not everything was answered");
	if (!sim_run(run->world.sim, ROUND_US, blobs_are_whole, run->program->blobs))
		failed(&run->world, "packs", 0, 0, blobs_wrong(run->program->blobs));
	check(run->program->writes > 20 && run->program->reads > 20);
	check(blobs_made(run->program->blobs) > 20 && blobs_read(run->program->blobs) > 20);
	if (seed % 4 == 0)
		lose_blocks(run);
	else if (seed % 4 == 1)
		wait_for_schedule(run);
	const uint64_t seen[] = { run->program->writes, run->program->reads, blobs_made(run->program->blobs), blobs_read(run->program->blobs),
				  run->rotten, run->astray, run->lies, run->power_cuts, run->failures, run->lost, run->program->unknown, sim_steps(run->world.sim),
				  sim_now_us(run->world.sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	uint64_t digest = sim_trace_digest(run->world.sim);
	world_close(&run->world);
	free(run);
	return digest;
}

static const char *const counts[] = { "writes", "reads", "blobs", "blobs read", "bits", "stray blocks", "old blocks", "power cuts", "failures", "lost files", "unknown", RUNNER_STEPS, RUNNER_MS, NULL };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_disks", .standard = SEEDS, .run = run_seed, .counts = counts
	};
	return runner_main(&runner, argc, argv);
}
