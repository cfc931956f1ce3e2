/* Collection: a cluster whose clients put, remove, undelete and read files while the trash empties itself, chunks are reclaimed and
 * deleted, and processes are killed, paused and cut off; every second seed also runs masters from an older snapshot for a while
 * (scenario 15): their disks are put back to what they were some seconds ago, with clients stopped, then to what they had been last.
 *
 * Checked:
 *   - what is read is one version of that name, whole;
 *   - when the faults end, every file and all that is in the trash (undeleted for it) can be read: nothing that is referenced was
 *     collected, by whatever the masters believed in between;
 *   - fsck finds nothing wrong then;
 *   - when all is removed, no chunk is left on any chunkserver that has come back since, but open packs.
 *
 *	sim_gc [SEED [COUNT]] ...	see runner.h */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "common/proto/settings.h"
#include "tests/sim/cluster_faults.h"
#include "tests/sim/runner.h"

#define NAMES 8u
#define SEEDS 6u
#define CLIENTS 2u
#define ACTORS 3u /* of a client */
#define FAULTS_US 14000000u
#define CALM_US 120000000u
#define ROOT 1u

struct sum {
	uint64_t puts, removed, undeleted, gets, restored, verified;
};

struct history {
	uint64_t last[NAMES]; /* version written */
	uint64_t runs;	      /* so many images were put back */
	bool ending, verified, emptied;
	uint64_t leaked;
	struct sum sum;
};

struct program;

/* One thing at a time. */
struct actor {
	struct program *program;
	struct timer timer;
	unsigned name;
	uint64_t inode, version, size;
	struct file_io *io;
	uint8_t *bytes;
};

struct program {
	struct world *world;
	struct history *history;
	struct client *client;
	struct actor actors[ACTORS];
	/* The end: all that there is, one after another. */
	Granary__MetaReply *listing;
	size_t at;
};

static struct rng *rng(const struct program *program)
{
	return sim_rng(program->world->sim);
}

_Noreturn static void wrong(const struct actor *actor, const char *what, enum err err)
{
	sim_print_trace(actor->program->world->sim, stderr);
	fprintf(stderr, "inode %016" PRIx64 ": %s: %s\n", actor->inode, what, err_name(err));
	abort();
}

static enum err first_error(enum err err, const Granary__MetaReply *reply)
{
	for (size_t i = 0; err == OK && i < reply->n_results; i++)
		err = (enum err)reply->results[i]->error;
	return err;
}

static void send(struct actor *actor, Granary__MetaOp *op, client_meta_fn *done)
{
	client_meta(actor->program->client, (Granary__MetaOp *[]){ op }, 1, done, actor);
}

static const char *const name_texts[NAMES] = { "a", "b", "c", "d", "e", "f", "g", "h" };

static ProtobufCBinaryData name_of(const struct actor *actor)
{
	return message_borrow(slice_text(name_texts[actor->name]));
}

static void verify_next(struct program *program);

static void actor_end(struct actor *actor)
{
	struct program *program = actor->program;
	if (actor->io) {
		file_io_close(actor->io);
		client_note_closed(program->client, actor->inode);
	}
	actor->io = NULL;
	free(actor->bytes);
	actor->bytes = NULL;
	if (program->history->ending)
		verify_next(program);
	else
		timer_start(&actor->timer, rng_below(rng(program), 200));
}

/* ---- put ---- */

static uint64_t size_of(uint64_t version)
{
	return version % 3 == 0 ? 300000 + version * 16 : 16 + version * 7919 % 40000 / 16 * 16;
}

static void put_linked(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	actor->program->history->sum.puts += first_error(err, reply) == OK;
	actor_end(actor);
}

static void put_synced(void *arg, enum err err)
{
	struct actor *actor = arg;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Link link = GRANARY__LINK__INIT;
	if (err) {
		actor_end(actor);
		return;
	}
	link.inode = actor->inode;
	link.parent = ROOT;
	link.name = name_of(actor);
	link.replace = true;
	op.op_case = GRANARY__META_OP__OP_LINK;
	op.link = &link;
	send(actor, &op, put_linked);
}

