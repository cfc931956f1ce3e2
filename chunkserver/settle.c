#include "chunkserver/settle.h"

#include <utlist.h>

#include "chunkserver/chain.h"
#include "chunkserver/chunk_retry.h"
#include "chunkserver/mend.h"
#include "common/base/check.h"

#define SETTLING_MAX 16u /* of one chunk at a time */
#define BACKOFF_MS_MIN 50u
#define BACKOFF_MS_MAX 2000u
#define PIECE_BLOCKS (FRAME_DATA_BYTES_MAX / BLOCK_BYTES)

/* Settled: readers and writers may go on. */
static void settled(struct chunk_op *op)
{
	if (op->client != 0)
		chunk_retry_remember(op);
	op->chunk->settle_failures = 0;
	chunk_op_answer(op, OK);
	chunk_op_remove(op);
}

/* Once for all that fail together. */
static void back_off(const struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	uint64_t now = loop_now_ms(op->service->loop);
	if (now < chunk->settle_after_ms)
		return;
	uint64_t pause = (uint64_t)BACKOFF_MS_MIN << (chunk->settle_failures < 6 ? chunk->settle_failures : 6);
	chunk->settle_failures++;
	chunk->settle_after_ms = now + (pause < BACKOFF_MS_MAX ? pause : BACKOFF_MS_MAX);
}

/* Whoever waits for it hears that the chain is broken, and tries again or elsewhere. */
static void still_unsettled(struct chunk_op *op, enum err err)
{
	struct chunk *chunk = op->chunk;
	struct chunk_op *other, *next;
	op->state = OP_UNSETTLED;
	op->sent_blocks = 0;
	back_off(op);
	iobuf_unref(op->buffer);
	op->buffer = NULL;
	chunk_op_answer(op, err);
	DL_FOREACH_SAFE2 (chunk->first_op, other, next, next) {
		if (other->state != OP_WAITING || other->blocked_by != op)
			continue;
		other->failed_server = op->failed_server;
		chunk_op_answer(other, err);
		chunk_op_remove(other);
	}
	if (chunk->copy != COPY_COMPLETE)
		chunk_op_remove(op);
}

static uint32_t next_piece(const struct chunk_op *op)
{
	uint32_t at = op->first + op->sent_blocks;
	uint32_t end = op->end < op->chunk->file.blocks ? op->end : op->chunk->file.blocks;
	if (at >= end)
		return 0;
	return end - at < PIECE_BLOCKS ? end - at : PIECE_BLOCKS;
}

static void read_run(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk_file *file = &op->chunk->file;
	uint32_t first = op->first + op->sent_blocks, count = op->buffer->size / BLOCK_BYTES;
	op->local_err = chunk_file_read(file, first, count, op->buffer->bytes, false);
	op->bad = op->local_err == OK ? chunk_file_mismatches(file, first, count, op->buffer->bytes) : 0;
	if (op->bad != 0)
		op->local_err = ERR_CORRUPT;
}

static void read_ended(struct chunk_op *op)
{
	op->local_pending = false;
	for (uint32_t i = 0; i < PIECE_BLOCKS; i++) {
		uint32_t block = op->first + op->sent_blocks + i;
		if ((op->bad >> i & 1) != 0)
			chunk_found_damaged(op->chunk, block, block + 1, "settling");
	}
	if (op->service->stopping)
		op->local_err = ERR_CANCELLED;
	if (op->local_err == OK && op->chunk->copy != COPY_COMPLETE) /* out of the chain */
		op->local_err = ERR_CANCELLED;
	if (op->local_err == OK && chain_successor(op->service, op->chunk) == NULL) {
		settled(op); /* alone by now */
		return;
	}
	if (op->local_err != OK) {
		op->failed_server = op->service->server;
		still_unsettled(op, ERR_CHAIN_BROKEN);
		return;
	}
	chain_send_content(op, op->first + op->sent_blocks, op->buffer);
	if (op->call == 0)
		still_unsettled(op, op->chain_err);
}

static void read_done(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk_store *store = op->chunk->store;
	read_ended(op);
	chunk_store_work_end(store);
}

