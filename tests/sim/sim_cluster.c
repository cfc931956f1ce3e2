/* A whole cluster under faults: masters, chunkservers and clients are killed, lose power, are paused, cut off; and clients write,
 * overwrite, sync, replace and read files through client.h meanwhile.
 *
 * Two kinds of files. A *table* is blocks of 4 KiB in chunks (some across the border of two chunks), each full of the version that was
 * written last; one client writes it, both read it. An *object* is replaced as a whole: written without a name, synced, linked.
 *
 * Checked:
 *   - what a flush or sync acknowledged is there for every client that reads later; each block is one version, old or new, never
 *     older than what was acknowledged or what another reader has seen, never one that was not written;
 *   - after a power cut of a chunkserver: at least what was synced;
 *   - an object is always one version, whole, at least the last one acknowledged; a reader finds the name at every time;
 *   - when the faults end everything is answered, everything can be read, and every chunk gets all of its copies again; also when a
 *     chunkserver is then lost for good: what is read afterwards is read from the new copies.
 *
 *	sim_cluster [SEED [COUNT [--expect-failure]]]	SIM_VERBOSE=1 in the environment shows the trace,
 *							SIM_UNSYNCED=1: tables are flushed, and never synced */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/client.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "tests/sim/cluster_world.h"

#define TABLES 4u
#define BLOCKS 96u
#define OBJECTS 3u
#define CLIENTS 2u
#define FAULTS_US 20000000u
#define CALM_US 90000000u
#define SEEDS 8u

/* What may be found in a block or object: versions from `least` to `last`. */
struct versions {
	uint64_t least;	 /* acknowledged, or seen by another than its writer */
	uint64_t own;	 /* accepted by the writer, which reads it back at once */
	uint64_t synced; /* survives a power cut */
	uint64_t last;	 /* written, whatever became of it */
};

struct table {
	uint64_t inode, base; /* where the first block is */
	struct versions blocks[BLOCKS];
	uint64_t covered[BLOCKS]; /* by the flush under way */
	bool damaged;		  /* a power cut met unsynced data: blocks may be lost, until the next sync */
};

struct history {
	struct table tables[TABLES];
	struct versions objects[OBJECTS];
	unsigned writes, flushes, reads, puts, gets, errors, seen_errors;
	unsigned power_cuts;
	bool unsynced; /* nobody ever syncs */
	bool ending;
};

struct program;

/* What a client does to one table, or one object; one thing at a time. */
struct actor {
	struct program *program;
	unsigned number;
	struct table *table;	  /* or */
	struct versions *object;
	struct file_io *io;
	struct timer timer;
	uint64_t inode, version, size;
	uint64_t first, count; /* blocks under way */
	uint64_t least[BLOCKS];
	unsigned power_cuts; /* when it began: one since may have taken back what was not synced */
	bool sync, checked;
	uint8_t *bytes;
};

struct program {
	struct world *world;
	struct history *history;
	unsigned number;
	struct loop *loop;
	struct client *client;
	struct actor actors[TABLES + OBJECTS];
	unsigned checked;
};

static struct rng *rng(const struct program *program)
{
	return sim_rng(program->world->sim);
}

_Noreturn static void wrong(const struct actor *actor, const char *what, uint64_t block, uint64_t found, const struct versions *versions,
			    uint64_t least)
{
	sim_print_trace(actor->program->world->sim, stderr);
	fprintf(stderr, "client %u, %s %u, block %" PRIu64 ": %s: found %" PRIu64 ", at least %" PRIu64 ", synced %" PRIu64
		", last %" PRIu64 "\n",
		actor->program->number, actor->table ? "table" : "object", actor->number, block, what, found, least,
		versions->synced, versions->last);
	abort();
}

static void actor_next(struct actor *actor)
{
	timer_start(&actor->timer, rng_below(rng(actor->program), 100));
}

static bool owns(const struct actor *actor)
{
	return actor->number % CLIENTS == actor->program->number;
}

