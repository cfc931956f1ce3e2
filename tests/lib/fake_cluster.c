#include "tests/lib/fake_cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "master/master.h"

#define RUN_MS_MAX 20000u
#define OPERATIONS_KEPT 1024u

struct fake_blob {
	uint32_t slot;
	struct buf bytes;
	UT_hash_handle hh;
};

struct fake_chunk {
	uint64_t id, version;
	struct buf bytes; /* of a replicated chunk: as far as written */
	struct fake_blob *blobs;
	uint32_t last_slot;
	struct {
		uint64_t client, operation;
		uint32_t slot;
	} operations[OPERATIONS_KEPT];
	unsigned operation_next;
	UT_hash_handle hh;
};

struct fake_request {
	struct fake_request *next;
	struct fake_server *server;
	struct rpc_request *request;
};

static struct fake_server *find_server(struct fake_cluster *cluster, uint64_t id)
{
	for (unsigned i = 0; i < cluster->count; i++)
		if (cluster->servers[i].id == id)
			return &cluster->servers[i];
	return NULL;
}

static struct fake_chunk *find_chunk(struct fake_server *server, uint64_t id)
{
	struct fake_chunk *chunk;
	HASH_FIND(hh, server->chunks, &id, sizeof id, chunk);
	return chunk;
}

static void free_chunk(struct fake_server *server, struct fake_chunk *chunk)
{
	struct fake_blob *blob, *next;
	HASH_ITER(hh, chunk->blobs, blob, next)
	{
		HASH_DEL(chunk->blobs, blob);
		buf_deinit(&blob->bytes);
		free(blob);
	}
	HASH_DEL(server->chunks, chunk);
	buf_deinit(&chunk->bytes);
	free(chunk);
}

/* The replica's state after it has seen `version`; NULL when it knows a newer one. */
static struct fake_chunk *take_version(struct fake_server *server, uint64_t id, uint64_t version)
{
	struct fake_chunk *chunk = find_chunk(server, id);
	if (!chunk) {
		chunk = mem_zero(1, sizeof *chunk);
		chunk->id = id;
		HASH_ADD(hh, server->chunks, id, sizeof chunk->id, chunk);
	}
	if (version < chunk->version)
		return NULL;
	chunk->version = version;
	return chunk;
}

/* A change, as each replica applies it. */
struct change {
	uint64_t chunk, version, client, operation;
	size_t replica_count;
	Granary__Replica **replicas;
	uint32_t slot;
	void (*apply)(struct fake_chunk *chunk, const struct change *change);
	const ProtobufCMessage *message;
	struct iobuf *data;
};

static bool was_done(const struct fake_chunk *chunk, const struct change *change, uint32_t *slot)
{
	for (unsigned i = 0; i < OPERATIONS_KEPT; i++)
		if (chunk->operations[i].client == change->client &&
		    chunk->operations[i].operation == change->operation && change->operation != 0) {
			*slot = chunk->operations[i].slot;
			return true;
		}
	return false;
}

static enum err do_change(struct fake_server *head, struct change *change, uint32_t *slot)
{
	struct fake_cluster *cluster = head->cluster;
	if (change->replica_count == 0 || change->replicas[0]->server != head->id)
		return ERR_INVALID;
	for (size_t i = 0; i < change->replica_count; i++) {
		struct fake_server *server = find_server(cluster, change->replicas[i]->server);
		if (!server || !server->rpc || server->silent)
			return ERR_CHAIN_BROKEN;
		struct fake_chunk *chunk = find_chunk(server, change->chunk);
		if (chunk && change->version < chunk->version)
			return ERR_STALE_VERSION;
		if (server->no_space)
			return ERR_NO_SPACE;
	}
	for (size_t i = 0; i < change->replica_count; i++) {
		struct fake_server *server = find_server(cluster, change->replicas[i]->server);
		struct fake_chunk *chunk = take_version(server, change->chunk, change->version);
		if (was_done(chunk, change, &change->slot)) {
			head->repeated += i == 0;
			continue;
		}
		if (i == 0)
			change->slot = chunk->last_slot + 1;
		change->apply(chunk, change);
		chunk->operations[chunk->operation_next].client = change->client;
		chunk->operations[chunk->operation_next].operation = change->operation;
		chunk->operations[chunk->operation_next].slot = change->slot;
		chunk->operation_next = (chunk->operation_next + 1) % OPERATIONS_KEPT;
	}
	*slot = change->slot;
	return OK;
}

