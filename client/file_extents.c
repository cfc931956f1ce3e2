#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/chain_op.h"
#include "client/file_io_internal.h"
#include "common/base/check.h"
#include "common/base/limits.h"

#define SYNC_EXTENTS_MAX 4u /* more extents than that are written first and synced once */

static uint64_t extent_end(const struct extent *extent)
{
	return extent->offset + extent->size;
}

static bool overlaps(const struct extent *extent, uint64_t start, uint64_t end)
{
	return extent->offset < end && start < extent_end(extent);
}

static struct extent *extent_add(struct file_io *io, uint64_t offset)
{
	struct extent *extent = mem_zero(1, sizeof *extent);
	extent->io = io;
	extent->offset = offset;
	extent->epoch = io->epoch;
	DL_APPEND2(io->extents, extent, previous, next);
	io->extents_unsent++;
	return extent;
}

static void extent_free(struct extent *extent)
{
	struct file_io *io = extent->io;
	DL_DELETE2(io->extents, extent, previous, next);
	if (extent->sent)
		io->extents_sent--;
	else
		io->extents_unsent--;
	file_io_accounted(io->client, -(int64_t)extent->size);
	iobuf_unref(extent->iobuf);
	free(extent);
}

/* A buffer for a range that may go on growing to the end of its window. */
static struct iobuf *extent_buffer(uint64_t start, uint64_t end)
{
	uint64_t room = WINDOW_BYTES - start % WINDOW_BYTES;
	uint64_t wanted = end - start <= 16 * KIB ? 16 * KIB : WINDOW_BYTES;
	return iobuf_open((uint32_t)(wanted < room ? wanted : room));
}

static void fetched_ahead(void *arg, enum err err)
{
	(void)err; /* the write that needs it will ask again */
	file_io_release(arg);
}

/* The chunk is looked for, or made, while what was accepted before is still being written. */
static void fetch_ahead(struct file_io *io, uint64_t offset)
{
	struct place place = {.map = &io->map, .index = (uint32_t)(offset / CHUNK_BYTES), .allocate = true};
	if (place_find(io->client, &place))
		return;
	file_io_hold(io);
	place_fetch(io->client, &place, fetched_ahead, io);
}

/* Unsent, and with [start, end), which is in one window, it makes one range of that window. */
static bool is_touched(const struct extent *extent, uint64_t start, uint64_t end)
{
	return !extent->sent && extent->offset / WINDOW_BYTES == start / WINDOW_BYTES && extent->offset <= end &&
	       start <= extent_end(extent);
}

/* A whole window: nothing that is unsent in it counts any more. */
static void extent_share(struct file_io *io, uint64_t start, struct slice bytes, struct iobuf *iobuf)
{
	uint64_t epoch = io->epoch;
	struct extent *extent, *next;
	DL_FOREACH_SAFE2(io->extents, extent, next, next)
	{
		if (!is_touched(extent, start, start + bytes.size))
			continue;
		epoch = extent->epoch < epoch ? extent->epoch : epoch;
		extent_free(extent);
	}
	extent = extent_add(io, start);
	extent->epoch = epoch;
	extent->iobuf = iobuf_ref(iobuf);
	extent->shared = true;
	extent->skip = (uint32_t)(bytes.bytes - iobuf->bytes);
	extent->size = (uint32_t)bytes.size;
	fetch_ahead(io, start);
	file_io_accounted(io->client, (int64_t)bytes.size);
}

/* Becomes [low, high), in a buffer of its own that has room for it. What is new in it is not set yet. */
static void extent_widen(struct extent *extent, uint64_t low, uint64_t high)
{
	if (extent->offset != low || extent->shared || high - low > extent->iobuf->capacity) {
		struct iobuf *larger = extent_buffer(low, high);
		memcpy(larger->bytes + (extent->offset - low), extent->iobuf->bytes + extent->skip, extent->size);
		iobuf_unref(extent->iobuf);
		extent->iobuf = larger;
		extent->shared = false;
		extent->skip = 0;
	}
	file_io_accounted(extent->io->client, (int64_t)(high - low) - extent->size);
	extent->offset = low;
	extent->size = (uint32_t)(high - low);
}

/* [start, end) is in one window. Unsent extents that touch it become one with it. */
static void extent_put(struct file_io *io, uint64_t start, struct slice bytes)
{
	uint64_t end = start + bytes.size, low = start, high = end;
	struct extent *extent, *next, *target = NULL;
	DL_FOREACH2(io->extents, extent, next)
	{
		if (!is_touched(extent, start, end))
			continue;
		low = extent->offset < low ? extent->offset : low;
		high = extent_end(extent) > high ? extent_end(extent) : high;
		target = target ? target : extent;
	}
	if (!target) {
		target = extent_add(io, start);
		target->iobuf = extent_buffer(start, end);
		fetch_ahead(io, start);
	}
	extent_widen(target, low, high);
	DL_FOREACH_SAFE2(io->extents, extent, next, next)
	{
		if (extent == target || !is_touched(extent, start, end))
			continue;
		memcpy(target->iobuf->bytes + (extent->offset - low), extent->iobuf->bytes + extent->skip, extent->size);
		target->epoch = extent->epoch < target->epoch ? extent->epoch : target->epoch;
		extent_free(extent);
	}
	memcpy(target->iobuf->bytes + (start - low), bytes.bytes, bytes.size);
}

