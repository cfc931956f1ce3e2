#include "chunkserver/cold_read.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/coded.h"

#define READ_BLOCKS_MAX (FRAME_DATA_BYTES_MAX / BLOCK_BYTES)

/*   FIND -> HEAD_BLOCK -> HEAD -> UNIT <-> (read, unpack; not compressed: only the blocks that are wanted) -> answered
 *     '----- the index is known ----^ */
enum cold_read_state { COLD_FIND, COLD_HEAD_BLOCK, COLD_HEAD, COLD_UNIT, COLD_BLOCKS_READ, COLD_UNIT_READ, COLD_UNPACKED };

struct cold_read {
	struct service *service;
	struct rpc_request *request;
	enum cold_read_state state;
	struct chunk *chunk; /* in use, from when it is known to be open */
	struct work work;
	struct decompressor *decompressor;
	/* Of the shard's file, being read: */
	uint8_t *bytes; /* of the index or a unit */
	uint8_t *to;	/* there, or in the answer */
	uint32_t block, blocks, have; /* the first, how many, how many of these are there */
	struct iobuf *read;	      /* by the operation */
	uint32_t read_skip;
	/* The answer. */
	const struct coded_unit *unit;
	uint32_t first, end, next; /* blocks of the chunk; up to `next` they are in `out` */
	struct iobuf *out;
	uint8_t crcs[READ_BLOCKS_MAX * 4u];
	size_t crc_count;
	uint8_t *unpacked, *unit_crcs;
	enum err err;
};

static void cold_read_step(struct cold_read *read);

static const Granary__ColdRead *message_of(const struct cold_read *read)
{
	return (const Granary__ColdRead *)read->request->message;
}

void cold_read_forget(struct chunk *chunk)
{
	if (chunk->coded == NULL)
		return;
	coded_index_deinit(chunk->coded);
	free(chunk->coded);
	chunk->coded = NULL;
}

/* ---- decompressors are used again */

static struct decompressor *decompressor_take(struct service *service)
{
	if (service->decompressor_count == 0)
		return decompressor_open();
	return service->decompressors[--service->decompressor_count];
}

static void decompressor_give(struct service *service, struct decompressor *decompressor)
{
	if (decompressor == NULL)
		return;
	if (service->decompressor_count < WORKERS_COUNT)
		service->decompressors[service->decompressor_count++] = decompressor;
	else
		decompressor_close(decompressor);
}

void cold_read_deinit(struct service *service)
{
	while (service->decompressor_count > 0)
		decompressor_close(service->decompressors[--service->decompressor_count]);
}

/* ---- the end */

static void cold_read_end(struct cold_read *read, enum err err)
{
	Granary__ColdReadReply reply = GRANARY__COLD_READ_REPLY__INIT;
	if (err != OK) {
		rpc_reply_error(read->request, err, NULL);
	} else {
		reply.crcs = message_borrow(slice_of(read->crcs, 4u * read->crc_count));
		struct conn_data data = { .iobuf = read->out, .size = read->out == NULL ? 0 : read->out->size };
		if (read->read != NULL)
			data = (struct conn_data){ .iobuf = read->read,
						   .offset = read->read_skip * BLOCK_BYTES,
						   .size = read->blocks * BLOCK_BYTES };
		if (data.size == 0)
			rpc_reply(read->request, &reply.base);
		else
			rpc_reply_data(read->request, &reply.base, &data);
	}
	decompressor_give(read->service, read->decompressor);
	iobuf_unref(read->out);
	iobuf_unref(read->read);
	free(read->bytes);
	free(read->unpacked);
	free(read->unit_crcs);
	if (read->chunk != NULL)
		chunk_unuse(read->chunk);
	free(read);
}

/* ---- blocks of the file */

static void read_more(struct cold_read *read);

