#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/file_commit.h"
#include "client/file_io_internal.h"
#include "common/base/check.h"
#include "common/base/limits.h"

#define PRESSURE_FILES_MAX 256u /* files made to write at once when too much is dirty */

/* ---- life ---- */

static void mtime_due(void *arg)
{
	struct file_io *io = arg;
	if (io->times_changed)
		flush_request(io, false, NULL, NULL);
}

/* The lease counts from the question: we may have been stopped between the answer and now. */
static void file_io_trust_attr(struct file_io *io)
{
	struct client *client = io->client;
	io->attr_until_ms = (client->asked_ms ? client->asked_ms : loop_now_ms(client->loop)) + LEASE_GRANTED_MS(CACHE_LEASE_MS);
}

static void learn_extent_of_chunks(struct file_io *io)
{
	uint64_t chunks = (io->attr->size + CHUNK_BYTES - 1) / CHUNK_BYTES;
	if (io->attr->layout == GRANARY__LAYOUT__LAYOUT_CHUNKS && chunks > io->map.exists_below)
		io->map.exists_below = (uint32_t)chunks;
}

struct file_io *file_io_open(struct client *client, uint64_t inode, const Granary__Inode *attr)
{
	struct file_io *io;
	HASH_FIND(hh, client->files, &inode, sizeof inode, io);
	if (io) {
		io->references++;
		file_io_update(io, attr);
		return io;
	}
	io = mem_zero(1, sizeof *io);
	io->client = client;
	io->inode = inode;
	io->references = 1;
	io->attr = (Granary__Inode *)message_copy(&attr->base);
	file_io_trust_attr(io);
	io->master_size = attr->size;
	chunk_map_init(&io->map, client, inode);
	learn_extent_of_chunks(io);
	timer_init(&io->mtime_timer, client->loop, mtime_due, io);
	defer_init(&io->flush_defer, client->loop, flush_deferred, io);
	HASH_ADD(hh, client->files, inode, sizeof io->inode, io);
	return io;
}

struct file_io *file_io_open_known(struct client *client, uint64_t inode, const Granary__Inode *attr, uint64_t asked_ms)
{
	check(client->asked_ms == 0);
	client->asked_ms = asked_ms;
	struct file_io *io = file_io_open(client, inode, attr);
	client->asked_ms = 0;
	return io;
}

struct file_io *file_io_ref(struct file_io *io)
{
	check(io->references > 0);
	io->references++;
	return io;
}

void file_io_drop_small(struct file_io *io)
{
	if (io->small && !io->stranded)
		file_io_accounted(io->client, -(int64_t)io->small->size);
	iobuf_unref(io->small);
	io->small = NULL;
	io->promised = io->stranded = false;
}

static void drop_buffered(struct file_io *io)
{
	extents_drop(io, 0);
	if (io->small && io->flush_state == FLUSH_NONE)
		file_io_drop_small(io);
	io->size_changed = io->times_changed = false;
	file_io_note_dirty(io);
}

static void free_if_unused(struct file_io *io)
{
	if (io->references > 0 || io->holds > 0)
		return;
	drop_buffered(io);
	timer_stop(&io->mtime_timer);
	defer_cancel(&io->flush_defer);
	check(!io->extents && !io->queue && !io->reads_waiting && !io->flush_running && !io->flush_waiting);
	HASH_DEL(io->client->files, io);
	chunk_map_deinit(&io->map);
	blob_cache_drop(io);
	free(io->unsynced);
	message_free(&io->attr->base);
	free(io);
}

static void read_cancelled(const struct io_op *op)
{
	if (op->parts_done)
		op->parts_done(op->arg, ERR_CANCELLED, NULL, 0);
	else
		op->read_done(op->arg, ERR_CANCELLED, NULL, 0);
}

