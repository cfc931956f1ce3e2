#include "chunkserver/chunk_retry.h"

#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/rejoin.h"
#include "chunkserver/service.h"
#include "chunkserver/settle.h"
#include "common/base/check.h"

void chunk_retry_remember(const struct chunk_op *op)
{
	struct op_ring_entry entry = { .client = op->client,
				       .operation = op->operation,
				       .done_ms = op_ring_now(op->service->loop),
				       .result = op->slot,
				       .first = op->first,
				       .end = op->end };
	op_ring_add(&op->chunk->ring, &entry, &op->service->answered);
}

/* It may have been done, and written over since. A blob that is appended twice does no harm. */
static bool may_be_forgotten(const struct chunk_op *op)
{
#ifdef PLANT_CHUNK_RETRY_FORGOTTEN
	return false && op->again;
#endif
	struct write_log_entry logged = {
		.chunk = op->chunk->id, .client = op->client, .operation = op->operation, .first = op->first, .end = op->end
	};
	return op->again && op->kind != OP_APPEND && op->sent_ms < op->chunk->ring.known_since_ms &&
	       !write_log_allows(chunk_store_writes(op->chunk->store), &logged, op->sent_ms);
}

static struct chunk_op *find_under_way(const struct chunk_op *op)
{
	struct chunk_op *other;
	DL_FOREACH2 (op->chunk->first_op, other, next) {
		if (other != op && other->client == op->client && other->operation == op->operation && other->kind == op->kind)
			return other;
	}
	return NULL;
}

static bool is_idle(const struct chunk *chunk)
{
	const struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (op->state > OP_WAITING)
			return false;
	}
	return true;
}

bool chunk_retry_waits(const struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	if (chunk->rejoin != NULL)
		return true;
	/* In this order: what is sent for the first time is not looked for twice. */
	if (!may_be_forgotten(op) || find_under_way(op) != NULL || op_ring_find(&chunk->ring, op->client, op->operation, NULL))
		return false;
	if (chunk->uncertain)
		return !chunk_is_lost(chunk);
	/* All that was done here was synced, and nothing of it is remembered. */
	if (chunk->ring_sought || !is_idle(chunk))
		return false;
	rejoin_start(op->service, chunk);
	chunk->ring_sought = chunk->rejoin != NULL;
	return chunk->ring_sought;
}

bool chunk_retry_ends(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	uint32_t slot = 0;
	check(op->client != 0);
#ifdef PLANT_CHUNK_RETRY_UNKNOWN
	return false;
#endif
	struct chunk_op *other = find_under_way(op);
	if (other != NULL) {
		struct op_request **last = &other->requests;
		while (*last != NULL)
			last = &(*last)->next;
		*last = op->requests;
		op->requests = NULL;
		chunk_op_remove(op);
		if (other->state == OP_UNSETTLED)
			settle_chunk(other->service, chunk);
		return true;
	}
	if (!op_ring_find(&chunk->ring, op->client, op->operation, &slot)) {
		if (!may_be_forgotten(op))
			return false;
		chunk_op_answer(op, ERR_RETRY_UNKNOWN);
		chunk_op_remove(op);
		return true;
	}
	if (op->kind == OP_APPEND) {
		/* It is here; that it is at the successors is not known. */
		op->slot = slot;
		op->applied = true;
		return false;
	}
	op->is_done = true;
	return false;
}

/* ---------------------------------------------------------------- from the successor to its predecessor */

static Granary__ChunkOperation *tell_one(Granary__ChunkReadReply *reply, uint64_t client, uint64_t operation)
{
	Granary__ChunkOperation *told = mem_zero(1, sizeof(*told));
	granary__chunk_operation__init(told);
	told->client = client;
	told->operation = operation;
	reply->operations[reply->n_operations++] = told;
	return told;
}

void chunk_retry_tell(const struct chunk *chunk, Granary__ChunkReadReply *reply)
{
	const struct op_ring *ring = &chunk->ring;
	uint64_t now = op_ring_now(chunk_store_loop(chunk->store));
	const struct chunk_op *op;
	size_t count = ring->count;
	DL_FOREACH2 (chunk->first_op, op, next)
		count++;
	reply->operations = mem_zero(count + 1, sizeof(*reply->operations));
	reply->known_ms = now - ring->known_since_ms;
	for (uint32_t i = 0; i < ring->count; i++) {
		const struct op_ring_entry *entry = op_ring_at(ring, i);
		if (entry->client == 0)
			continue;
		Granary__ChunkOperation *told = tell_one(reply, entry->client, entry->operation);
		told->first = entry->first;
		told->end = entry->end;
		told->done_ms = now - entry->done_ms;
	}
	/* What it reads from us has them. */
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (op->state != OP_UNSETTLED || op->client == 0)
			continue;
		Granary__ChunkOperation *told = tell_one(reply, op->client, op->operation);
		told->first = op->first;
		told->end = op->end;
	}
}

void chunk_retry_told(Granary__ChunkReadReply *reply)
{
	for (size_t i = 0; i < reply->n_operations; i++)
		free(reply->operations[i]);
	free(reply->operations);
	reply->operations = NULL;
	reply->n_operations = 0;
}

/* Rather too late than too early. */
static uint64_t time_before(uint64_t now, uint64_t ago_ms)
{
	uint64_t ago = ago_ms - ago_ms / 100 * RAFT_CLOCK_DRIFT_PERCENT;
	return ago < now ? now - ago : 1;
}

void chunk_retry_begin(const struct chunk_op *op)
{
	op_ring_restart(&op->chunk->ring, time_before(op_ring_now(op->service->loop), op->known_ms));
}

void chunk_retry_take(struct loop *loop, const Granary__ChunkReadReply *reply, struct op_ring *ring)
{
	static const struct answered none;
	uint64_t now = op_ring_now(loop);
	op_ring_restart(ring, time_before(now, reply->known_ms));
	for (size_t i = 0; i < reply->n_operations; i++) {
		const Granary__ChunkOperation *told = reply->operations[i];
		struct op_ring_entry entry = { .client = told->client,
					       .operation = told->operation,
					       .done_ms = time_before(now, told->done_ms),
					       .first = told->first,
					       .end = told->end };
		op_ring_add(ring, &entry, &none);
	}
}

void chunk_retry_join(struct service *service, struct chunk *chunk, const struct op_ring *told)
{
	struct op_ring joined = { .known_since_ms = told->known_since_ms };
	op_ring_append(&joined, told, &service->answered);
	op_ring_append(&joined, &chunk->ring, &service->answered);
	op_ring_deinit(&chunk->ring);
	chunk->ring = joined;
}
