#include "chunkserver/cold_read.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/coded.h"

#define READ_BLOCKS_MAX (FRAME_DATA_BYTES_MAX / BLOCK_BYTES)

/*   FIND -> HEAD_BLOCK -> HEAD -> LOOK -> (read) -> READ -> (unpack) -> UNPACKED -> answered
 *     '----- the index is known ----^  '---> (read) -> READ_AS_IS, nothing is compressed ---^ */
enum cold_read_state { COLD_FIND, COLD_HEAD_BLOCK, COLD_HEAD, COLD_LOOK, COLD_READ, COLD_READ_AS_IS, COLD_UNPACKED };

struct cold_read {
	struct service *service;
	struct rpc_request *request;
	enum cold_read_state state;
	struct chunk *chunk; /* in use, from when it is known to be open */
	struct work work;
	struct decompressor *decompressor;
	/* Of the shard's file: */
	uint32_t block, blocks, have; /* the first that is wanted, how many, how many of these are there */
	struct iobuf *read;	      /* by the last operation */
	uint32_t read_skip;
	uint8_t *joined; /* of more than one operation */
	/* The answer: blocks of the chunk, or a record. */
	const struct coded_unit *unit; /* the record's */
	uint32_t first, end;
	struct iobuf *out;
	uint8_t crcs[READ_BLOCKS_MAX * 4u];
	size_t crc_count;
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
		if (read->state == COLD_READ_AS_IS)
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
	free(read->joined);
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
	uint32_t left = read->blocks - read->have, count = left < READ_BLOCKS_MAX ? left : READ_BLOCKS_MAX;
	if (read->joined != NULL)
		memcpy(read->joined + (size_t)read->have * BLOCK_BYTES, read->read->bytes + (size_t)read->read_skip * BLOCK_BYTES,
		       (size_t)count * BLOCK_BYTES);
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
	iobuf_unref(read->read);
	read->read = NULL;
	op->version = message_of(read)->version;
	op->first = read->block + read->have;
	op->end = op->first + (left < READ_BLOCKS_MAX ? left : READ_BLOCKS_MAX);
	op->given = &read->read;
	op->given_skip = &read->read_skip;
	op->done = on_read;
	op->arg = read;
	chunk_op_submit(op, message_of(read)->shard, NULL);
}

static void read_blocks(struct cold_read *read, uint32_t first, uint32_t count, enum cold_read_state next)
{
	read->state = next;
	read->block = first;
	read->blocks = count;
	read->have = 0;
	free(read->joined);
	read->joined = count > READ_BLOCKS_MAX ? mem_alloc((size_t)count * BLOCK_BYTES) : NULL;
	read_more(read);
}

/* What was read. */
static const uint8_t *bytes_of(const struct cold_read *read)
{
	return read->joined != NULL ? read->joined : read->read->bytes + (size_t)read->read_skip * BLOCK_BYTES;
}

/* ---- the index */

static void find(struct cold_read *read)
{
	struct chunk *chunk = chunk_store_find(read->service->store, message_of(read)->shard);
	if (chunk != NULL && chunk->state == CHUNK_READY && chunk->coded != NULL) {
		chunk_use(chunk);
		read->chunk = chunk;
		read->state = COLD_LOOK;
		cold_read_step(read);
		return;
	}
	read_blocks(read, 0, 1, COLD_HEAD_BLOCK);
}

static void head_block_read(struct cold_read *read)
{
	uint32_t head_bytes;
	struct chunk *chunk = chunk_store_find(read->service->store, message_of(read)->shard);
	enum err err = coded_head_bytes(slice_of(bytes_of(read), BLOCK_BYTES), &head_bytes);
	if (err == OK && (chunk == NULL || chunk->state != CHUNK_READY))
		err = ERR_BUSY;
	if (err != OK) {
		cold_read_end(read, err);
		return;
	}
	chunk_use(chunk);
	read->chunk = chunk;
	read_blocks(read, 0, head_bytes / BLOCK_BYTES, COLD_HEAD);
}