void file_io_abandon(struct file_io *io)
{
	io->references = 0;
	io->holds = 0;
	while (io->queue) {
		struct io_op *op = io->queue;
		DL_DELETE2(io->queue, op, previous, next);
		if (op->kind == IO_READ)
			read_cancelled(op);
		else
			op->done(op->arg, ERR_CANCELLED);
		buf_deinit(&op->bytes);
		free(op);
	}
	while (io->flush_waiting) {
		struct flush_request *request = io->flush_waiting;
		LL_DELETE(io->flush_waiting, request);
		if (request->done)
			request->done(request->arg, ERR_CANCELLED);
		free(request);
	}
	free_if_unused(io);
}

void file_io_hold(struct file_io *io)
{
	io->holds++;
}

void file_io_release(struct file_io *io)
{
	check(io->holds > 0);
	io->holds--;
	free_if_unused(io);
}

void file_io_close(struct file_io *io)
{
	check(io->references > 0);
	io->references--;
	if (io->references == 0 && io->creation && !io->client->closing)
		file_io_flush_behind(io, NULL, NULL);
	else if (io->references == 0 && !io->stranded && !io->queue && !io->flush_running && !io->flush_waiting)
		drop_buffered(io);
	free_if_unused(io);
}

/* ---- attributes ---- */

static bool has_unflushed_data(const struct file_io *io)
{
	return io->small || io->extents || io->size_changed;
}

/* What describes the content is ours, not the master's: a change of it is on its way, or will be. A flush that tells nothing but times
 * leaves it to the master: others may change it meanwhile, for as long as that takes. */
static bool is_busy(const struct file_io *io)
{
	return has_unflushed_data(io) || (io->flush_state != FLUSH_NONE && !io->flush_times_only) || io->reshaping || io->queue;
}

bool file_io_attr_is_old(const struct file_io *io)
{
	return !io->creation && loop_now_ms(io->client->loop) >= io->attr_until_ms && !is_busy(io);
}

void file_io_recalled(struct client *client, uint64_t inode)
{
	struct file_io *io;
	HASH_FIND(hh, client->files, &inode, sizeof inode, io);
#ifdef PLANT_CLIENT_RECALL_IGNORED
	return;
#endif
	if (!io)
		return;
	io->attr_until_ms = 0;
	chunk_map_forget_holes(&io->map);
}

struct place file_io_place(struct file_io *io, uint64_t offset)
{
	return (struct place){.map = &io->map,
			      .index = (uint32_t)(offset / CHUNK_BYTES),
			      .allocate = io->chunked && io->attr->layout != GRANARY__LAYOUT__LAYOUT_CHUNKS};
}

bool file_io_in_chunks(const struct file_io *io)
{
	return io->chunked || io->attr->layout == GRANARY__LAYOUT__LAYOUT_CHUNKS;
}

bool file_io_dirty(const struct file_io *io)
{
	return io->creation || has_unflushed_data(io) || io->times_changed || io->queue || io->flush_running || io->flush_waiting;
}

const Granary__Inode *file_io_attr(const struct file_io *io)
{
	return io->attr;
}

void file_io_note_dirty(struct file_io *io)
{
	struct client *client = io->client;
	bool dirty = has_unflushed_data(io) && !io->stranded;
	if (dirty == io->in_dirty)
		return;
	io->in_dirty = dirty;
	if (dirty) {
		DL_APPEND2(client->dirty, io, dirty_previous, dirty_next);
		io->dirty_since_ms = loop_now_ms(client->loop);
		if (!timer_is_running(&client->writeback))
			timer_start(&client->writeback, CLIENT_WRITEBACK_MS);
	} else
		DL_DELETE2(client->dirty, io, dirty_previous, dirty_next);
}

void file_io_ask_attr(struct file_io *io, session_done_fn *done, void *arg)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	getattr.inode = io->inode;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	session_meta(io->client->session, (Granary__MetaOp *[]){&op}, 1, SESSION_WANTS_NOTHING, done, arg);
}

