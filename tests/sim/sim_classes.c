/* Storage classes: clients make directories and files, write to them, and give trees classes; classes are made, changed and removed;
 * masters and chunkservers are killed and lose power meanwhile.
 *
 * Checked, when the faults have ended and the masters say that nothing is left to be done in the background:
 *   - of two assignments that meet the later one counts: no directory has an older one than it was given, nothing below a directory has an older one than the directory, and what has the same one
 *     has the same class;
 *   - each chunk has its file's class, as many copies wanted as that says now, and a task exactly if the class lets it become cold; none is
 *     due much later than the class says, and one whose file was still written to has been moved when it was due;
 *   - each chunk soon has as many copies as are wanted, neither less nor more;
 *   - each small file is in a pack of its class;
 *   - each file is as its only writer has left it: the last version that was synced, or one begun since;
 *   - fsck finds nothing wrong;
 *   - what tools that only look are answered holds together, all along (classes_ask.h).
 *
 *	sim_classes [SEED [COUNT]] ...	see runner.h */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/blob_op.h"
#include "client/client.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "common/proto/storage_class.h"
#include "common/proto/task.h"
#include "master/master.h"
#include "master/replica.h"
#include "tests/sim/classes_ask.h"
#include "tests/sim/classes_check.h"
#include "tests/sim/cluster_faults.h"
#include "tests/sim/runner.h"

#define SEEDS 6u
#define FAULTS_US 12000000u
#define CALM_US 120000000u
#define SMALL 1000u

struct program;

/* One thing at a time. */
struct actor {
	struct program *program;
	struct timer timer;
	uint64_t inode;
	size_t at; /* of the directory */
	struct file_io *io;
	struct content *file;
	unsigned number, label;
	uint8_t *bytes;
	struct iobuf *record;
	void (*later)(struct actor *actor); /* what the timer is for; NULL: something new */
	unsigned reads;			    /* left */
	Granary__StorageClass storage;
	bool remove, sync;
};

struct program {
	struct world *world;
	struct history *history;
	struct client *client;
	unsigned number;
	struct actor actors[ACTORS];
	struct asking *asking; /* or NULL */
};

static uint64_t below(const struct actor *actor, uint64_t bound)
{
	return rng_below(sim_rng(actor->program->world->sim), bound);
}

