#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/blob_op.h"
#include "client/chain_op.h"
#include "client/creations.h"
#include "client/file_commit.h"
#include "client/file_io_internal.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/setattr.h"

/* A sync begins with MAP when others may have written before: which chunks are there?
 *
 *   NONE --small--> APPEND (blob to a pack) ----------------------------------+
 *     |                                                                      v
 *     +-----------> EXTENTS (all of the epoch answered) -> SYNC (chunks) -> COMMIT (master) -> NONE */

static void flush_begin(struct file_io *io);

static void flush_end(struct file_io *io, enum err err)
{
	struct flush_request *request = io->flush_running;
	io->flush_running = NULL;
	io->flush_state = FLUSH_NONE;
	io->flush_times_only = false;
	io->commit_hurried = io->flush_waiting != NULL;
	iobuf_unref(io->flush_small);
	io->flush_small = NULL;
	free(io->flush_bits);
	io->flush_bits = NULL;
	io->flush_words = io->flush_next = 0;
	enum err failed = io->error;
	if (err == OK && io->error) {
		err = io->error;
		io->error = OK;
	} else if (err && err == io->error) {
		io->error = OK;
	}
	file_io_hold(io);
	file_io_note_dirty(io);
	bool told = false;
	while (request) {
		struct flush_request *next = request->next;
		if (request->done) {
			request->done(request->arg, err);
			told = true;
		}
		free(request);
		request = next;
	}
	if (err && !told && !io->error && !io->stranded) {
		io->error = err;
		if (failed == OK) { /* no write: what it stands for may be anywhere */
			io->failed_from = 0;
			io->failed_to = UINT64_MAX;
		}
	}
	if (io->flush_waiting && io->flush_state == FLUSH_NONE)
		flush_begin(io);
	file_io_queue_run(io);
	file_io_release(io);
}

/* ---- commit ---- */

static void small_drop(struct file_io *io)
{
	if (!io->small || io->small != io->flush_small) /* written to meanwhile */
		return;
	file_io_drop_small(io);
}

/* A failed flush has lost the data that it should have stored: it is not tried again behind the user's back. */
static void commit_failed(struct file_io *io, enum err err)
{
	if (io->creation)
		creation_failed(io->creation, err);
	small_drop(io);
	io->times_changed = false;
	io->size_changed = io->small || io->extents; /* what was accepted since is still to come */
	if (!io->size_changed) {
		io->attr->size = io->master_size;
		io->attr_until_ms = 0;
		if (io->attr->layout != GRANARY__LAYOUT__LAYOUT_CHUNKS) { /* chunks aside are not its content */
			io->chunked = false;
			chunk_map_clear(&io->map);
		}
	}
	flush_end(io, err);
}

/* The flush has not stored what it should have. What a close has promised stays, if that may pass, and is tried again. */
static void flush_failed(struct file_io *io, enum err err)
{
	bool passing = err == ERR_NO_SPACE || client_err_may_pass(err);
	if (!io->promised || io->creation || !io->small || !passing || io->client->closing) {
		commit_failed(io, err);
		return;
	}
	if (!io->stranded)
		file_io_accounted(io->client, -(int64_t)io->small->size);
	io->stranded = true;
	io->times_changed = true;
	flush_end(io, err);
}

static void append_begin(struct file_io *io);

void flush_committed(struct file_io *io, enum err err, const Granary__MetaResult *result)
{
	if (err == OK && io->flush_alone && io->flush_error) { /* there was no room for the data */
		if (result->attr)
			file_io_take_attr(io, result->attr);
		flush_failed(io, io->flush_error);
	} else if (err == ERR_PACK_FULL && io->flush_small && !io->client->closing) { /* the pack is gone: to another */
		append_begin(io);
	} else if (err == OK) {
		if (io->flush_small) {
			small_drop(io);
			io->promised = false;
		}
		if (result->attr)
			file_io_take_attr(io, result->attr);
		bool more = io->map.written_sent == CHUNKS_WRITTEN_MAX;
		chunk_map_written_known(&io->map);
		if (more && !io->client->closing)
			file_commit(io);
		else
			flush_end(io, OK);
	} else {
		flush_failed(io, err);
	}
}