static void failed(struct actor *actor, const char *what, enum err err)
{
	struct history *history = actor->program->history;
	sim_trace(actor->program->world->sim, "client %u %s %u: %s: %s", actor->program->number, actor->table ? "table" : "object",
		  actor->number, what, err_name(err));
	history->errors++;
	if (history->ending && !actor->table->damaged) { /* nothing is broken any more */
		sim_print_trace(actor->program->world->sim, stderr);
		abort();
	}
}

/* ---- tables ---- */

static void fill(uint8_t *block, uint64_t version, unsigned table, uint64_t number)
{
	for (uint32_t i = 0; i < BLOCK_BYTES; i += 16) {
		put_le64(block + i, version);
		put_le64(block + i + 8, version ? (uint64_t)table << 32 | number << 12 | i : 0);
	}
}

/* What the writer had accepted may be lost. */
static void forget_own(struct table *table)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		table->blocks[i].own = table->blocks[i].least;
}

static void table_write_done(void *arg, enum err err)
{
	struct actor *actor = arg;
	if (err) { /* it was not accepted */
		failed(actor, "write", err);
		forget_own(actor->table);
	}
	free(actor->bytes);
	actor->bytes = NULL;
	actor_next(actor);
}

static void table_write(struct actor *actor)
{
	struct table *table = actor->table;
	actor->first = rng_below(rng(actor->program), BLOCKS);
	actor->count = 1 + rng_below(rng(actor->program), rng_below(rng(actor->program), 4) == 0 ? BLOCKS : 3);
	if (actor->count > BLOCKS - actor->first)
		actor->count = BLOCKS - actor->first;
	actor->bytes = mem_alloc(actor->count * BLOCK_BYTES);
	for (uint64_t i = 0; i < actor->count; i++) {
		struct versions *block = &table->blocks[actor->first + i];
		block->own = ++block->last;
		fill(actor->bytes + i * BLOCK_BYTES, block->last, actor->number, actor->first + i);
	}
	actor->program->history->writes++;
	file_io_write(actor->io, table->base + actor->first * BLOCK_BYTES, slice_of(actor->bytes, actor->count * BLOCK_BYTES),
		      table_write_done, actor);
}

static void table_flushed(void *arg, enum err err)
{
	struct actor *actor = arg;
	struct table *table = actor->table;
	if (err) {
		failed(actor, "flush", err);
		forget_own(table);
	} else {
		actor->program->history->flushes++;
		for (unsigned i = 0; i < BLOCKS; i++) {
			struct versions *block = &table->blocks[i];
			bool stays = actor->sync || actor->power_cuts == actor->program->history->power_cuts;
			if (stays && block->least < table->covered[i])
				block->least = table->covered[i];
			if (actor->sync && block->synced < table->covered[i])
				block->synced = table->covered[i];
		}
		if (actor->sync)
			table->damaged = false;
	}
	actor_next(actor);
}

static void table_flush(struct actor *actor)
{
	actor->sync = rng_below(rng(actor->program), 2) == 0 || actor->program->history->ending;
	if (actor->program->history->unsynced)
		actor->sync = false;
	for (unsigned i = 0; i < BLOCKS; i++)
		actor->table->covered[i] = actor->table->blocks[i].own;
	(actor->sync ? file_io_sync : file_io_flush)(actor->io, table_flushed, actor);
}

static void check_block(struct actor *actor, uint64_t number, const uint8_t *bytes)
{
	struct versions *versions = &actor->table->blocks[number];
	uint64_t version = get_le64(bytes), least = actor->least[number];
	uint8_t whole[BLOCK_BYTES];
	fill(whole, version, actor->number, number);
	if (memcmp(whole, bytes, BLOCK_BYTES) != 0)
		wrong(actor, "not one version", number, version, versions, least);
	/* A power cut since the read began takes back what was not synced. */
	if (least > versions->own && least > versions->least)
		least = versions->least;
	if (version < least)
		wrong(actor, "too old", number, version, versions, least);
	if (version > versions->last)
		wrong(actor, "never written", number, version, versions, least);
	if (!owns(actor) && versions->least < version && actor->power_cuts == actor->program->history->power_cuts)
		versions->least = version;
}