static char *some_class(struct actor *actor)
{
	actor->label = (unsigned)below(actor, LABELS + 1);
	return (char *)(uintptr_t)classes_labels[actor->label];
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

static void actor_end(struct actor *actor)
{
	if (actor->io) {
		file_io_close(actor->io);
		client_note_closed(actor->program->client, actor->inode);
	}
	actor->io = NULL;
	free(actor->bytes);
	actor->bytes = NULL;
	iobuf_unref(actor->record);
	actor->record = NULL;
	actor->later = NULL;
	if (!actor->program->history->ending)
		timer_start(&actor->timer, below(actor, 150));
}

static void go_on_later(struct actor *actor, void (*later)(struct actor *actor))
{
	actor->later = later;
	timer_start(&actor->timer, below(actor, 600));
}

static uint64_t some_directory(struct actor *actor)
{
	const struct history *history = actor->program->history;
	actor->at = below(actor, history->count);
	return history->directories[actor->at];
}

/* ---- directories and files ---- */

static void made(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	struct history *history = actor->program->history;
	if (first_error(err, reply) == OK && history->count < DIRECTORIES_MAX) {
		history->directories[history->count++] = reply->results[0]->inode;
		history->sum.directories++;
	}
	actor_end(actor);
}

/* Nobody else writes to it. (What has never been synced may be lost.) */
static void check_own(const struct actor *actor, enum err err)
{
	if (err == ERR_STALE_HANDLE && actor->file->synced > 0)
		classes_wrong(actor->program->world, "other content than one's own", actor->inode);
}

static void synced(void *arg, enum err err)
{
	struct actor *actor = arg;
	check_own(actor, err);
	actor->program->history->sum.files += err == OK;
	if (err == OK)
		actor->file->synced = actor->file->begun;
	actor_end(actor);
}

static void written(void *arg, enum err err)
{
	struct actor *actor = arg;
	check_own(actor, err);
	if (err)
		actor_end(actor);
	else
		file_io_sync(actor->io, synced, actor);
}

static void write_file(struct actor *actor)
{
	struct content *file = actor->file;
	if (file->begun == UINT8_MAX) {
		actor_end(actor);
		return;
	}
	actor->bytes = mem_alloc(file->size);
	memset(actor->bytes, ++file->begun, file->size);
	file_io_write(actor->io, file->offset, slice_of(actor->bytes, file->size), written, actor);
}

/* ---- a record, without a file_io: it takes the place of what was there ---- */

static void sync_later(struct actor *actor)
{
	file_io_sync(actor->io, synced, actor);
}

static void put(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	if (first_error(err, reply)) {
		actor_end(actor);
		return;
	}
	actor->file->pack = reply->results[0]->attr->pack;
	if (actor->sync) {
		synced(actor, OK);
	} else if (actor->program->history->power) { /* after that one of those that sync hears of what is lost, of a whole pack */
		actor_end(actor);
	} else { /* it may have been moved by then */
		client_note_opened(actor->program->client, actor->inode);
		actor->io = file_io_open(actor->program->client, actor->inode, reply->results[0]->attr);
		go_on_later(actor, sync_later);
	}
}

static void appended(void *arg, enum err err, uint64_t pack, uint32_t slot)
{
	struct actor *actor = arg;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__CommitBlob message = GRANARY__COMMIT_BLOB__INIT;
	if (err) {
		actor_end(actor);
		return;
	}
	message.inode = actor->inode;
	message.pack = pack;
	message.slot = slot;
	message.bytes = actor->record->size;
	op.op_case = GRANARY__META_OP__OP_COMMIT_BLOB;
	op.commit_blob = &message;
	send(actor, &op, put);
}

/* What was never synced may be lost; what takes its place must not be. */
static void put_record(struct actor *actor, const char *label)
{
	struct content *file = actor->file;
	actor->sync = file->synced > 0 || file->begun > 0 || below(actor, 2) == 0;
	actor->record = iobuf_open((uint32_t)file->size);
	actor->record->size = (uint32_t)file->size;
	memset(actor->record->bytes, ++file->begun, file->size);
	blob_append(actor->program->client, &(struct blob_request){ .label = label, .data = actor->record, .sync = actor->sync }, appended, actor);
}

static void created(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	if (first_error(err, reply) || mode_is_directory(reply->results[0]->attr->mode)) {
		actor_end(actor);
		return;
	}
	struct content *file = actor->file;
	actor->inode = reply->results[0]->inode;
	if (file->inode == 0) {
		file->inode = actor->inode;
		file->size = below(actor, 2) ? 300000 : SMALL;
		file->offset = file->size > SMALL ? below(actor, 3) * CHUNK_BYTES : 0;
	}
	if (file->begun == UINT8_MAX) {
		actor_end(actor);
		return;
	}
	if (file->size == SMALL && below(actor, 4) > 0) {
		put_record(actor, reply->results[0]->attr->class_);
		return;
	}
	client_note_opened(actor->program->client, actor->inode);
	actor->io = file_io_open(actor->program->client, actor->inode, reply->results[0]->attr);
	write_file(actor);
}

static void create(struct actor *actor, bool directory)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create message = GRANARY__CREATE__INIT;
	struct program *program = actor->program;
	char name[16];
	message.parent = some_directory(actor);
	size_t file = ((actor->at * CLIENTS + program->number) * ACTORS + actor->number) * NAMES + below(actor, NAMES);
	actor->file = &program->history->files[file];
	if (directory)
		snprintf(name, sizeof name, "d%u", (unsigned)below(actor, 4));
	else
		snprintf(name, sizeof name, "f%u", (unsigned)file);
	message.name = message_borrow(slice_text(name));
	message.mode = (directory ? MODE_DIRECTORY : MODE_FILE) | 0700;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &message;
	send(actor, &op, directory ? made : created);
}

static void make_directory(struct actor *actor)
{
	create(actor, true);
}

static void make_file(struct actor *actor)
{
	create(actor, false);
}

/* ---- files are read ---- */