enum err file_io_attr_answered(enum err err, const ProtobufCMessage *message, const Granary__Inode **out)
{
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	if (err)
		return err;
	if (reply->n_results == 1 && reply->results[0]->error)
		return err_from_wire(reply->results[0]->error);
	if (reply->n_results != 1 || !reply->results[0]->attr)
		return ERR_PROTOCOL;
	*out = reply->results[0]->attr;
	return OK;
}

bool file_io_is_moved(const struct file_io *io, const Granary__Inode *attr)
{
#ifdef PLANT_CLIENT_MOVED_IS_OTHER
	return io == NULL;
#endif
	return io->attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB && attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB &&
	       attr->data_change == io->attr->data_change && (attr->pack != io->attr->pack || attr->slot != io->attr->slot);
}

/* keep_content: what describes the data stays as we know it. */
static void replace_attr(struct file_io *io, const Granary__Inode *attr, bool keep_size, bool keep_content)
{
	Granary__Inode *fresh = (Granary__Inode *)message_copy(&attr->base);
	Granary__Inode *old = io->attr;
	io->master_size = fresh->size;
	if (keep_size)
		fresh->size = old->size;
	if (keep_size || io->times_changed || io->flush_times_only)
		fresh->mtime = old->mtime;
	if (keep_content && !file_io_is_moved(io, fresh)) {
		fresh->pack = old->pack;
		fresh->slot = old->slot;
	}
	if (keep_content) {
		fresh->layout = old->layout;
		fresh->blob_bytes = old->blob_bytes;
		fresh->trim = old->trim;
		fresh->data_change = old->data_change;
	}
	io->attr = fresh;
	file_io_trust_attr(io);
	message_free(&old->base);
	learn_extent_of_chunks(io);
}

void file_io_take_attr(struct file_io *io, const Granary__Inode *attr)
{
	if (attr->change >= io->attr->change) /* else others have changed it since, and we know already */
		replace_attr(io, attr, has_unflushed_data(io), false);
	if (attr->data_change == attr->change)
		io->own_change = attr->data_change;
	io->attr_until_ms = 0; /* it took its time on the way through the log */
}

void file_io_made(struct file_io *io, const Granary__Inode *attr)
{
	if (attr)
		io->own_change = attr->data_change;
}

uint64_t file_io_own_change(const struct file_io *io)
{
	return io->own_change;
}

void file_io_update(struct file_io *io, const Granary__Inode *attr)
{
	bool busy = is_busy(io);
	if (attr->change < io->attr->change)
		return;
	if (!busy && attr->data_change != io->attr->data_change) {
		chunk_map_clear(&io->map);
		io->chunked = false;
	}
	replace_attr(io, attr, busy, busy);
}

void file_io_set_times(struct file_io *io, int64_t atime, int64_t mtime)
{
	if (atime != 0)
		io->attr->atime = io->atime = atime;
	if (mtime != 0)
		io->attr->mtime = mtime;
	io->times_changed |= atime != 0 || mtime != 0;
}

/* ---- too much is dirty ---- */

void file_io_accounted(struct client *client, int64_t bytes)
{
	client->dirty_bytes = (uint64_t)((int64_t)client->dirty_bytes + bytes);
	if (bytes < 0 && client->writers)
		defer_post(&client->release);
}

void file_io_pressure(struct client *client)
{
	struct file_io *io, *next;
	unsigned count = 0;
	DL_FOREACH_SAFE2(client->dirty, io, next, dirty_next)
	{
		if (count++ == PRESSURE_FILES_MAX)
			break;
		if (io->small) {
			if (io->flush_state == FLUSH_NONE && !io->flush_waiting)
				flush_request(io, false, NULL, NULL);
		} else {
			io->hurry = true;
			extents_pump(io);
		}
	}
}