static void head_read(struct cold_read *read)
{
	struct coded_index index = { 0 };
	enum err err = coded_index_parse(slice_of(bytes_of(read), (size_t)read->blocks * BLOCK_BYTES), &index);
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
	read->state = COLD_LOOK;
	cold_read_step(read);
}

/* ---- units */

static uint32_t unit_blocks(const struct cold_read *read)
{
	return read->chunk->coded->unit_bytes / BLOCK_BYTES;
}

/* How many blocks of the answer from `next` on are in one unit. */
static uint32_t blocks_in_unit(const struct cold_read *read, uint32_t next)
{
	uint32_t left = unit_blocks(read) - next % unit_blocks(read);
	return left < read->end - next ? left : read->end - next;
}

static const struct coded_unit *unit_at(const struct cold_read *read, uint32_t block)
{
	return coded_index_find(read->chunk->coded, block / unit_blocks(read));
}

static void add_crcs(struct cold_read *read, const uint8_t *crcs, uint32_t count)
{
	memcpy(read->crcs + 4u * read->crc_count, crcs, 4u * count);
	read->crc_count += count;
}

/* The whole answer lies in the shard as it is, in one piece: it is sent as it was read. Its checksums are those of the index: who gets them
 * checks. */
static bool read_as_is(struct cold_read *read)
{
	const struct coded_index *index = read->chunk->coded;
	uint32_t begin = 0, offset;
	const uint8_t *crcs;
	for (uint32_t next = read->first, count; next < read->end; next += count) {
		const struct coded_unit *unit = unit_at(read, next);
		count = blocks_in_unit(read, next);
		if (unit == NULL || unit->shard != index->place || !coded_unit_blocks(index, unit, next % unit_blocks(read), &offset, &crcs) ||
		    (next > read->first && offset != begin + (next - read->first) * BLOCK_BYTES)) {
			read->crc_count = 0;
			return false;
		}
		begin = next == read->first ? offset : begin;
		add_crcs(read, crcs, count);
	}
	read_blocks(read, (index->head_bytes + begin) / BLOCK_BYTES, read->end - read->first, COLD_READ_AS_IS);
	return true;
}

/* From the first unit to the last one: they lie one behind the other. */
static void read_units(struct cold_read *read, const struct coded_unit *first, const struct coded_unit *last)
{
	uint32_t head = read->chunk->coded->head_bytes, begin = (head + first->offset) / BLOCK_BYTES;
	uint32_t end = (head + last->offset + last->size + BLOCK_BYTES - 1) / BLOCK_BYTES;
	read_blocks(read, begin, end - begin, COLD_READ);
}

static void look_for_blocks(struct cold_read *read)
{
	const Granary__ColdRead *message = message_of(read);
	const struct coded_index *index = read->chunk->coded;
	const struct coded_unit *first = NULL, *last = NULL;
	uint32_t blocks = (uint32_t)(index->raw_bytes / BLOCK_BYTES);
	read->first = block_first(message->offset);
	read->end = block_end(message->offset, message->bytes);
	if (read->end > blocks)
		read->end = blocks > read->first ? blocks : read->first;
	if (read->end == read->first) {
		cold_read_end(read, OK);
		return;
	}
	if (read_as_is(read))
		return;
	for (uint32_t next = read->first; next < read->end; next += blocks_in_unit(read, next)) {
		const struct coded_unit *unit = unit_at(read, next);
		if (unit != NULL && unit->shard != index->place) {
			cold_read_end(read, ERR_INVALID);
			return;
		}
		first = first == NULL ? unit : first;
		last = unit == NULL ? last : unit;
	}
	read->out = iobuf_open((read->end - read->first) * BLOCK_BYTES);
	read->out->size = (read->end - read->first) * BLOCK_BYTES;
	if (first != NULL) {
		read_units(read, first, last);
		return;
	}
	memset(read->out->bytes, 0, read->out->size);
	for (uint32_t i = read->first; i < read->end; i++)
		put_le32(read->crcs + 4u * read->crc_count++, crc32c_zero_block());
	cold_read_end(read, OK);
}

