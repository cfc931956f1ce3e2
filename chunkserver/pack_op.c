#include "chunkserver/pack_op.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chain.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"

#define BATCH_BYTES_MAX (4u * MIB)
#define BATCH_OPS_MAX 256u

struct pack_queue {
	struct work work;
	struct service *service;
	struct chunk *chunk;
	struct chunk_op *first, *last; /* wait for a batch */
	struct chunk_op *batch;	       /* being written; linked by queue_next */
	struct pack_item *items;
	uint32_t item_count;
	uint64_t queued_bytes;
	uint32_t slot_given; /* highest */
	bool running;	     /* a batch or a compaction */
	bool marks;	     /* the batch sets the pack's mark first */
	bool sync_begun;
	struct chunk_sync_job sync_job;
	/* Compaction. */
	char *new_path;
	uint64_t salt;
	struct pack compacted;
	enum err err;
};

static void next_batch(struct pack_queue *queue);

static struct pack_queue *queue_of(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	if (chunk->queue == NULL) {
		chunk->queue = mem_zero(1, sizeof(*chunk->queue));
		chunk->queue->service = op->service;
		chunk->queue->chunk = chunk;
		chunk->queue->slot_given = chunk->pack.slot_count;
	}
	return chunk->queue;
}

void pack_op_forget(struct chunk *chunk)
{
	if (chunk->queue == NULL)
		return;
	check(!chunk->queue->running && chunk->queue->first == NULL);
	free(chunk->queue);
	chunk->queue = NULL;
}

enum err pack_op_give_slot(struct chunk_op *op)
{
	struct pack_queue *queue = queue_of(op);
	if (!op->from_client || op->mends || op->keeps_slot) {
		if (op->slot == 0 || op->slot > PACK_SLOTS_MAX)
			return ERR_INVALID;
		if (op->slot > queue->slot_given)
			queue->slot_given = op->slot;
		return OK;
	}
	if (op->chunk->pack.closed || op->chunk->pack.bytes + queue->queued_bytes >= PACK_BYTES_MAX || queue->slot_given >= PACK_SLOTS_MAX)
		return ERR_PACK_FULL;
	op->slot = ++queue->slot_given;
	return OK;
}

/* ---------------------------------------------------------------- batches */

/* What no other member has may be here, from when we were one: it is the same if it has the same CRC. */
static void keep_own(struct pack_queue *queue, struct chunk_op *op)
{
	struct pack_item *item = &queue->items[op->extra];
	struct pack_slot there;
	struct pack_record record;
	if (!pack_find(&queue->chunk->pack, op->slot, &there) || there.length != op->data.size)
		return;
	op->buffer = iobuf_open(PACK_RECORD_BYTES + there.length);
	const uint8_t *data = op->buffer->bytes + PACK_RECORD_BYTES;
	if (pack_read(&queue->chunk->pack, op->slot, there, op->buffer->bytes, false, &record) == OK && record.crc == op->crc &&
	    record.flags == 0 && crc32c(data, record.length) == record.crc)
		item->data = op->data = slice_of(data, record.length);
}

static void batch_run(struct work *work)
{
	struct pack_queue *queue = container_of(work, struct pack_queue, work);
	for (struct chunk_op *op = queue->batch; op != NULL; op = op->queue_next) {
		if (op->kind == OP_APPEND && op->marks_damage)
			keep_own(queue, op);
	}
	queue->err = queue->marks ? chunk_store_sync_index(queue->chunk->store) : OK;
	if (queue->err == OK)
		queue->err = pack_write(&queue->chunk->pack, queue->items, queue->item_count, false);
	if (queue->err == OK && queue->sync_begun)
		queue->err = chunk_sync_run(&queue->sync_job);
}

static void op_synced(void *arg, enum err err)
{
	chunk_op_local_done(arg, err);
}

/* Ends the operations of a batch. They may go as a result, and more may be queued. */
static void end_ops(struct pack_queue *queue, struct chunk_op *op, enum err err, bool synced)
{
	while (op != NULL) {
		struct chunk_op *next = op->queue_next;
		op->queue_next = NULL;
		if (err == OK && op->kind == OP_APPEND && op->marks_damage && crc32c(op->data.bytes, op->data.size) != op->crc)
			pack_found_damaged(queue->chunk, op->slot, "fill");
		else if (err == OK && op->kind == OP_APPEND)
			pack_repaired(queue->chunk, op->slot);
		if (err == OK && op->sync && !synced)
			chunk_sync(queue->chunk, op_synced, op);
		else
			chunk_op_local_done(op, err);
		op = next;
	}
}