void file_io_writeback(void *arg)
{
	struct client *client = arg;
	struct file_io *io, *next;
	uint64_t now = loop_now_ms(client->loop);
	DL_FOREACH_SAFE2(client->dirty, io, next, dirty_next)
	{
		uint64_t due = io->dirty_since_ms + CLIENT_WRITEBACK_MS;
		if (due > now) {
			timer_start(&client->writeback, due - now);
			return;
		}
		/* At the end of the list until it is due again, should it stay dirty: it may be written to all the
		 * time. */
		DL_DELETE2(client->dirty, io, dirty_previous, dirty_next);
		DL_APPEND2(client->dirty, io, dirty_previous, dirty_next);
		io->dirty_since_ms = now;
		if (io->flush_state == FLUSH_NONE && !io->flush_waiting && !io->queue)
			flush_request(io, false, NULL, NULL);
	}
}

void file_io_session_lost(struct client *client)
{
	struct file_io *io, *next;
	DL_FOREACH_SAFE2(client->dirty, io, next, dirty_next)
	{
		if (io->creation) /* nobody else can have it: stored in the next session */
			continue;
		io->error = ERR_NO_SESSION;
		io->failed_from = 0;
		io->failed_to = UINT64_MAX;
		drop_buffered(io);
	}
}

/* ---- writes ---- */

static void small_write(struct file_io *io, uint64_t offset, struct slice bytes)
{
	uint32_t end = (uint32_t)(offset + bytes.size);
	uint32_t before = io->small ? io->small->size : 0;
	uint32_t size = end > before ? end : before;
	if (!io->small || size > io->small->capacity || io->small->references > 1) {
		uint32_t capacity = BLOCK_BYTES;
		while (capacity < size)
			capacity *= 2;
		struct iobuf *fresh = iobuf_open(capacity);
		if (io->small)
			memcpy(fresh->bytes, io->small->bytes, before);
		iobuf_unref(io->small);
		io->small = fresh;
	}
	if (offset > before)
		memset(io->small->bytes + before, 0, (size_t)offset - before);
	memcpy(io->small->bytes + offset, bytes.bytes, bytes.size);
	io->small->size = size;
	file_io_accounted(io->client, (int64_t)size - before);
}

static void small_to_extents(struct file_io *io)
{
	struct iobuf *small = iobuf_ref(io->small);
	file_io_drop_small(io);
	extents_write(io, 0, slice_of(small->bytes, small->size), NULL);
	iobuf_unref(small);
	io->size_changed = true;
}

/* Nothing stands in the way (reshape_before_write). */
static void write_accept(struct file_io *io, uint64_t offset, uint64_t end, const struct file_part *parts, size_t count)
{
	bool fresh = !file_io_in_chunks(io) && io->attr->layout == GRANARY__LAYOUT__LAYOUT_EMPTY && io->attr->size == 0;
	bool small = (io->small || fresh) && end <= BLOB_BYTES_MAX;
	if (!small && io->small)
		small_to_extents(io);
	if (!small && (end > io->attr->size || io->attr->layout != GRANARY__LAYOUT__LAYOUT_CHUNKS))
		io->size_changed = true;
	for (size_t i = 0; i < count; i++) {
		if (small)
			small_write(io, offset, parts[i].bytes);
		else
			extents_write(io, offset, parts[i].bytes, parts[i].iobuf);
		offset += parts[i].bytes.size;
	}
	if (end > io->attr->size)
		io->attr->size = end;
	io->attr->mtime = (int64_t)loop_wall_ms(io->client->loop) * 1000000;
	io->times_changed = true;
	file_io_note_dirty(io);
	extents_pump(io);
}

void file_io_queue_run(struct file_io *io)
{
	if (io->queue_running)
		return;
	io->queue_running = true;
	file_io_hold(io);
	while (io->queue && !io->reshaping) {
		struct io_op *op = io->queue;
		if (op->kind == IO_TRUNCATE) {
			reshape_truncate(io);
			if (io->queue == op)
				break;
			continue;
		}
		if (op->kind == IO_WRITE && reshape_before_write(io, op->offset + op->size)) {
			if (io->queue != op) /* it failed at once */
				continue;
			break;
		}
		DL_DELETE2(io->queue, op, previous, next);
		if (op->kind == IO_WRITE) {
			struct file_part part = {.bytes = buf_slice(&op->bytes)};
			write_accept(io, op->offset, op->offset + op->size, &part, 1);
			client_later(io->client, op->size, op->done, op->arg, OK);
		} else if (op->kind == IO_READ) {
			read_start(io, op->offset, op->size, op->read_done, op->parts_done, op->arg);
		} else
			flush_request(io, op->sync, op->done, op->arg);
		buf_deinit(&op->bytes);
		free(op);
	}
	io->queue_running = false;
	file_io_release(io);
}

