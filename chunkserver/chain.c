#include "chunkserver/chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "chunkserver/fill.h"
#include "chunkserver/master_link.h"
#include "common/base/bytes.h"
#include "common/base/check.h"

#define CHAIN_LANE_FIRST 1u

struct chain_peer {
	UT_hash_handle hh;
	struct rpc_peer *peer;
	/* Of a successor that is silent: is it slow, or out of reach? Asked on a lane of its own. */
	struct service *service;
	bool suspect;
	bool unreachable; /* it did not answer that either */
	rpc_call_id probe;
	char key[]; /* lane, address */
};

static struct chain_peer *find_peer(struct service *service, const char *address, unsigned lane)
{
	struct chain_peer *peer = NULL;
	size_t size = strlen(address) + 12;
	char *key = mem_alloc(size);
	snprintf(key, size, "%u/%s", lane, address);
	HASH_FIND_STR(service->peers, key, peer);
	if (peer == NULL && HASH_COUNT(service->peers) < CHAIN_PEERS_MAX) {
		peer = mem_zero(1, sizeof(*peer) + size);
		memcpy(peer->key, key, size);
		peer->service = service;
		peer->peer = rpc_peer_open_lane(service->rpc, address, lane);
		HASH_ADD_STR(service->peers, key, peer);
	}
	free(key);
	return peer;
}

struct rpc_peer *chain_peer(struct service *service, const char *address, unsigned lane)
{
	struct chain_peer *peer = find_peer(service, address, lane);
	return peer == NULL ? NULL : peer->peer;
}

void chain_close_peers(struct service *service)
{
	struct chain_peer *peer, *next;
	HASH_ITER (hh, service->peers, peer, next) {
		HASH_DEL(service->peers, peer);
		if (peer->probe != 0)
			rpc_call_cancel(service->rpc, peer->probe);
		rpc_peer_close(peer->peer);
		free(peer);
	}
}

static const Granary__Replica *successor_of(const struct service *service, Granary__Replica *const *replicas, size_t count)
{
	int place = service_position(service, replicas, count);
	return place >= 0 && (size_t)place + 1 < count ? replicas[place + 1] : NULL;
}

const Granary__Replica *chain_successor(const struct service *service, const struct chunk *chunk)
{
	return chunk->chain == NULL ? NULL : successor_of(service, chunk->chain->replicas, chunk->chain->n_replicas);
}

const Granary__Replica *chain_joining(const struct service *service, const struct chunk *chunk)
{
	const Granary__Replica *successor = chain_successor(service, chunk);
	return successor != NULL && successor->joining ? successor : NULL;
}

unsigned chain_lane(const struct service *service, const struct chunk *chunk)
{
	return CHAIN_LANE_FIRST + (unsigned)service_position(service, chunk->chain->replicas, chunk->chain->n_replicas);
}

bool chain_is_known(const struct chunk *chunk)
{
	return chunk->chain != NULL && chunk->chain->n_replicas > 0;
}

bool chain_is_head(const struct service *service, const struct chunk *chunk)
{
	return chunk->chain != NULL && service_position(service, chunk->chain->replicas, chunk->chain->n_replicas) == 0;
}

void chain_ask_master(const struct service *service, const struct chunk *chunk)
{
	master_link_report(service->link, &(struct master_link_failure){ .chunk = chunk->id, .version = chunk->version });
}

void chain_tell_full(const struct chunk_op *op, uint64_t chunk, uint64_t server)
{
	master_link_report(op->service->link, &(struct master_link_failure){ .chunk = chunk,
									     .version = op->version,
									     .server = server,
									     .full = true });
}

static void report(const struct chunk_op *op, bool unreachable)
{
	master_link_report(op->service->link, &(struct master_link_failure){ .chunk = op->chunk->id,
									     .version = op->version,
									     .server = op->successor,
									     .unreachable = unreachable });
}

/* Its own predecessor tells the master. */
static void note_full(struct chunk_op *op, uint64_t server)
{
	if (server != 0)
		op->failed_server = server;
	if (op->failed_server == op->successor && op->chain_err == ERR_NO_SPACE)
		chain_tell_full(op, op->chunk->id, op->successor);
}

/* What the successor's answer says about the chain. */
static void note_answer(struct chunk_op *op, const struct rpc_result *result)
{
	struct service *service = op->service;
	op->failed_server = op->successor;
	switch (result->err) {
	case OK:
		op->chain_err = OK;
		return;
	case ERR_NO_SPACE:
		/* A newcomer's disk is no limit for those who write: it has to go. */
		op->chain_err = fill_newcomer_is_full(op->chunk, op->successor) ? ERR_CHAIN_BROKEN : ERR_NO_SPACE;
		note_full(op, strtoull(result->text, NULL, 10));
		return;
	case ERR_STALE_VERSION: /* it knows a newer chain than we do, of which we may be no part */
		op->chain_err = ERR_STALE_VERSION;
		if (!service->stopping)
			chain_ask_master(service, op->chunk);
		return;
	case ERR_CORRUPT:
	case ERR_PACK_FULL:
		op->chain_err = result->err;
		return;
	case ERR_CHAIN_BROKEN: /* further down; whoever saw it has told the master */
		op->chain_err = ERR_CHAIN_BROKEN;
		op->failed_server = strtoull(result->text, NULL, 10);
		if (op->failed_server == 0)
			op->failed_server = op->successor;
		return;
	default:
		op->chain_err = ERR_CHAIN_BROKEN;
		/* One that has retired its copy says that it has no lease: it serves this chunk no more. */
		if (!service->stopping)
			report(op, result->err == ERR_NO_LEASE);
		return;
	}
}

