#include "chunkserver/service.h"

#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/chain.h"
#include "chunkserver/cold_read.h"
#include "chunkserver/compare.h"
#include "chunkserver/fill.h"
#include "chunkserver/inspect.h"
#include "chunkserver/master_link.h"
#include "chunkserver/mend.h"
#include "chunkserver/pack_op.h"
#include "chunkserver/read_op.h"
#include "chunkserver/settle.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/proto/refusal.h"

void service_init(struct service *service, struct loop *loop, uint64_t server)
{
	service->loop = loop;
	service->server = server;
	service->next_operation = loop_random(loop);
	service->incarnation = loop_random(loop) | 1;
	defer_init(&service->run_ready, loop, chunk_ops_run_ready, service);
}

void service_deinit(struct service *service)
{
	defer_cancel(&service->run_ready);
	check(service->ready == NULL);
	cold_read_deinit(service);
	fence_deinit(&service->fence);
	answered_deinit(&service->answered);
}

bool service_busy(const struct service *service)
{
	return service->ops > 0 || service->batches > 0;
}

int service_position(const struct service *service, Granary__Replica *const *replicas, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (replicas[i]->server == service->server)
			return (int)i;
	}
	return -1;
}

bool service_has_lease(const struct service *service)
{
#ifdef PLANT_SAID_WITHOUT_LEASE
	return true;
#endif
	return service->link != NULL && master_link_has_lease(service->link);
}

enum copy_state service_copy_state(const struct service *service, Granary__Replica *const *replicas, size_t count)
{
	int place = service_position(service, replicas, count);
	return place >= 0 && replicas[place]->joining ? COPY_JOINING : COPY_COMPLETE;
}

/* ---------------------------------------------------------------- changes */

/* What writes, trims and appends all say. */
struct change {
	uint64_t chunk, version;
	uint64_t client, operation;
	uint64_t sequence; /* 0: from the client, to the head */
	bool written;
	uint64_t session;  /* of writes and trims */
	uint64_t life;
	bool again; /* of writes and trims, likewise: */
	uint64_t sent_clock, sent_ms, answered_below;
	Granary__Replica **replicas;
	size_t replica_count;
};

/* The fields have the same names in the three messages, but for the chunk's. */
#define CHANGE_OF(message, field)                                                                                       \
	(struct change){ .chunk = (message)->field, .version = (message)->version, .client = (message)->client,         \
			 .operation = (message)->operation, .sequence = (message)->sequence, .life = (message)->life,  \
			 .replicas = (message)->replicas, .replica_count = (message)->n_replicas,                         \
			 .written = (message)->written }

/* What only writes and trims say. */
#define CHANGE_TAKE_MORE(change, message)                                                                               \
	do {                                                                                                            \
		(change)->session = (message)->session;                                                                 \
		(change)->again = (message)->again;                                                                     \
		(change)->sent_clock = (message)->sent_clock;                                                           \
		(change)->sent_ms = (message)->sent_ms;                                                                 \
		(change)->answered_below = (message)->answered_below;                                                   \
	} while (0)

/* Is the chain well formed, and are we where the sender thinks? */
static enum err check_chain(const struct service *service, Granary__Replica *const *replicas, size_t count, bool from_client)
{
	int place = service_position(service, replicas, count);
	if (count == 0 || count > REPLICAS_MAX)
		return ERR_INVALID;
	if (place < 0)
		return ERR_STALE_VERSION;
	return (place == 0) == from_client ? OK : ERR_INVALID;
}

static enum err check_change(const struct service *service, const struct change *change)
{
	if (change->sequence == 0 && fence_refuses(&service->fence, change->session))
		return ERR_NO_SESSION;
	return check_chain(service, change->replicas, change->replica_count, change->sequence == 0);
}

static struct chunk_op *change_new(struct service *service, enum op_kind kind, struct rpc_request *request,
				   const struct change *change)
{
	struct chunk_op *op = chunk_op_new(service, kind, request);
	op->from_client = change->sequence == 0;
	op->version = change->version;
	op->client = change->client;
	op->operation = change->operation;
	op->sequence = change->sequence;
	op->session = change->session;
	op->life = op->from_client ? 0 : change->life;
	op->again = op->from_client && change->again;
	op->sent_ms = change->sent_clock == service->incarnation ? change->sent_ms : 0;
	answered_note(&service->answered, change->client, change->answered_below);
	op->replicas = change->replicas;
	op->replica_count = change->replica_count;
	return op;
}