static struct io_op *queue_add(struct file_io *io, enum io_op_kind kind, file_io_fn *done, void *arg)
{
	struct io_op *op = mem_zero(1, sizeof *op);
	op->kind = kind;
	op->done = done;
	op->arg = arg;
	DL_APPEND2(io->queue, op, previous, next);
	return op;
}

void file_io_write(struct file_io *io, uint64_t offset, struct slice bytes, file_io_fn *done, void *arg)
{
	struct file_part part = {.bytes = bytes};
	file_io_write_parts(io, offset, &part, 1, done, arg);
}

void file_io_write_parts(struct file_io *io, uint64_t offset, const struct file_part *parts, size_t count, file_io_fn *done,
			 void *arg)
{
	uint64_t size = 0;
	for (size_t i = 0; i < count; i++)
		size += parts[i].bytes.size;
	if (size > FILE_BYTES_MAX || offset > FILE_BYTES_MAX - size) {
		client_later(io->client, 0, done, arg, ERR_TOO_LARGE);
		return;
	}
	if (size == 0) {
		client_later(io->client, 0, done, arg, OK);
		return;
	}
	if (!io->queue && !reshape_before_write(io, offset + size)) {
		write_accept(io, offset, offset + size, parts, count);
		client_later(io->client, size, done, arg, OK);
		return;
	}
	struct io_op *op = queue_add(io, IO_WRITE, done, arg);
	op->offset = offset;
	op->size = size;
	for (size_t i = 0; i < count; i++)
		buf_append_slice(&op->bytes, parts[i].bytes);
	file_io_queue_run(io);
}

static void read_or_queue(struct file_io *io, uint64_t offset, size_t size, file_io_read_fn *done, read_parts_fn *parts_done,
			  void *arg)
{
	if (!io->queue) {
		read_start(io, offset, size, done, parts_done, arg);
		return;
	}
	struct io_op *op = queue_add(io, IO_READ, NULL, arg);
	op->read_done = done;
	op->parts_done = parts_done;
	op->offset = offset;
	op->size = size;
}

void file_io_read(struct file_io *io, uint64_t offset, size_t size, file_io_read_fn *done, void *arg)
{
	read_or_queue(io, offset, size, done, NULL, arg);
}

void file_io_read_parts(struct file_io *io, uint64_t offset, size_t size, read_parts_fn *done, void *arg)
{
	read_or_queue(io, offset, size, NULL, done, arg);
}

static void flush_or_queue(struct file_io *io, bool sync, file_io_fn *done, void *arg)
{
	if (!io->queue)
		flush_request(io, sync, done, arg);
	else
		queue_add(io, IO_FLUSH, done, arg)->sync = sync;
}

void file_io_flush_unhurried(struct file_io *io, file_io_fn *done, void *arg)
{
	flush_or_queue(io, false, done, arg);
}

void file_io_flush(struct file_io *io, file_io_fn *done, void *arg)
{
	file_commit_hurry(io);
	flush_or_queue(io, false, done, arg);
}

void file_io_sync(struct file_io *io, file_io_fn *done, void *arg)
{
	file_commit_hurry(io);
	flush_or_queue(io, true, done, arg);
}

void file_io_truncate(struct file_io *io, uint64_t size, file_io_fn *done, void *arg)
{
	if (size > FILE_BYTES_MAX) {
		client_later(io->client, 0, done, arg, ERR_TOO_LARGE);
		return;
	}
	queue_add(io, IO_TRUNCATE, done, arg)->size = size;
	file_io_queue_run(io);
}
