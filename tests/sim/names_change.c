/* Changes of names, deferred where the client accepts them (names_client.h). */
#include <stdlib.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "common/proto/setattr.h"
#include "tests/sim/names_internal.h"

#define FILE_BYTES_MAX 6000u

/* ---- deferred changes ---- */

static bool is_weak_make(const struct program *program, uint16_t directory)
{
	const struct deferred *deferred;
	DL_FOREACH2 (program->deferred, deferred, next) {
		const struct record *record = model_record(program->history->model, deferred->number);
		if (record->weak && record->kind == RECORD_CREATE && record->inode == directory)
			return true;
	}
	return false;
}

/* The record under way was accepted. */
static void accepted_as(struct program *program, struct deferred *deferred, uint16_t inode)
{
	struct record *record = record_now(program);
	record->deferred = true;
	record_end(program, "accepted");
	program->history->deferred++;
	program->history->changed_directory = record->directory;
	program->history->changed_name = record->name;
	*deferred = (struct deferred){ .program = program, .number = program->record, .inode = id_of(program, inode) };
	if (program->history->dangers[program->number] > 0 || is_weak_make(program, record->directory) ||
	    (record->kind == RECORD_RENAME && is_weak_make(program, record->to_directory)))
		model_weak(program->history->model, program->record);
	DL_APPEND2(program->deferred, deferred, previous, next);
}

static struct deferred *accepted(struct program *program, uint16_t inode)
{
	struct deferred *deferred = mem_zero(1, sizeof *deferred);
	accepted_as(program, deferred, inode);
	return deferred;
}

static void deferred_end(struct deferred *deferred)
{
	struct program *program = deferred->program;
	model_settled(program->history->model, deferred->number);
	DL_DELETE2(program->deferred, deferred, previous, next);
	timer_stop(&deferred->timer);
	free(deferred);
}

/* Its name was taken away while it was open. */
static bool was_removed(const struct program *program, uint16_t inode)
{
	for (uint32_t i = model_count(program->history->model); i-- > 0;) {
		const struct record *record = model_record(program->history->model, i);
		if ((record->kind == RECORD_UNLINK && record->inode == inode) ||
		    (record->kind == RECORD_RENAME && record->replaced == inode) ||
		    (record->fate != RECORD_ENDED && (record->kind == RECORD_UNLINK || record->kind == RECORD_RENAME)))
			return true;
	}
	return false;
}

static void deferred_done(struct deferred *deferred, enum err err)
{
	struct program *program = deferred->program;
	if (program->stopping)
		return;
	struct record *record = model_record(program->history->model, deferred->number);
	if (err && !record->weak && !(record->kind == RECORD_CREATE && was_removed(program, record->inode)))
		names_fail(program, "a change that was as good as done failed", deferred->number, err);
	deferred_end(deferred);
}

static void on_change_done(void *arg, enum err err, const Granary__MetaResult *result)
{
	(void)result;
	deferred_done(arg, err);
}

static void deferred_look(struct program *program)
{
	struct deferred *deferred, *next;
	DL_FOREACH_SAFE2 (program->deferred, deferred, next, next)
		if (!deferred->has_done && !client_is_changing(program->client, deferred->inode))
			deferred_end(deferred);
}

bool names_client_is_settled(struct program *program)
{
	deferred_look(program);
	return !program->deferred && !program->busy;
}

static void weaken_all(struct program *program)
{
	struct deferred *deferred;
	deferred_look(program);
	DL_FOREACH2 (program->deferred, deferred, next)
		if (!model_record(program->history->model, deferred->number)->weak)
			model_weak(program->history->model, deferred->number);
}

void names_client_danger(struct history *history, unsigned number, struct program *program, bool begins)
{
	history->dangers[number] += begins ? 1u : (unsigned)-1;
	if (begins && program)
		weaken_all(program);
}

