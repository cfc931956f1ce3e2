#include "tests/sim/disks_blobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chunkserver.h"
#include "chunkserver/pack.h"
#include "chunkserver/service.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"

#define ACTORS 3u
#define BLOBS_MAX 120u
#define BYTES_MAX 5000u
#define PACKS_MAX 200u
#define SLOTS_MAX 512u
#define ROTTEN_MAX 400u
#define QUIET_US (CHUNK_IDLE_SYNC_MS * 1000ull * 3 / 2)

struct blob {
	struct file_io *io; /* NULL: emptied */
	size_t size;
	uint64_t pack;
	uint32_t slot; /* 0: not written yet */
	bool busy; /* somebody writes, reads or empties it */
};

/* Does one thing at a time. */
struct actor {
	struct blobs *blobs;
	struct timer timer;
	struct blob *blob;
	bool idle;
};

/* What one chunkserver has of a pack. */
struct holding {
	uint64_t pack;
	unsigned server;
	uint8_t slots[SLOTS_MAX / 8];
};

struct blobs {
	struct world *world;
	struct client *client;
	struct actor actors[ACTORS];
	struct blob blobs[BLOBS_MAX];
	unsigned count, made, reads;
	bool ending;
	struct holding holdings[PACKS_MAX];
	unsigned holding_count;
	uint64_t rotten[ROTTEN_MAX]; /* packs */
	unsigned rotten_count;
	char wrong[160];
};

static uint64_t roll(const struct blobs *blobs, uint64_t bound)
{
	return rng_below(sim_rng(blobs->world->sim), bound);
}

_Noreturn static void failed(struct blobs *blobs, const char *what, const struct blob *blob, const char *why)
{
	sim_print_trace(blobs->world->sim, stderr);
	fprintf(stderr, "sim_disks: blob %td: %s: %s\n", blob == NULL ? -1 : blob - blobs->blobs, what, why);
	abort();
}

/* ---- the client ---- */

static uint8_t byte_of(const struct blobs *blobs, const struct blob *blob, size_t at)
{
	return (uint8_t)((size_t)(blob - blobs->blobs) * 31 + at * 7 + at / 256);
}

static void next(struct actor *actor)
{
	if (actor->blob != NULL)
		actor->blob->busy = false;
	actor->blob = NULL;
	actor->idle = true;
	timer_start(&actor->timer, 1 + roll(actor->blobs, 150));
}

static void stored(void *arg, enum err err)
{
	struct actor *actor = arg;
	if (err != OK)
		failed(actor->blobs, "write", actor->blob, err_name(err));
	const Granary__Inode *attr = file_io_attr(actor->blob->io);
	if (attr->layout != GRANARY__LAYOUT__LAYOUT_BLOB)
		failed(actor->blobs, "write", actor->blob, "it is not in a pack");
	actor->blob->pack = attr->pack;
	actor->blob->slot = attr->slot;
	actor->blobs->made++;
	next(actor);
}

static void written(void *arg, enum err err)
{
	struct actor *actor = arg;
	check(err == OK);
	/* Also what is never synced survives the loss of one copy. */
	(roll(actor->blobs, 3) == 0 ? file_io_sync : file_io_flush)(actor->blob->io, stored, actor);
}

static void created(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	struct blobs *blobs = actor->blobs;
	struct blob *blob = actor->blob;
	uint8_t bytes[BYTES_MAX];
	check(err == OK && reply->n_results == 1 && reply->results[0]->error == 0);
	client_note_opened(blobs->client, reply->results[0]->inode);
	blob->io = file_io_open(blobs->client, reply->results[0]->inode, reply->results[0]->attr);
	blob->size = 1 + roll(blobs, roll(blobs, 4) == 0 ? BYTES_MAX : 300);
	for (size_t i = 0; i < blob->size; i++)
		bytes[i] = byte_of(blobs, blob, i);
	file_io_write(blob->io, 0, slice_of(bytes, blob->size), written, actor);
}

