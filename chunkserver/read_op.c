#include "chunkserver/read_op.h"

#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/chunk_retry.h"
#include "chunkserver/mend.h"
#include "chunkserver/scrub.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#ifdef PLANT_DISKS_DAMAGE_IS_SOURCE
#include "common/base/crc32c.h"
#endif

#define WINDOW_BLOCKS (FRAME_DATA_BYTES_MAX / BLOCK_BYTES)
_Static_assert(WINDOW_BLOCKS <= 64, "ChunkReadReply.unsettled has a bit for each block");
#define AROUND_BLOCKS 4u
#define AROUND_AGAIN_BLOCKS 16u
#define AGAIN_MS 1000u

/* Blocks of [first, end) that are in the file: what follows reads as zeros and is not sent. */
static uint32_t blocks_present(const struct chunk *chunk, uint32_t first, uint32_t end)
{
	if (end > chunk->file.blocks)
		end = chunk->file.blocks;
	return end > first ? end - first : 0;
}

static bool is_large(uint32_t blocks)
{
	return blocks * BLOCK_BYTES >= CHUNK_DIRECT_BYTES_MIN;
}

/* The predecessor settles them when it has them. */
static void name_unsettled(const struct chunk *chunk, uint32_t first, uint32_t count, Granary__ChunkReadReply *message)
{
	const struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (!chunk_op_is_write(op) || op->state != OP_UNSETTLED)
			continue;
		for (uint32_t i = 0; i < count; i++)
			if (chunk_op_overlaps(op, first + i, first + i + 1))
				message->unsettled |= 1ull << i;
		if (op->end > chunk->file.blocks)
			message->unsettled_end = true;
	}
}

/* The blocks are in `buffer` from block `skip` on. */
static void reply(const struct chunk *chunk, struct rpc_request *request, uint32_t first, uint32_t count,
		  struct iobuf *buffer, uint32_t skip)
{
	uint8_t crcs[FRAME_DATA_BYTES_MAX / BLOCK_BYTES * 4u];
	Granary__ChunkReadReply message = GRANARY__CHUNK_READ_REPLY__INIT;
	message.loss_untold = chunk->loss_untold;
	message.version = chunk->version;
	check(count * 4u <= sizeof(crcs));
	const Granary__ChunkRead *read = (const Granary__ChunkRead *)request->message;
	if (read->predecessor)
		name_unsettled(chunk, first, count, &message);
	if (read->predecessor && read->operations)
		chunk_retry_tell(chunk, &message);
	if (count == 0) {
		rpc_reply(request, &message.base);
		chunk_retry_told(&message);
		return;
	}
	for (uint32_t i = 0; i < count; i++)
		put_le32(crcs + 4u * i, chunk_file_crc(&chunk->file, first + i));
	message.crcs = message_borrow(slice_of(crcs, 4u * count));
	struct conn_data data = { .iobuf = buffer, .offset = skip * BLOCK_BYTES, .size = count * BLOCK_BYTES };
	rpc_reply_data(request, &message.base, &data);
	chunk_retry_told(&message);
}

bool read_op_try(struct service *service, struct chunk *chunk, struct rpc_request *request)
{
	const Granary__ChunkRead *read = (const Granary__ChunkRead *)request->message;
	uint32_t first = block_first(read->offset), end = block_end(read->offset, read->bytes);
	(void)service;
	if (chunk->state != CHUNK_READY || chunk->kind != KIND_REPLICATED || chunk->rejoin != NULL || chunk->uncertain ||
	    chunk->copy != COPY_COMPLETE ||
	    read->version < chunk->version || read->predecessor)
		return false;
	const struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (chunk_op_is_write(op) && chunk_op_overlaps(op, first, end))
			return false;
	}
	if (chunk_is_damaged(chunk, first, end)) {
		rpc_reply_error(request, ERR_CORRUPT, chunk_is_torn(chunk, first, end) ? MEND_TEXT_TORN : NULL);
		return true;
	}
	uint32_t count = blocks_present(chunk, first, end);
	if (count > 0 && chunk_file_must_ask_disk(&chunk->file, first, count))
		return false;
	struct iobuf *buffer = count == 0 ? NULL : iobuf_open(count * BLOCK_BYTES);
	enum err err = count == 0 ? OK : chunk_file_read(&chunk->file, first, count, buffer->bytes, true);
	if (err == OK && count > 0 && chunk_file_mismatches(&chunk->file, first, count, buffer->bytes) != 0)
		err = ERR_CORRUPT;
	if (err == OK)
		reply(chunk, request, first, count, buffer, 0);
	iobuf_unref(buffer);
	return err == OK; /* whatever it was, the worker meets it again */
}

/* Block by block, from the disk itself if that can be: only what is wrong there, or cannot be read, is damaged. */
static enum err look_again(struct chunk_op *op, uint8_t *bytes)
{
	struct chunk_file *file = &op->chunk->file;
	enum err err = OK;
	op->bad = 0;
	for (uint32_t i = 0; i < op->size && (err == OK || err == ERR_IO); i++) {
		err = chunk_file_read_direct(file, op->first + i, 1, bytes + i * BLOCK_BYTES);
		if (err == ERR_IO || chunk_file_mismatches(file, op->first + i, 1, bytes + i * BLOCK_BYTES) != 0)
			op->bad |= 1ull << i;
	}
	return err == ERR_IO ? OK : err;
}