static void on_read(void *arg, enum err err)
{
	struct cold_read *read = arg;
	if (err == OK && read->read == NULL)
		err = ERR_CORRUPT; /* the file ends before */
	if (err != OK) {
		cold_read_end(read, err);
		return;
	}
	if (read->to == NULL) { /* they are the answer as they are */
		read->have = read->blocks;
		cold_read_step(read);
		return;
	}
	uint32_t wanted = read->blocks - read->have;
	uint32_t count = wanted < READ_BLOCKS_MAX ? wanted : READ_BLOCKS_MAX;
	memcpy(read->to + (size_t)read->have * BLOCK_BYTES, read->read->bytes + (size_t)read->read_skip * BLOCK_BYTES,
	       (size_t)count * BLOCK_BYTES);
	iobuf_unref(read->read);
	read->read = NULL;
	read->have += count;
	if (read->have < read->blocks)
		read_more(read);
	else
		cold_read_step(read);
}

static void read_more(struct cold_read *read)
{
	struct chunk_op *op = chunk_op_new(read->service, OP_READ, NULL);
	uint32_t left = read->blocks - read->have;
	op->version = message_of(read)->version;
	op->first = read->block + read->have;
	op->end = op->first + (left < READ_BLOCKS_MAX ? left : READ_BLOCKS_MAX);
	op->given = &read->read;
	op->given_skip = &read->read_skip;
	op->done = on_read;
	op->arg = read;
	chunk_op_submit(op, message_of(read)->shard, NULL);
}

static void read_blocks_to(struct cold_read *read, uint32_t first, uint32_t count, uint8_t *to)
{
	read->block = first;
	read->blocks = count;
	read->have = 0;
	read->to = to;
	read_more(read);
}

static void read_blocks(struct cold_read *read, uint32_t first, uint32_t count)
{
	free(read->bytes);
	read->bytes = mem_alloc((size_t)count * BLOCK_BYTES);
	read_blocks_to(read, first, count, read->bytes);
}

/* ---- the index */

static void find(struct cold_read *read)
{
	struct chunk *chunk = chunk_store_find(read->service->store, message_of(read)->shard);
	if (chunk != NULL && chunk->state == CHUNK_READY && chunk->coded != NULL) {
		chunk_use(chunk);
		read->chunk = chunk;
		read->state = COLD_UNIT;
		cold_read_step(read);
		return;
	}
	read->state = COLD_HEAD_BLOCK;
	read_blocks(read, 0, 1);
}

static void head_block_read(struct cold_read *read)
{
	uint32_t head_bytes;
	struct chunk *chunk = chunk_store_find(read->service->store, message_of(read)->shard);
	enum err err = coded_head_bytes(slice_of(read->bytes, BLOCK_BYTES), &head_bytes);
	if (err == OK && (chunk == NULL || chunk->state != CHUNK_READY))
		err = ERR_BUSY;
	if (err != OK) {
		cold_read_end(read, err);
		return;
	}
	chunk_use(chunk);
	read->chunk = chunk;
	read->state = COLD_HEAD;
	read_blocks(read, 0, head_bytes / BLOCK_BYTES);
}

static void head_read(struct cold_read *read)
{
	struct coded_index index = { 0 };
	enum err err = coded_index_parse(slice_of(read->bytes, (size_t)read->blocks * BLOCK_BYTES), &index);
	if (err != OK) {
		cold_read_end(read, err);
		return;
	}
	if (read->chunk->coded != NULL) { /* another has been quicker, and uses it */
		coded_index_deinit(&index);
	} else {
		read->chunk->coded = mem_zero(1, sizeof(index));
		*read->chunk->coded = index;
	}
	read->state = COLD_UNIT;
	cold_read_step(read);
}

/* ---- units */

static uint32_t unit_blocks(const struct cold_read *read)
{
	return read->chunk->coded->unit_bytes / BLOCK_BYTES;
}

/* How many blocks of the answer from `next` on are in one unit. */
static uint32_t blocks_in_unit(const struct cold_read *read)
{
	uint32_t left = unit_blocks(read) - read->next % unit_blocks(read);
	return left < read->end - read->next ? left : read->end - read->next;
}

static uint8_t *answer_of_next(const struct cold_read *read)
{
	return read->out->bytes + (size_t)(read->next - read->first) * BLOCK_BYTES;
}