static void make(struct actor *actor)
{
	struct blobs *blobs = actor->blobs;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[] = { &op };
	Granary__Create create = GRANARY__CREATE__INIT;
	char name[16];
	actor->blob = &blobs->blobs[blobs->count];
	actor->blob->busy = true;
	snprintf(name, sizeof name, "blob%u", blobs->count++);
	create.parent = 1;
	create.name = message_borrow(slice_text(name));
	create.mode = MODE_FILE | 0600;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	client_meta(blobs->client, ops, 1, created, actor);
}

static void was_read(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct actor *actor = arg;
	struct blobs *blobs = actor->blobs;
	size_t at = 0;
	if (err != OK)
		failed(blobs, "read", actor->blob, err_name(err));
	for (size_t i = 0; i < part_count; i++) {
		for (size_t j = 0; j < parts[i].size; j++, at++)
			if (at >= actor->blob->size || parts[i].bytes[j] != byte_of(blobs, actor->blob, at))
				failed(blobs, "read", actor->blob, "not what was written");
	}
	if (at != actor->blob->size)
		failed(blobs, "read", actor->blob, "too short");
	blobs->reads++;
	next(actor);
}

static void emptied(void *arg, enum err err)
{
	struct actor *actor = arg;
	if (err != OK)
		failed(actor->blobs, "truncate", actor->blob, err_name(err));
	file_io_close(actor->blob->io);
	actor->blob->io = NULL;
	next(actor);
}

static void on_actor(void *arg)
{
	struct actor *actor = arg;
	struct blobs *blobs = actor->blobs;
	if (blobs->ending)
		return;
	actor->idle = false;
	/* Now and then packs have time to be synced, and are then changed again. */
	bool changes = sim_now_us(blobs->world->sim) / QUIET_US % 2 == 0;
	if (changes && blobs->count < BLOBS_MAX && (blobs->count < 4 || roll(blobs, 3) == 0)) {
		make(actor);
		return;
	}
	struct blob *blob = &blobs->blobs[roll(blobs, blobs->count)];
	if (blob->busy || blob->io == NULL) {
		next(actor);
		return;
	}
	actor->blob = blob;
	blob->busy = true;
	if (changes && roll(blobs, 8) == 0)
		file_io_truncate(blob->io, 0, emptied, actor);
	else
		file_io_read(blob->io, 0, blob->size, was_read, actor);
}

struct blobs *blobs_start(struct world *world, struct client *client, struct loop *loop)
{
	struct blobs *blobs = mem_zero(1, sizeof *blobs);
	blobs->world = world;
	blobs->client = client;
	for (unsigned i = 0; i < ACTORS; i++) {
		blobs->actors[i].blobs = blobs;
		timer_init(&blobs->actors[i].timer, loop, on_actor, &blobs->actors[i]);
		next(&blobs->actors[i]);
	}
	return blobs;
}

void blobs_stop(struct blobs *blobs)
{
	for (unsigned i = 0; i < ACTORS; i++)
		timer_stop(&blobs->actors[i].timer);
	free(blobs);
}

void blobs_finish(struct blobs *blobs)
{
	blobs->ending = true;
}

bool blobs_finished(const struct blobs *blobs)
{
	for (unsigned i = 0; i < ACTORS; i++)
		if (!blobs->actors[i].idle)
			return false;
	return true;
}

unsigned blobs_made(const struct blobs *blobs)
{
	return blobs->made;
}

unsigned blobs_read(const struct blobs *blobs)
{
	return blobs->reads;
}

/* ---- what the chunkservers hold ---- */

static bool wrong(struct blobs *blobs, uint64_t pack, uint32_t slot, unsigned server, const char *what)
{
	snprintf(blobs->wrong, sizeof blobs->wrong, "pack %016" PRIx64 ", slot %" PRIu32 " at server %u: %s", pack, slot, server + 1, what);
	return false;
}

struct look {
	struct blobs *blobs;
	unsigned server;
	bool good;
};