static void check_content(const struct actor *actor, const struct slice *parts, size_t part_count)
{
	const struct content *file = actor->file;
	struct world *world = actor->program->world;
	uint64_t count = 0, version = 0;
	for (size_t i = 0; i < part_count; i++) {
		for (size_t k = 0; k < parts[i].size; k++) {
			version = count++ == 0 ? parts[i].bytes[k] : version;
			if (parts[i].bytes[k] < file->synced || parts[i].bytes[k] > file->begun ||
			    (file->synced == file->begun && parts[i].bytes[k] != version))
				classes_wrong(world, "not what was written", file->inode);
		}
	}
	if (count != file->size)
		classes_wrong(world, "too short", file->inode);
}

static void read_again(struct actor *actor);

static void early_read(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct actor *actor = arg;
	if (err == ERR_IO || err == ERR_CORRUPT || err == ERR_NOT_FOUND || err == ERR_STALE_HANDLE)
		classes_wrong(actor->program->world, err_text(err), actor->file->inode);
	if (err == OK) {
		check_content(actor, parts, part_count);
		actor->program->history->sum.read_early++;
	}
	if (--actor->reads > 0)
		go_on_later(actor, read_again);
	else if (err == OK && below(actor, 2))
		go_on_later(actor, write_file);
	else
		actor_end(actor);
}

static void read_again(struct actor *actor)
{
	file_io_read(actor->io, actor->file->offset, actor->file->size, early_read, actor);
}

static void early_opened(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	if (first_error(err, reply)) {
		client_note_closed(actor->program->client, actor->inode);
		actor_end(actor);
		return;
	}
	actor->io = file_io_open(actor->program->client, actor->inode, reply->results[0]->attr);
	actor->reads = 2;
	read_again(actor);
}

static void open_file(struct actor *actor, client_meta_fn *done)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Open open = GRANARY__OPEN__INIT;
	open.inode = actor->file->inode;
	op.op_case = GRANARY__META_OP__OP_OPEN;
	op.open = &open;
	client_note_opened(actor->program->client, open.inode);
	send(actor, &op, done);
}

/* One of its own, twice, and then perhaps written: it may be moved in between. */
static void read_file(struct actor *actor)
{
	struct program *program = actor->program;
	some_directory(actor);
	size_t first = ((actor->at * CLIENTS + program->number) * ACTORS + actor->number) * NAMES;
	actor->file = &program->history->files[first + below(actor, NAMES)];
	actor->inode = actor->file->inode;
	if (actor->file->synced > 0)
		open_file(actor, early_opened);
	else
		actor_end(actor);
}

/* ---- classes ---- */

static void assigned(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	struct history *history = actor->program->history;
	if (first_error(err, reply) == OK) {
		uint64_t order = reply->results[0]->attr->class_order;
		history->sum.assigned++;
		if (history->orders[actor->at] < order)
			history->orders[actor->at] = order;
	}
	actor_end(actor);
}

static void assign(struct actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__SetInodeClass message = GRANARY__SET_INODE_CLASS__INIT;
	message.inode = some_directory(actor);
	message.class_ = some_class(actor);
	message.below = true;
	op.op_case = GRANARY__META_OP__OP_SET_INODE_CLASS;
	op.set_inode_class = &message;
	send(actor, &op, assigned);
}

static void class_changed(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct actor *actor = arg;
	(void)reply;
	actor->program->history->sum.classes += err == OK;
	actor_end(actor);
}

static void classes_seen(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct actor *actor = arg;
	Granary__ClassesRequest request = GRANARY__CLASSES_REQUEST__INIT;
	Granary__SetClass change = GRANARY__SET_CLASS__INIT;
	if (err) {
		actor_end(actor);
		return;
	}
	change.revision = ((const Granary__ClassesReply *)reply)->classes->revision;
	change.class_ = &actor->storage;
	change.remove = actor->remove;
	request.change = &change;
	client_call_leader(actor->program->client, MESSAGE_CLASSES, &request.base, class_changed, actor);
}

static void change_class(struct actor *actor)
{
	static const uint64_t seconds[] = { 2, 4, 1000, 1000 };
	Granary__ClassesRequest request = GRANARY__CLASSES_REQUEST__INIT;
	granary__storage_class__init(&actor->storage);
	actor->storage.name = some_class(actor);
	actor->storage.copies = (uint32_t)below(actor, 4);
	actor->storage.cold = below(actor, 4) ? STORAGE_COLD_AUTO : STORAGE_COLD_OFF;
	actor->storage.cool_seconds = seconds[below(actor, 4)];
	actor->remove = below(actor, 4) == 0;
	actor->program->history->removed[actor->label] |= actor->remove;
	client_call_leader(actor->program->client, MESSAGE_CLASSES, &request.base, classes_seen, actor);
}