static void put_written(void *arg, enum err err)
{
	struct actor *actor = arg;
	if (err)
		actor_end(actor);
	else
		file_io_sync(actor->io, put_synced, actor);
}

static void put_created(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	if (first_error(err, reply)) {
		actor_end(actor);
		return;
	}
	actor->inode = reply->results[0]->inode;
	client_note_opened(actor->program->client, actor->inode);
	actor->io = file_io_open(actor->program->client, actor->inode, reply->results[0]->attr);
	actor->version = ++actor->program->history->last[actor->name];
	actor->size = size_of(actor->version);
	actor->bytes = mem_alloc(actor->size);
	for (uint64_t i = 0; i < actor->size; i += 16) {
		put_le64(actor->bytes + i, actor->version << 8 | actor->name);
		put_le64(actor->bytes + i + 8, i);
	}
	file_io_write(actor->io, 0, slice_of(actor->bytes, actor->size), put_written, actor);
}

static void put(struct actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;
	create.mode = MODE_FILE | 0600;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	send(actor, &op, put_created);
}

/* ---- remove, undelete ---- */

static void removed(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	actor->program->history->sum.removed += first_error(err, reply) == OK;
	actor_end(actor);
}

static void take_away(struct actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Unlink unlink = GRANARY__UNLINK__INIT;
	unlink.parent = ROOT;
	unlink.name = name_of(actor);
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &unlink;
	send(actor, &op, removed);
}

static void undeleted(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	actor->program->history->sum.undeleted += first_error(err, reply) == OK;
	actor_end(actor);
}

/* Any of them, also one whose time is nearly over. */
static void undelete_listed(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	if (first_error(err, reply) || reply->results[0]->n_trash == 0) {
		actor_end(actor);
		return;
	}
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Undelete undelete = GRANARY__UNDELETE__INIT;
	undelete.id = reply->results[0]->trash[rng_below(rng(actor->program), reply->results[0]->n_trash)]->id;
	undelete.parent = ROOT;
	undelete.name = name_of(actor);
	/* Some stay: nobody replaces them. */
	char name[24];
	snprintf(name, sizeof name, "u%" PRIu64, undelete.id);
	if (rng_below(rng(actor->program), 2) == 0)
		undelete.name = message_borrow(slice_text(name));
	op.op_case = GRANARY__META_OP__OP_UNDELETE;
	op.undelete = &undelete;
	send(actor, &op, undeleted);
}

static void bring_back(struct actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__TrashList list = GRANARY__TRASH_LIST__INIT;
	list.parent = ROOT;
	list.name = name_of(actor);
	op.op_case = GRANARY__META_OP__OP_TRASH_LIST;
	op.trash_list = &list;
	send(actor, &op, undelete_listed);
}

/* ---- read ---- */

static void get_read(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct actor *actor = arg;
	struct history *history = actor->program->history;
	uint64_t at = 0;
	if (err && history->ending)
		wrong(actor, "cannot be read", err);
	uint8_t *bytes = mem_alloc(actor->size + 16);
	for (size_t i = 0; err == OK && i < part_count; i++) {
		check(at + parts[i].size <= actor->size);
		memcpy(bytes + at, parts[i].bytes, parts[i].size);
		at += parts[i].size;
	}
	if (err == OK) {
		uint64_t first = at >= 16 ? get_le64(bytes) : 0;
		if (at != actor->size || at != size_of(first >> 8) || (first & 0xff) >= NAMES || first >> 8 > history->last[first & 0xff])
			wrong(actor, "is no version", ERR_CORRUPT);
		for (uint64_t i = 0; i < at; i += 16)
			if (get_le64(bytes + i) != first || get_le64(bytes + i + 8) != i)
				wrong(actor, "is not whole", ERR_CORRUPT);
		history->sum.gets++;
		history->sum.verified += history->ending;
	}
	free(bytes);
	actor_end(actor);
}