/* Blocks from `offset` of the shard's data on are those of the answer. Their checksums are those of the index: who gets them checks. */
static void blocks_read(struct cold_read *read, uint32_t offset, const uint8_t *crcs)
{
	uint32_t count = blocks_in_unit(read);
	uint8_t *to = answer_of_next(read);
	memcpy(read->crcs + 4u * read->crc_count, crcs, 4u * count);
	read->crc_count += count;
	read->next += count;
	read->state = COLD_BLOCKS_READ;
	read_blocks_to(read, (read->chunk->coded->head_bytes + offset) / BLOCK_BYTES, count, to);
}

/* The whole answer lies in the shard as it is, in one piece: it is sent as it was read. */
static bool read_run(struct cold_read *read)
{
	const struct coded_index *index = read->chunk->coded;
	uint32_t begin = 0, offset;
	const uint8_t *crcs;
	for (uint32_t next = read->first, count; next < read->end; next += count) {
		const struct coded_unit *unit = coded_index_find(index, next / unit_blocks(read));
		count = unit_blocks(read) - next % unit_blocks(read);
		count = count < read->end - next ? count : read->end - next;
		if (unit == NULL || unit->shard != index->place || !coded_unit_blocks(index, unit, next % unit_blocks(read), &offset, &crcs) ||
		    (next > read->first && offset != begin + (next - read->first) * BLOCK_BYTES)) {
			read->crc_count = 0;
			return false;
		}
		begin = next == read->first ? offset : begin;
		memcpy(read->crcs + 4u * read->crc_count, crcs, 4u * count);
		read->crc_count += count;
	}
	read->next = read->end;
	read->state = COLD_BLOCKS_READ;
	read_blocks_to(read, (index->head_bytes + begin) / BLOCK_BYTES, read->end - read->first, NULL);
	return true;
}

static void unit_read(struct cold_read *read, const struct coded_unit *unit)
{
	const struct coded_index *index = read->chunk->coded;
	uint32_t from = index->head_bytes + unit->offset, offset;
	uint32_t first = from / BLOCK_BYTES, end = (from + unit->size + BLOCK_BYTES - 1) / BLOCK_BYTES;
	const uint8_t *crcs;
	if (unit->shard != index->place) {
		cold_read_end(read, ERR_INVALID);
		return;
	}
	if (index->unit_bytes != 0 && coded_unit_blocks(index, unit, read->next % unit_blocks(read), &offset, &crcs)) {
		blocks_read(read, offset, crcs);
		return;
	}
	read->unit = unit;
	read->state = COLD_UNIT_READ;
	read_blocks(read, first, end - first);
}

static const uint8_t *unit_bytes(const struct cold_read *read)
{
	return read->bytes + (read->chunk->coded->head_bytes + read->unit->offset) % BLOCK_BYTES;
}

static void unpack(struct work *work)
{
	struct cold_read *read = container_of(work, struct cold_read, work);
	const struct coded_index *index = read->chunk->coded;
	uint32_t length, crc;
	if (message_of(read)->slot == 0) {
		read->err = coded_unpack(index, read->unit, unit_bytes(read), read->decompressor, read->unpacked, read->unit_crcs);
		return;
	}
	read->err = coded_record(read->unit, unit_bytes(read), &length, &crc);
	if (read->err != OK)
		return;
	read->out = iobuf_open(length > 0 ? length : 1);
	read->out->size = length;
	put_le32(read->crcs, crc);
	read->crc_count = 1;
	read->err = coded_unpack_record(read->unit, unit_bytes(read), read->decompressor, read->out->bytes);
}

static void unpack_done(struct work *work)
{
	struct cold_read *read = container_of(work, struct cold_read, work);
	struct chunk_store *store = read->service->store;
	cold_read_step(read);
	chunk_store_work_end(store);
}

static void begin_unpack(struct cold_read *read)
{
	const struct coded_index *index = read->chunk->coded;
	if (read->decompressor == NULL)
		read->decompressor = decompressor_take(read->service);
	if (message_of(read)->slot == 0 && read->unpacked == NULL) {
		read->unpacked = mem_alloc(index->unit_bytes);
		read->unit_crcs = mem_alloc(index->unit_bytes / BLOCK_BYTES * 4u);
	}
	read->state = COLD_UNPACKED;
	if (!read->unit->compressed) { /* a record: little to do */
		unpack(&read->work);
		cold_read_step(read);
		return;
	}
	read->work.run = unpack;
	read->work.done = unpack_done;
	read->work.of_owner.untimed = true;
	read->err = ERR_CANCELLED;
	chunk_store_submit(read->service->store, NULL, &read->work);
}