static void grow(struct buf *buf, size_t size)
{
	if (size <= buf->size)
		return;
	buf_reserve(buf, size);
	memset(buf->bytes + buf->size, 0, size - buf->size);
	buf->size = size;
}

static void apply_write(struct fake_chunk *chunk, const struct change *change)
{
	const Granary__ChunkWrite *message = (const Granary__ChunkWrite *)change->message;
	grow(&chunk->bytes, message->offset + change->data->size);
	memcpy(chunk->bytes.bytes + message->offset, change->data->bytes, change->data->size);
}

static void apply_trim(struct fake_chunk *chunk, const struct change *change)
{
	const Granary__ChunkTrim *message = (const Granary__ChunkTrim *)change->message;
	if (message->bytes < chunk->bytes.size)
		chunk->bytes.size = message->bytes;
}

static void apply_append(struct fake_chunk *chunk, const struct change *change)
{
	struct fake_blob *blob = mem_zero(1, sizeof *blob);
	blob->slot = change->slot;
	buf_set(&blob->bytes, slice_of(change->data->bytes, change->data->size));
	HASH_ADD(hh, chunk->blobs, slot, sizeof blob->slot, blob);
	if (change->slot > chunk->last_slot)
		chunk->last_slot = change->slot;
}

static enum err check_crcs(const Granary__ChunkWrite *message, const struct iobuf *data)
{
	uint32_t offset = message->offset, at = 0;
	size_t i = 0;
	while (at < data->size) {
		uint32_t part = BLOCK_BYTES - offset % BLOCK_BYTES;
		part = part < data->size - at ? part : data->size - at;
		if (4 * i + 4 > message->crcs.len ||
		    get_le32(message->crcs.data + 4 * i) != crc32c(data->bytes + at, part))
			return ERR_CORRUPT;
		i++;
		at += part;
		offset += part;
	}
	return 4 * i == message->crcs.len ? OK : ERR_INVALID;
}

static void finish(struct fake_server *server, struct rpc_request *request, enum err err, const ProtobufCMessage *reply)
{
	if (err == OK && server->lose_replies > 0) {
		server->lose_replies--;
		rpc_reply_error(request, ERR_TIMEOUT, NULL); /* as if it had never come: the client cannot tell */
	} else if (err)
		rpc_reply_error(request, err, NULL);
	else
		rpc_reply(request, reply);
}

static void serve_write(struct fake_server *server, struct rpc_request *request)
{
	const Granary__ChunkWrite *m = (const Granary__ChunkWrite *)request->message;
	struct change change = {m->chunk,    m->version, m->client,   m->operation,     m->n_replicas,
				m->replicas, 0,          apply_write, request->message, request->data};
	Granary__ChunkWriteReply reply = GRANARY__CHUNK_WRITE_REPLY__INIT;
	uint32_t slot;
	server->writes++;
	server->synced_writes += m->sync;
	enum err err = !request->data || m->offset + request->data->size > CHUNK_BYTES ? ERR_INVALID
										       : check_crcs(m, request->data);
	if (err == OK)
		err = do_change(server, &change, &slot);
	finish(server, request, err, &reply.base);
}

static void serve_trim(struct fake_server *server, struct rpc_request *request)
{
	const Granary__ChunkTrim *m = (const Granary__ChunkTrim *)request->message;
	struct change change = {m->chunk,    m->version, m->client,  m->operation,     m->n_replicas,
				m->replicas, 0,          apply_trim, request->message, NULL};
	Granary__Empty reply = GRANARY__EMPTY__INIT;
	uint32_t slot;
	server->trims++;
	finish(server, request, do_change(server, &change, &slot), &reply.base);
}

static void serve_append(struct fake_server *server, struct rpc_request *request)
{
	const Granary__BlobAppend *m = (const Granary__BlobAppend *)request->message;
	struct change change = {m->pack,     m->version, m->client,    m->operation,     m->n_replicas,
				m->replicas, 0,          apply_append, request->message, request->data};
	Granary__BlobAppendReply reply = GRANARY__BLOB_APPEND_REPLY__INIT;
	server->appends++;
	server->synced_writes += m->sync;
	enum err err = request->data && crc32c(request->data->bytes, request->data->size) == m->crc ? OK : ERR_CORRUPT;
	if (err == OK)
		err = do_change(server, &change, &reply.slot);
	finish(server, request, err, &reply.base);
}