/* With the chain as the message says it, for a chunk that may have to be made. */
static void submit(struct chunk_op *op, const struct change *change, enum chunk_kind kind)
{
	Granary__ChunkLocation chain = GRANARY__CHUNK_LOCATION__INIT;
	chain.chunk = change->chunk;
	chain.version = change->version;
	chain.n_replicas = change->replica_count;
	chain.replicas = change->replicas;
	struct chunk_create create = { .kind = kind,
				       .version = change->version,
				       .copy = service_copy_state(op->service, chain.replicas, chain.n_replicas),
				       .written = change->written,
				       .chain = &chain };
	chunk_op_submit(op, change->chunk, &create);
}

static struct slice data_of(const struct rpc_request *request)
{
	return request->data == NULL ? slice_of(NULL, 0) : slice_of(request->data->bytes, request->data->size);
}

static void serve_write(struct service *service, struct rpc_request *request)
{
	const Granary__ChunkWrite *message = (const Granary__ChunkWrite *)request->message;
	struct change change = CHANGE_OF(message, chunk);
	struct slice data = data_of(request), crcs = message_bytes(message->crcs);
	CHANGE_TAKE_MORE(&change, message);
	enum err err = check_change(service, &change);
	bool marks_damage = message->damaged && change.sequence != 0;
	if (err == OK)
		err = chunk_pieces_verify(message->offset, data, crcs);
	if (err == ERR_CORRUPT && marks_damage) /* it is meant to be: whole blocks */
		err = (message->offset | data.size) % BLOCK_BYTES == 0 ? OK : ERR_INVALID;
	if (err == ERR_CORRUPT)
		service->corrupt_frames++;
	if (err != OK) {
		rpc_reply_error(request, err, err == ERR_STALE_VERSION ? REFUSAL_UNBEGUN : NULL);
		return;
	}
	struct chunk_op *op = change_new(service, OP_WRITE, request, &change);
	op->sync = message->sync;
	op->marks_damage = marks_damage;
	op->offset = message->offset;
	op->size = (uint32_t)data.size;
	op->first = block_first(op->offset);
	op->end = block_end(op->offset, op->size);
	op->data = data;
	op->crcs = crcs;
	submit(op, &change, KIND_REPLICATED);
}

static void serve_trim(struct service *service, struct rpc_request *request)
{
	const Granary__ChunkTrim *message = (const Granary__ChunkTrim *)request->message;
	struct change change = CHANGE_OF(message, chunk);
	CHANGE_TAKE_MORE(&change, message);
	enum err err = check_change(service, &change);
	if (err == OK && message->bytes > CHUNK_BYTES)
		err = ERR_INVALID;
	if (err != OK) {
		rpc_reply_error(request, err, err == ERR_STALE_VERSION ? REFUSAL_UNBEGUN : NULL);
		return;
	}
	struct chunk_op *op = change_new(service, OP_TRIM, request, &change);
	op->offset = message->bytes;
	op->known_ms = message->known_ms;
	op->first = block_first(message->bytes);
	op->end = CHUNK_BLOCKS;
	submit(op, &change, KIND_REPLICATED);
}

static void serve_sync(struct service *service, struct rpc_request *request)
{
	const Granary__ChunkSync *message = (const Granary__ChunkSync *)request->message;
	int place = service_position(service, message->replicas, message->n_replicas);
	enum err err = check_chain(service, message->replicas, message->n_replicas, place == 0);
	if (err != OK) {
		rpc_reply_error(request, err, NULL);
		return;
	}
	struct chunk_op *op = chunk_op_new(service, OP_SYNC, request);
	op->from_client = place == 0;
	op->version = message->version;
	op->replicas = message->replicas;
	op->replica_count = message->n_replicas;
	/* If we lost all of it with the power it has to be fetched before it can be synced. */
	Granary__ChunkLocation chain = GRANARY__CHUNK_LOCATION__INIT;
	chain.chunk = message->chunk;
	chain.version = message->version;
	chain.n_replicas = message->n_replicas;
	chain.replicas = message->replicas;
	struct chunk_create create = { .kind = KIND_REPLICATED, .version = message->version, .chain = &chain, .only_known = true };
	/* Our predecessor has it, and what it has came here before this. */
	create.written = place > 0;
	create.copy = service_copy_state(service, message->replicas, message->n_replicas);
	chunk_op_submit(op, message->chunk, &create);
}

