#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/file_io_internal.h"
#include "client/read_op.h"
#include "common/base/check.h"
#include "common/base/limits.h"

#define ZEROS_BYTES (64 * KIB)
#define PARTS_PER_PIECE_MAX (2 + WINDOW_BYTES / ZEROS_BYTES)
#define RESTARTS_MAX 3u

static const uint8_t zeros[ZEROS_BYTES];

/* What one window gives: `data` from `skip` on, then zeros. */
struct piece {
	struct read_range *range;
	uint64_t offset;
	uint32_t bytes;
	struct iobuf *data;
	uint32_t skip;
	uint32_t valid; /* bytes of data; the rest are zeros */
};

/* One file_io_read. */
struct read_range {
	struct read_range *previous, *next; /* in io->reads_waiting */
	struct file_io *io;
	uint64_t offset, size, asked_ms;
	struct piece *pieces;
	size_t piece_count, piece_next, in_flight;
	unsigned restarts;
	bool starting; /* still within the call that must not call done */
	bool stale;
	enum err err;
	struct defer defer;
	struct running running; /* while defer is posted */
	file_io_read_fn *done; /* or */
	read_parts_fn *parts_done;
	void *arg;
};

static void range_begin(struct read_range *range);

static void range_clear(struct read_range *range)
{
	for (size_t i = 0; i < range->piece_count; i++)
		iobuf_unref(range->pieces[i].data);
	free(range->pieces);
	range->pieces = NULL;
	range->piece_count = range->piece_next = 0;
}

static size_t piece_parts(const struct piece *piece, struct file_part *parts)
{
	size_t count = 0;
	uint32_t left = piece->bytes - piece->valid;
	if (piece->valid > 0)
		parts[count++] = (struct file_part){slice_of(piece->data->bytes + piece->skip, piece->valid), piece->data};
	while (left > 0) {
		uint32_t part = left < ZEROS_BYTES ? left : ZEROS_BYTES;
		parts[count++] = (struct file_part){.bytes = slice_of(zeros, part)};
		left -= part;
	}
	return count;
}

static void range_tell(const struct read_range *range, const struct file_part *parts, size_t count)
{
	struct slice few[PARTS_PER_PIECE_MAX * 2];
	struct slice *slices = count <= PARTS_PER_PIECE_MAX * 2 ? few : mem_alloc(count * sizeof *slices);
	if (range->parts_done) {
		range->parts_done(range->arg, range->err, parts, count);
	} else {
		for (size_t i = 0; i < count; i++)
			slices[i] = parts[i].bytes;
		range->done(range->arg, range->err, slices, count);
	}
	if (slices != few)
		free(slices);
}

static void range_end(struct read_range *range)
{
	struct file_io *io = range->io;
	if (range->starting) {
		range->starting = false;
		running_add(io->client, &range->running);
		defer_post(&range->defer);
		return;
	}
	struct file_part few[PARTS_PER_PIECE_MAX * 2];
	struct file_part *parts = few;
	size_t count = 0;
	if (range->piece_count > 2)
		parts = mem_alloc(range->piece_count * PARTS_PER_PIECE_MAX * sizeof *parts);
	for (size_t i = 0; !range->err && i < range->piece_count; i++)
		count += piece_parts(&range->pieces[i], parts + count);
	range_tell(range, parts, count);
	if (parts != few)
		free(parts);
	range_clear(range);
	free(range);
	file_io_release(io);
}

static void range_deferred(void *arg)
{
	struct read_range *range = arg;
	running_remove(range->io->client, &range->running);
	range_end(range);
}

static void range_cancel(struct running *running)
{
	struct read_range *range = container_of(running, struct read_range, running);
	defer_cancel(&range->defer);
	range->err = ERR_CANCELLED;
	range_deferred(range);
}

/* One piece from `offset` on for each window, the last ones shorter. */
static void range_cut(struct read_range *range)
{
	uint64_t at = range->offset, end = range->offset + range->size;
	size_t count = (size_t)((end - 1) / WINDOW_BYTES - at / WINDOW_BYTES + 1);
	range->pieces = mem_zero(count, sizeof *range->pieces);
	for (range->piece_count = 0; at < end; range->piece_count++) {
		uint64_t part = WINDOW_BYTES - at % WINDOW_BYTES;
		struct piece *piece = &range->pieces[range->piece_count];
		part = part < end - at ? part : end - at;
		*piece = (struct piece){.range = range, .offset = at, .bytes = (uint32_t)part};
		at += part;
	}
}