static void serve_read(struct fake_server *server, struct rpc_request *request)
{
	const Granary__ChunkRead *m = (const Granary__ChunkRead *)request->message;
	struct fake_chunk *chunk = find_chunk(server, m->chunk);
	server->reads++;
	if (!chunk || chunk->version != m->version) {
		rpc_reply_error(request, chunk ? ERR_STALE_VERSION : ERR_NO_CHUNK, NULL);
		return;
	}
	uint32_t start = m->offset / BLOCK_BYTES * BLOCK_BYTES;
	uint32_t end = (m->offset + m->bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	if (end > chunk->bytes.size)
		end = (uint32_t)chunk->bytes.size;
	struct iobuf *data = iobuf_open(end > start ? end - start : 1);
	uint8_t crcs[4 * (FRAME_DATA_BYTES_MAX / BLOCK_BYTES + 1)];
	Granary__ChunkReadReply reply = GRANARY__CHUNK_READ_REPLY__INIT;
	data->size = end > start ? end - start : 0;
	memcpy(data->bytes, chunk->bytes.bytes ? chunk->bytes.bytes + start : data->bytes, data->size);
	for (uint32_t at = 0; at < data->size; at += BLOCK_BYTES) {
		uint8_t block[BLOCK_BYTES] = {0};
		memcpy(block, data->bytes + at, data->size - at < BLOCK_BYTES ? data->size - at : BLOCK_BYTES);
		put_le32(crcs + reply.crcs.len, crc32c(block, BLOCK_BYTES));
		reply.crcs.len += 4;
	}
	reply.crcs.data = crcs;
	reply.version = chunk->version;
	if (server->corrupt && data->size > 0)
		data->bytes[data->size / 2] ^= 1;
	rpc_reply_data(request, &reply.base,
		       data->size ? &(struct conn_data){.iobuf = data, .size = data->size} : NULL);
	iobuf_unref(data);
}

static void serve_blob_read(struct fake_server *server, struct rpc_request *request)
{
	const Granary__BlobRead *m = (const Granary__BlobRead *)request->message;
	struct fake_chunk *chunk = find_chunk(server, m->pack);
	struct fake_blob *blob = NULL;
	server->blob_reads++;
	if (chunk)
		HASH_FIND(hh, chunk->blobs, &m->slot, sizeof m->slot, blob);
	if (!chunk || chunk->version != m->version || !blob) {
		rpc_reply_error(request, !chunk ? ERR_NO_CHUNK : !blob ? ERR_NOT_FOUND : ERR_STALE_VERSION, NULL);
		return;
	}
	struct iobuf *data = iobuf_open((uint32_t)blob->bytes.size);
	Granary__BlobReadReply reply = GRANARY__BLOB_READ_REPLY__INIT;
	data->size = (uint32_t)blob->bytes.size;
	memcpy(data->bytes, blob->bytes.bytes, data->size);
	reply.crc = crc32c(data->bytes, data->size);
	if (server->corrupt)
		data->bytes[data->size / 2] ^= 1;
	rpc_reply_data(request, &reply.base, &(struct conn_data){.iobuf = data, .size = data->size});
	iobuf_unref(data);
}

static void serve_commands(struct fake_server *server, struct rpc_request *request)
{
	const Granary__ChunkCommands *m = (const Granary__ChunkCommands *)request->message;
	Granary__ChunkCommandsReply reply = GRANARY__CHUNK_COMMANDS_REPLY__INIT;
	reply.errors = mem_zero(m->n_commands + 1, sizeof *reply.errors);
	reply.n_errors = m->n_commands;
	for (size_t i = 0; i < m->n_commands; i++) {
		const Granary__ChunkCommand *command = m->commands[i];
		struct fake_chunk *chunk = find_chunk(server, command->chunk);
		if (chunk && command->delete_chunk)
			free_chunk(server, chunk);
		for (size_t j = 0; chunk && j < command->n_delete_slots; j++) {
			struct fake_blob *blob;
			HASH_FIND(hh, chunk->blobs, &command->delete_slots[j], sizeof(uint32_t), blob);
			if (blob) {
				HASH_DEL(chunk->blobs, blob);
				buf_deinit(&blob->bytes);
				free(blob);
			}
		}
		if (command->configure && (chunk = find_chunk(server, command->configure->chunk)) != NULL &&
		    command->configure->version > chunk->version)
			chunk->version = command->configure->version;
	}
	rpc_reply(request, &reply.base);
	free(reply.errors);
}

static void serve(void *arg, struct rpc_request *request)
{
	struct fake_server *server = arg;
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	if (server->silent && request->type != MESSAGE_CHUNK_COMMANDS) {
		struct fake_request *held = mem_zero(1, sizeof *held);
		held->request = request;
		held->server = server;
		LL_PREPEND(server->cluster->held, held);
		return;
	}
	switch (request->type) {
	case MESSAGE_CHUNK_WRITE:
		serve_write(server, request);
		break;
	case MESSAGE_CHUNK_TRIM:
		serve_trim(server, request);
		break;
	case MESSAGE_BLOB_APPEND:
		serve_append(server, request);
		break;
	case MESSAGE_CHUNK_READ:
		serve_read(server, request);
		break;
	case MESSAGE_BLOB_READ:
		serve_blob_read(server, request);
		break;
	case MESSAGE_CHUNK_COMMANDS:
		serve_commands(server, request);
		break;
	case MESSAGE_CHUNK_SYNC:
		server->syncs++;
		rpc_reply(request, &empty.base);
		break;
	default:
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
		break;
	}
}

static const struct rpc_service service = {.serve = serve};

/* ---- at the master */

static void registered(void *arg, const struct rpc_result *result)
{
	struct fake_server *server = arg;
	if (result->err)
		return; /* again with the next heartbeat */
	Granary__Inventory inventory = GRANARY__INVENTORY__INIT;
	inventory.server = server->id;
	inventory.incarnation = server->incarnation;
	inventory.last = true;
	rpc_peer_send(server->master, MESSAGE_INVENTORY, &inventory.base);
}

static void enlist(struct fake_server *server)
{
	Granary__RegisterRequest message = GRANARY__REGISTER_REQUEST__INIT;
	char host[16];
	snprintf(host, sizeof host, "host%u", (unsigned)server->id);
	message.server = server->id;
	message.address = (char *)(uintptr_t)rpc_address(server->rpc);
	message.host = host;
	message.incarnation = server->incarnation;
	message.bytes_total = 1ull << 40;
	message.bytes_free = 1ull << 39;
	rpc_peer_call(server->master, MESSAGE_REGISTER, &message.base, NULL, RPC_TIMEOUT_MS, registered, server);
}

static void heartbeat_answered(void *arg, const struct rpc_result *result)
{
	struct fake_server *server = arg;
	if (result->err == OK && ((const Granary__HeartbeatReply *)result->reply)->register_again)
		enlist(server);
}

static void heartbeat(void *arg)
{
	struct fake_server *server = arg;
	timer_start(&server->heartbeat, CHUNKSERVER_HEARTBEAT_MS);
	if (server->no_heartbeat)
		return;
	Granary__Heartbeat message = GRANARY__HEARTBEAT__INIT;
	message.server = server->id;
	message.incarnation = server->incarnation;
	message.bytes_total = 1ull << 40;
	message.bytes_free = 1ull << 39;
	rpc_peer_call(server->master, MESSAGE_HEARTBEAT, &message.base, NULL, RPC_TIMEOUT_MS, heartbeat_answered,
		      server);
}

/* ---- the cluster */

static void status_answered(void *arg, const struct rpc_result *result)
{
	unsigned *up = arg;
	const Granary__ClusterStatus *status = (const Granary__ClusterStatus *)result->reply;
	*up = 0;
	for (size_t i = 0; result->err == OK && i < status->n_servers; i++)
		*up += status->servers[i]->up;
	*up |= 1u << 16;
}

static void wait_for_servers(struct fake_cluster *cluster)
{
	uint64_t start = loop_now_us(cluster->loop);
	struct rpc_identity identity = {.role = RPC_TOOL, .id = 1};
	struct rpc *rpc;
	unsigned up = 1u << 16;
	check(rpc_open(cluster->loop, &identity, NULL, NULL, &rpc) == OK);
	struct rpc_peer *peer = rpc_peer_open(rpc, fake_cluster_address(cluster));
	while (up != (cluster->count | 1u << 16)) {
		Granary__ClusterStatusRequest request = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
		request.servers = true;
		up = 0;
		rpc_peer_call(peer, MESSAGE_CLUSTER_STATUS, &request.base, NULL, 1000, status_answered, &up);
		while (!(up >> 16))
			loop_run_once(cluster->loop);
		check(loop_now_us(cluster->loop) - start < RUN_MS_MAX * 1000ull);
	}
	rpc_peer_close(peer);
	rpc_close(rpc);
}

static void start_master(struct fake_cluster *cluster, const char *listen)
{
	struct buf message = {0};
	struct master_options options = {.directory = cluster->directory,
					 .listen = listen,
					 .cluster = "fake",
					 .members = "",
					 .id = 1,
					 .cache_bytes = 64 * MIB};
	enum err err = master_open(cluster->loop, &options, &cluster->master, &message);
	if (err)
		fprintf(stderr, "master_open: %s: %.*s\n", err_name(err), (int)message.size,
			(const char *)message.bytes);
	check(err == OK);
	buf_deinit(&message);
}

void fake_master_stop(struct fake_cluster *cluster)
{
	snprintf(cluster->address, sizeof cluster->address, "%s", master_address(cluster->master));
	master_close(cluster->master);
}

void fake_master_start(struct fake_cluster *cluster)
{
	start_master(cluster, cluster->address);
	wait_for_servers(cluster);
}

void fake_cluster_open(struct fake_cluster *cluster, unsigned servers)
{
	*cluster = (struct fake_cluster){.count = servers};
	snprintf(cluster->directory, sizeof cluster->directory, "/tmp/fake_cluster.XXXXXX");
	check(mkdtemp(cluster->directory));
	check(loop_open(&cluster->loop) == OK);
	start_master(cluster, "127.0.0.1:0");
	for (unsigned i = 0; i < servers; i++) {
		struct fake_server *server = &cluster->servers[i];
		server->cluster = cluster;
		server->id = i + 1;
		server->incarnation = 1;
		struct rpc_identity identity = {.role = RPC_CHUNKSERVER, .id = server->id};
		check(rpc_open(cluster->loop, &identity, &service, server, &server->rpc) == OK);
		check(rpc_listen(server->rpc, "127.0.0.1:0") == OK);
		server->master = rpc_peer_open(server->rpc, fake_cluster_address(cluster));
		timer_init(&server->heartbeat, cluster->loop, heartbeat, server);
		timer_start(&server->heartbeat, 0);
	}
	wait_for_servers(cluster);
}

static void drop_held(struct fake_cluster *cluster, struct fake_server *server)
{
	struct fake_request *held, *next;
	LL_FOREACH_SAFE(cluster->held, held, next)
	if (held->server == server) {
		LL_DELETE(cluster->held, held);
		rpc_reply_error(held->request, ERR_CANCELLED, NULL);
		free(held);
	}
}

void fake_server_kill(struct fake_server *server)
{
	if (!server->rpc)
		return;
	timer_stop(&server->heartbeat);
	drop_held(server->cluster, server);
	rpc_peer_close(server->master);
	rpc_close(server->rpc);
	server->rpc = NULL;
}

void fake_server_lose(struct fake_server *server)
{
	struct fake_chunk *chunk, *next;
	HASH_ITER(hh, server->chunks, chunk, next)
	free_chunk(server, chunk);
}

void fake_cluster_close(struct fake_cluster *cluster)
{
	for (unsigned i = 0; i < cluster->count; i++) {
		struct fake_server *server = &cluster->servers[i];
		fake_server_kill(server);
		fake_server_lose(server);
	}
	master_close(cluster->master);
	loop_close(cluster->loop);
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", cluster->directory);
	FILE *removal = popen(command, "r");
	if (removal)
		pclose(removal);
}

const char *fake_cluster_address(const struct fake_cluster *cluster)
{
	return master_address(cluster->master);
}

void fake_cluster_run(struct fake_cluster *cluster, const bool *done)
{
	uint64_t start = loop_now_us(cluster->loop);
	while (!*done) {
		loop_run_once(cluster->loop);
		check(loop_now_us(cluster->loop) - start < RUN_MS_MAX * 1000ull);
	}
}

const uint8_t *fake_server_chunk(const struct fake_server *server, uint64_t id, uint32_t *bytes)
{
	struct fake_chunk *chunk;
	HASH_FIND(hh, server->chunks, &id, sizeof id, chunk);
	*bytes = chunk ? (uint32_t)chunk->bytes.size : 0;
	return chunk ? chunk->bytes.bytes : NULL;
}