static void get_opened(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	err = first_error(err, reply);
	if (err && actor->program->history->ending)
		wrong(actor, "cannot be opened", err);
	if (err) {
		client_note_closed(actor->program->client, actor->inode);
		actor_end(actor);
		return;
	}
	actor->io = file_io_open(actor->program->client, actor->inode, reply->results[0]->attr);
	actor->size = file_io_attr(actor->io)->size;
	file_io_read(actor->io, 0, actor->size + 100, get_read, actor);
}

static void get_inode(struct actor *actor, uint64_t inode)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Open open = GRANARY__OPEN__INIT;
	actor->inode = open.inode = inode;
	op.op_case = GRANARY__META_OP__OP_OPEN;
	op.open = &open;
	client_note_opened(actor->program->client, inode);
	send(actor, &op, get_opened);
}

static void get_found(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	if (first_error(err, reply))
		actor_end(actor);
	else
		get_inode(actor, reply->results[0]->inode);
}

static void get(struct actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	lookup.parent = ROOT;
	lookup.name = name_of(actor);
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	send(actor, &op, get_found);
}

static void on_actor(void *arg)
{
	struct actor *actor = arg;
	static void (*const things[])(struct actor *) = { put, put, put, take_away, take_away, bring_back, bring_back, get, get };
	if (actor->program->history->ending)
		return;
	actor->name = (unsigned)rng_below(rng(actor->program), NAMES);
	things[rng_below(rng(actor->program), sizeof things / sizeof *things)](actor);
}

/* ---- the end: everything is read, then everything is removed ---- */

static void end_undeleted(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	err = first_error(err, reply);
	if (err == ERR_NOT_FOUND) { /* its time is over */
		verify_next(actor->program);
		return;
	}
	if (err)
		wrong(actor, "cannot be undeleted", err);
	actor->program->history->sum.restored++;
	get_inode(actor, actor->inode);
}

static void end_undelete(struct actor *actor, const Granary__TrashItem *item)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Undelete undelete = GRANARY__UNDELETE__INIT;
	char name[24];
	snprintf(name, sizeof name, "t%" PRIu64, item->id);
	actor->inode = item->entry->inode;
	undelete.id = item->id;
	undelete.parent = ROOT;
	undelete.name = message_borrow(slice_text(name));
	op.op_case = GRANARY__META_OP__OP_UNDELETE;
	op.undelete = &undelete;
	send(actor, &op, end_undeleted);
}

static void verify_next(struct program *program)
{
	const Granary__MetaResult *names = program->listing->results[0], *trash = program->listing->results[1];
	size_t at = program->at++;
	if (at < names->n_entries)
		get_inode(&program->actors[0], names->entries[at]->inode);
	else if (at < names->n_entries + trash->n_trash)
		end_undelete(&program->actors[0], trash->trash[at - names->n_entries]);
	else
		program->history->verified = true;
}

static void list_all(struct program *program, client_meta_fn *done)
{
	Granary__MetaOp ops[2] = { GRANARY__META_OP__INIT, GRANARY__META_OP__INIT }, *list[2] = { &ops[0], &ops[1] };
	Granary__Readdir readdir = GRANARY__READDIR__INIT;
	Granary__TrashList trash = GRANARY__TRASH_LIST__INIT;
	readdir.inode = ROOT;
	trash.all = true;
	ops[0].op_case = GRANARY__META_OP__OP_READDIR;
	ops[0].readdir = &readdir;
	ops[1].op_case = GRANARY__META_OP__OP_TRASH_LIST;
	ops[1].trash_list = &trash;
	client_meta(program->client, list, 2, done, program);
}

static void all_listed(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	check(first_error(err, reply) == OK && reply->results[0]->end);
	program->listing = (Granary__MetaReply *)message_copy(&reply->base);
	program->at = 0;
	verify_next(program);
}