/* data: bytes of the file from piece->offset on. limit: the file offset from which on all is zeros. */
static void piece_set(struct piece *piece, struct iobuf *data, uint32_t skip, uint64_t limit)
{
	if (!data || data->size <= skip || limit <= piece->offset)
		return;
	uint64_t valid = data->size - skip;
	valid = valid < piece->bytes ? valid : piece->bytes;
	valid = valid < limit - piece->offset ? valid : limit - piece->offset;
	piece->data = iobuf_ref(data);
	piece->skip = skip;
	piece->valid = (uint32_t)valid;
}

/* ---- chunks ---- */

static void range_chunks(struct read_range *range);
static void range_refresh(struct read_range *range);

static uint64_t trim_limit(const struct file_io *io)
{
	return io->attr->trim ? io->attr->trim : UINT64_MAX;
}

static void piece_read(void *arg, enum err err, struct iobuf *data, uint32_t skip)
{
	struct piece *piece = arg;
	struct read_range *range = piece->range;
	range->in_flight--;
	range->stale |= err == ERR_STALE_HANDLE;
	if (err && !range->err)
		range->err = err;
	if (err == OK)
		piece_set(piece, data, skip, trim_limit(range->io));
	if (range->in_flight == 0 || range->piece_next < range->piece_count)
		range_chunks(range);
}

static void range_chunks(struct read_range *range)
{
	struct file_io *io = range->io;
	range->in_flight++; /* answers from within do not end it */
	while (range->piece_next < range->piece_count && range->in_flight <= CLIENT_READS_PER_OP_MAX && !range->err) {
		struct piece *piece = &range->pieces[range->piece_next++];
		if (piece->offset >= trim_limit(io))
			continue;
		range->in_flight++;
		read_call(io->client,
			  &(struct read_request){
			      .place = file_io_place(io, piece->offset),
			      .offset = (uint32_t)(piece->offset % CHUNK_BYTES),
			      .bytes = piece->bytes,
			  },
			  piece_read, piece);
	}
	if (--range->in_flight > 0 || (!range->err && range->piece_next < range->piece_count))
		return;
	if (range->stale)
		range_refresh(range);
	else
		range_end(range);
}

/* ---- blob ---- */

static void range_from_blob(struct read_range *range, struct iobuf *record)
{
	struct file_io *io = range->io;
	for (size_t i = 0; i < range->piece_count; i++) {
		struct piece *piece = &range->pieces[i];
		if (piece->offset < io->attr->blob_bytes)
			piece_set(piece, record, (uint32_t)piece->offset, io->attr->blob_bytes);
	}
	range_end(range);
}

static void range_restart(struct read_range *range)
{
	range_clear(range);
	range->stale = false;
	range->err = OK;
	range_begin(range);
}

static void range_refreshed(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct read_range *range = arg;
	const Granary__Inode *attr = NULL;
	(void)text;
	err = file_io_attr_answered(err, message, &attr);
	if (err) {
		range->err = err;
		range_end(range);
		return;
	}
	range->io->client->asked_ms = range->asked_ms;
	file_io_update(range->io, attr);
	range->io->client->asked_ms = 0;
	range_restart(range);
}

/* The record is gone, or the chunks are: another client has given the file new content since we last looked, or the record has been moved. */
static void range_refresh(struct read_range *range)
{
	if (range->restarts++ >= RESTARTS_MAX || range->io->client->closing) {
		range->err = range->io->client->closing ? ERR_CANCELLED : ERR_IO;
		range_end(range);
		return;
	}
	range->asked_ms = loop_now_ms(range->io->client->loop);
	file_io_ask_attr(range->io, range_refreshed, range);
}

static void blob_read(void *arg, enum err err, struct iobuf *data, uint32_t skip)
{
	struct read_range *range = arg;
	struct file_io *io = range->io;
	(void)skip;
	if (err == ERR_NOT_FOUND || err == ERR_STALE_HANDLE) {
		range_refresh(range);
		return;
	}
	/* The record may be longer than the file, never shorter. */
	if (err == OK && (!data || data->size < io->attr->blob_bytes) && io->attr->pack == io->blob_cache_pack &&
	    io->attr->slot == io->blob_cache_slot)
		err = ERR_CORRUPT;
	if (err) {
		range->err = err;
		range_end(range);
		return;
	}
	if (io->attr->pack != io->blob_cache_pack || io->attr->slot != io->blob_cache_slot) {
		range_refresh(range); /* rewritten while we read */
		return;
	}
	if (range->size < io->attr->blob_bytes && !io->blob_cache)
		io->blob_cache = iobuf_ref(data);
	range_from_blob(range, data);
}

void blob_cache_drop(struct file_io *io)
{
	iobuf_unref(io->blob_cache);
	io->blob_cache = NULL;
	if (io->blob_ahead)
		io->client->ahead_files--;
	io->blob_ahead = false;
}