static void serve_append(struct service *service, struct rpc_request *request)
{
	const Granary__BlobAppend *message = (const Granary__BlobAppend *)request->message;
	struct change change = CHANGE_OF(message, pack);
	struct slice data = data_of(request);
	enum err err = check_change(service, &change);
	/* A pack that is made of its shards keeps its slots. */
	bool keeps_slot = change.sequence == 0 && message->slot != 0 && request->conn != NULL && rpc_conn_role(request->conn) == RPC_CHUNKSERVER;
	if (err == OK && (data.size > BLOB_BYTES_MAX || (change.sequence == 0 && message->slot != 0 && !keeps_slot)))
		err = ERR_INVALID;
	bool marks_damage = message->damaged && change.sequence != 0;
	if (err == OK && !marks_damage && crc32c(data.bytes, data.size) != message->crc) {
		service->corrupt_frames++;
		err = ERR_CORRUPT;
	}
	if (err != OK) {
		rpc_reply_error(request, err, NULL);
		return;
	}
	struct chunk_op *op = change_new(service, OP_APPEND, request, &change);
	op->sync = message->sync;
	op->data = data;
	op->crc = message->crc;
	op->slot = message->slot;
	op->keeps_slot = keeps_slot;
	op->marks_damage = marks_damage;
	op->deleted = message->deleted && change.sequence != 0;
	submit(op, &change, KIND_PACK);
}

/* Of a predecessor that fills the copy here; it is made if it is missing. */
static void serve_sums(struct service *service, struct rpc_request *request)
{
	const Granary__ChunkSums *message = (const Granary__ChunkSums *)request->message;
	struct change change = { .chunk = message->chunk,
				 .version = message->version,
				 .sequence = 1,
				 .life = message->life,
				 .replicas = message->replicas,
				 .replica_count = message->n_replicas };
	enum err err = check_change(service, &change);
	if (err == OK && message->kind > GRANARY__CHUNK_KIND__CHUNK_PACK)
		err = ERR_INVALID;
	if (err != OK) {
		rpc_reply_error(request, err, NULL);
		return;
	}
	struct chunk_op *op = change_new(service, OP_SUMS, request, &change);
	submit(op, &change, chunk_kind_of(message->kind));
}

/* ---------------------------------------------------------------- reads */

static void serve_read(struct service *service, struct rpc_request *request)
{
	const Granary__ChunkRead *message = (const Granary__ChunkRead *)request->message;
	bool fits = message->bytes > 0 && message->offset < CHUNK_BYTES && message->bytes <= CHUNK_BYTES - message->offset &&
		    message->bytes <= FRAME_DATA_BYTES_MAX &&
		    block_end(message->offset, message->bytes) - block_first(message->offset) <=
			    FRAME_DATA_BYTES_MAX / BLOCK_BYTES;
	if (!fits) {
		rpc_reply_error(request, ERR_INVALID, "range");
		return;
	}
	struct chunk *chunk = message->from_disk || message->exact ? NULL : chunk_store_find(service->store, message->chunk);
	if (chunk != NULL && read_op_try(service, chunk, request))
		return;
	struct chunk_op *op = chunk_op_new(service, OP_READ, request);
	op->from_disk = message->from_disk;
	op->exact = message->exact;
	op->version = message->version;
	op->first = block_first(message->offset);
	op->end = block_end(message->offset, message->bytes);
	op->for_predecessor = message->predecessor;
	op->even_uncertain = message->even_uncertain;
	op->life = message->predecessor ? message->life : 0;
	chunk_op_submit(op, message->chunk, NULL);
}

static void serve_blob_read(struct service *service, struct rpc_request *request)
{
	const Granary__BlobRead *message = (const Granary__BlobRead *)request->message;
	struct chunk *chunk = chunk_store_find(service->store, message->pack);
	if (chunk != NULL && pack_op_try_read(service, chunk, request))
		return;
	struct chunk_op *op = chunk_op_new(service, OP_BLOB_READ, request);
	op->version = message->version;
	op->slot = message->slot;
	chunk_op_submit(op, message->pack, NULL);
}

static void serve_slots(struct service *service, struct rpc_request *request)
{
	const Granary__PackSlots *message = (const Granary__PackSlots *)request->message;
	struct chunk_op *op = chunk_op_new(service, OP_SLOTS, request);
	op->version = message->version;
	chunk_op_submit(op, message->pack, NULL);
}

static void serve_status(struct service *service, struct rpc_request *request)
{
	Granary__ChunkserverStatus reply = GRANARY__CHUNKSERVER_STATUS__INIT;
	struct chunk_store_counts counts;
	chunk_store_counts(service->store, &counts);
	reply.server = service->server;
	reply.cluster = master_link_cluster(service->link);
	reply.chunks = counts.chunks;
	reply.malformed_frames = conn_malformed_count(service->loop);
	reply.lease = master_link_has_lease(service->link);
	reply.failed = chunk_store_failed(service->store);
	rpc_reply(request, &reply.base);
}

/* ---------------------------------------------------------------- dispatch */

