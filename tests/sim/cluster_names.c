/* Names: (create without a name -> write -> sync -> link | look up -> open -> read whole | remove) again and again. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/proto/mode.h"
#include "tests/sim/cluster_load.h"

static const char name_texts[NAMES][2] = { "a", "b", "c", "d" };

static uint64_t size_of(uint64_t version)
{
	return version % 7 == 0 ? 300000 + version * 16 : 16 + version * 7919 % 20000 / 16 * 16;
}

static void end(struct name_actor *actor)
{
	if (actor->io) {
		file_io_close(actor->io);
		client_note_closed(actor->program->client, actor->inode);
	}
	actor->io = NULL;
	free(actor->bytes);
	actor->bytes = NULL;
	load_later(actor->program, &actor->timer);
}

static void failed(struct name_actor *actor, const char *what, enum err err)
{
	load_failed(actor->program, what, actor->name, err);
	end(actor);
}

static void send(struct name_actor *actor, Granary__MetaOp *op, client_meta_fn *done)
{
	client_meta(actor->program->client, (Granary__MetaOp *[]){ op }, 1, done, actor);
}

/* The answer to a change of the name. */
static void changed(struct name_actor *actor, const char *what, enum err err, enum err refusal)
{
	struct run *run = actor->program->run;
	if (err == OK)
		history_done(run->history, actor->operation, 0, load_now(actor->program));
	else if (err == refusal)
		history_refused(run->history, actor->operation, load_now(actor->program));
	sim_trace(run->world.sim, "client%u: name %u: %s: %s", actor->program->number + 1, actor->name, what, err_name(err));
	if (err && err != refusal)
		failed(actor, what, err);
	else
		end(actor);
}

/* ---- a new file ---- */

static void on_linked(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct name_actor *actor = arg;
	if (actor->program->dead)
		return;
	err = load_result(err, reply);
	actor->program->run->counts.links += err == OK;
	changed(actor, actor->replace ? "link in place" : "link", err, actor->replace ? OK : ERR_EXISTS);
}

static void on_synced(void *arg, enum err err)
{
	struct name_actor *actor = arg;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Link link = GRANARY__LINK__INIT;
	if (actor->program->dead)
		return;
	if (err) {
		failed(actor, "sync of a file for name", err);
		return;
	}
	actor->operation = load_begin(actor->program, REGISTER_NAMES + actor->name, actor->replace ? HISTORY_WRITE : HISTORY_CREATE,
				      actor->version);
	sim_trace(actor->program->run->world.sim, "client%u: name %u: links version %u", actor->program->number + 1, actor->name,
		  (unsigned)actor->version);
	link.inode = actor->inode;
	link.parent = 1;
	link.name = message_borrow(slice_text(name_texts[actor->name]));
	link.replace = actor->replace;
	op.op_case = GRANARY__META_OP__OP_LINK;
	op.link = &link;
	send(actor, &op, on_linked);
}

static void on_written(void *arg, enum err err)
{
	struct name_actor *actor = arg;
	if (actor->program->dead)
		return;
	if (err)
		failed(actor, "write of a file for name", err);
	else
		file_io_sync(actor->io, on_synced, actor);
}

static void on_created(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct name_actor *actor = arg;
	struct run *run = actor->program->run;
	if (actor->program->dead)
		return;
	err = load_result(err, reply);
	if (err) {
		failed(actor, "create of a file for name", err);
		return;
	}
	struct known_file *file = mem_zero(1, sizeof *file);
	file->inode = actor->inode = reply->results[0]->inode;
	file->version = actor->version = ++run->version;
	struct known_file *again;
	HASH_FIND(hh, run->files, &file->inode, sizeof file->inode, again);
	if (again)
		load_wrong(actor->program, "an inode number was given out twice: name", actor->name, file->inode, again->version);
	HASH_ADD(hh, run->files, inode, sizeof file->inode, file);
	client_note_opened(actor->program->client, actor->inode);
	actor->io = file_io_open(actor->program->client, actor->inode, reply->results[0]->attr);
	uint64_t size = size_of(actor->version);
	actor->bytes = mem_alloc(size);
	for (uint64_t i = 0; i < size; i += 16) {
		put_le64(actor->bytes + i, actor->version);
		put_le64(actor->bytes + i + 8, i);
	}
	file_io_write(actor->io, 0, slice_of(actor->bytes, size), on_written, actor);
}

static void create(struct name_actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;
	actor->replace = rng_below(load_rng(actor->program), 2) == 0;
	create.mode = MODE_FILE | 0600;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	send(actor, &op, on_created);
}

/* ---- removing ---- */