/* The blocks of the answer up to `end` that lie in the unit of `next`, or (NULL) zeros. */
static void take_blocks(struct cold_read *read, const uint8_t *unpacked, const uint8_t *crcs)
{
	uint32_t in_unit = read->next % unit_blocks(read), count = blocks_in_unit(read);
	uint8_t *to = answer_of_next(read);
	if (unpacked != NULL)
		memcpy(to, unpacked + (size_t)in_unit * BLOCK_BYTES, (size_t)count * BLOCK_BYTES);
	else
		memset(to, 0, (size_t)count * BLOCK_BYTES);
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *crc = read->crcs + 4u * read->crc_count++;
		put_le32(crc, crcs != NULL ? get_le32(crcs + 4u * (in_unit + i)) : crc32c_zero_block());
	}
	read->next += count;
}

/* True: the answer is on its way, or has been given. */
static bool begin_file(struct cold_read *read)
{
	const Granary__ColdRead *message = message_of(read);
	uint32_t blocks = (uint32_t)(read->chunk->coded->raw_bytes / BLOCK_BYTES);
	read->first = read->next = block_first(message->offset);
	read->end = block_end(message->offset, message->bytes);
	if (read->end > blocks)
		read->end = blocks > read->first ? blocks : read->first;
	if (read->end == read->first)
		return false;
	if (read_run(read))
		return true;
	read->out = iobuf_open((read->end - read->first) * BLOCK_BYTES);
	read->out->size = (read->end - read->first) * BLOCK_BYTES;
	return false;
}

static void next_unit(struct cold_read *read)
{
	const struct coded_index *index = read->chunk->coded;
	const struct coded_unit *unit;
	if ((message_of(read)->slot == 0) != (index->unit_bytes != 0)) {
		cold_read_end(read, ERR_INVALID);
		return;
	}
	if (message_of(read)->slot != 0) {
		unit = coded_index_find(index, message_of(read)->slot);
		if (unit == NULL)
			cold_read_end(read, ERR_NOT_FOUND);
		else
			unit_read(read, unit);
		return;
	}
	if (read->read == NULL && read->out == NULL && begin_file(read))
		return;
	while (read->next < read->end) {
		unit = coded_index_find(index, read->next / unit_blocks(read));
		if (unit != NULL) {
			unit_read(read, unit);
			return;
		}
		take_blocks(read, NULL, NULL);
	}
	cold_read_end(read, OK);
}

static void unpacked(struct cold_read *read)
{
	if (read->err != OK || message_of(read)->slot != 0) {
		cold_read_end(read, read->err);
		return;
	}
	take_blocks(read, read->unpacked, read->unit_crcs);
	read->state = COLD_UNIT;
	next_unit(read);
}

static void cold_read_step(struct cold_read *read)
{
	switch (read->state) {
	case COLD_FIND:
		find(read);
		break;
	case COLD_HEAD_BLOCK:
		head_block_read(read);
		break;
	case COLD_HEAD:
		head_read(read);
		break;
	case COLD_BLOCKS_READ:
		read->state = COLD_UNIT;
		next_unit(read);
		break;
	case COLD_UNIT:
		next_unit(read);
		break;
	case COLD_UNIT_READ:
		begin_unpack(read);
		break;
	case COLD_UNPACKED:
		unpacked(read);
		break;
	}
}

void cold_read_serve(struct service *service, struct rpc_request *request)
{
	const Granary__ColdRead *message = (const Granary__ColdRead *)request->message;
	bool fits = message->slot != 0 ||
		    (message->bytes > 0 && message->offset < CHUNK_BYTES && message->bytes <= CHUNK_BYTES - message->offset &&
		     block_end(message->offset, message->bytes) - block_first(message->offset) <= READ_BLOCKS_MAX);
	if (!fits) {
		rpc_reply_error(request, ERR_INVALID, "range");
		return;
	}
	struct cold_read *read = mem_zero(1, sizeof(*read));
	read->service = service;
	read->request = request;
	cold_read_step(read);
}
