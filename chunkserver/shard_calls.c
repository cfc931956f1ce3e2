#include "chunkserver/shard_calls.h"

#include <string.h>

#include "chunkserver/chain.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"

#define CALL_TIMEOUT_MS 10000u

struct rpc_peer *shard_peer(struct service *service, const char *address)
{
	return address[0] == 0 ? NULL : chain_peer(service, address, CHAIN_LANE_COLD);
}

void shard_crcs(const uint8_t *bytes, uint32_t size, uint8_t *crcs)
{
	for (uint32_t at = 0; at < size; at += BLOCK_BYTES)
		put_le32(crcs + at / BLOCK_BYTES * 4u, crc32c(bytes + at, size - at < BLOCK_BYTES ? size - at : BLOCK_BYTES));
}

bool shard_crcs_agree(const uint8_t *bytes, uint32_t size, ProtobufCBinaryData crcs)
{
	uint8_t computed[FRAME_DATA_BYTES_MAX / BLOCK_BYTES * 4u];
	if (size > FRAME_DATA_BYTES_MAX || crcs.len != (size + BLOCK_BYTES - 1) / BLOCK_BYTES * 4u)
		return false;
	shard_crcs(bytes, size, computed);
	return crcs.len == 0 || memcmp(computed, crcs.data, crcs.len) == 0;
}

static void on_ended(void *arg)
{
	struct shard_calls *calls = arg;
	calls->done(calls->arg);
}

void shard_calls_init(struct shard_calls *calls, struct service *service, const Granary__CodedLocation *coded)
{
	memset(calls, 0, sizeof(*calls));
	calls->service = service;
	calls->coded = coded;
	defer_init(&calls->ended, service->loop, on_ended, calls);
}

static enum err take(struct shard_calls *calls, unsigned place, const struct rpc_result *result)
{
	const Granary__ChunkReadReply *reply = (const Granary__ChunkReadReply *)result->reply;
	if (result->data == NULL || result->data->size < calls->bytes)
		return ERR_RANGE;
	if (result->data->size != calls->bytes || !shard_crcs_agree(result->data->bytes, result->data->size, reply->crcs))
		return ERR_CORRUPT;
	calls->data[place] = iobuf_ref(result->data);
	return OK;
}

static void answered(void *arg, const struct rpc_result *result)
{
	struct shard_call *call = arg;
	struct shard_calls *calls = call->calls;
	enum err err = result->err;
	call->id = 0;
	if (err == OK && calls->kind == SHARD_READ)
		err = take(calls, call->place, result);
	calls->errs[call->place] = err;
	if (--calls->running == 0)
		calls->done(calls->arg);
}

struct outgoing {
	Granary__Replica replica, *replicas[1];
	Granary__ChunkRead read;
	Granary__ChunkWrite write;
	Granary__ChunkTrim trim;
	Granary__ChunkSync sync;
	uint8_t crcs[FRAME_DATA_BYTES_MAX / BLOCK_BYTES * 4u];
};

static void call_write(struct shard_calls *calls, struct shard_call *call, struct rpc_peer *peer, struct outgoing *out)
{
	const Granary__ShardLocation *shard = calls->coded->shards[call->place];
	struct iobuf *data = calls->data[call->place];
	check(data != NULL && data->size == calls->bytes);
	const uint8_t *crcs = calls->crcs[call->place];
	if (crcs == NULL) {
		shard_crcs(data->bytes, data->size, out->crcs);
		crcs = out->crcs;
	}
	out->write = (Granary__ChunkWrite)GRANARY__CHUNK_WRITE__INIT;
	out->write.chunk = shard->shard;
	out->write.version = shard->version;
	out->write.offset = calls->offset;
	out->write.client = calls->service->server;
	out->write.operation = calls->service->next_operation++;
	out->write.n_replicas = 1;
	out->write.replicas = out->replicas;
	out->write.crcs = message_borrow(slice_of(crcs, (data->size + BLOCK_BYTES - 1) / BLOCK_BYTES * 4u));
	struct conn_data attached = { .iobuf = data, .size = data->size };
	call->id = rpc_peer_call(peer, MESSAGE_CHUNK_WRITE, &out->write.base, &attached, CALL_TIMEOUT_MS, answered, call);
}