static void batch_ended(struct pack_queue *queue)
{
	struct chunk *chunk = queue->chunk;
	struct chunk_op *batch = queue->batch;
	enum err err = queue->err;
	chunk_use(chunk);
	for (uint32_t i = 0; err == OK && i < queue->item_count; i++)
		pack_enter(&chunk->pack, &queue->items[i]);
	if (err != OK && err != ERR_NO_SPACE) {
		chunk_store_fail(chunk->store, "append", err);
		err = ERR_STORE_FAILED;
	}
	if (queue->marks)
		chunk->mark = err == OK ? MARK_SET : MARK_NONE;
	free(queue->items);
	queue->items = NULL;
	queue->item_count = 0;
	queue->batch = NULL;
	queue->marks = false;
	queue->running = false;
	chunk->writes_ended++;
	chunk->written_ms = loop_now_ms(queue->service->loop);
	bool synced = queue->sync_begun;
	queue->sync_begun = false;
	if (synced)
		chunk_sync_end(&queue->sync_job);
	end_ops(queue, batch, err, synced);
	next_batch(queue);
	chunk_unuse(chunk);
}

static void batch_done(struct work *work)
{
	struct pack_queue *queue = container_of(work, struct pack_queue, work);
	struct chunk_store *store = queue->chunk->store;
	batch_ended(queue);
	chunk_store_work_end(store);
}

static void add_append(struct pack_queue *queue, struct chunk_op *op)
{
	const struct pack *pack = &queue->chunk->pack;
	struct pack_slot there;
	/* Deleted meanwhile, or no longer wanted. */
	if (op->mends && (pack_is_deleted(pack, op->slot) ||
			  (pack_find(pack, op->slot, &there) && !pack_is_damaged(queue->chunk, op->slot))))
		return;
	/* A retry brings the same again. Anything else in the slot was never acknowledged: the later one counts. */
	if (pack_find(pack, op->slot, &there) && there.length != op->data.size)
		log_warn("slot_written_again", "pack=%016" PRIx64 " slot=%" PRIu32, pack->id, op->slot);
	op->extra = queue->item_count;
	queue->items[queue->item_count++] = (struct pack_item){
		.record = { .slot = op->slot, .length = (uint32_t)op->data.size, .crc = op->crc,
			    .flags = op->deleted ? PACK_TOMBSTONE : 0 },
		.data = op->data,
	};
}

static void add_tombstones(struct pack_queue *queue, const struct chunk_op *op)
{
	struct pack_slot there;
	for (size_t i = 0; i < op->slots.size / sizeof(uint32_t); i++) {
		uint32_t slot;
		memcpy(&slot, op->slots.bytes + i * sizeof(slot), sizeof(slot));
		/* What may have been lost here must not be taken from those that have not deleted it yet. */
		bool counts = pack_find(&queue->chunk->pack, slot, &there) ||
			      (queue->chunk->uncertain && slot > 0 && slot <= PACK_SLOTS_MAX);
		if (counts)
			queue->items[queue->item_count++] =
				(struct pack_item){ .record = { .slot = slot, .flags = PACK_TOMBSTONE } };
	}
}

/* Takes the next operations off the queue: a batch. */
static uint32_t take_batch(struct pack_queue *queue, bool *sync)
{
	uint32_t ops = 0, bytes = 0, items = 0;
	struct chunk_op *last = NULL;
	queue->batch = queue->first;
	for (struct chunk_op *op = queue->first; op != NULL && ops < BATCH_OPS_MAX && bytes < BATCH_BYTES_MAX;
	     op = op->queue_next) {
		ops++;
		bytes += (uint32_t)op->data.size;
		items += op->kind == OP_APPEND ? 1 : (uint32_t)(op->slots.size / sizeof(uint32_t));
		*sync = *sync || op->sync;
		last = op;
	}
	if (last == NULL)
		return 0;
	queue->first = last->queue_next;
	if (queue->first == NULL)
		queue->last = NULL;
	last->queue_next = NULL;
	return items;
}

/* As any chunk it is marked, durably, before its first unsynced write. */
static void begin_mark(struct pack_queue *queue)
{
	struct chunk *chunk = queue->chunk;
#ifdef PLANT_PACK_NOT_MARKED
	return;
#endif
	if (chunk->mark != MARK_NONE || queue->first == NULL || chunk_store_failed(chunk->store))
		return;
	if (chunk_store_mark(chunk) != OK) {
		chunk_store_fail(chunk->store, "mark", ERR_IO);
		return;
	}
	chunk->mark = MARK_SETTING;
	queue->marks = true;
}

static void start_compaction(struct pack_queue *queue);