static void table_read_done(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct actor *actor = arg;
	size_t size = actor->count * BLOCK_BYTES, at = 0;
	uint8_t *bytes = mem_zero(1, size);
	for (size_t i = 0; err == OK && i < part_count; i++) {
		check(parts[i].size <= size - at);
		memcpy(bytes + at, parts[i].bytes, parts[i].size);
		at += parts[i].size;
	}
	if (err == OK) {
		actor->program->history->reads++;
		for (uint64_t i = 0; i < actor->count; i++)
			check_block(actor, actor->first + i, bytes + i * BLOCK_BYTES);
	} else
		failed(actor, "read", err);
	free(bytes);
	if (actor->program->history->ending)
		actor->checked = err == OK || actor->table->damaged;
	actor_next(actor);
}

static void table_read(struct actor *actor)
{
	struct table *table = actor->table;
	bool all = actor->program->history->ending;
	actor->first = all ? 0 : rng_below(rng(actor->program), BLOCKS);
	actor->count = all ? BLOCKS : 1 + rng_below(rng(actor->program), 20);
	if (actor->count > BLOCKS - actor->first)
		actor->count = BLOCKS - actor->first;
	for (unsigned i = 0; i < BLOCKS; i++)
		actor->least[i] = owns(actor) ? table->blocks[i].own : table->blocks[i].least;
	file_io_read(actor->io, table->base + actor->first * BLOCK_BYTES, actor->count * BLOCK_BYTES, table_read_done, actor);
}

static void table_opened(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	if (err == OK)
		err = (enum err)reply->results[0]->error;
	if (err) {
		failed(actor, "open", err);
		client_note_closed(actor->program->client, actor->table->inode);
	} else
		actor->io = file_io_open(actor->program->client, actor->table->inode, reply->results[0]->attr);
	actor_next(actor);
}

static void inode_open(struct actor *actor, uint64_t inode, client_meta_fn *done)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Open open = GRANARY__OPEN__INIT;
	open.inode = inode;
	op.op_case = GRANARY__META_OP__OP_OPEN;
	op.open = &open;
	client_note_opened(actor->program->client, inode);
	client_meta(actor->program->client, (Granary__MetaOp *[]){ &op }, 1, done, actor);
}

static void table_step(struct actor *actor)
{
	actor->power_cuts = actor->program->history->power_cuts;
	uint64_t what = rng_below(rng(actor->program), 10);
	if (!actor->io)
		inode_open(actor, actor->table->inode, table_opened);
	else if (actor->program->history->ending)
		(owns(actor) && file_io_dirty(actor->io) ? table_flush : table_read)(actor);
	else if (owns(actor) && what < 4)
		table_write(actor);
	else if (owns(actor) && what < 6)
		table_flush(actor);
	else
		table_read(actor);
}

/* ---- objects ---- */

static uint64_t object_size(uint64_t version)
{
	return version % 5 == 0 ? 300000 + version * 16 : 16 + version * 7919 % 50000 / 16 * 16;
}

static void object_end(struct actor *actor)
{
	if (actor->io) {
		file_io_close(actor->io);
		client_note_closed(actor->program->client, actor->inode);
	}
	actor->io = NULL;
	free(actor->bytes);
	actor->bytes = NULL;
	actor_next(actor);
}

static void object_failed(struct actor *actor, const char *what, enum err err)
{
	sim_trace(actor->program->world->sim, "client %u object %u: %s: %s", actor->program->number, actor->number, what, err_name(err));
	actor->program->history->errors++;
	object_end(actor);
}

static enum err first_error(enum err err, const Granary__MetaReply *reply)
{
	for (size_t i = 0; err == OK && i < reply->n_results; i++)
		err = (enum err)reply->results[i]->error;
	return err;
}

static void object_linked(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	err = first_error(err, reply);
	if (err) {
		object_failed(actor, "link", err);
		return;
	}
	actor->program->history->puts++;
	if (actor->object->least < actor->version)
		actor->object->least = actor->object->synced = actor->version;
	object_end(actor);
}