void names_client_dies(struct program *program)
{
	struct history *history = program->history;
	const struct deferred *deferred;
	weaken_all(program);
	DL_FOREACH2 (program->deferred, deferred, next) {
		check(history->ghost_count < GHOSTS_MAX);
		history->ghosts[history->ghost_count++] = deferred->number;
	}
	if (program->busy && record_now(program)->fate == RECORD_PENDING)
		model_unknown(history->model, program->record);
}

void names_ghosts_settled(struct history *history)
{
	for (unsigned i = 0; i < history->ghost_count; i++)
		model_settled(history->model, history->ghosts[i]);
	history->ghost_count = 0;
}

/* ---- files made here ---- */

static void file_complete(struct deferred *deferred)
{
	struct program *program = deferred->program;
	uint16_t inode = model_record(program->history->model, deferred->number)->inode;
	program->history->complete_us[inode] = sim_now_us(program->world->sim);
}

static void file_flushed(void *arg, enum err err)
{
	struct deferred *deferred = arg;
	if (!deferred->program->stopping) {
		if (err == OK)
			file_complete(deferred);
		file_io_close(deferred->io);
	}
	deferred_done(deferred, err);
}

static void file_behind(void *arg, enum err err)
{
	deferred_done(arg, err);
}

/* As the mount closes: a file that the master does not know yet is complete at once. */
static void file_finish(void *arg)
{
	struct deferred *deferred = arg;
	struct file_io *io = deferred->io;
	client_note_closed(deferred->program->client, file_io_inode(io));
	if (!file_io_may_be_behind(io)) {
		file_io_flush(io, file_flushed, deferred);
		return;
	}
	file_complete(deferred);
	file_io_flush_behind(io, file_behind, deferred);
	file_io_close(io);
}

static void file_written(void *arg, enum err err)
{
	(void)arg;
	check(err == OK || err == ERR_CANCELLED);
}

static void file_fill(void *arg)
{
	struct deferred *deferred = arg;
	struct program *program = deferred->program;
	static const uint8_t bytes[FILE_BYTES_MAX];
	uint64_t size = program->history->bytes[model_record(program->history->model, deferred->number)->inode];
	if (size > 0)
		file_io_write(deferred->io, 0, slice_of(bytes, size), file_written, program);
	timer_init(&deferred->timer, program->loop, file_finish, deferred);
	timer_start(&deferred->timer, rng_below(names_rng(program), 3));
}

static bool create_file_local(struct program *program)
{
	Granary__Create create = GRANARY__CREATE__INIT;
	uint64_t size = one_in(program, 4) ? 0 : rng_below(names_rng(program), FILE_BYTES_MAX);
	create.parent = id_of(program, program->directory);
	create.name = name_bytes(program->name);
	create.mode = program->mode;
	create.exclusive = true;
	struct file_io *io = file_io_create_local(program->client, &create);
	if (!io)
		return false;
	uint16_t inode = number_of(program->history, file_io_inode(io), program->mode);
	record_now(program)->inode = inode;
	program->history->bytes[inode] = size;
	program->history->maker[inode] = program->record;
	program->history->files++;
	struct deferred *deferred = accepted(program, inode);
	deferred->has_done = true;
	deferred->io = io;
	client_note_opened(program->client, file_io_inode(io));
	cache(program, program->directory, program->name, inode,
	      loop_now_ms(program->loop) + client_delegation_ms(program->client, create.parent), loop_now_ms(program->loop));
	/* A shell makes it, closes it, and gives it to a program as its standard output. */
	if (one_in(program, 4))
		file_io_flush_behind(io, NULL, NULL);
	timer_init(&deferred->timer, program->loop, file_fill, deferred);
	timer_start(&deferred->timer, one_in(program, 15) ? rng_below(names_rng(program), 2000) : rng_below(names_rng(program), 8));
	return true;
}

/* ---- changes by the master ---- */

/* The step ends with what the master says. take (or NULL) learns from a result, whose error is in the record. */
static void change_answered(struct program *program, enum err err, const Granary__MetaReply *reply,
			    void (*take)(struct program *program, struct record *record, const Granary__MetaResult *result))
{
	if (program->stopping)
		return;
	const Granary__MetaResult *result = answered(program, err, reply);
	if (result && take)
		take(program, record_now(program), result);
	if (result)
		record_end(program, "master");
	step_end(program);
}

