#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/chain_op.h"
#include "client/file_commit.h"
#include "client/file_io_internal.h"
#include "client/read_op.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/setattr.h"

/* While io->reshaping, the head of the queue waits for us; reshaped() lets it go on. */

static void reshaped(struct file_io *io)
{
	io->reshaping = false;
	file_io_note_dirty(io);
	file_io_queue_run(io);
	file_io_release(io);
}

/* The operation at the head of the queue has ended. */
static void head_end(struct file_io *io, enum err err)
{
	struct io_op *op = io->queue;
	DL_DELETE2(io->queue, op, previous, next);
	client_later(io->client, 0, op->done, op->arg, err);
	buf_deinit(&op->bytes);
	free(op);
}

/* ---- a blob that is modified gets chunks ---- */

static void blob_call(struct file_io *io);

static void blob_looked_for(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct file_io *io = arg;
	const Granary__Inode *attr = NULL;
	(void)text;
	err = file_io_attr_answered(err, message, &attr);
	if (err == OK && !file_io_is_moved(io, attr)) /* given other content by another client */
		err = ERR_STALE_HANDLE;
	if (err) {
		head_end(io, err);
		reshaped(io);
		return;
	}
	file_io_update(io, attr);
	io->attr_until_ms = 0; /* it took its time */
	blob_call(io);
}

static void blob_loaded(void *arg, enum err err, struct iobuf *data, uint32_t skip)
{
	struct file_io *io = arg;
	uint64_t valid = io->attr->blob_bytes < io->attr->size ? io->attr->blob_bytes : io->attr->size;
	(void)skip;
	if (err == OK && (!data || data->size < valid))
		err = ERR_CORRUPT;
	if ((err == ERR_NOT_FOUND || err == ERR_STALE_HANDLE) && !io->client->closing) { /* it is not where it was */
		file_io_ask_attr(io, blob_looked_for, io);
		return;
	}
	if (err) {
		head_end(io, err);
	} else {
		extents_write(io, 0, slice_of(data->bytes, (size_t)valid), data);
		io->size_changed = true;
		extents_pump(io);
	}
	reshaped(io);
}

static void blob_call(struct file_io *io)
{
	read_call(io->client,
		  &(struct read_request){.place = {.pack = io->attr->pack, .inode = io->inode}, .slot = io->attr->slot},
		  blob_loaded, io);
}

static void load_blob(struct file_io *io)
{
	io->reshaping = true;
	file_io_hold(io);
	blob_call(io);
}

/* ---- trim: bytes of a chunk that a truncation has cut off ---- */

static void trim_committed(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct file_io *io = arg;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	(void)text;
	if (err == OK && (reply->n_results != 1 || reply->results[0]->error))
		err = reply->n_results != 1 ? ERR_PROTOCOL : err_from_wire(reply->results[0]->error);
	if (err == OK && reply->results[0]->attr)
		file_io_take_attr(io, reply->results[0]->attr);
	/* A truncation is done without it; whoever lets the file grow trims again. */
	if (io->queue->kind == IO_TRUNCATE && io->queue->sync)
		head_end(io, OK);
	else if (err)
		head_end(io, err);
	else
		io->attr->trim = 0;
	reshaped(io);
}

static void trim_failed(struct file_io *io, enum err err)
{
	head_end(io, io->queue->kind == IO_TRUNCATE && io->queue->sync ? OK : err);
	reshaped(io);
}

static void trim_synced(void *arg, enum err err, uint32_t slot)
{
	struct file_io *io = arg;
	(void)slot;
	if (err) {
		trim_failed(io, err);
		return;
	}
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__CommitChunks chunks = GRANARY__COMMIT_CHUNKS__INIT;
	chunks.inode = io->inode;
	chunks.mtime = io->attr->mtime;
	chunks.trimmed = true;
	chunks.trim = io->attr->trim;
	op.op_case = GRANARY__META_OP__OP_COMMIT_CHUNKS;
	op.commit_chunks = &chunks;
	session_meta(io->client->session, (Granary__MetaOp *[]){&op}, 1, SESSION_WANTS_NOTHING, trim_committed, io);
}

static struct place trim_place(struct file_io *io)
{
	return (struct place){.map = &io->map, .index = (uint32_t)(io->attr->trim / CHUNK_BYTES)};
}

/* The master knows of it until it is durable: after a loss of power the bytes would be there again, and the file may grow over them. */
static void trimmed(void *arg, enum err err, uint32_t slot)
{
	struct file_io *io = arg;
#ifdef PLANT_CLIENT_TRIM_NOT_SYNCED
	trim_synced(arg, err, slot);
	return;
#endif
	(void)slot;
	if (err)
		trim_failed(io, err);
	else
		chain_call(io->client, &(struct chain_request){.type = MESSAGE_CHUNK_SYNC, .place = trim_place(io)}, trim_synced, io);
}

