/* Makes a chunk of its shards: the head of a new chain sends it down that chain, as a client would.
 *
 *   HEAD -> EMPTY -> SHARD <-> (compute) -> SEND <-> (unpack) -> the next shard ... -> SYNC -> end
 *
 * EMPTY: what a server may still have of the chunk from before goes. SHARD: all of one data shard, in memory; what cannot be read is computed. SEND: its
 * units, under the checksums of their writer. A pack keeps its slots. What servers knew of operations before it became cold is gone with its
 * copies: EMPTY says how long ago that was at least, and who sends such an operation again is not believed that it is a new one. */
#include <stdlib.h>
#include <string.h>

#include "chunkserver/cold_task.h"
#include "chunkserver/shard_source.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"

#define SENDS_MAX 8u

enum warm_state { WARM_HEAD, WARM_HEAD_READ, WARM_EMPTY, WARM_SHARD, WARM_PIECE_READ, WARM_PIECE_TAKEN, WARM_SEND, WARM_UNPACKED, WARM_SENT, WARM_SYNC, WARM_END };

struct sending {
	struct warm *warm;
	rpc_call_id call;
	const struct coded_unit *unit;
	struct iobuf *data;
	uint8_t crcs[FRAME_DATA_BYTES_MAX / BLOCK_BYTES * 4u];
	uint32_t crc; /* of a record */
	enum err err;
};

struct warm {
	struct cold_task task;
	enum warm_state state;
	uint64_t client; /* what the writes are from */
	struct shard_source source;
	struct coded_index index;
	unsigned place;
	uint32_t offset, bytes;
	uint8_t *shard; /* its data */
	size_t unit;	/* the next one */
	struct sending sendings[SENDS_MAX];
	unsigned sending_count, under_way;
	rpc_call_id call; /* trim, sync */
	struct decompressor *decompressor;
};

static struct warm *warm_of(struct cold_task *task)
{
	return container_of(task, struct warm, task);
}

static bool is_pack(const struct warm *warm)
{
	return warm->index.unit_bytes == 0;
}

static void sendings_clear(struct warm *warm)
{
	for (unsigned i = 0; i < warm->sending_count; i++) {
		if (warm->sendings[i].call != 0)
			rpc_call_cancel(warm->task.service->rpc, warm->sendings[i].call);
		iobuf_unref(warm->sendings[i].data);
	}
	warm->sending_count = warm->under_way = 0;
}

static void warm_clear(struct cold_task *task)
{
	struct warm *warm = warm_of(task);
	sendings_clear(warm);
	if (warm->call != 0)
		rpc_call_cancel(task->service->rpc, warm->call);
	if (warm->source.service != NULL)
		shard_source_deinit(&warm->source);
	coded_index_deinit(&warm->index);
	decompressor_close(warm->decompressor);
	free(warm->shard);
}

static void warm_fail(struct warm *warm, enum err err)
{
	cold_task_end(&warm->task, err, NULL);
}

static void on_source(void *arg)
{
	struct warm *warm = arg;
	if (warm->source.err == OK)
		warm->task.step(&warm->task);
	else
		warm_fail(warm, warm->source.err);
}

static struct rpc_peer *head_peer(const struct warm *warm)
{
	return shard_peer(warm->task.service, warm->task.command->chunk->replicas[0]->address);
}

static void on_called(void *arg, const struct rpc_result *result)
{
	struct warm *warm = arg;
	warm->call = 0;
	if (result->err == OK)
		warm->task.step(&warm->task);
	else
		warm_fail(warm, result->err);
}

static void begin(struct warm *warm)
{
	struct service *service = warm->task.service;
	warm->client = loop_random(service->loop) | 1;
	warm->decompressor = decompressor_open();
	shard_source_init(&warm->source, service, warm->task.command->coded, on_source, warm);
	warm->state = WARM_HEAD_READ;
	shard_source_read_head(&warm->source);
}

static void take_head(struct warm *warm)
{
	const Granary__ColdCommand *command = warm->task.command;
	enum err err = coded_index_parse(slice_of(warm->source.head, warm->source.head_bytes), &warm->index);
	if (err == OK && (warm->index.chunk != command->chunk->chunk || warm->index.data_shards != command->coded->data_shards ||
			  warm->index.shard_bytes != command->coded->shard_bytes))
		err = ERR_CORRUPT;
	if (err != OK) {
		warm_fail(warm, err);
		return;
	}
	warm->shard = mem_alloc(warm->index.shard_bytes + BLOCK_BYTES);
	warm->state = WARM_EMPTY;
	cold_task_go_on(&warm->task, 0);
}