/* ---- create ---- */

static void create_take(struct program *program, struct record *record, const Granary__MetaResult *result)
{
	if (record->err)
		return;
	record->inode = number_of(program->history, result->inode, result->attr->mode);
	cache(program, program->directory, program->name, record->inode, lease_end(program, result), program->sent_ms);
}

static void create_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	change_answered(arg, err, reply, create_take);
}

static bool make_local(struct program *program, Granary__Create *create)
{
	Granary__Inode attr;
	if (mode_is_file(create->mode))
		return create_file_local(program);
	if (!client_make(program->client, create, &attr))
		return false;
	record_now(program)->inode = number_of(program->history, create->id, create->mode);
	accepted(program, record_now(program)->inode);
	cache(program, program->directory, program->name, record_now(program)->inode,
	      loop_now_ms(program->loop) + client_delegation_ms(program->client, create->parent), loop_now_ms(program->loop));
	return true;
}

void names_create(struct program *program)
{
	Granary__Create message = GRANARY__CREATE__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	message.parent = id_of(program, program->directory);
	message.name = name_bytes(program->name);
	message.mode = program->mode;
	message.exclusive = true;
	if (mode_is_symlink(program->mode))
		message.symlink = message_borrow(slice_text("target"));
	struct record *record = record_open(program, RECORD_CREATE, program->directory, program->name);
	record->mode = program->mode & MODE_PERMISSIONS;
	if (make_local(program, &message)) {
		step_end(program);
		return;
	}
	program->history->plain++;
	program->cache[program->directory][program->name].until_ms = 0;
	message.id = 0;
	message.time = message.ctime = 0;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &message;
	send_op(program, &op, create_done);
}

/* ---- unlink, rmdir ---- */

static void unlink_take(struct program *program, struct record *record, const Granary__MetaResult *result)
{
	if (record->err == OK) {
		record->inode = number_of(program->history, result->replaced, 0);
		program->gone[record->inode] = record->kind == RECORD_RMDIR;
	}
	cache(program, program->directory, program->name, MODEL_NOTHING, 0, 0);
}

static void unlink_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	change_answered(arg, err, reply, unlink_take);
}

static void unlink_message(const struct program *program, Granary__Unlink *message)
{
	message->parent = id_of(program, program->directory);
	message->name = name_bytes(program->name);
	message->directory = program->kind == RECORD_RMDIR;
}

static bool unlink_local(struct program *program)
{
	Granary__Unlink message = GRANARY__UNLINK__INIT;
	/* done may not come before the change is accepted: never from within the call. */
	struct deferred *deferred;
	if (is_local(program, program->directory, program->name))
		return false;
	unlink_message(program, &message);
	message.inode = id_of(program, program->inode);
	deferred = mem_zero(1, sizeof *deferred);
	if (!client_unlink(program->client, &message, on_change_done, deferred)) {
		free(deferred);
		return false;
	}
	record_now(program)->inode = program->inode;
	accepted_as(program, deferred, program->inode);
	deferred->has_done = true;
	cache(program, program->directory, program->name, MODEL_NOTHING, 0, 0);
	program->gone[program->inode] = message.directory;
	step_end(program);
	return true;
}

static void unlink_send(struct program *program)
{
	Granary__Unlink message = GRANARY__UNLINK__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	unlink_message(program, &message);
	program->history->plain++;
	program->cache[program->directory][program->name].until_ms = 0;
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &message;
	send_op(program, &op, unlink_done);
}

static void unlink_settled(struct program *program)
{
	if (!unlink_local(program))
		unlink_send(program);
}