static void on_removed(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct name_actor *actor = arg;
	if (actor->program->dead)
		return;
	err = load_result(err, reply);
	actor->program->run->counts.removes += err == OK;
	changed(actor, "remove", err, ERR_NOT_FOUND);
}

static void remove_name(struct name_actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Unlink remove = GRANARY__UNLINK__INIT;
	actor->operation = load_begin(actor->program, REGISTER_NAMES + actor->name, HISTORY_REMOVE, 0);
	remove.parent = 1;
	remove.name = message_borrow(slice_text(name_texts[actor->name]));
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &remove;
	send(actor, &op, on_removed);
}

/* ---- reading ---- */

static void got(struct name_actor *actor)
{
	actor->looked++;
	actor->checked = actor->program->run->ending && actor->looked >= NAMES;
	end(actor);
}

static void on_read(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct name_actor *actor = arg;
	uint64_t at = 0, size = size_of(actor->version);
	if (actor->program->dead)
		return;
	if (err) {
		failed(actor, "read of name", err);
		return;
	}
	actor->bytes = mem_zero(1, size);
	for (size_t i = 0; i < part_count; i++) {
		if (parts[i].size > size - at)
			load_wrong(actor->program, "the file is too long: name", actor->name, at + parts[i].size, size);
		memcpy(actor->bytes + at, parts[i].bytes, parts[i].size);
		at += parts[i].size;
	}
	if (at != size)
		load_wrong(actor->program, "the file is too short: name", actor->name, at, size);
	for (uint64_t i = 0; i < at; i += 16)
		if (get_le64(actor->bytes + i) != actor->version || get_le64(actor->bytes + i + 8) != i)
			load_wrong(actor->program, "not its content: name", actor->name, get_le64(actor->bytes + i), actor->version);
	actor->program->run->counts.gets++;
	got(actor);
}

static void on_opened(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct name_actor *actor = arg;
	struct program *program = actor->program;
	if (program->dead)
		return;
	err = load_result(err, reply);
	if (err) {
		client_note_closed(program->client, actor->inode);
		if (err == ERR_NOT_FOUND || err == ERR_STALE_HANDLE) /* removed meanwhile */
			end(actor);
		else
			failed(actor, "open of name", err);
		return;
	}
	actor->io = file_io_open(program->client, actor->inode, reply->results[0]->attr);
	if (file_io_attr(actor->io)->size != size_of(actor->version))
		load_wrong(program, "size of the file: name", actor->name, file_io_attr(actor->io)->size, size_of(actor->version));
	file_io_read(actor->io, 0, size_of(actor->version) + 100, on_read, actor);
}

static void on_looked_up(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct name_actor *actor = arg;
	struct run *run = actor->program->run;
	const struct known_file *file = NULL;
	if (actor->program->dead)
		return;
	err = load_result(err, reply);
	if (err && err != ERR_NOT_FOUND) {
		failed(actor, "lookup of name", err);
		return;
	}
	if (err == OK)
		HASH_FIND(hh, run->files, &reply->results[0]->inode, sizeof file->inode, file);
	if (err == OK && !file)
		load_wrong(actor->program, "it leads to a file that nobody made: name", actor->name, reply->results[0]->inode, 0);
	run->counts.lookups++;
	history_done(run->history, actor->operation, file ? file->version : 0, load_now(actor->program));
	if (!file) {
		got(actor);
		return;
	}
	actor->inode = file->inode;
	actor->version = file->version;
	load_open_inode(actor->program, actor->inode, on_opened, actor);
}

static void look_up(struct name_actor *actor)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	actor->operation = load_begin(actor->program, REGISTER_NAMES + actor->name, HISTORY_READ, 0);
	lookup.parent = 1;
	lookup.name = message_borrow(slice_text(name_texts[actor->name]));
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	send(actor, &op, on_looked_up);
}

static void step(void *arg)
{
	struct name_actor *actor = arg;
	struct rng *rng = load_rng(actor->program);
	if (actor->checked)
		return;
	if (actor->program->run->ending) {
		actor->name = actor->looked % NAMES;
		look_up(actor);
		return;
	}
	actor->looked = 0;
	actor->name = (unsigned)rng_below(rng, NAMES);
	switch (rng_below(rng, 6)) {
	case 0:
	case 1:
		create(actor);
		break;
	case 2:
		remove_name(actor);
		break;
	default:
		look_up(actor);
		break;
	}
}

void names_init(struct name_actor *actor)
{
	timer_init(&actor->timer, actor->program->loop, step, actor);
}

void names_stop(struct name_actor *actor)
{
	timer_stop(&actor->timer);
	free(actor->bytes);
}