/* The record that says that another was deleted may be damaged: that one is back then, here and where it is taken to from here, rotten
 * or not. */
static bool may_be_back(const struct blobs *blobs, uint64_t pack)
{
	for (unsigned i = 0; i < blobs->rotten_count; i++)
		if (blobs->rotten[i] == pack)
			return true;
	return false;
}

/* As it lies on the disk. */
static bool look_at_pack(void *arg, const Granary__ChunkLocation *location)
{
	struct look *look = arg;
	struct blobs *blobs = look->blobs;
	struct node *node = world_node(blobs->world, NODE_CHUNKSERVER, look->server);
	struct chunk_store *store = chunkserver_service(node->chunkserver)->store;
	struct holding *holding = &blobs->holdings[blobs->holding_count];
	struct buf bad = { 0 };
	struct pack pack;
	if (location->kind != GRANARY__CHUNK_KIND__CHUNK_PACK)
		return true;
	if (location->copy != COPY_COMPLETE) {
		look->good = wrong(blobs, location->chunk, 0, look->server, "not complete");
		return false;
	}
	check(blobs->holding_count < PACKS_MAX);
	char *path = store_files_path(chunk_store_files(store), location->chunk, KIND_PACK);
	look->good = pack_open(node->loop, path, location->chunk, slice_of(NULL, 0), &pack) == OK;
	free(path);
	if (!look->good) {
		look->good = wrong(blobs, location->chunk, 0, look->server, "cannot be opened");
		return false;
	}
	check(pack.slot_count <= SLOTS_MAX && pack_check(&pack, NULL, &bad) == OK);
	look->good = bad.size == 0 || may_be_back(blobs, location->chunk) ||
		     wrong(blobs, location->chunk, 0, look->server, "a record does not check");
	*holding = (struct holding){ .pack = location->chunk, .server = look->server };
	pack_write_bits(&pack, false, holding->slots);
	blobs->holding_count++;
	buf_deinit(&bad);
	pack_close(&pack);
	return look->good;
}

void blobs_note_rot(struct blobs *blobs, uint64_t pack)
{
	check(blobs->rotten_count < ROTTEN_MAX);
	blobs->rotten[blobs->rotten_count++] = pack;
}

/* An append that was never answered may be here and not there: it is nobody's. */
static bool all_hold(struct blobs *blobs, const struct blob *blob)
{
	for (unsigned i = 0; i < blobs->holding_count; i++) {
		const struct holding *holding = &blobs->holdings[i];
		uint32_t bit = blob->slot - 1;
		bool here = (holding->slots[bit / 8] >> bit % 8 & 1) != 0;
		if (holding->pack != blob->pack || here == (blob->io != NULL) || (here && may_be_back(blobs, blob->pack)))
			continue;
		return wrong(blobs, blob->pack, blob->slot, holding->server,
			     here ? "the record of a file that was emptied is there" : "the record of a file is missing");
	}
	return true;
}

bool blobs_are_whole(void *arg)
{
	struct blobs *blobs = arg;
	struct look look = { .blobs = blobs, .good = true };
	blobs->holding_count = 0;
	if (!world_is_replicated(blobs->world)) {
		snprintf(blobs->wrong, sizeof blobs->wrong, "chunks lack copies");
		return false;
	}
	for (; look.server < WORLD_CHUNKSERVERS && look.good; look.server++) {
		const struct node *node = world_node(blobs->world, NODE_CHUNKSERVER, look.server);
		check(chunk_store_each(chunkserver_service(node->chunkserver)->store, 0, look_at_pack, &look) == OK);
	}
	if (!look.good)
		return false;
	for (unsigned i = 0; i < blobs->count; i++) {
		const struct blob *blob = &blobs->blobs[i];
		if (blob->slot != 0 && !all_hold(blobs, blob))
			return false;
	}
	return true;
}

const char *blobs_wrong(const struct blobs *blobs)
{
	return blobs->wrong;
}