/* The cache is for the record that is the file's now. */
static void blob_cache_turn(struct file_io *io)
{
	if (io->blob_cache_pack == io->attr->pack && io->blob_cache_slot == io->attr->slot)
		return;
	blob_cache_drop(io);
	io->blob_cache_pack = io->attr->pack;
	io->blob_cache_slot = io->attr->slot;
}

static void blob_call(struct file_io *io, read_done_fn *done, void *arg)
{
	read_call(io->client,
		  &(struct read_request){.place = {.pack = io->attr->pack, .inode = io->inode}, .slot = io->attr->slot}, done, arg);
}

static void range_blob(struct read_range *range)
{
	struct file_io *io = range->io;
	blob_cache_turn(io);
	if (!io->blob_cache) {
		blob_call(io, blob_read, range);
		return;
	}
	struct iobuf *record = iobuf_ref(io->blob_cache);
	if (io->blob_ahead && range->offset == 0 && range->size >= io->attr->blob_bytes)
		blob_cache_drop(io);
	range_from_blob(range, record);
	iobuf_unref(record);
}

/* If it failed, who reads tries again and is told. */
static void ahead_read(void *arg, enum err err, struct iobuf *data, uint32_t skip)
{
	struct file_io *io = arg;
	(void)skip;
	io->ahead_running = false;
	if (err == OK && data && data->size >= io->attr->blob_bytes && io->attr->pack == io->blob_cache_pack &&
	    io->attr->slot == io->blob_cache_slot && io->references > 0 && !io->blob_cache) {
		io->blob_cache = iobuf_ref(data);
		io->blob_ahead = true;
	} else {
		io->client->ahead_files--;
	}
	reads_advance(io);
	file_io_release(io);
}

void file_io_read_ahead(struct file_io *io)
{
	if (file_io_dirty(io) || file_io_in_chunks(io) || io->attr->layout != GRANARY__LAYOUT__LAYOUT_BLOB || io->attr->blob_bytes == 0 ||
	    io->attr->size > CLIENT_AHEAD_BYTES_MAX || io->client->ahead_files >= CLIENT_AHEAD_FILES_MAX || io->ahead_running)
		return;
	blob_cache_turn(io);
	if (io->blob_cache)
		return;
	io->ahead_running = true;
	io->client->ahead_files++;
	file_io_hold(io);
	blob_call(io, ahead_read, io);
}

/* ---- the whole ---- */

static void range_begin(struct read_range *range)
{
	struct file_io *io = range->io;
	uint64_t file_size = io->attr->size;
	if (file_io_attr_is_old(io) && range->restarts == 0) {
		range_refresh(range);
		return;
	}
	/* What was written and accepted is not there, and nobody has been told yet. */
	if (io->error && range->offset < io->failed_to && io->failed_from < range->offset + range->size)
		range->err = io->error;
	if (range->offset >= file_size || range->err) {
		range_end(range);
		return;
	}
	if (range->size > file_size - range->offset)
		range->size = file_size - range->offset;
	if (io->ahead_running) {
		DL_APPEND2(io->reads_waiting, range, previous, next);
		return;
	}
	if (extents_overlap(io, range->offset, range->size)) {
		DL_APPEND2(io->reads_waiting, range, previous, next);
		io->hurry = true;
		extents_pump(io);
		return;
	}
	range_cut(range);
	if (io->small) {
		for (size_t i = 0; i < range->piece_count; i++)
			piece_set(&range->pieces[i], io->small, (uint32_t)range->pieces[i].offset, UINT64_MAX);
		range_end(range);
	} else if (file_io_in_chunks(io)) {
		range_chunks(range);
	} else if (io->attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB && range->offset < io->attr->blob_bytes) {
		range_blob(range);
	} else
		range_end(range);
}

void read_start(struct file_io *io, uint64_t offset, uint64_t size, file_io_read_fn *done, read_parts_fn *parts_done, void *arg)
{
	struct read_range *range = mem_zero(1, sizeof *range);
	range->io = io;
	range->offset = offset;
	range->size = size;
	range->done = done;
	range->parts_done = parts_done;
	range->arg = arg;
	range->starting = true;
	range->running.cancel = range_cancel;
	defer_init(&range->defer, io->client->loop, range_deferred, range);
	file_io_hold(io);
	if (size == 0)
		range_end(range);
	else
		range_begin(range);
	range->starting = false; /* it lives at least until the end of this iteration */
}

void reads_advance(struct file_io *io)
{
	struct read_range *range, *next;
	struct read_range *waiting = io->reads_waiting;
	io->reads_waiting = NULL;
	DL_FOREACH_SAFE2(waiting, range, next, next)
	{
		DL_DELETE2(waiting, range, previous, next);
		if (extents_overlap(io, range->offset, range->size))
			DL_APPEND2(io->reads_waiting, range, previous, next);
		else
			range_begin(range);
	}
}