static void trim(struct file_io *io)
{
	io->reshaping = true;
	file_io_hold(io);
	chain_call(io->client,
		   &(struct chain_request){
		       .type = MESSAGE_CHUNK_TRIM,
		       .place = trim_place(io),
		       .offset = (uint32_t)(io->attr->trim % CHUNK_BYTES),
		   },
		   trimmed, io);
}

/* Chunks belong to an inode that the master knows. */
static bool needs_creation(const struct file_io *io, uint64_t end)
{
	return io->creation && (end > BLOB_BYTES_MAX || (!io->small && io->attr->size > 0));
}

bool reshape_before_write(struct file_io *io, uint64_t end)
{
	if (needs_creation(io, end)) {
		if (io->queue && io->flush_state == FLUSH_NONE && !io->flush_waiting)
			flush_creation(io, NULL, NULL);
		return true;
	}
	if (io->stranded) {
		if (io->queue)
			head_end(io, ERR_NO_SPACE);
		return true;
	}
	if (io->small) {
		/* A blob that is being stored would take the chunks away again: they wait for it. So do they for one that has
		 * been promised, for they may find no room. */
		if (end > BLOB_BYTES_MAX && io->promised && io->queue && io->flush_state == FLUSH_NONE && !io->flush_waiting)
			flush_request(io, false, NULL, NULL);
		return end > BLOB_BYTES_MAX && (io->flush_state != FLUSH_NONE || io->promised);
	}
	if (!file_io_in_chunks(io) && io->attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB) {
		if (io->queue)
			load_blob(io);
		return true;
	}
	if (file_io_in_chunks(io) && io->attr->trim != 0 && end > io->attr->trim) {
		if (io->queue)
			trim(io);
		return true;
	}
	return false;
}

/* ---- truncation ---- */

static void truncate_small(struct file_io *io, uint32_t size)
{
	uint32_t before = io->small->size;
	struct iobuf *fresh = NULL;
	if (size > 0) {
		fresh = iobuf_open(size);
		memcpy(fresh->bytes, io->small->bytes, before < size ? before : size);
		if (size > before)
			memset(fresh->bytes + before, 0, size - before);
		fresh->size = size;
	}
	if (!io->stranded)
		file_io_accounted(io->client, (int64_t)size - before);
	iobuf_unref(io->small);
	io->small = fresh;
	io->attr->size = size;
	io->promised = io->promised && fresh;
	io->stranded = io->stranded && fresh;
}

static void truncate_send(struct file_io *io);

static void truncate_answered(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct file_io *io = arg;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	(void)text;
	if (err == OK && (reply->n_results != 1 || reply->results[0]->error))
		err = reply->n_results != 1 ? ERR_PROTOCOL : err_from_wire(reply->results[0]->error);
	if (err == ERR_BUSY && message) { /* done in part: a file of very many chunks */
		truncate_send(io);
		file_io_release(io);
		return;
	}
	if (err) {
		head_end(io, err);
		reshaped(io);
		return;
	}
	chunk_map_clear(&io->map);
	extents_synced_above(io, io->queue->size);
	io->chunked = false;
	io->times_changed = false;
	if (reply->results[0]->attr)
		file_io_take_attr(io, reply->results[0]->attr);
	io->queue->sync = true; /* the truncation itself is done */
	if (io->attr->layout == GRANARY__LAYOUT__LAYOUT_CHUNKS && io->attr->trim != 0)
		trim(io);
	else {
		head_end(io, OK);
		io->reshaping = false;
		file_io_hold(io);
		reshaped(io);
	}
	file_io_release(io);
}

static void truncate_send(struct file_io *io)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Setattr setattr = GRANARY__SETATTR__INIT;
	setattr.inode = io->inode;
	setattr.mask = SETATTR_SIZE;
	setattr.size = io->queue->size;
	op.op_case = GRANARY__META_OP__OP_SETATTR;
	op.setattr = &setattr;
	io->reshaping = true;
	file_io_hold(io);
	session_meta(io->client->session, (Granary__MetaOp *[]){&op}, 1, SESSION_WANTS_NOTHING, truncate_answered, io);
}

void reshape_truncate(struct file_io *io)
{
	uint64_t size = io->queue->size;
	if (io->flush_state != FLUSH_NONE || io->flush_waiting)
		return;
	if (io->small && io->attr->layout == GRANARY__LAYOUT__LAYOUT_EMPTY && size <= BLOB_BYTES_MAX) {
		truncate_small(io, (uint32_t)size);
		io->attr->mtime = (int64_t)loop_wall_ms(io->client->loop) * 1000000;
		head_end(io, OK);
		return;
	}
	if (io->stranded) {
		head_end(io, ERR_NO_SPACE);
		return;
	}
	extents_drop(io, size);
	if (io->small || io->extents || io->size_changed || io->creation) {
		file_commit_hurry(io);
		flush_request(io, false, NULL, NULL);
		return;
	}
	if (file_io_in_chunks(io) && io->attr->trim != 0 && size > io->attr->trim)
		trim(io);
	else
		truncate_send(io);
}