static void empty_chunk(struct warm *warm)
{
	const Granary__ChunkLocation *chunk = warm->task.command->chunk;
	Granary__ChunkTrim message = GRANARY__CHUNK_TRIM__INIT;
	struct rpc_peer *peer = head_peer(warm);
	warm->state = WARM_SHARD;
	if (peer == NULL) {
		warm_fail(warm, ERR_UNREACHABLE);
		return;
	}
	if (is_pack(warm)) { /* the master chooses only servers that have nothing of it */
		cold_task_go_on(&warm->task, 0);
		return;
	}
	message.chunk = chunk->chunk;
	message.version = chunk->version;
	message.client = warm->client;
	message.operation = warm->task.service->next_operation++;
	message.n_replicas = chunk->n_replicas;
	message.replicas = chunk->replicas;
	message.known_ms = warm->task.command->cold_ms + (warm->task.command->cold_ms == 0);
	warm->call = rpc_peer_call(peer, MESSAGE_CHUNK_TRIM, &message.base, NULL, RPC_TIMEOUT_MS, on_called, warm);
}

/* ---- a shard */

static void read_shard(struct warm *warm)
{
	uint32_t left = warm->index.shard_bytes - warm->offset;
	if (warm->place == warm->index.data_shards) {
		warm->state = WARM_SYNC;
		cold_task_go_on(&warm->task, 0);
		return;
	}
	warm->bytes = left < FRAME_DATA_BYTES_MAX ? (left + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES : FRAME_DATA_BYTES_MAX;
	warm->state = WARM_PIECE_READ;
	shard_source_read(&warm->source, warm->place, warm->index.head_bytes + warm->offset, warm->bytes);
}

static void take_piece(struct cold_task *task)
{
	struct warm *warm = warm_of(task);
	shard_source_take(&warm->source, warm->shard + warm->offset);
}

static void piece_taken(struct warm *warm)
{
	warm->offset += warm->bytes;
	warm->state = warm->offset < warm->index.shard_bytes ? WARM_SHARD : WARM_SEND;
	cold_task_go_on(&warm->task, 0);
}

/* ---- its units */

static void unpack(struct cold_task *task)
{
	struct warm *warm = warm_of(task);
	for (unsigned i = 0; i < warm->sending_count; i++) {
		struct sending *sending = &warm->sendings[i];
		const uint8_t *bytes = warm->shard + sending->unit->offset;
		uint32_t length = 0;
		if (is_pack(warm)) {
			sending->err = coded_record(sending->unit, bytes, &length, &sending->crc);
			if (sending->err != OK)
				continue;
			sending->data = iobuf_open(length > 0 ? length : 1);
			sending->data->size = length;
			sending->err = coded_unpack_record(&warm->index, sending->unit, bytes, warm->decompressor, sending->data->bytes);
			continue;
		}
		length = coded_unit_raw_bytes(&warm->index, sending->unit->id);
		sending->data = iobuf_open(length);
		sending->data->size = length;
		sending->err = coded_unpack(&warm->index, sending->unit, bytes, warm->decompressor, sending->data->bytes, sending->crcs);
	}
}

static void send_next(struct warm *warm)
{
	sendings_clear(warm);
	while (warm->sending_count < SENDS_MAX && warm->unit < warm->index.count && warm->index.units[warm->unit].shard == warm->place) {
		struct sending *sending = &warm->sendings[warm->sending_count++];
		*sending = (struct sending){ .warm = warm, .unit = &warm->index.units[warm->unit++] };
	}
	if (warm->sending_count > 0) {
		warm->state = WARM_UNPACKED;
		cold_task_compute(&warm->task, unpack);
		return;
	}
	warm->place++;
	warm->offset = 0;
	warm->state = WARM_SHARD;
	cold_task_go_on(&warm->task, 0);
}

static void sent(void *arg, const struct rpc_result *result)
{
	struct sending *sending = arg;
	struct warm *warm = sending->warm;
	sending->call = 0;
	sending->err = result->err;
	if (--warm->under_way == 0)
		warm->task.step(&warm->task);
}

static void send_record(struct warm *warm, struct sending *sending, struct rpc_peer *peer)
{
	const Granary__ChunkLocation *chunk = warm->task.command->chunk;
	Granary__BlobAppend message = GRANARY__BLOB_APPEND__INIT;
	struct conn_data data = { .iobuf = sending->data, .size = sending->data->size };
	message.pack = chunk->chunk;
	message.version = chunk->version;
	message.n_replicas = chunk->n_replicas;
	message.replicas = chunk->replicas;
	message.client = warm->client;
	message.operation = warm->task.service->next_operation++;
	message.slot = sending->unit->id;
	message.crc = sending->crc;
	sending->call = rpc_peer_call(peer, MESSAGE_BLOB_APPEND, &message.base, sending->data->size == 0 ? NULL : &data, RPC_TIMEOUT_MS, sent,
				      sending);
}

static void send_piece(struct warm *warm, struct sending *sending, struct rpc_peer *peer)
{
	const Granary__ChunkLocation *chunk = warm->task.command->chunk;
	Granary__ChunkWrite message = GRANARY__CHUNK_WRITE__INIT;
	struct conn_data data = { .iobuf = sending->data, .size = sending->data->size };
	message.chunk = chunk->chunk;
	message.version = chunk->version;
	message.offset = sending->unit->id * warm->index.unit_bytes;
	message.n_replicas = chunk->n_replicas;
	message.replicas = chunk->replicas;
	message.client = warm->client;
	message.operation = warm->task.service->next_operation++;
	message.crcs = message_borrow(slice_of(sending->crcs, sending->data->size / BLOCK_BYTES * 4u));
	sending->call = rpc_peer_call(peer, MESSAGE_CHUNK_WRITE, &message.base, &data, RPC_TIMEOUT_MS, sent, sending);
}

static void send_unpacked(struct warm *warm)
{
	struct rpc_peer *peer = head_peer(warm);
	enum err err = peer == NULL ? ERR_UNREACHABLE : OK;
	for (unsigned i = 0; i < warm->sending_count; i++)
		err = err != OK ? err : warm->sendings[i].err;
	if (err == ERR_CORRUPT && !warm->source.computed && (warm->source.bad >> warm->place & 1) == 0) {
		/* Right by its checksums and yet not what was written: without this shard, then. */
		warm->source.bad |= 1ull << warm->place;
		warm->unit -= warm->sending_count;
		warm->offset = 0;
		warm->state = WARM_SHARD;
		cold_task_go_on(&warm->task, 0);
		return;
	}
	if (err != OK) {
		warm_fail(warm, err);
		return;
	}
	warm->state = WARM_SENT;
	warm->under_way = warm->sending_count;
	for (unsigned i = 0; i < warm->sending_count; i++) {
		if (is_pack(warm))
			send_record(warm, &warm->sendings[i], peer);
		else
			send_piece(warm, &warm->sendings[i], peer);
	}
}

static void units_sent(struct warm *warm)
{
	enum err err = OK;
	for (unsigned i = 0; i < warm->sending_count; i++)
		err = err != OK ? err : warm->sendings[i].err;
	if (err != OK) {
		warm_fail(warm, err);
		return;
	}
	warm->state = WARM_SEND;
	cold_task_go_on(&warm->task, 0); /* a writer waits for it: it is not held back */
}

static void sync_chunk(struct warm *warm)
{
	const Granary__ChunkLocation *chunk = warm->task.command->chunk;
	Granary__ChunkSync message = GRANARY__CHUNK_SYNC__INIT;
	struct rpc_peer *peer = head_peer(warm);
	warm->state = WARM_END;
	if (peer == NULL) {
		warm_fail(warm, ERR_UNREACHABLE);
		return;
	}
	message.chunk = chunk->chunk;
	message.version = chunk->version;
	message.n_replicas = chunk->n_replicas;
	message.replicas = chunk->replicas;
	warm->call = rpc_peer_call(peer, MESSAGE_CHUNK_SYNC, &message.base, NULL, CHAIN_SYNC_TIMEOUT_MS, on_called, warm);
}

/* Who syncs comes to the head, which is here as a rule: what was lost before it became cold is told there from now on. */
static void warm_end(struct warm *warm)
{
	struct chunk *chunk = chunk_store_find(warm->task.service->store, warm->task.command->chunk->chunk);
	if (chunk != NULL)
		chunk->loss_untold = chunk->loss_untold || warm->task.command->coded->loss_untold;
	cold_task_end(&warm->task, OK, NULL);
}

static void warm_step(struct cold_task *task)
{
	struct warm *warm = warm_of(task);
	switch (warm->state) {
	case WARM_HEAD:
		begin(warm);
		break;
	case WARM_HEAD_READ:
		take_head(warm);
		break;
	case WARM_EMPTY:
		empty_chunk(warm);
		break;
	case WARM_SHARD:
		read_shard(warm);
		break;
	case WARM_PIECE_READ:
		warm->state = WARM_PIECE_TAKEN;
		cold_task_compute(task, take_piece);
		break;
	case WARM_PIECE_TAKEN:
		piece_taken(warm);
		break;
	case WARM_SEND:
		send_next(warm);
		break;
	case WARM_UNPACKED:
		send_unpacked(warm);
		break;
	case WARM_SENT:
		units_sent(warm);
		break;
	case WARM_SYNC:
		sync_chunk(warm);
		break;
	case WARM_END:
		warm_end(warm);
		break;
	}
}

struct cold_task *warm_open(void)
{
	struct warm *warm = mem_zero(1, sizeof(*warm));
	warm->task.step = warm_step;
	warm->task.clear = warm_clear;
	return &warm->task;
}