static void object_synced(void *arg, enum err err)
{
	struct actor *actor = arg;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Link link = GRANARY__LINK__INIT;
	char name[2] = { (char)('a' + actor->number), 0 };
	if (err) {
		object_failed(actor, "sync", err);
		return;
	}
	link.inode = actor->inode;
	link.parent = 1;
	link.name = message_borrow(slice_text(name));
	link.replace = true;
	op.op_case = GRANARY__META_OP__OP_LINK;
	op.link = &link;
	client_meta(actor->program->client, (Granary__MetaOp *[]){ &op }, 1, object_linked, actor);
}

static void object_written(void *arg, enum err err)
{
	struct actor *actor = arg;
	check(err == OK);
	file_io_sync(actor->io, object_synced, actor);
}

static void object_created(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	err = first_error(err, reply);
	if (err) {
		object_failed(actor, "create", err);
		return;
	}
	actor->inode = reply->results[0]->inode;
	client_note_opened(actor->program->client, actor->inode);
	actor->io = file_io_open(actor->program->client, actor->inode, reply->results[0]->attr);
	actor->version = ++actor->object->last;
	actor->size = object_size(actor->version);
	actor->bytes = mem_alloc(actor->size);
	for (uint64_t i = 0; i < actor->size; i += 16) {
		put_le64(actor->bytes + i, actor->version);
		put_le64(actor->bytes + i + 8, i);
	}
	file_io_write(actor->io, 0, slice_of(actor->bytes, actor->size), object_written, actor);
}

static void object_put(struct actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;
	create.mode = MODE_FILE | 0600;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	client_meta(actor->program->client, (Granary__MetaOp *[]){ &op }, 1, object_created, actor);
}

static void object_read_done(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct actor *actor = arg;
	uint64_t at = 0;
	if (err) { /* replaced meanwhile, or the cluster is down */
		object_failed(actor, "read", err);
		return;
	}
	uint8_t *bytes = mem_alloc(actor->size + 1);
	for (size_t i = 0; i < part_count; i++) {
		memcpy(bytes + at, parts[i].bytes, parts[i].size);
		at += parts[i].size;
	}
	uint64_t version = at >= 8 ? get_le64(bytes) : 0;
	if (at != actor->size || at != object_size(version))
		wrong(actor, "not whole", at, version, actor->object, actor->version);
	for (uint64_t i = 0; i < at; i += 16)
		if (get_le64(bytes + i) != version || get_le64(bytes + i + 8) != i)
			wrong(actor, "not one version", i, version, actor->object, actor->version);
	if (version < actor->version)
		wrong(actor, "too old", 0, version, actor->object, actor->version);
	if (version > actor->object->last)
		wrong(actor, "never written", 0, version, actor->object, actor->version);
	if (actor->object->least < version)
		actor->object->least = version;
	free(bytes);
	actor->program->history->gets++;
	actor->checked = actor->program->history->ending;
	object_end(actor);
}

static void object_opened(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	err = first_error(err, reply);
	if (err) {
		client_note_closed(actor->program->client, actor->inode);
		object_failed(actor, "open", err);
		return;
	}
	actor->io = file_io_open(actor->program->client, actor->inode, reply->results[0]->attr);
	actor->size = file_io_attr(actor->io)->size;
	file_io_read(actor->io, 0, actor->size + 100, object_read_done, actor);
}

static void object_looked_up(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	err = first_error(err, reply);
	if (err == ERR_NOT_FOUND && actor->version > 0)
		wrong(actor, "the name is gone", 0, 0, actor->object, actor->version);
	if (err == ERR_NOT_FOUND)
		actor->checked = actor->program->history->ending;
	if (err) {
		object_failed(actor, "lookup", err);
		return;
	}
	actor->inode = reply->results[0]->inode;
	inode_open(actor, actor->inode, object_opened);
}

static void object_get(struct actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	char name[2] = { (char)('a' + actor->number), 0 };
	actor->version = actor->object->least;
	lookup.parent = 1;
	lookup.name = message_borrow(slice_text(name));
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	client_meta(actor->program->client, (Granary__MetaOp *[]){ &op }, 1, object_looked_up, actor);
}