static void read_run(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk_file *file = &op->chunk->file;
	uint8_t *bytes = op->buffer->bytes;
	enum err err = op->direct ? chunk_file_read_direct(file, op->first, op->size, bytes) :
				    chunk_file_read(file, op->first - op->skip, op->skip + op->size + op->extra, bytes, false);
	if (err != OK && op->skip + op->extra > 0) /* what was not asked for may be what cannot be read */
		err = chunk_file_read(file, op->first, op->size, bytes + op->skip * BLOCK_BYTES, false);
	bytes += op->skip * BLOCK_BYTES;
	op->bad = err == OK ? chunk_file_mismatches(file, op->first, op->size, bytes) : 0;
	if (op->bad != 0 || err == ERR_IO)
		err = look_again(op, bytes);
	op->local_err = err;
}

/* A disk gives a few blocks in the time of one, and who reads at random in a file that is not huge comes back for them. If he comes
 * back to a window within a moment, there are few windows, and soon all of them are in the page cache. */
static void read_around(struct chunk_op *op, uint32_t count)
{
	uint64_t now = loop_now_ms(op->service->loop);
	uint32_t *missed_ms = &op->chunk->missed_ms[op->first / WINDOW_BLOCKS];
	uint32_t unit = *missed_ms != 0 && (uint32_t)now - *missed_ms < AGAIN_MS ? AROUND_AGAIN_BLOCKS : AROUND_BLOCKS;
	uint32_t end = op->first + count, to = (end + unit - 1) / unit * unit;
	*missed_ms = (uint32_t)now;
	op->skip = op->first % unit;
	op->extra = (to < op->chunk->file.blocks ? to : op->chunk->file.blocks) - end;
	chunk_file_will_need(&op->chunk->file, op->first - op->skip, op->skip + count + op->extra);
}

/* The page cache costs more processor time than all else that is done for a large read, and what is read once, as streams are,
 * drives out what is read again. So the first large read of a window goes past it, and the second one fills it. */
static bool goes_past_cache(struct chunk_op *op, uint32_t count)
{
	uint32_t first = op->first / WINDOW_BLOCKS, last = (op->first + count - 1) / WINDOW_BLOCKS;
	bool again = true;
	if (!is_large(count) || !chunk_file_must_ask_disk(&op->chunk->file, op->first, count))
		return false;
	for (uint32_t window = first; window <= last; window++) {
		uint32_t *word = &op->chunk->read_windows[window / 32], bit = 1u << window % 32;
		again = again && (*word & bit) != 0;
		*word |= bit;
	}
	return !again;
}

static enum err note_bad(struct chunk_op *op, enum err err)
{
#ifdef PLANT_DISKS_DAMAGE_IS_SOURCE
	for (uint32_t i = 0; err == OK && !op->scrubs && i < op->size; i++)
		op->chunk->file.crcs[op->first + i] =
			crc32c(op->buffer->bytes + (op->skip + i) * BLOCK_BYTES, BLOCK_BYTES) ^ crc32c_zero_block();
	op->bad = op->scrubs ? op->bad : 0;
#endif
	if (err != OK || op->bad == 0)
		return err;
	for (uint32_t i = 0; i < op->size; i++) {
		uint32_t first = i;
		while (i < op->size && (op->bad >> i & 1) != 0)
			i++;
		if (i > first)
			chunk_found_damaged(op->chunk, op->first + first, op->first + i, op->scrubs ? "scrub" : "read");
	}
	return ERR_CORRUPT;
}

static void read_end(struct chunk_op *op, enum err err)
{
	op->local_pending = false;
	err = note_bad(op, err);
	if (err == OK && op->requests != NULL) {
		struct op_request *request = op->requests;
		op->requests = NULL;
		reply(op->chunk, request->request, op->first, op->size, op->buffer, op->skip);
		free(request);
	}
	if (err == OK && op->given != NULL && op->buffer != NULL) {
		*op->given = iobuf_ref(op->buffer);
		(*op->given)->size = (op->skip + op->size) * BLOCK_BYTES;
		*op->given_skip = op->skip;
	}
	chunk_op_answer(op, err);
	chunk_op_remove(op);
}

static void read_done(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk_store *store = op->chunk->store;
	read_end(op, op->local_err);
	chunk_store_work_end(store);
}

void read_op_start(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	uint32_t count = blocks_present(chunk, op->first, op->end);
	if (op->table) {
		scrub_table_start(op);
		return;
	}
	op->state = OP_RUNNING;
	op->size = count;
	if (chunk_is_damaged(chunk, op->first, op->end) && !op->scrubs) {
		read_end(op, ERR_CORRUPT);
		return;
	}
	if (count == 0) {
		read_end(op, OK);
		return;
	}
	op->direct = op->scrubs || op->from_disk || goes_past_cache(op, count);
	if (!op->direct && !is_large(count))
		read_around(op, count);
	op->buffer = iobuf_open((op->skip + count + op->extra) * BLOCK_BYTES);
	if (op->direct)
		chunk_file_want_direct(&chunk->file, op->service->loop, chunk->path);
	op->local_pending = true;
	op->work.run = read_run;
	op->work.done = read_done;
	op->local_err = ERR_CANCELLED;
	chunk_store_submit(chunk->store, NULL, &op->work);
}