static void answered(void *arg, const struct rpc_result *result)
{
	struct chunk_op *op = arg;
	note_answer(op, result);
	chunk_op_chain_done(op);
}

static void call(struct chunk_op *op, const Granary__Replica *successor, enum message_type type,
		 const ProtobufCMessage *message, const struct conn_data *data)
{
	struct service *service = op->service;
	unsigned place = op->state == OP_SETTLING ? 0 : (unsigned)service_position(service, op->replicas, op->replica_count);
	if (op->kind == OP_FILL)
		place = (unsigned)service_position(service, op->chunk->chain->replicas, op->chunk->chain->n_replicas);
	/* One lane for each place in a chain: what a head sends may wait for what the next one sends, never the other way round. */
	struct rpc_peer *peer = chain_peer(service, successor->address, CHAIN_LANE_FIRST + place);
	op->successor = successor->server;
	if (peer == NULL || !service_has_lease(service)) {
		op->chain_err = peer == NULL ? ERR_CHAIN_BROKEN : ERR_NO_LEASE;
		op->failed_server = successor->server;
		return;
	}
	uint64_t timeout_ms = op->sync || op->kind == OP_SYNC ? CHAIN_SYNC_TIMEOUT_MS : CHAIN_TIMEOUT_MS;
	op->called_ms = loop_now_ms(service->loop);
	op->call = rpc_peer_call(peer, type, message, data, timeout_ms, answered, op);
}

void chain_watch(struct service *service, struct chunk *chunk)
{
	uint64_t now = loop_now_ms(service->loop);
	const Granary__Replica *successor = chain_successor(service, chunk);
	struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (op->call == 0 || now - op->called_ms < CHAIN_SUSPECT_MS || op->version != chunk->version || successor == NULL ||
		    successor->server != op->successor)
			continue;
		struct chain_peer *peer = find_peer(service, successor->address, CHAIN_LANE_PROBE);
		if (peer != NULL)
			peer->suspect = true;
		report(op, peer != NULL && peer->unreachable);
	}
}

static void on_probed(void *arg, const struct rpc_result *result)
{
	struct chain_peer *peer = arg;
	peer->probe = 0;
	if (!peer->service->stopping)
		peer->unreachable = result->err != OK;
}

void chain_probe_suspects(struct service *service)
{
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	for (struct chain_peer *peer = service->peers; peer != NULL; peer = peer->hh.next) {
		if (!peer->suspect) {
			peer->unreachable = false;
			continue;
		}
		peer->suspect = false;
		if (peer->probe == 0)
			peer->probe = rpc_peer_call(peer->peer, MESSAGE_CHUNKSERVER_STATUS, &empty.base, NULL, CHAIN_PROBE_MS, on_probed,
						    peer);
	}
}

static bool is_in_chain(const struct chunk *chunk, uint64_t server)
{
	for (size_t i = 0; i < chunk->chain->n_replicas; i++)
		if (chunk->chain->replicas[i]->server == server)
			return true;
	return false;
}

void chain_drop_lost(struct service *service, struct chunk *chunk)
{
	struct chunk_op *op = chunk->first_op;
	while (op != NULL) {
		if (op->call == 0 || (chunk->copy == COPY_COMPLETE && is_in_chain(chunk, op->successor))) {
			op = op->next;
			continue;
		}
		rpc_call_cancel(service->rpc, op->call);
		op->failed_server = op->successor;
		op->chain_err = ERR_CHAIN_BROKEN;
		chunk_op_chain_done(op);
		op = chunk->first_op; /* it may have taken others with it */
	}
}

/* The chain as it is known here: a client may not have heard yet that a copy which was being filled is complete. */
static Granary__Replica **replicas_of(const struct chunk_op *op)
{
	const struct chunk *chunk = op->chunk;
	bool same = chunk->chain != NULL && chunk->version == op->version && chunk->chain->n_replicas == op->replica_count;
	for (size_t i = 0; same && i < op->replica_count; i++)
		same = chunk->chain->replicas[i]->server == op->replicas[i]->server;
	return same ? chunk->chain->replicas : (Granary__Replica **)(uintptr_t)op->replicas;
}

static void forward_write(struct chunk_op *op, const Granary__Replica *successor, const struct rpc_request *request)
{
	Granary__ChunkWrite message = *(const Granary__ChunkWrite *)request->message;
	struct conn_data data = { .iobuf = request->data, .size = request->data->size };
	message.replicas = replicas_of(op);
	message.sequence = op->sequence;
	message.life = op->service->life;
	call(op, successor, MESSAGE_CHUNK_WRITE, &message.base, &data);
}