static void object_step(struct actor *actor)
{
	if (!actor->program->history->ending && owns(actor) && rng_below(rng(actor->program), 2) == 0)
		object_put(actor);
	else
		object_get(actor);
}

/* ---- clients ---- */

static void on_actor(void *arg)
{
	struct actor *actor = arg;
	if (actor->checked)
		return;
	(actor->table ? table_step : object_step)(actor);
}

static void invalidate(void *arg, uint64_t inode, struct slice name, void (*done)(void *done_arg), void *done_arg)
{
	(void)arg;
	(void)inode;
	(void)name;
	done(done_arg);
}

/* What was buffered is lost. */
static void session_lost(void *arg)
{
	struct program *program = arg;
	for (unsigned i = program->number; i < TABLES; i += CLIENTS)
		forget_own(&program->history->tables[i]);
}

static const struct client_events events = { .invalidate = invalidate, .session_lost = session_lost };

static void *client_start(struct world *world, unsigned number, struct loop *loop)
{
	struct program *program = mem_zero(1, sizeof *program);
	struct client_options options = { .cluster = WORLD_MASTER_ADDRESSES, .events = &events, .events_arg = program };
	program->world = world;
	program->history = world->arg;
	program->number = number;
	program->loop = loop;
	check(client_open(loop, &options, &program->client) == OK);
	session_lost(program); /* with the process before this one */
	for (unsigned i = 0; i < TABLES + OBJECTS; i++) {
		struct actor *actor = &program->actors[i];
		actor->program = program;
		actor->number = i < TABLES ? i : i - TABLES;
		actor->table = i < TABLES ? &program->history->tables[i] : NULL;
		actor->object = i < TABLES ? NULL : &program->history->objects[i - TABLES];
		timer_init(&actor->timer, loop, on_actor, actor);
		if (program->history->tables[0].inode != 0)
			actor_next(actor);
	}
	return program;
}

/* Nothing is called back that would look at the history: the process is gone. */
static void client_stop(void *arg)
{
	struct program *program = arg;
	struct history *history = program->history, scratch = *history;
	program->history = &scratch;
	for (unsigned i = 0; i < TABLES + OBJECTS; i++) {
		struct actor *actor = &program->actors[i];
		if (actor->table)
			actor->table = &scratch.tables[i];
		else
			actor->object = &scratch.objects[i - TABLES];
	}
	scratch.ending = false;
	client_close(program->client);
	for (unsigned i = 0; i < TABLES + OBJECTS; i++) {
		timer_stop(&program->actors[i].timer);
		free(program->actors[i].bytes);
	}
	free(program);
}

static void power_lost(struct world *world)
{
	struct history *history = world->arg;
	history->power_cuts++;
	for (unsigned i = 0; i < TABLES; i++)
		for (unsigned j = 0; j < BLOCKS; j++) {
			struct versions *block = &history->tables[i].blocks[j];
			history->tables[i].damaged |= block->last > block->synced;
			block->least = block->synced;
			block->own = block->own < block->synced ? block->own : block->synced;
		}
}

/* ---- the run ---- */

static void tables_made(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct history *history = arg;
	check(first_error(err, reply) == OK);
	for (unsigned i = 0; i < TABLES; i++) {
		history->tables[i].base = i % 2 ? CHUNK_BYTES - 20 * BLOCK_BYTES : 0;
		history->tables[i].inode = reply->results[i]->inode;
	}
}

static void make_tables(struct world *world)
{
	struct history *history = world->arg;
	struct program *program = world_node(world, NODE_CLIENT, 0)->program;
	Granary__MetaOp ops[TABLES], *pointers[TABLES];
	Granary__Create creates[TABLES];
	char names[TABLES][2];
	for (unsigned i = 0; i < TABLES; i++) {
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
	client_meta(program->client, pointers, TABLES, tables_made, history);
}

static bool tables_are_made(void *arg)
{
	return ((struct history *)((struct world *)arg)->arg)->tables[TABLES - 1].inode != 0;
}

static bool all_checked(void *arg)
{
	struct world *world = arg;
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct program *program = world_node(world, NODE_CLIENT, i)->program;
		for (unsigned j = 0; j < TABLES + OBJECTS; j++)
			if (!program->actors[j].checked)
				return false;
	}
	return true;
}