static void all_removed(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	check(first_error(err, reply) == OK);
	program->history->emptied = true;
}

static void end_removal(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	check(first_error(err, reply) == OK);
	const Granary__MetaResult *names = reply->results[0];
	size_t count = names->n_entries;
	Granary__MetaOp *ops = mem_alloc((count + 1) * sizeof *ops), **list = mem_alloc((count + 1) * sizeof *list);
	Granary__Unlink *unlinks = mem_alloc((count + 1) * sizeof *unlinks);
	Granary__TrashRemove remove = GRANARY__TRASH_REMOVE__INIT;
	uint64_t ids[TRASH_REMOVE_MAX];
	for (size_t i = 0; i < count; i++) {
		granary__unlink__init(&unlinks[i]);
		unlinks[i].parent = ROOT;
		unlinks[i].name = names->entries[i]->name;
		unlinks[i].no_trash = true;
		granary__meta_op__init(&ops[i]);
		ops[i].op_case = GRANARY__META_OP__OP_UNLINK;
		ops[i].unlink = &unlinks[i];
		list[i] = &ops[i];
	}
	remove.ids = ids;
	for (size_t i = 0; i < reply->results[1]->n_trash && i < TRASH_REMOVE_MAX; i++)
		ids[remove.n_ids++] = reply->results[1]->trash[i]->id;
	granary__meta_op__init(&ops[count]);
	ops[count].op_case = GRANARY__META_OP__OP_TRASH_REMOVE;
	ops[count].trash_remove = &remove;
	list[count] = &ops[count];
	client_meta(program->client, list, count + 1, all_removed, program);
	free(ops);
	free(list);
	free(unlinks);
}

/* ---- clients ---- */

static void invalidate(void *arg, uint64_t inode, struct slice name, void (*done)(void *done_arg), void *done_arg)
{
	(void)arg;
	(void)inode;
	(void)name;
	done(done_arg);
}

static const struct client_events events = { .invalidate = invalidate };

static void *client_start(struct world *world, unsigned number, struct loop *loop)
{
	struct program *program = mem_zero(1, sizeof *program);
	struct client_options options = { .cluster = WORLD_MASTER_ADDRESSES, .events = &events, .events_arg = program };
	(void)number;
	program->world = world;
	program->history = world->arg;
	check(client_open(loop, &options, &program->client) == OK);
	for (unsigned i = 0; i < ACTORS; i++) {
		program->actors[i].program = program;
		timer_init(&program->actors[i].timer, loop, on_actor, &program->actors[i]);
		timer_start(&program->actors[i].timer, rng_below(rng(program), 100));
	}
	return program;
}

/* What ends with the process is not looked at. */
static void client_stop(void *arg)
{
	struct program *program = arg;
	struct history scratch = *program->history;
	program->history = &scratch;
	scratch.ending = false;
	client_close(program->client);
	for (unsigned i = 0; i < ACTORS; i++) {
		timer_stop(&program->actors[i].timer);
		free(program->actors[i].bytes);
	}
	message_free(program->listing ? &program->listing->base : NULL);
	free(program);
}

static struct program *program_of(struct world *world)
{
	return world_node(world, NODE_CLIENT, 0)->program;
}

/* ---- the run ---- */

static void answered(void *arg, enum err err, const ProtobufCMessage *reply)
{
	(void)reply;
	check(err == OK);
	*(bool *)arg = true;
}

static bool is_set(void *arg)
{
	return *(bool *)arg;
}

static void must_run(struct world *world, bool (*done)(void *arg), void *arg, const char *what)
{
	if (sim_run(world->sim, CALM_US, done, arg))
		return;
	sim_print_trace(world->sim, stderr);
	fprintf(stderr, "not in time: %s\n", what);
	abort();
}