static void forward_append(struct chunk_op *op, const Granary__Replica *successor, const struct rpc_request *request)
{
	Granary__BlobAppend message = *(const Granary__BlobAppend *)request->message;
	struct conn_data data = { .iobuf = request->data, .size = request->data == NULL ? 0 : request->data->size };
	message.sequence = op->sequence;
	message.life = op->service->life;
	message.slot = op->slot;
	call(op, successor, MESSAGE_BLOB_APPEND, &message.base, request->data == NULL ? NULL : &data);
}

static void forward_trim(struct chunk_op *op, const Granary__Replica *successor, const struct rpc_request *request)
{
	Granary__ChunkTrim message = *(const Granary__ChunkTrim *)request->message;
	message.replicas = replicas_of(op);
	message.sequence = op->sequence;
	message.life = op->service->life;
	call(op, successor, MESSAGE_CHUNK_TRIM, &message.base, NULL);
}

static void forward_sync(struct chunk_op *op, const Granary__Replica *successor)
{
	Granary__ChunkSync message = GRANARY__CHUNK_SYNC__INIT;
	message.chunk = op->chunk->id;
	message.version = op->version;
	message.replicas = (Granary__Replica **)(uintptr_t)op->replicas;
	message.n_replicas = op->replica_count;
	call(op, successor, MESSAGE_CHUNK_SYNC, &message.base, NULL);
}

void chain_forward(struct chunk_op *op)
{
	const Granary__Replica *successor = successor_of(op->service, op->replicas, op->replica_count);
	if (successor == NULL)
		return;
	const struct rpc_request *request = op->requests->request;
	if (op->kind != OP_SYNC)
		op->sequence = ++op->chunk->sequence;
	switch (op->kind) {
	case OP_WRITE:
		forward_write(op, successor, request);
		break;
	case OP_TRIM:
		forward_trim(op, successor, request);
		break;
	case OP_APPEND:
		forward_append(op, successor, request);
		break;
	case OP_SYNC:
		forward_sync(op, successor);
		break;
	case OP_READ:
	case OP_BLOB_READ:
	case OP_DELETE_SLOTS:
	case OP_FILL:
	case OP_SUMS:
	case OP_SLOTS:
		check(false);
	}
}

bool chain_is_full(const struct chunk_op *op)
{
	struct service *service = op->service;
	const Granary__Replica *successor = successor_of(service, op->replicas, op->replica_count);
	if (successor == NULL)
		return false;
	unsigned place = (unsigned)service_position(service, op->replicas, op->replica_count);
	const struct rpc_peer *peer = chain_peer(service, successor->address, CHAIN_LANE_FIRST + place);
	return peer != NULL && rpc_peer_is_full(peer);
}

/* Blocks below `first` have been written since: they are left alone. */
static void send_trim(struct chunk_op *op, const Granary__Replica *successor, uint32_t first)
{
	struct chunk *chunk = op->chunk;
	Granary__ChunkTrim message = GRANARY__CHUNK_TRIM__INIT;
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.bytes = first * BLOCK_BYTES > op->offset ? first * BLOCK_BYTES : op->offset;
	message.replicas = chunk->chain->replicas;
	message.n_replicas = chunk->chain->n_replicas;
	message.client = op->service->server;
	message.operation = op->service->next_operation++;
	message.sequence = op->sequence;
	message.life = op->service->life;
	message.written = chunk->written;
	call(op, successor, MESSAGE_CHUNK_TRIM, &message.base, NULL);
}

void chain_send_content(struct chunk_op *op, uint32_t first, struct iobuf *data)
{
	struct chunk *chunk = op->chunk;
	const Granary__Replica *successor = chain_successor(op->service, chunk);
	uint8_t crcs[FRAME_DATA_BYTES_MAX / BLOCK_BYTES * 4u];
	check(successor != NULL);
	op->sequence = ++chunk->sequence;
	op->version = chunk->version;
	if (data == NULL) {
		send_trim(op, successor, first);
		return;
	}
	uint32_t count = data->size / BLOCK_BYTES;
	Granary__ChunkWrite message = GRANARY__CHUNK_WRITE__INIT;
	for (uint32_t i = 0; i < count; i++)
		put_le32(crcs + 4u * i, chunk_file_crc(&chunk->file, first + i));
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.offset = first * BLOCK_BYTES;
	message.client = op->service->server;
	message.operation = op->service->next_operation++;
	message.replicas = chunk->chain->replicas;
	message.n_replicas = chunk->chain->n_replicas;
	message.crcs = message_borrow(slice_of(crcs, 4u * count));
	message.sync = op->sync;
	message.damaged = op->marks_damage;
	message.written = chunk->written;
	message.sequence = op->sequence;
	message.life = op->service->life;
	struct conn_data sent = { .iobuf = data, .size = data->size };
	call(op, successor, MESSAGE_CHUNK_WRITE, &message.base, &sent);
}