/* Only the times are to be told: a new mtime may be told a little later after a sync, and together with others'. */
static void commit_or_end(struct file_io *io)
{
	/* Whoever takes a chunk that we have written to for a hole is to be told, whoever made it. */
	bool unknown = io->map.written_count > 0 || io->map.allocated || (io->map.found && io->times_changed);
	bool content = io->creation || io->flush_small || (io->chunked && (io->size_changed || unknown));
	bool later = !content && io->times_changed && io->flush_sync;
	if (later && !timer_is_running(&io->mtime_timer))
		timer_start(&io->mtime_timer, CLIENT_MTIME_DELAY_MS);
	io->flush_times_only = !content;
	if (content || (io->times_changed && !later))
		file_commit(io);
	else
		flush_end(io, OK);
}

/* ---- chunks ---- */

static void sync_chunks(struct file_io *io);

static void chunk_synced(void *arg, enum err err, uint32_t slot)
{
	struct file_io *io = arg;
	(void)slot;
	io->flush_pending--;
	if (err == ERR_STALE_HANDLE) /* the file has got other content: what we wrote is no part of it */
		err = OK;
	if (err && !io->flush_error)
		io->flush_error = err;
	sync_chunks(io);
	file_io_release(io);
}

static void sync_chunks(struct file_io *io)
{
	while (io->flush_next < io->flush_words * 64 && io->flush_pending < CLIENT_WRITES_PER_FILE_MAX &&
	       !io->flush_error) {
		size_t index = io->flush_next++;
		if (io->flush_bits[index / 64] == 0) {
			io->flush_next = (index / 64 + 1) * 64;
			continue;
		}
		if (!(io->flush_bits[index / 64] >> index % 64 & 1))
			continue;
		io->flush_pending++;
		file_io_hold(io);
		chain_call(io->client,
			   &(struct chain_request){.type = MESSAGE_CHUNK_SYNC,
						   .place = file_io_place(io, (uint64_t)index * CHUNK_BYTES)},
			   chunk_synced, io);
	}
	if (io->flush_pending > 0)
		return;
	if (io->flush_error)
		commit_failed(io, io->flush_error);
	else
		commit_or_end(io);
}

static void extents_flushed(struct file_io *io)
{
	if (io->error) {
		commit_failed(io, io->error);
		return;
	}
	/* The commit takes away the blob, which may be durable, and with it bytes that nobody has written anew. */
	bool leaves_blob = file_io_in_chunks(io) && io->attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB;
#ifdef PLANT_CLIENT_BLOB_LEFT_UNSYNCED
	leaves_blob = false;
#endif
	if (!io->flush_sync && !leaves_blob) {
		commit_or_end(io);
		return;
	}
	io->flush_state = FLUSH_SYNC;
	io->flush_error = OK;
	io->flush_bits = io->unsynced;
	io->flush_words = io->unsynced_words;
	io->flush_next = 0;
	io->unsynced = NULL;
	io->unsynced_words = 0;
	file_io_hold(io);
	if (io->blob_unsynced && !file_io_in_chunks(io) && io->attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB) {
		io->blob_unsynced = false;
		io->flush_pending++;
		file_io_hold(io);
		chain_call(io->client,
			   &(struct chain_request){.type = MESSAGE_CHUNK_SYNC,
						   .place = {.pack = io->attr->pack, .inode = io->inode}},
			   chunk_synced, io);
	}
	sync_chunks(io);
	file_io_release(io);
}

/* ---- blob ---- */

static void appended(void *arg, enum err err, uint64_t pack, uint32_t slot)
{
	struct file_io *io = arg;
	io->blob_pack = pack;
	io->blob_slot = slot;
	if (file_commit_again(io, err)) {
		append_begin(io);
	} else if (err == ERR_NO_SPACE && io->creation && !io->client->closing) { /* its name needs none */
		io->flush_error = err;
		io->flush_alone = true;
		file_commit(io);
	} else if (err) {
		flush_failed(io, err);
	} else
		file_commit(io);
	file_io_release(io);
}

static void append_begin(struct file_io *io)
{
	io->flush_state = FLUSH_APPEND;
	if (!io->flush_small)
		io->flush_small = iobuf_ref(io->small);
	file_io_hold(io);
	blob_append(io->client,
		    &(struct blob_request){.label = io->attr->class_, .data = io->flush_small, .sync = io->flush_sync}, appended, io);
}

static void flush_extents(struct file_io *io)
{
	io->flush_state = FLUSH_EXTENTS;
	if (io->flush_sync)
		extents_prefer_sync(io);
	extents_pump(io);
	flush_advance(io);
}

static void map_ask(struct file_io *io, uint32_t first);