static void keep_trash(struct world *world, uint64_t stored)
{
	static bool done;
	Granary__SettingsRequest request = GRANARY__SETTINGS_REQUEST__INIT;
	char key[] = "trash_seconds";
	done = false;
	request.key = key;
	request.value = stored;
	client_call_leader(program_of(world)->client, MESSAGE_SETTINGS, &request.base, answered, &done);
	must_run(world, is_set, &done, "a setting");
}

static void masters_put_back(struct world *world, struct sim_image *images[WORLD_MASTERS])
{
	for (unsigned i = 0; i < WORLD_MASTERS; i++)
		node_stop(world_node(world, NODE_MASTER, i), false);
	for (unsigned i = 0; images && i < WORLD_MASTERS; i++) {
		sim_host_restore(world_node(world, NODE_MASTER, i)->host, images[i]);
		sim_image_close(images[i]);
	}
}

static void masters_image(struct world *world, struct sim_image *images[WORLD_MASTERS])
{
	for (unsigned i = 0; i < WORLD_MASTERS; i++) {
		node_stop(world_node(world, NODE_MASTER, i), false);
		images[i] = sim_host_image(world_node(world, NODE_MASTER, i)->host);
	}
}

static void start_kind(struct world *world, enum node_kind kind, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		node_start(world_node(world, kind, i));
}

/* Scenario 15: masters from an older snapshot, with chunkservers that come back to them. */
static void old_masters(struct world *world)
{
	struct sim_image *old[WORLD_MASTERS], *last[WORLD_MASTERS];
	sim_run(world->sim, 4000000, NULL, NULL);
	masters_image(world, old);
	start_kind(world, NODE_MASTER, WORLD_MASTERS);
	sim_run(world->sim, 8000000, NULL, NULL);
	for (unsigned i = 0; i < CLIENTS; i++)
		node_stop(world_node(world, NODE_CLIENT, i), false);
	masters_image(world, last);
	masters_put_back(world, old);
	sim_trace(world->sim, "masters of an older snapshot");
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		node_stop(world_node(world, NODE_CHUNKSERVER, i), false);
	start_kind(world, NODE_CHUNKSERVER, WORLD_CHUNKSERVERS);
	start_kind(world, NODE_MASTER, WORLD_MASTERS);
	sim_run(world->sim, 40000000, NULL, NULL); /* sessions expire, and all would be collected */
	masters_put_back(world, last);
	sim_trace(world->sim, "masters as they were last");
	start_kind(world, NODE_MASTER, WORLD_MASTERS);
	((struct history *)world->arg)->runs++;
}

struct waiting {
	struct world *world;
	bool asked, done;
	uint64_t copies_max;
};

static void status_seen(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct waiting *waiting = arg;
	const Granary__ClusterStatus *status = (const Granary__ClusterStatus *)reply;
	uint64_t copies = 0;
	waiting->asked = false;
	if (err)
		return;
	for (size_t i = 0; i < status->n_servers; i++)
		copies += status->servers[i]->chunks;
	waiting->done = status->garbage == 0 && status->chunks <= OPEN_PACKS_MAX && status->trash_files == 0 && status->orphan_copies == 0 &&
			copies <= waiting->copies_max;
}

static bool nothing_left(void *arg)
{
	struct waiting *waiting = arg;
	if (!waiting->asked && !waiting->done) {
		Granary__ClusterStatusRequest request = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
		request.servers = true;
		waiting->asked = true;
		client_call_leader(program_of(waiting->world)->client, MESSAGE_CLUSTER_STATUS, &request.base, status_seen, waiting);
	}
	return waiting->done;
}

/* ---- fsck ---- */

struct fscking {
	struct world *world;
	bool asked, end;
	uint64_t run, found;
};