static void next_batch(struct pack_queue *queue)
{
	struct chunk *chunk = queue->chunk;
	bool sync = false;
	if (queue->running)
		return;
	begin_mark(queue);
	if (chunk_store_failed(chunk->store)) {
		struct chunk_op *op = queue->first;
		queue->first = queue->last = NULL;
		queue->queued_bytes = 0;
		end_ops(queue, op, ERR_STORE_FAILED, false);
		return;
	}
	if (queue->first == NULL) {
		start_compaction(queue);
		return;
	}
	uint32_t items = take_batch(queue, &sync);
	queue->items = mem_zero(items + 1ul, sizeof(*queue->items));
	for (struct chunk_op *op = queue->batch; op != NULL; op = op->queue_next) {
		if (op->kind == OP_APPEND) {
			queue->queued_bytes -= pack_record_size((uint32_t)op->data.size);
			add_append(queue, op);
		} else {
			add_tombstones(queue, op);
		}
	}
	pack_place(&chunk->pack, queue->items, queue->item_count);
	queue->running = true;
	queue->sync_begun = sync && chunk_sync_begin(chunk, &queue->sync_job);
	chunk->writes_begun++;
	queue->work.run = batch_run;
	queue->work.done = batch_done;
	queue->err = ERR_CANCELLED;
	chunk_store_submit(chunk->store, NULL, &queue->work);
}

void pack_op_start(struct chunk_op *op)
{
	struct pack_queue *queue = queue_of(op);
	if (op->kind == OP_APPEND && !op->applied) {
		enum err err = chunk_store_admit(op->chunk->store, pack_record_size((uint32_t)op->data.size));
		if (err != OK) {
			chunk_op_answer(op, err);
			chunk_op_remove(op);
			return;
		}
	}
	op->state = OP_RUNNING;
	op->local_pending = true;
	if (op->kind == OP_APPEND && !op->mends)
		chain_forward(op);
	if (op->applied) { /* a retry: only the successors may lack it */
		chunk_op_local_done(op, OK);
		return;
	}
	if (op->kind == OP_APPEND)
		queue->queued_bytes += pack_record_size((uint32_t)op->data.size);
	if (queue->last == NULL)
		queue->first = op;
	else
		queue->last->queue_next = op;
	queue->last = op;
	next_batch(queue);
}

/* ---------------------------------------------------------------- compaction */

static void compact_run(struct work *work)
{
	struct pack_queue *queue = container_of(work, struct pack_queue, work);
	queue->err = pack_compact(queue->service->loop, &queue->chunk->pack, queue->new_path, queue->salt, &queue->compacted);
}

static void compact_ended(struct pack_queue *queue)
{
	struct chunk *chunk = queue->chunk;
	struct pack *compacted = &queue->compacted;
	queue->running = false;
	/* A version that was taken meanwhile is only in the old file: another time, then. */
	bool usable = queue->err == OK && !chunk->adopting && compacted->version == chunk->version;
	if (usable)
		queue->err = file_rename(queue->service->loop, queue->new_path, chunk->path);
	if (usable && queue->err == OK) {
		log_info("pack_compacted", "pack=%016" PRIx64 " bytes=%" PRIu64 " before=%" PRIu64, chunk->id,
			 compacted->bytes, chunk->pack.bytes);
		pack_close(&chunk->pack);
		chunk->pack = *compacted;
		*compacted = (struct pack){ 0 };
		chunk_store_save_slots(chunk);
		chunk->name_new = true;
		chunk->writes_begun++; /* so that the folder is synced */
		chunk->writes_ended++;
	} else if (queue->err == OK) {
		pack_close(compacted);
	}
	if (queue->err != OK)
		log_warn("pack_not_compacted", "pack=%016" PRIx64 " error=%s", chunk->id, err_name(queue->err));
	free(queue->new_path);
	queue->new_path = NULL;
	if (queue->first != NULL)
		next_batch(queue);
	chunk_unuse(chunk);
}

static void compact_done(struct work *work)
{
	struct pack_queue *queue = container_of(work, struct pack_queue, work);
	struct chunk_store *store = queue->chunk->store;
	compact_ended(queue);
	chunk_store_work_end(store);
}

static void start_compaction(struct pack_queue *queue)
{
	struct chunk *chunk = queue->chunk;
	if (!pack_wants_compaction(&chunk->pack) || chunk->adopting || chunk->uncertain || chunk->state != CHUNK_READY ||
	    queue->service->stopping || chunk_store_admit(chunk->store, chunk->pack.live_bytes) != OK)
		return;
	size_t size = strlen(chunk->path) + 5;
	queue->new_path = mem_alloc(size);
	snprintf(queue->new_path, size, "%s.new", chunk->path);
	queue->salt = loop_random(queue->service->loop);
	queue->running = true;
	chunk_use(chunk);
	queue->work.run = compact_run;
	queue->work.done = compact_done;
	queue->err = ERR_CANCELLED;
	chunk_store_submit(chunk->store, NULL, &queue->work);
}