void extents_write(struct file_io *io, uint64_t offset, struct slice bytes, struct iobuf *iobuf)
{
	while (bytes.size > 0) {
		size_t part = WINDOW_BYTES - offset % WINDOW_BYTES;
		part = part < bytes.size ? part : bytes.size;
		if (iobuf && part == WINDOW_BYTES)
			extent_share(io, offset, slice_of(bytes.bytes, part), iobuf);
		else
			extent_put(io, offset, slice_of(bytes.bytes, part));
		offset += part;
		bytes.bytes += part;
		bytes.size -= part;
	}
	io->chunked = true;
}

bool extents_overlap(const struct file_io *io, uint64_t offset, uint64_t size)
{
	const struct extent *extent;
	DL_FOREACH2(io->extents, extent, next)
	if (overlaps(extent, offset, offset + size))
		return true;
	return false;
}

bool extents_before(const struct file_io *io, uint64_t epoch)
{
	const struct extent *extent;
	DL_FOREACH2(io->extents, extent, next)
	if (extent->epoch <= epoch)
		return true;
	return false;
}

void extents_drop(struct file_io *io, uint64_t offset)
{
	struct extent *extent, *next;
	DL_FOREACH_SAFE2(io->extents, extent, next, next)
	if (!extent->sent && extent->offset >= offset)
		extent_free(extent);
}

/* ---- unsynced chunks ---- */

void extents_unsynced(struct file_io *io, uint32_t index)
{
	size_t word = index / 64;
	if (word >= io->unsynced_words) {
		size_t words = word + 1;
		io->unsynced = mem_resize(io->unsynced, words * sizeof *io->unsynced);
		memset(io->unsynced + io->unsynced_words, 0, (words - io->unsynced_words) * sizeof *io->unsynced);
		io->unsynced_words = words;
	}
	io->unsynced[word] |= 1ull << index % 64;
}

void extents_synced_above(struct file_io *io, uint64_t size)
{
	for (uint64_t index = (size + CHUNK_BYTES - 1) / CHUNK_BYTES; index / 64 < io->unsynced_words; index++)
		io->unsynced[index / 64] &= ~(1ull << index % 64);
}

static bool unsynced_has(const struct file_io *io, uint32_t index)
{
	return index / 64 < io->unsynced_words && (io->unsynced[index / 64] >> index % 64 & 1);
}

void extents_prefer_sync(struct file_io *io)
{
	struct extent *extent;
	if (io->extents_unsent > SYNC_EXTENTS_MAX || io->extents_sent > 0)
		return;
	DL_FOREACH2(io->extents, extent, next)
	extent->sync = !unsynced_has(io, (uint32_t)(extent->offset / CHUNK_BYTES));
}

/* ---- sending ---- */

static void extent_answered(void *arg, enum err err, uint32_t slot)
{
	struct extent *extent = arg;
	struct file_io *io = extent->io;
	(void)slot;
	if (err) {
		bool first = !io->error;
		io->error = first ? err : io->error;
		if (first || extent->offset < io->failed_from)
			io->failed_from = extent->offset;
		if (first || extent_end(extent) > io->failed_to)
			io->failed_to = extent_end(extent);
	}
	if (!extent->sync)
		extents_unsynced(io, (uint32_t)(extent->offset / CHUNK_BYTES));
	io->blocks += (extent->size + 511) / 512;
	extent_free(extent);
	extents_pump(io);
	reads_advance(io);
	/* A commit names only so many chunks: not all that are written until somebody syncs. */
	if (io->map.written_count >= CHUNKS_WRITTEN_MAX / 2 && io->flush_state == FLUSH_NONE && !io->flush_waiting && !io->error)
		flush_request(io, false, NULL, NULL);
	flush_advance(io);
	file_io_note_dirty(io);
	file_io_release(io);
}

static void extent_send(struct extent *extent)
{
	struct file_io *io = extent->io;
	uint32_t index = (uint32_t)(extent->offset / CHUNK_BYTES);
	extent->sent = true;
	io->extents_unsent--;
	io->extents_sent++;
	file_io_hold(io);
	chain_call(io->client,
		   &(struct chain_request){
		       .type = MESSAGE_CHUNK_WRITE,
		       .place = {.map = &io->map, .index = index, .allocate = true},
		       .offset = (uint32_t)(extent->offset % CHUNK_BYTES),
		       .sync = extent->sync,
		       .iobuf = extent->iobuf,
		       .iobuf_offset = extent->skip,
		       .bytes = extent->size,
		   },
		   extent_answered, extent);
}

static bool is_blocked(const struct extent *extent)
{
	const struct extent *other;
	DL_FOREACH2(extent->io->extents, other, next)
	if (other->sent && overlaps(other, extent->offset, extent_end(extent)))
		return true;
	return false;
}

static bool is_due(const struct extent *extent)
{
	const struct file_io *io = extent->io;
	if (extent_end(extent) % WINDOW_BYTES == 0 || io->hurry || io->references == 0)
		return true;
	return io->flush_state == FLUSH_EXTENTS && extent->epoch <= io->flush_epoch;
}

void extents_pump(struct file_io *io)
{
	struct extent *extent, *next;
	if (io->extents_unsent == 0) {
		io->hurry = false;
		return;
	}
	DL_FOREACH_SAFE2(io->extents, extent, next, next)
	{
		if (io->extents_sent >= CLIENT_WRITES_PER_FILE_MAX)
			return;
		if (extent->sent || (!is_due(extent) && io->extents_unsent <= CLIENT_EXTENTS_PER_FILE_MAX) ||
		    is_blocked(extent))
			continue;
		extent_send(extent);
	}
}