static void fsck_answered(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct fscking *fscking = arg;
	const Granary__FsckReport *report = (const Granary__FsckReport *)reply;
	fscking->asked = false;
	if (err == ERR_NOT_FOUND)
		fscking->run = 0; /* another leader */
	if (err)
		return;
	fscking->run = report->run;
	fscking->end = report->end;
	fscking->found = report->found;
	for (size_t i = 0; i < report->n_findings; i++)
		sim_trace(fscking->world->sim, "fsck: %s: %016" PRIx64 " %016" PRIx64, report->findings[i]->text, report->findings[i]->id,
			  report->findings[i]->other);
}

static bool fsck_is_over(void *arg)
{
	struct fscking *fscking = arg;
	if (!fscking->asked && !fscking->end) {
		Granary__FsckRequest request = GRANARY__FSCK_REQUEST__INIT;
		request.run = fscking->run;
		fscking->asked = true;
		client_call_leader(program_of(fscking->world)->client, MESSAGE_FSCK, &request.base, fsck_answered, fscking);
	}
	return fscking->end;
}

static void must_be_clean(struct world *world)
{
	static struct fscking fscking;
	fscking = (struct fscking){ .world = world };
	must_run(world, fsck_is_over, &fscking, "fsck");
	if (fscking.found == 0)
		return;
	sim_print_trace(world->sim, stderr);
	fprintf(stderr, "fsck has found %" PRIu64 "\n", fscking.found);
	abort();
}

static void verify(struct world *world, struct history *history)
{
	struct node *client = world_node(world, NODE_CLIENT, 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		node_stop(world_node(world, NODE_CLIENT, i), false);
	history->ending = true;
	node_start(client);
	keep_trash(world, 0); /* a day: from now on nothing is due */
	list_all(client->program, all_listed);
	must_run(world, is_set, &history->verified, "everything is read");
	must_be_clean(world);
	list_all(client->program, end_removal);
	must_run(world, is_set, &history->emptied, "everything is removed");
	static struct waiting waiting;
	waiting = (struct waiting){ .world = world, .copies_max = UINT64_MAX };
	must_run(world, nothing_left, &waiting, "everything is collected");
	/* What a late write made again goes when its server comes back. */
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++)
		node_stop(world_node(world, NODE_CHUNKSERVER, i), false);
	start_kind(world, NODE_CHUNKSERVER, WORLD_CHUNKSERVERS);
	waiting = (struct waiting){ .world = world, .copies_max = OPEN_PACKS_MAX * REPLICAS_DEFAULT };
	must_run(world, nothing_left, &waiting, "no copy is left over");
}

static uint64_t run(uint64_t seed, uint64_t *sum)
{
	static const uint64_t kept[] = { 1, 4, 0 };
	struct history *history = mem_zero(1, sizeof *history);
	struct world world = { .clients = CLIENTS, .client_start = client_start, .client_stop = client_stop, .arg = history };
	world_open(&world, seed);
	start_kind(&world, NODE_CLIENT, CLIENTS);
	sim_run(world.sim, 1000000, NULL, NULL);
	keep_trash(&world, kept[seed % 3]);
	if (seed % 2 == 0) {
		old_masters(&world);
	} else {
		storm_begin(&world, storm_named(seed % 5 == 0 ? "power" : "processes"));
		sim_run(world.sim, FAULTS_US, NULL, NULL);
	}
	world_calm(&world);
	sim_run(world.sim, 8000000, NULL, NULL);
	verify(&world, history);
	uint64_t digest = sim_trace_digest(world.sim);
	const uint64_t seen[] = { history->sum.puts, history->sum.removed, history->sum.undeleted, history->sum.gets, history->sum.verified, history->sum.restored,
				  sim_steps(world.sim), sim_now_us(world.sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	world_close(&world);
	free(history);
	return digest;
}

static const char *const counts[] = { "puts", "removed", "undeleted", "gets", "read at the end", "of them from the trash", RUNNER_STEPS,
				      RUNNER_MS, NULL };
static const uint64_t least[] = { 501, 201, 51, 0, 31, 11, 0, 0 };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_gc", .standard = SEEDS, .run = run, .counts = counts, .least = least
	};
	return runner_main(&runner, argc, argv);
}