/* ---------------------------------------------------------------- reads */

static void reply(struct rpc_request *request, const struct pack_record *record, struct iobuf *buffer)
{
	Granary__BlobReadReply message = GRANARY__BLOB_READ_REPLY__INIT;
	struct conn_data data = { .iobuf = buffer, .offset = PACK_RECORD_BYTES, .size = record->length };
	message.crc = record->crc;
	message.flags = record->flags;
	if (record->length == 0)
		rpc_reply(request, &message.base);
	else
		rpc_reply_data(request, &message.base, &data);
}

bool pack_op_try_read(struct service *service, struct chunk *chunk, struct rpc_request *request)
{
	const Granary__BlobRead *read = (const Granary__BlobRead *)request->message;
	struct pack_slot at;
	struct pack_record record;
	(void)service;
	if (chunk->state != CHUNK_READY || chunk->kind != KIND_PACK || chunk->copy != COPY_COMPLETE || read->version < chunk->version ||
	    !pack_find(&chunk->pack, read->slot, &at))
		return false;
	struct iobuf *buffer = iobuf_open(PACK_RECORD_BYTES + at.length);
	enum err err = pack_read(&chunk->pack, read->slot, at, buffer->bytes, true, &record);
	if (err == OK && crc32c(buffer->bytes + PACK_RECORD_BYTES, record.length) != record.crc)
		err = ERR_CORRUPT;
	if (err == OK)
		reply(request, &record, buffer);
	iobuf_unref(buffer);
	return err == OK; /* whatever it was, the worker meets it again */
}

static void read_run(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct pack_slot at = { op->offset, op->size };
	struct pack_record record;
	op->local_err = pack_read(&op->view, op->slot, at, op->buffer->bytes, false, &record);
	if (op->local_err == OK && crc32c(op->buffer->bytes + PACK_RECORD_BYTES, record.length) != record.crc)
		op->local_err = ERR_CORRUPT;
	op->crc = record.crc;
}

static void read_end(struct chunk_op *op, enum err err)
{
	struct pack_slot now;
	op->local_pending = false;
	if ((err == ERR_CORRUPT || err == ERR_IO) && op->chunk->pack.salt == op->view.salt &&
	    pack_find(&op->chunk->pack, op->slot, &now) && now.place == op->offset) {
		pack_found_damaged(op->chunk, op->slot, "read");
		err = ERR_CORRUPT;
	}
	if (err == OK) {
		struct op_request *request = op->requests;
		struct pack_record record = { .slot = op->slot, .length = op->size, .crc = op->crc };
		op->requests = NULL;
		reply(request->request, &record, op->buffer);
		free(request);
	}
	file_unref(op->view.file);
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

void pack_op_read(struct chunk_op *op)
{
	struct pack_slot at;
	op->state = OP_RUNNING;
	if (!pack_find(&op->chunk->pack, op->slot, &at)) {
		read_end(op, op->chunk->uncertain		   ? ERR_UNCERTAIN :
			     pack_is_damaged(op->chunk, op->slot) ? ERR_CORRUPT :
								    ERR_NOT_FOUND);
		return;
	}
	op->offset = at.place;
	op->size = at.length;
	op->view = op->chunk->pack;
	file_ref(op->view.file);
	op->buffer = iobuf_open(PACK_RECORD_BYTES + at.length);
	op->local_pending = true;
	op->work.run = read_run;
	op->work.done = read_done;
	op->local_err = ERR_CANCELLED;
	chunk_store_submit(op->chunk->store, NULL, &op->work);
}

void pack_op_list(struct chunk_op *op)
{
	const struct chunk *chunk = op->chunk;
	struct op_request *request = op->requests;
	uint32_t size = (chunk->pack.slot_count + 7) / 8;
	Granary__PackSlotsReply message = GRANARY__PACK_SLOTS_REPLY__INIT;
	struct iobuf *buffer = iobuf_open(2 * size + 1);
	struct conn_data data = { .iobuf = buffer, .size = 2 * size };
	pack_write_bits(&chunk->pack, false, buffer->bytes);
	pack_write_bits(&chunk->pack, true, buffer->bytes + size);
	message.slots = chunk->pack.slot_count;
	message.uncertain = chunk->uncertain;
	message.blank = chunk->blank;
	message.loss_untold = chunk->loss_untold;
	op->requests = NULL;
	if (size == 0)
		rpc_reply(request->request, &message.base);
	else
		rpc_reply_data(request->request, &message.base, &data);
	free(request);
	iobuf_unref(buffer);
	chunk_op_answer(op, OK);
	chunk_op_remove(op);
}