void names_unlink(struct program *program)
{
	program->kind = is_directory(program, program->inode) ? RECORD_RMDIR : RECORD_UNLINK;
	record_open(program, program->kind, program->directory, program->name);
	if (unlink_local(program))
		return;
	if (program->kind == RECORD_RMDIR)
		barrier(program, id_of(program, program->inode), unlink_send);
	else if (is_local(program, program->directory, program->name))
		barrier(program, id_of(program, program->directory), unlink_settled);
	else
		unlink_send(program);
}

/* ---- rename ---- */

static void rename_names(struct program *program, uint16_t inode, uint64_t until_ms, uint64_t seen_ms)
{
	cache(program, program->directory, program->name, MODEL_NOTHING, 0, 0);
	cache(program, program->to_directory, program->to_name, inode, until_ms, seen_ms);
}

static void rename_take(struct program *program, struct record *record, const Granary__MetaResult *result)
{
	if (record->err)
		return;
	record->inode = number_of(program->history, result->inode, result->attr->mode);
	record->replaced = number_of(program->history, result->replaced, 0);
	program->gone[record->replaced] = is_directory(program, record->replaced);
	rename_names(program, record->inode, lease_end(program, result), loop_now_ms(program->loop));
}

static void rename_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	change_answered(arg, err, reply, rename_take);
}

static bool rename_local(struct program *program, Granary__Rename *message)
{
	bool directory = is_directory(program, program->inode);
	struct deferred *deferred;
	if (is_local(program, program->directory, program->name) || is_local(program, program->to_directory, program->to_name) ||
	    (directory && (program->replaced || program->to_directory != program->directory)) ||
	    is_directory(program, program->replaced))
		return false;
	message->inode = id_of(program, program->inode);
	message->replaced = id_of(program, program->replaced);
	deferred = mem_zero(1, sizeof *deferred);
	if (!client_rename(program->client, message, on_change_done, deferred)) {
		message->inode = message->replaced = 0;
		free(deferred);
		return false;
	}
	record_now(program)->inode = program->inode;
	record_now(program)->replaced = program->replaced;
	accepted_as(program, deferred, program->inode);
	deferred->has_done = true;
	/* The kernel moves its entry, with the time that it has. */
	rename_names(program, program->inode, program->cache[program->directory][program->name].until_ms, loop_now_ms(program->loop));
	step_end(program);
	return true;
}

static void rename_send(struct program *program)
{
	Granary__Rename message = GRANARY__RENAME__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	message.parent = id_of(program, program->directory);
	message.name = name_bytes(program->name);
	message.new_parent = id_of(program, program->to_directory);
	message.new_name = name_bytes(program->to_name);
	if (rename_local(program, &message))
		return;
	program->history->plain++;
	program->cache[program->directory][program->name].until_ms = 0;
	program->cache[program->to_directory][program->to_name].until_ms = 0;
	op.op_case = GRANARY__META_OP__OP_RENAME;
	op.rename = &message;
	send_op(program, &op, rename_done);
}

void names_rename(struct program *program)
{
	struct record *record = record_open(program, RECORD_RENAME, program->directory, program->name);
	record->to_directory = program->to_directory;
	record->to_name = program->to_name;
	if (is_local(program, program->directory, program->name) || is_directory(program, program->replaced) ||
	    is_local(program, program->to_directory, program->to_name))
		barrier(program, 0, rename_send);
	else
		rename_send(program);
}

/* ---- chmod ---- */

static void chmod_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	change_answered(arg, err, reply, NULL);
}

void names_chmod(struct program *program)
{
	Granary__Setattr message = GRANARY__SETATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct record *record = record_open(program, RECORD_CHMOD, program->directory, 0);
	record->mode = (uint16_t)(0700 + rng_below(names_rng(program), 64));
	message.inode = id_of(program, program->directory);
	message.mask = SETATTR_MODE;
	message.mode = record->mode;
	if (client_setattr_directory(program->client, &message)) {
		accepted(program, program->directory);
		step_end(program);
		return;
	}
	program->history->plain++;
	op.op_case = GRANARY__META_OP__OP_SETATTR;
	op.setattr = &message;
	send_op(program, &op, chmod_done);
}