static void map_answered(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct file_io *io = arg;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	uint32_t last = 0;
	(void)text;
	if (err == OK && reply->n_results != 1)
		err = ERR_PROTOCOL;
	if (err == OK && reply->results[0]->error)
		err = err_from_wire(reply->results[0]->error);
	for (size_t i = 0; err == OK && i < reply->results[0]->n_chunks; i++) {
		struct location location;
		const Granary__ChunkLocation *chunk = reply->results[0]->chunks[i];
		err = location_parse(&io->client->servers, chunk, &location);
		if (err == OK && chunk->index >= FILE_BYTES_MAX / CHUNK_BYTES)
			err = ERR_PROTOCOL;
		if (err)
			break;
		place_set(io->client, &(struct place){.map = &io->map, .index = chunk->index}, &location);
		extents_unsynced(io, chunk->index);
		last = chunk->index;
	}
	if (err)
		commit_failed(io, err);
	else if (!reply->results[0]->end && reply->results[0]->n_chunks > 0)
		map_ask(io, last + 1);
	else
		flush_extents(io);
	file_io_release(io);
}

/* Which chunks there are from `first` on: few, perhaps, in a file of many holes. */
static void map_ask(struct file_io *io, uint32_t first)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__ChunkMap chunk_map = GRANARY__CHUNK_MAP__INIT;
	chunk_map.inode = io->inode;
	chunk_map.first = first;
	chunk_map.count = io->map.exists_below > first ? io->map.exists_below - first : 1;
	op.op_case = GRANARY__META_OP__OP_CHUNK_MAP;
	op.chunk_map = &chunk_map;
	file_io_hold(io);
	session_meta(io->client->session, (Granary__MetaOp *[]){&op}, 1, SESSION_WANTS_NOTHING, map_answered, io);
}

/* What was written before this file was opened here may not be on any disk yet either: the first sync covers all of it.
 */
static void sync_what_others_wrote(struct file_io *io)
{
	io->flush_state = FLUSH_EXTENTS;
	if (!io->synced_before) {
		io->synced_before = true;
		if (io->attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB)
			io->blob_unsynced = true;
		else if (io->attr->layout == GRANARY__LAYOUT__LAYOUT_CHUNKS && io->map.exists_below > 0)
			io->flush_state = FLUSH_MAP;
	}
	if (io->flush_state == FLUSH_MAP)
		map_ask(io, 0);
	else
		flush_extents(io);
}

static void flush_begin(struct file_io *io)
{
	io->flush_running = io->flush_waiting;
	io->flush_waiting = NULL;
	io->flush_sync = false;
	io->flush_alone = io->creation != NULL;
	struct flush_request *request;
	LL_FOREACH(io->flush_running, request)
	{
		io->flush_sync |= request->sync;
		io->flush_alone &= request->alone;
	}
#ifdef PLANT_CLIENT_SYNC_IS_FLUSH
	io->flush_sync = false;
#endif
	io->flush_error = OK;
	io->flush_size = io->attr->size;
	io->flush_epoch = io->epoch++;
#ifdef PLANT_CLIENT_FLUSH_TOO_EARLY
	io->flush_epoch = 0;
#endif
	if (io->gone) {
		flush_end(io, ERR_IO);
		return;
	}
	if (io->flush_alone) {
		file_commit(io);
		return;
	}
	if (io->small) {
		append_begin(io);
		return;
	}
	if (io->flush_sync)
		sync_what_others_wrote(io);
	else
		flush_extents(io);
}

void flush_advance(struct file_io *io)
{
	if (io->flush_state == FLUSH_NONE && io->flush_waiting)
		flush_begin(io);
	else if (io->flush_state == FLUSH_EXTENTS && !extents_before(io, io->flush_epoch))
		extents_flushed(io);
}

static void request_add(struct file_io *io, bool sync, bool alone, file_io_fn *done, void *arg)
{
	struct flush_request *request = mem_zero(1, sizeof *request);
	request->sync = sync;
	request->alone = alone;
	request->done = done;
	request->arg = arg;
	LL_APPEND(io->flush_waiting, request);
	if (!io->flush_posted) {
		io->flush_posted = true;
		file_io_hold(io);
		defer_post(&io->flush_defer);
	}
}

void flush_request(struct file_io *io, bool sync, file_io_fn *done, void *arg)
{
	request_add(io, sync, false, done, arg);
}

void flush_creation(struct file_io *io, file_io_fn *done, void *arg)
{
	file_commit_hurry(io);
	request_add(io, false, true, done, arg);
}

void flush_deferred(void *arg)
{
	struct file_io *io = arg;
	io->flush_posted = false;
	flush_advance(io);
	file_io_release(io);
}