static void look_for_record(struct cold_read *read)
{
	const struct coded_index *index = read->chunk->coded;
	read->unit = coded_index_find(index, message_of(read)->slot);
	if (read->unit == NULL || read->unit->shard != index->place)
		cold_read_end(read, read->unit == NULL ? ERR_NOT_FOUND : ERR_INVALID);
	else
		read_units(read, read->unit, read->unit);
}

static void look(struct cold_read *read)
{
	bool record = message_of(read)->slot != 0;
	if (record != (read->chunk->coded->unit_bytes == 0))
		cold_read_end(read, ERR_INVALID);
	else if (record)
		look_for_record(read);
	else
		look_for_blocks(read);
}

/* ---- unpacking */

static const uint8_t *unit_bytes(const struct cold_read *read, const struct coded_unit *unit)
{
	return bytes_of(read) + (read->chunk->coded->head_bytes + unit->offset - read->block * BLOCK_BYTES);
}

static enum err unpack_record(struct cold_read *read)
{
	const uint8_t *bytes = unit_bytes(read, read->unit);
	uint32_t length, crc;
	enum err err = coded_record(read->unit, bytes, &length, &crc);
	if (err != OK)
		return err;
	read->out = iobuf_open(length > 0 ? length : 1);
	read->out->size = length;
	put_le32(read->crcs, crc);
	read->crc_count = 1;
	return coded_unpack_record(read->chunk->coded, read->unit, bytes, read->decompressor, read->out->bytes);
}

/* Whole units to where they belong; of others, by way of `whole`, what is wanted. */
static enum err unpack_blocks(struct cold_read *read, uint8_t *whole)
{
	const struct coded_index *index = read->chunk->coded;
	uint8_t crcs[CODED_UNIT_BYTES / BLOCK_BYTES * 4u];
	for (uint32_t next = read->first, count; next < read->end; next += count) {
		const struct coded_unit *unit = unit_at(read, next);
		uint8_t *to = read->out->bytes + (size_t)(next - read->first) * BLOCK_BYTES;
		uint32_t in_unit = next % unit_blocks(read);
		count = blocks_in_unit(read, next);
		if (unit == NULL) {
			memset(to, 0, (size_t)count * BLOCK_BYTES);
			for (uint32_t i = 0; i < count; i++)
				put_le32(crcs + 4u * i, crc32c_zero_block());
			add_crcs(read, crcs, count);
			continue;
		}
		bool is_whole = count * BLOCK_BYTES == coded_unit_raw_bytes(index, unit->id);
		enum err err = coded_unpack(index, unit, unit_bytes(read, unit), read->decompressor, is_whole ? to : whole, crcs);
		if (err != OK)
			return err;
		if (!is_whole)
			memcpy(to, whole + (size_t)in_unit * BLOCK_BYTES, (size_t)count * BLOCK_BYTES);
		add_crcs(read, crcs + 4u * in_unit, count);
	}
	return OK;
}

static void unpack(struct work *work)
{
	struct cold_read *read = container_of(work, struct cold_read, work);
	if (read->unit != NULL) {
		read->err = unpack_record(read);
		return;
	}
	uint8_t *whole = mem_alloc(read->chunk->coded->unit_bytes);
	read->err = unpack_blocks(read, whole);
	free(whole);
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
	read->decompressor = decompressor_take(read->service);
	read->state = COLD_UNPACKED;
	if (read->unit != NULL && !read->unit->compressed) { /* little to do */
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
	case COLD_LOOK:
		look(read);
		break;
	case COLD_READ:
		begin_unpack(read);
		break;
	case COLD_READ_AS_IS:
		cold_read_end(read, OK);
		break;
	case COLD_UNPACKED:
		cold_read_end(read, read->err);
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