static void serve_data(struct service *service, struct rpc_request *request)
{
	if (!master_link_has_lease(service->link)) {
		rpc_reply_error(request, ERR_NO_LEASE, NULL);
		return;
	}
	switch (request->type) {
	case MESSAGE_CHUNK_WRITE:
		serve_write(service, request);
		break;
	case MESSAGE_CHUNK_READ:
		serve_read(service, request);
		break;
	case MESSAGE_CHUNK_SYNC:
		serve_sync(service, request);
		break;
	case MESSAGE_CHUNK_TRIM:
		serve_trim(service, request);
		break;
	case MESSAGE_BLOB_APPEND:
		serve_append(service, request);
		break;
	case MESSAGE_BLOB_READ:
		serve_blob_read(service, request);
		break;
	case MESSAGE_CHUNK_SUMS:
		serve_sums(service, request);
		break;
	case MESSAGE_PACK_SLOTS:
		serve_slots(service, request);
		break;
	case MESSAGE_COLD_READ:
		cold_read_serve(service, request);
		break;
	case MESSAGE_CHUNK_COMPARE:
		compare_serve(service, request);
		break;
	default:
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
	}
}

void service_serve(void *arg, struct rpc_request *request)
{
	struct service *service = arg;
	if (service->stopping)
		rpc_reply_error(request, ERR_CANCELLED, "stopping");
	else if (request->type == MESSAGE_CHUNKSERVER_STATUS)
		serve_status(service, request);
	else if (request->type == MESSAGE_CHUNK_INSPECT)
		inspect_serve(service, request);
	else if (request->type == MESSAGE_CHUNK_COMMANDS)
		commands_serve(service, request);
	else if (request->type == MESSAGE_FENCE)
		fence_serve(service, request);
	else
		serve_data(service, request);
}

struct closed_conn {
	const struct rpc_conn *conn;
};

/* Another connection may get its address. */
static void forget_conn(void *arg, struct chunk *chunk)
{
	const struct closed_conn *closed = arg;
	if (chunk->received_from == closed->conn)
		chunk->received_from = NULL;
}

void service_conn_closed(void *arg, struct rpc_conn *conn)
{
	const struct service *service = arg;
	struct closed_conn closed = { conn };
	chunk_store_each_open(service->store, forget_conn, &closed);
}

/* Requests that have waited too long. */
static void expire_chunk(void *arg, struct chunk *chunk)
{
	struct service *service = arg;
	uint64_t now = loop_now_ms(service->loop);
	struct chunk_op *op, *next;
	chain_watch(service, chunk);
	DL_FOREACH_SAFE2 (chunk->first_op, op, next, next) {
		uint64_t waited = now - op->arrived_ms;
		bool unsettled = chunk->rejoin != NULL ||
				 (op->blocked_by != NULL && op->blocked_by->state >= OP_UNSETTLED);
		if (op->state != OP_WAITING)
			continue;
		/* Another replica may be able to answer a read. */
		if (op->kind == OP_READ && unsettled && waited >= CHUNKSERVER_HEARTBEAT_MS)
			chunk_op_refuse(op, ERR_BUSY);
		else if (waited >= CHUNK_WAIT_MS_MAX || (op->scrubs && waited >= CHUNKSERVER_HEARTBEAT_MS))
			chunk_op_refuse(op, ERR_TIMEOUT);
	}
}

void service_tick(struct service *service)
{
	chunk_store_tick(service->store);
	settle_all(service);
	chunk_store_each_open(service->store, expire_chunk, service);
	fence_tick(service);
	mend_tick(service);
	chain_probe_suspects(service);
	fill_tick(service);
}

static void chunk_opened(void *arg, struct chunk *chunk, enum err err)
{
	chunk_ops_opened(arg, chunk, err);
}

static void chunk_closing(void *arg, struct chunk *chunk)
{
	(void)arg;
	pack_op_forget(chunk);
	cold_read_forget(chunk);
}

static void chunk_abandon(void *arg, struct chunk *chunk)
{
	(void)arg;
	chunk_ops_abandon(chunk, ERR_CANCELLED);
}

static void chunk_damaged(void *arg, struct chunk *chunk)
{
	mend_start(arg, chunk);
}

/* The master knows where the others are: its answer makes it anew here, uncertain. */
static void chunk_missing(void *arg, uint64_t chunk)
{
	const struct service *service = arg;
	if (service->link != NULL)
		master_link_report(service->link, &(struct master_link_failure){ .chunk = chunk });
}

const struct chunk_store_events service_store_events = { .opened = chunk_opened,
							 .closing = chunk_closing,
							 .abandon = chunk_abandon,
							 .damaged = chunk_damaged,
							 .missing = chunk_missing };
