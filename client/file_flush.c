#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/blob_op.h"
#include "client/chain_op.h"
#include "client/changes.h"
#include "client/creations.h"
#include "client/delegations.h"
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
	if (err && !told && !io->error) {
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
	file_io_accounted(io->client, -(int64_t)io->small->size);
	iobuf_unref(io->small);
	io->small = NULL;
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

static void append_begin(struct file_io *io);
static void commit(struct file_io *io);

/* Of a file whose close has been answered. What was done of the request is recognised by the inode number. */
static bool is_worth_another_try(struct file_io *io, enum err err)
{
	bool passing = err == ERR_NO_LEADER || err == ERR_UNREACHABLE || err == ERR_TIMEOUT || err == ERR_NO_SESSION ||
		       err == ERR_BUSY || err == ERR_CLOSED;
	return passing && io->creation && !io->client->closing && ++io->creation->tries < CLIENT_CREATION_TRIES_MAX;
}

static enum err result_err(const Granary__MetaReply *reply, unsigned i)
{
	return reply->results[i]->error ? err_from_wire(reply->results[i]->error) : OK;
}

static void committed(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct file_io *io = arg;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	(void)text;
	if (err == OK && reply->n_results != io->commit_count)
		err = ERR_PROTOCOL;
	if (err == OK && io->creation) {
		err = result_err(reply, 0);
		if (err == OK)
			creation_done(io->creation, reply->results[0]);
	}
	if (reply)
		delegations_given(io->client, io->commit_ms, reply);
	if (err == OK)
		err = result_err(reply, io->commit_main);
	if (err == ERR_PACK_FULL && io->flush_small && !io->client->closing) { /* the pack is gone: to another */
		append_begin(io);
	} else if (is_worth_another_try(io, err)) {
		commit(io);
	} else if (err == OK) {
		if (io->flush_small)
			small_drop(io);
		if (reply->results[io->commit_main]->attr)
			file_io_take_attr(io, reply->results[io->commit_main]->attr);
		flush_end(io, OK);
	} else
		commit_failed(io, err);
	file_io_release(io);
}

/* The operations of a commit, where they stay until they are packed. */
struct commit {
	Granary__MetaOp op[3], *ops[3];
	unsigned count;
	Granary__Create create;
	Granary__CommitBlob blob;
	Granary__CommitChunks chunks;
	Granary__Setattr times;
	Granary__Open open;
};

static Granary__MetaOp *commit_add(struct commit *commit, Granary__MetaOp__OpCase op_case)
{
	Granary__MetaOp *op = &commit->op[commit->count];
	granary__meta_op__init(op);
	op->op_case = op_case;
	commit->ops[commit->count++] = op;
	return op;
}

static void commit_create(struct file_io *io, struct commit *commit)
{
	granary__create__init(&commit->create);
	creation_message(io->creation, &commit->create);
	io->creation->sent = true;
	commit_add(commit, GRANARY__META_OP__OP_CREATE)->create = &commit->create;
}

/* While a program has it open it must not go when another client unlinks it. */
static void commit_open(struct file_io *io, struct commit *commit)
{
	if (!session_has_open(io->client->session, io->inode))
		return;
	granary__open__init(&commit->open);
	commit->open.inode = io->inode;
	commit_add(commit, GRANARY__META_OP__OP_OPEN)->open = &commit->open;
}

static void commit_data(struct file_io *io, struct commit *commit)
{
	io->commit_main = commit->count;
	if (io->flush_small) {
		Granary__CommitBlob *blob = &commit->blob;
		granary__commit_blob__init(blob);
		blob->inode = io->inode;
		blob->pack = io->blob_pack;
		blob->slot = io->blob_slot;
		blob->bytes = io->flush_small->size;
		blob->mtime = io->attr->mtime;
		blob->atime = io->atime;
		commit_add(commit, GRANARY__META_OP__OP_COMMIT_BLOB)->commit_blob = blob;
		io->size_changed = io->small != io->flush_small;
		io->blob_unsynced = !io->flush_sync;
	} else if (file_io_in_chunks(io)) {
		Granary__CommitChunks *chunks = &commit->chunks;
		granary__commit_chunks__init(chunks);
		chunks->inode = io->inode;
		chunks->size = io->flush_size;
		chunks->mtime = io->attr->mtime;
		chunks->atime = io->atime;
		chunks->blocks = io->blocks;
		commit_add(commit, GRANARY__META_OP__OP_COMMIT_CHUNKS)->commit_chunks = chunks;
		io->size_changed = io->attr->size != io->flush_size;
		io->map.allocated = false;
	} else if (io->times_changed) { /* nothing but the times */
		Granary__Setattr *times = &commit->times;
		granary__setattr__init(times);
		times->inode = io->inode;
		times->mask = SETATTR_MTIME | (io->atime ? SETATTR_ATIME : 0u);
		times->mtime = io->attr->mtime;
		times->atime = io->atime;
		commit_add(commit, GRANARY__META_OP__OP_SETATTR)->setattr = times;
	} else {
		io->commit_main = 0;
	}
	io->commit_atime = io->atime;
	io->times_changed = false;
	io->atime = 0;
	io->blocks = 0;
}

static void commit(struct file_io *io);

static void commit_go_on(void *arg)
{
	struct file_io *io = arg;
	commit(io);
	file_io_release(io);
}

/* The directory, or the end of what had this name before, is on its way to the master. */
static bool commit_waits(struct file_io *io)
{
	const struct creation *creation = io->creation;
	uint64_t change = creation ? changes_pending_name(io->client, creation->delegation->directory, buf_slice(&creation->name)) : 0;
	if (change == 0 || io->client->closing)
		return false;
	file_io_hold(io);
	changes_wait(io->client, change, commit_go_on, io);
	return true;
}

static void commit(struct file_io *io)
{
	struct commit commit = { 0 };
	bool again = io->creation && io->creation->sent;
	io->flush_state = FLUSH_COMMIT;
	timer_stop(&io->mtime_timer);
	if (commit_waits(io))
		return;
	if (again && !io->flush_small && !io->flush_alone) /* the same as before */
		io->times_changed = true;
	if (again && io->atime == 0)
		io->atime = io->commit_atime;
	if (io->creation)
		commit_create(io, &commit);
	io->commit_main = 0;
	if (!io->flush_alone)
		commit_data(io, &commit);
	if (io->creation)
		commit_open(io, &commit);
	io->commit_count = commit.count;
	io->commit_ms = loop_now_ms(io->client->loop);
	file_io_hold(io);
	session_meta(io->client->session, commit.ops, commit.count, io->creation ? delegations_wanted(io->client, commit.ops, commit.count) : 0u, committed, io);
}

/* Only the times are to be told: a new mtime may be told a little later after a sync, and together with others'. */
static void commit_or_end(struct file_io *io)
{
#ifdef PLANT_CLIENT_HOLE_NOT_COMMITTED
	io->map.allocated = false;
#endif
	bool content = io->creation || io->flush_small || (io->chunked && (io->size_changed || io->map.allocated));
	bool later = !content && io->times_changed && io->flush_sync;
	if (later && !timer_is_running(&io->mtime_timer))
		timer_start(&io->mtime_timer, CLIENT_MTIME_DELAY_MS);
	if (content || (io->times_changed && !later))
		commit(io);
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
	if (!io->flush_sync) {
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
	if (is_worth_another_try(io, err))
		append_begin(io);
	else if (err)
		commit_failed(io, err);
	else
		commit(io);
	file_io_release(io);
}

static void append_begin(struct file_io *io)
{
	io->flush_state = FLUSH_APPEND;
	if (!io->flush_small)
		io->flush_small = iobuf_ref(io->small);
	file_io_hold(io);
	blob_append(io->client, io->flush_small, io->flush_sync, appended, io);
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
		commit(io);
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
	request_add(io, false, true, done, arg);
}

void flush_deferred(void *arg)
{
	struct file_io *io = arg;
	io->flush_posted = false;
	flush_advance(io);
	file_io_release(io);
}