/* False when it could not be sent: operations that waited for it are gone then. */
static bool send_next(struct chunk_op *op)
{
	op->state = OP_SETTLING;
	if (op->kind == OP_TRIM) {
		chain_send_content(op, op->first, NULL);
		if (op->call == 0)
			still_unsettled(op, op->chain_err);
		return op->call != 0;
	}
	uint32_t count = next_piece(op);
	if (count == 0) {
		settled(op);
		return true;
	}
	op->buffer = iobuf_open(count * BLOCK_BYTES);
	op->buffer->size = count * BLOCK_BYTES;
	op->local_pending = true;
	op->work.run = read_run;
	op->work.done = read_done;
	op->local_err = ERR_CANCELLED;
	chunk_store_submit(op->chunk->store, NULL, &op->work);
	return true;
}

void settle_chain_done(struct chunk_op *op)
{
	if (op->chain_err != OK || op->service->stopping) {
		still_unsettled(op, op->chain_err != OK ? op->chain_err : ERR_CANCELLED);
		return;
	}
	if (op->kind == OP_TRIM) {
		settled(op);
		return;
	}
	op->sent_blocks += op->buffer->size / BLOCK_BYTES;
	iobuf_unref(op->buffer);
	op->buffer = NULL;
	if (!send_next(op))
		return; /* its waiters have been told */
}

void settle_chunk(struct service *service, struct chunk *chunk)
{
	struct chunk_op *op, *next;
	unsigned running = 0;
	if (chunk->state != CHUNK_READY || chunk->kind != KIND_REPLICATED || chunk->adopting || chunk->rejoin != NULL || chunk->uncertain ||
	    chunk_store_failed(chunk->store) || /* what is here may be old */
	    service->stopping || !chain_is_head(service, chunk) || !service_has_lease(service))
		return;
	if (loop_now_ms(service->loop) < chunk->settle_after_ms)
		return;
	bool alone = chain_successor(service, chunk) == NULL;
	DL_FOREACH_SAFE2 (chunk->first_op, op, next, next) {
		if (op->state == OP_SETTLING)
			running++;
		if (op->state != OP_UNSETTLED || running >= SETTLING_MAX)
			continue;
		if (alone) {
			settled(op);
			continue;
		}
		if (chunk_is_damaged(chunk, op->first, op->end)) { /* when it is mended */
			mend_start(service, chunk);
			continue;
		}
		running++;
		if (!send_next(op))
			return;
	}
}

static void settle_one(void *arg, struct chunk *chunk)
{
	if (chunk->first_op != NULL)
		settle_chunk(arg, chunk);
}

void settle_all(struct service *service)
{
	chunk_store_each_open(service->store, settle_one, service);
}

void settle_inherit(struct service *service, struct chunk *chunk, enum op_kind kind, uint32_t first, uint32_t end)
{
	struct chunk_op *op = chunk_op_new(service, kind, NULL);
	op->chunk = chunk;
	op->state = OP_UNSETTLED;
	op->applied = true;
	op->version = chunk->version;
	op->offset = first * BLOCK_BYTES;
	op->first = first;
	op->end = end;
	chunk_use(chunk);
	service->ops++;
	DL_PREPEND2(chunk->first_op, op, previous, next);
}

void settle_covered(struct chunk *chunk, uint32_t first, uint32_t end)
{
	struct chunk_op *op, *next;
	DL_FOREACH_SAFE2 (chunk->first_op, op, next, next) {
		if (op->state != OP_UNSETTLED || !chunk_op_overlaps(op, first, end))
			continue;
		/* A range that is covered in part gets shorter. Of a trim whose end is covered (by a trim) some blocks are left. */
		if (first <= op->first) {
			op->first = end;
		} else if (end >= op->end) {
			op->end = first;
			op->kind = OP_WRITE;
		}
		if (op->first < op->end)
			continue;
		/* By what the predecessor has, which may be without this operation: a retry is a new one. */
		op->client = 0;
		chunk_op_answer(op, ERR_CHAIN_BROKEN);
		chunk_op_remove(op);
	}
}

void settle_failed_here(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	uint32_t end = op->kind == OP_TRIM ? chunk->file.blocks : op->end;
	op->client = 0;
#ifndef PLANT_OWN_CONTENT_AFTER_FAILURE
	if (op->first < end)
		chunk_tear(chunk, op->first, end);
#endif
}

void settle_drop(struct chunk *chunk)
{
	struct chunk_op *op, *next;
	DL_FOREACH_SAFE2 (chunk->first_op, op, next, next) {
		if (op->state != OP_UNSETTLED)
			continue;
		op->failed_server = op->service->server;
		chunk_op_refuse(op, ERR_CHAIN_BROKEN);
	}
}