static void check_again(struct world *world)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct program *program = world_node(world, NODE_CLIENT, i)->program;
		for (unsigned j = 0; j < TABLES + OBJECTS; j++) {
			program->actors[j].checked = false;
			actor_next(&program->actors[j]);
		}
	}
}

static void must_come(struct world *world, bool (*condition)(void *arg), const char *what)
{
	if (sim_run(world->sim, CALM_US, condition, world))
		return;
	sim_print_trace(world->sim, stderr);
	fprintf(stderr, "%s\n", what);
	abort();
}

static void run(uint64_t seed, struct history *sum)
{
	struct history *history = mem_zero(1, sizeof *history);
	struct world world = { .clients = CLIENTS, .client_start = client_start, .client_stop = client_stop, .power_lost = power_lost, .arg = history };
	history->unsynced = getenv("SIM_UNSYNCED") != NULL;
	world_open(&world, seed);
	world.power_cuts = seed % 3 == 0;
	node_start(world_node(&world, NODE_CLIENT, 0));
	sim_run(world.sim, 2000000, NULL, NULL);
	make_tables(&world);
	check(sim_run(world.sim, CALM_US, tables_are_made, &world));
	node_stop(world_node(&world, NODE_CLIENT, 0), false);
	for (unsigned i = 0; i < CLIENTS; i++)
		node_start(world_node(&world, NODE_CLIENT, i));
	world_break(&world);
	sim_run(world.sim, FAULTS_US, NULL, NULL);
	world_calm(&world);
	sim_run(world.sim, 32000000, NULL, NULL); /* what was under way when the faults ended may still fail */
	history->ending = true;
	must_come(&world, all_checked, "not everything was answered");
	must_come(&world, world_is_replicated, "chunks lack copies");
	node_stop(world_node(&world, NODE_CHUNKSERVER, seed % WORLD_CHUNKSERVERS), false);
	must_come(&world, world_is_replicated, "chunks lack copies after a server was lost");
	check_again(&world);
	must_come(&world, all_checked, "not everything can be read after a server was lost");
	world_close(&world);
	sum->writes += history->writes;
	sum->flushes += history->flushes;
	sum->reads += history->reads;
	sum->puts += history->puts;
	sum->gets += history->gets;
	sum->errors += history->errors;
	free(history);
}

/* Each seed in a process of its own, until one fails: a planted bug is found. */
static int expect_failure(uint64_t first, uint64_t count)
{
	static struct history sum;
	for (uint64_t seed = first; seed < first + count; seed++) {
		int status;
		pid_t child = fork();
		check(child >= 0);
		if (child == 0) {
			run(seed, &sum);
			_exit(0);
		}
		check(waitpid(child, &status, 0) == child);
		if (status != 0) {
			printf("found with seed %" PRIu64 "\n", seed);
			return 0;
		}
	}
	printf("not found\n");
	return 1;
}

int main(int argc, char **argv)
{
	static struct history sum;
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SEEDS;
	if (argc > 3 && strcmp(argv[3], "--expect-failure") == 0)
		return expect_failure(first, count);
	for (uint64_t seed = first; seed < first + count; seed++) {
		fprintf(stderr, "\rseed %" PRIu64 " ", seed);
		run(seed, &sum);
	}
	printf("sim_cluster: %" PRIu64 " seeds, %u writes, %u flushes, %u reads, %u puts, %u gets, %u errors\n", count, sum.writes,
	       sum.flushes, sum.reads, sum.puts, sum.gets, sum.errors);
	check(count < SEEDS || (sum.flushes > 1000 && sum.reads > 1000 && sum.puts > 100 && sum.gets > 100));
	return 0;
}