static void call_one(struct shard_calls *calls, struct shard_call *call, struct rpc_peer *peer)
{
	const Granary__ShardLocation *shard = calls->coded->shards[call->place];
	struct outgoing out;
	granary__replica__init(&out.replica);
	out.replica.server = shard->server;
	out.replica.address = shard->address;
	out.replicas[0] = &out.replica;
	switch (calls->kind) {
	case SHARD_READ:
		out.read = (Granary__ChunkRead)GRANARY__CHUNK_READ__INIT;
		out.read.chunk = shard->shard;
		out.read.version = shard->version;
		out.read.offset = calls->offset;
		out.read.bytes = calls->bytes;
		out.read.from_disk = calls->from_disk;
		out.read.exact = true;
		call->id = rpc_peer_call(peer, MESSAGE_CHUNK_READ, &out.read.base, NULL, CALL_TIMEOUT_MS, answered, call);
		break;
	case SHARD_WRITE:
		call_write(calls, call, peer, &out);
		break;
	case SHARD_TRIM:
		out.trim = (Granary__ChunkTrim)GRANARY__CHUNK_TRIM__INIT;
		out.trim.chunk = shard->shard;
		out.trim.version = shard->version;
		out.trim.bytes = calls->offset;
		out.trim.client = calls->service->server;
		out.trim.operation = calls->service->next_operation++;
		out.trim.n_replicas = 1;
		out.trim.replicas = out.replicas;
		call->id = rpc_peer_call(peer, MESSAGE_CHUNK_TRIM, &out.trim.base, NULL, CALL_TIMEOUT_MS, answered, call);
		break;
	case SHARD_SYNC:
		out.sync = (Granary__ChunkSync)GRANARY__CHUNK_SYNC__INIT;
		out.sync.chunk = shard->shard;
		out.sync.version = shard->version;
		out.sync.n_replicas = 1;
		out.sync.replicas = out.replicas;
		call->id = rpc_peer_call(peer, MESSAGE_CHUNK_SYNC, &out.sync.base, NULL, CALL_TIMEOUT_MS, answered, call);
		break;
	}
}

void shard_calls_start(struct shard_calls *calls)
{
	check(calls->running == 0 && calls->places != 0 && calls->coded->n_shards <= SHARDS_MAX);
	for (unsigned place = 0; place < calls->coded->n_shards; place++) {
		const Granary__ShardLocation *shard = calls->coded->shards[place];
		struct shard_call *call = &calls->calls[place];
		if ((calls->places >> place & 1) == 0)
			continue;
		if (calls->kind == SHARD_READ) {
			iobuf_unref(calls->data[place]);
			calls->data[place] = NULL;
		}
		calls->errs[place] = ERR_UNREACHABLE;
		*call = (struct shard_call){ .calls = calls, .place = place };
		struct rpc_peer *peer = shard->server != 0 && service_has_lease(calls->service) ? shard_peer(calls->service, shard->address) : NULL;
		if (peer == NULL)
			continue;
		calls->running++;
		call_one(calls, call, peer);
	}
	if (calls->running == 0)
		defer_post(&calls->ended);
}

void shard_calls_clear(struct shard_calls *calls)
{
	if (calls->service == NULL)
		return;
	defer_cancel(&calls->ended);
	for (unsigned place = 0; place < SHARDS_MAX; place++) {
		if (calls->calls[place].id != 0)
			rpc_call_cancel(calls->service->rpc, calls->calls[place].id);
		calls->calls[place].id = 0;
		iobuf_unref(calls->data[place]);
		calls->data[place] = NULL;
	}
	calls->running = 0;
}

enum err shard_calls_err(const struct shard_calls *calls)
{
	for (unsigned place = 0; place < SHARDS_MAX; place++)
		if ((calls->places >> place & 1) != 0 && calls->errs[place] != OK)
			return calls->errs[place];
	return OK;
}