static void on_actor(void *arg)
{
	struct actor *actor = arg;
	static void (*const things[])(struct actor *) = { make_directory, make_file, make_file, make_file, make_file, make_file, make_file, read_file, assign };
	if (actor->program->history->ending)
		return;
	if (actor->later) {
		actor->later(actor);
		return;
	}
	/* Seldom: it looks at all chunks, and mends what would be missed otherwise. */
	if (below(actor, 60) == 0)
		change_class(actor);
	else
		things[below(actor, sizeof things / sizeof *things)](actor);
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

static uint64_t some_file(void *arg)
{
	const struct program *program = arg;
	const struct history *history = program->history;
	for (unsigned i = 0; i < 20; i++) {
		uint64_t inode = history->files[rng_below(sim_rng(program->world->sim), FILES_MAX)].inode;
		if (inode != 0)
			return inode;
	}
	return 0;
}

static void *client_start(struct world *world, unsigned number, struct loop *loop)
{
	struct program *program = mem_zero(1, sizeof *program);
	struct client_options options = { .cluster = WORLD_MASTER_ADDRESSES, .events = &events, .events_arg = program };
	program->number = number;
	program->world = world;
	program->history = world->arg;
	check(client_open(loop, &options, &program->client) == OK);
	for (unsigned i = 0; i < ACTORS; i++) {
		program->actors[i].program = program;
		program->actors[i].number = i;
		timer_init(&program->actors[i].timer, loop, on_actor, &program->actors[i]);
		timer_start(&program->actors[i].timer, below(&program->actors[i], 100));
	}
	if (program->history->asks && number == 0)
		program->asking = asking_open(&(struct asking_options){ .world = world,
									.client = program->client,
									.loop = loop,
									.some_file = some_file,
									.arg = program,
									.answers = &program->history->sum.answers });
	return program;
}

static void client_stop(void *arg)
{
	struct program *program = arg;
	struct history scratch = *program->history;
	program->history = &scratch;
	client_close(program->client);
	asking_close(program->asking);
	for (unsigned i = 0; i < ACTORS; i++) {
		timer_stop(&program->actors[i].timer);
		free(program->actors[i].bytes);
		iobuf_unref(program->actors[i].record);
	}
	free(program);
}

/* ---- the end ---- */

static void tasks_seen(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct history *history = arg;
	const Granary__TasksReply *tasks = (const Granary__TasksReply *)reply;
	history->asked = false;
	history->idle = err == OK && tasks->tasks[TASK_ASSIGN] == 0 && tasks->tasks[TASK_CLASS] == 0 && tasks->tasks[TASK_MOVE] == 0;
}

static bool is_idle(void *arg)
{
	struct world *world = arg;
	struct history *history = world->arg;
	struct program *program = world_node(world, NODE_CLIENT, 0)->program;
	if (!history->asked && !history->idle) {
		Granary__TasksRequest request = GRANARY__TASKS_REQUEST__INIT;
		history->asked = true;
		client_call_leader(program->client, MESSAGE_TASKS, &request.base, tasks_seen, history);
	}
	return history->idle;
}

/* ---- all files are read ---- */

static void read_next(struct actor *actor);

static void content_read(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct actor *actor = arg;
	if (err)
		classes_wrong(actor->program->world, err_text(err), actor->file->inode);
	check_content(actor, parts, part_count);
	file_io_close(actor->io);
	client_note_closed(actor->program->client, actor->file->inode);
	actor->io = NULL;
	actor->program->history->sum.read++;
	read_next(actor);
}

static void content_opened(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct actor *actor = arg;
	if (first_error(err, reply))
		classes_wrong(actor->program->world, "cannot be opened", actor->file->inode);
	actor->io = file_io_open(actor->program->client, actor->file->inode, reply->results[0]->attr);
	file_io_read(actor->io, actor->file->offset, actor->file->size, content_read, actor);
}

static void read_next(struct actor *actor)
{
	struct history *history = actor->program->history;
	while (history->at < FILES_MAX && history->files[history->at].synced == 0)
		history->at++;
	if (history->at == FILES_MAX) {
		history->read = true;
		return;
	}
	actor->file = &history->files[history->at++];
	open_file(actor, content_opened);
}

static bool all_is_read(void *arg)
{
	return ((struct history *)arg)->read;
}

/* Neither too few copies nor too many. */
static bool count_surplus(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	(void)id;
	*(bool *)arg = *(bool *)arg && (chunk->frozen || chunk->cold || chunk->n_replicas == chunk->copies_wanted) && !chunk->joining;
	return true;
}

static bool has_wanted_copies(void *arg)
{
	struct node *leader = world_leader(arg);
	bool all = leader != NULL;
	return all && meta_each_chunk(replica_meta(node_replica(leader)), 0, count_surplus, &all) == OK && all;
}

static void verify(struct world *world, struct history *history)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		node_stop(world_node(world, NODE_CLIENT, i), false);
	history->ending = true;
	node_start(world_node(world, NODE_CLIENT, 0));
	if (!sim_run(world->sim, CALM_US, is_idle, world))
		classes_wrong(world, "not in time: what is done in the background", 0);
	/* What is due soon comes up, and what could not be made cold once more. */
	sim_run(world->sim, 6000000 + TASKS_RETRY_MS * 1000u, NULL, NULL);
	if (!sim_run(world->sim, CALM_US, has_wanted_copies, world))
		classes_wrong(world, "not in time: as many copies as are wanted", 0);
	struct asking *asking = ((struct program *)world_node(world, NODE_CLIENT, 0)->program)->asking;
	if (asking) {
		asking_verify(asking);
		if (!sim_run(world->sim, CALM_US, asking_is_verified, asking))
			classes_wrong(world, "not in time: what would be lost", 0);
	}
	read_next(&((struct program *)world_node(world, NODE_CLIENT, 0)->program)->actors[0]);
	if (!sim_run(world->sim, CALM_US, all_is_read, history))
		classes_wrong(world, "not in time: reading everything", 0);
	struct node *leader = world_leader(world);
	check(leader);
	classes_check(world, node_replica(leader));
}

static uint64_t run(uint64_t seed, uint64_t *sum)
{
	struct history *history = mem_zero(1, sizeof *history);
	struct world world = { .clients = CLIENTS, .client_start = client_start, .client_stop = client_stop, .arg = history };
	history->directories[history->count++] = META_ROOT_INODE;
	history->asks = seed % 2 == 0;
	history->power = seed % 3 == 0;
	world_open(&world, seed);
	for (unsigned i = 0; i < CLIENTS; i++)
		node_start(world_node(&world, NODE_CLIENT, i));
	sim_run(world.sim, 1000000, NULL, NULL);
	storm_begin(&world, storm_named(history->power ? "power" : "processes"));
	sim_run(world.sim, FAULTS_US, NULL, NULL);
	world_calm(&world);
	sim_run(world.sim, 8000000, NULL, NULL);
	verify(&world, history);
	uint64_t digest = sim_trace_digest(world.sim);
	const uint64_t seen[] = { history->sum.directories, history->sum.files, history->sum.assigned, history->sum.classes, history->sum.inodes,
				  history->sum.chunks, history->sum.blobs, history->sum.blobs_moved, history->sum.moved, history->sum.read,
				  history->sum.read_early, history->sum.answers, sim_steps(world.sim), sim_now_us(world.sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	world_close(&world);
	free(history);
	return digest;
}

static const char *const counts[] = { "directories", "files", "assignments", "changes of classes", "inodes checked", "chunks checked", "blobs checked", "that were moved",
				      "tasks that were put off", "files read", "reads before the end", "questions answered", RUNNER_STEPS, RUNNER_MS, NULL };
static const uint64_t least[] = { 40, 1000, 100, 30, 300, 400, 100, 30, 100, 300, 100, 50, 0, 0 };

/* 1003: an entry that added tasks of both kinds hid the timed ones from the wheel. 81: a copy of a chunk that had become cold came back with the
 * power, and its server was in doubt for ever. */
static const uint64_t known[] = { 81, 1003, 0 };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_classes", .standard = SEEDS, .known = known, .run = run, .counts = counts, .least = least
	};
	return runner_main(&runner, argc, argv);
}
