/* For tests: a master that only gives leases, some chunkservers and a client, all on one loop over loopback.
 * Each step waits for its condition with a deadline. */
#ifndef GRANARY_TESTS_UNIT_CHUNKSERVER_CLUSTER_H
#define GRANARY_TESTS_UNIT_CHUNKSERVER_CLUSTER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "chunkserver/chunkserver.h"
#include "chunkserver/master_link.h"
#include "chunkserver/service.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/rpc.h"

#define CHUNK 0x1234567ull

#define SERVERS 3
#define WAIT_US 20000000u
#define CLUSTER_ID 77u

struct answer {
	bool done;
	enum err err;
	ProtobufCMessage *reply;
	struct iobuf *data;
	char text[64];
};

struct cluster {
	char root[64];
	struct loop *loop;
	struct rpc *master, *client;
	struct chunkserver *servers[SERVERS];
	char *addresses[SERVERS];
	uint64_t ids[SERVERS];
	struct rpc_peer *peers[SERVERS];
	struct rpc_conn *conns[SERVERS]; /* from the servers to the master */
	bool no_lease;
	bool store_failed; /* a heartbeat says so */
	unsigned registrations, failures;
	uint64_t inventory_chunks;
	uint64_t failed_server;
	uint64_t failed_chunk;
	uint64_t sessions_known, sessions[2]; /* said to who registers */
	/* The chain as the tests use it. */
	Granary__Replica replicas[SERVERS];
	Granary__Replica *chain[SERVERS];
	size_t chain_count;
	uint64_t version;
	uint64_t operation;
};

/* ---------------------------------------------------------------- the master */

static int server_of(const struct cluster *cluster, uint64_t id)
{
	for (int i = 0; i < SERVERS; i++) {
		if (cluster->ids[i] == id)
			return i;
	}
	return -1;
}

static void master_register(struct cluster *cluster, struct rpc_request *request)
{
	const Granary__RegisterRequest *message = (const Granary__RegisterRequest *)request->message;
	Granary__RegisterReply reply = GRANARY__REGISTER_REPLY__INIT;
	int server = server_of(cluster, message->server);
	if (server >= 0)
		cluster->conns[server] = request->conn;
	cluster->registrations++;
	reply.cluster = CLUSTER_ID;
	reply.lease_ms = cluster->no_lease ? 0 : CHUNKSERVER_LEASE_MS;
	reply.send_inventory = true;
	reply.sessions_known = cluster->sessions_known;
	reply.sessions = cluster->sessions;
	reply.n_sessions = 2;
	rpc_reply(request, &reply.base);
}

static void master_serve(void *arg, struct rpc_request *request)
{
	struct cluster *cluster = arg;
	Granary__HeartbeatReply beat = GRANARY__HEARTBEAT_REPLY__INIT;
	Granary__InventoryReply inventory = GRANARY__INVENTORY_REPLY__INIT;
	switch (request->type) {
	case MESSAGE_REGISTER:
		master_register(cluster, request);
		break;
	case MESSAGE_HEARTBEAT: {
		int server = server_of(cluster, ((const Granary__Heartbeat *)request->message)->server);
		beat.register_again = server >= 0 && cluster->conns[server] != request->conn;
		cluster->store_failed = cluster->store_failed || ((const Granary__Heartbeat *)request->message)->failed;
		beat.lease_ms = cluster->no_lease ? 0 : CHUNKSERVER_LEASE_MS;
		rpc_reply(request, &beat.base);
		break;
	}
	case MESSAGE_INVENTORY:
		cluster->inventory_chunks += ((const Granary__Inventory *)request->message)->n_chunks;
		rpc_reply(request, &inventory.base);
		break;
	case MESSAGE_CHUNK_FAILURE:
		cluster->failures++;
		cluster->failed_server = ((const Granary__ChunkFailure *)request->message)->server;
		cluster->failed_chunk = ((const Granary__ChunkFailure *)request->message)->chunk;
		rpc_reply_error(request, ERR_BUSY, NULL);
		break;
	default:
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
	}
}

static void master_closed(void *arg, struct rpc_conn *conn)
{
	struct cluster *cluster = arg;
	for (int i = 0; i < SERVERS; i++) {
		if (cluster->conns[i] == conn)
			cluster->conns[i] = NULL;
	}
}

static const struct rpc_service master_service = { .serve = master_serve, .closed = master_closed };
static const struct rpc_identity master_identity = { .role = RPC_MASTER, .id = 1, .cluster = CLUSTER_ID };
static const struct rpc_identity client_identity = { .role = RPC_CLIENT, .id = 2, .cluster = CLUSTER_ID };

/* ---------------------------------------------------------------- driving */

#define WAIT_FOR(cluster, condition)                                                               \
	do {                                                                                       \
		uint64_t until = loop_now_us((cluster)->loop) + WAIT_US;                           \
		while (!(condition)) {                                                             \
			assert_true(loop_now_us((cluster)->loop) < until);                         \
			loop_run_once((cluster)->loop);                                            \
		}                                                                                  \
	} while (0)

static void note_stopped(void *arg)
{
	*(bool *)arg = true;
}

static bool has_lease(struct cluster *cluster, int server)
{
	return master_link_has_lease(chunkserver_service(cluster->servers[server])->link);
}

static void start_server(struct cluster *cluster, int server)
{
	char data[96];
	snprintf(data, sizeof(data), "%s/%d", cluster->root, server);
	struct chunkserver_options options = {
		.data = data,
		.listen = cluster->addresses[server] == NULL ? "127.0.0.1:0" : cluster->addresses[server],
		.masters = rpc_address(cluster->master),
		.host = "here",
		.reserved_bytes = 1, /* whatever disk the tests run on */
	};
	assert_int_equal(chunkserver_open(cluster->loop, &options, &cluster->servers[server]), OK);
	if (cluster->addresses[server] == NULL)
		cluster->addresses[server] = mem_string(chunkserver_address(cluster->servers[server]));
	cluster->ids[server] = chunkserver_id(cluster->servers[server]);
}

static void stop_server(struct cluster *cluster, int server)
{
	bool stopped = false;
	chunkserver_stop(cluster->servers[server], note_stopped, &stopped);
	WAIT_FOR(cluster, stopped);
	chunkserver_close(cluster->servers[server]);
	cluster->servers[server] = NULL;
}

static void use_chain(struct cluster *cluster, int first, int second, int third)
{
	const int servers[SERVERS] = { first, second, third };
	cluster->chain_count = 0;
	for (int i = 0; i < SERVERS; i++) {
		if (servers[i] < 0)
			continue;
		Granary__Replica *replica = &cluster->replicas[cluster->chain_count];
		granary__replica__init(replica);
		replica->server = cluster->ids[servers[i]];
		replica->address = cluster->addresses[servers[i]];
		cluster->chain[cluster->chain_count++] = replica;
	}
}

static void cluster_open(struct cluster *cluster)
{
	*cluster = (struct cluster){ .root = "/tmp/granary-chunk-XXXXXX", .version = 1, .operation = 1 };
	assert_non_null(mkdtemp(cluster->root));
	assert_int_equal(loop_open(&cluster->loop), OK);
	assert_int_equal(rpc_open(cluster->loop, &master_identity, &master_service, cluster, &cluster->master), OK);
	assert_int_equal(rpc_listen(cluster->master, "127.0.0.1:0"), OK);
	assert_int_equal(rpc_open(cluster->loop, &client_identity, NULL, NULL, &cluster->client), OK);
	for (int i = 0; i < SERVERS; i++) {
		start_server(cluster, i);
		cluster->peers[i] = rpc_peer_open(cluster->client, cluster->addresses[i]);
	}
	for (int i = 0; i < SERVERS; i++)
		WAIT_FOR(cluster, has_lease(cluster, i));
	use_chain(cluster, 0, 1, 2);
}

static void remove_tree(const char *root)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", root);
	FILE *shell = popen(command, "r");
	assert_non_null(shell);
	assert_int_equal(pclose(shell), 0);
}

static void cluster_close(struct cluster *cluster)
{
	for (int i = 0; i < SERVERS; i++) {
		if (cluster->servers[i] != NULL)
			stop_server(cluster, i);
		rpc_peer_close(cluster->peers[i]);
		free(cluster->addresses[i]);
	}
	rpc_close(cluster->client);
	rpc_close(cluster->master);
	loop_close(cluster->loop);
	remove_tree(cluster->root);
}

/* ---------------------------------------------------------------- calls */

static void answered(void *arg, const struct rpc_result *result)
{
	struct answer *answer = arg;
	answer->done = true;
	answer->err = result->err;
	answer->reply = result->reply == NULL ? NULL : message_copy(result->reply);
	answer->data = result->data == NULL ? NULL : iobuf_ref(result->data);
	snprintf(answer->text, sizeof(answer->text), "%s", result->text);
}

static void answer_free(struct answer *answer)
{
	message_free(answer->reply);
	iobuf_unref(answer->data);
	*answer = (struct answer){ 0 };
}

static struct iobuf *iobuf_of(struct slice data)
{
	struct iobuf *iobuf = iobuf_open(data.size == 0 ? 1 : (uint32_t)data.size);
	memcpy(iobuf->bytes, data.bytes, data.size);
	iobuf->size = (uint32_t)data.size;
	return iobuf;
}

static void start_call(struct cluster *cluster, int server, enum message_type type, const ProtobufCMessage *message,
		       struct slice data, struct answer *answer)
{
	*answer = (struct answer){ 0 };
	if (data.size == 0) {
		rpc_peer_call(cluster->peers[server], type, message, NULL, 10000, answered, answer);
		return;
	}
	struct iobuf *iobuf = iobuf_of(data);
	struct conn_data part = { .iobuf = iobuf, .size = iobuf->size };
	rpc_peer_call(cluster->peers[server], type, message, &part, 10000, answered, answer);
	iobuf_unref(iobuf);
}

static size_t crcs_of(uint32_t offset, struct slice data, uint8_t *crcs)
{
	size_t at = 0, count = 0;
	while (at < data.size) {
		size_t piece = BLOCK_BYTES - (offset + at) % BLOCK_BYTES;
		if (piece > data.size - at)
			piece = data.size - at;
		put_le32(crcs + 4 * count++, crc32c(data.bytes + at, piece));
		at += piece;
	}
	return 4 * count;
}

struct write_options {
	uint64_t chunk;
	uint32_t offset;
	struct slice data;
	uint64_t operation; /* 0: a new one */
	uint64_t session;
	bool sync, spoil;
	bool written; /* the chunk has content */
};

static void start_write_to(struct cluster *cluster, int head, const struct write_options *options, struct answer *answer)
{
	uint8_t crcs[FRAME_DATA_BYTES_MAX / BLOCK_BYTES * 4 + 8];
	Granary__ChunkWrite message = GRANARY__CHUNK_WRITE__INIT;
	size_t size = crcs_of(options->offset, options->data, crcs);
	if (options->spoil)
		crcs[0] ^= 1;
	message.chunk = options->chunk;
	message.version = cluster->version;
	message.offset = options->offset;
	message.client = 2;
	message.operation = options->operation != 0 ? options->operation : cluster->operation++;
	message.n_replicas = cluster->chain_count;
	message.replicas = cluster->chain;
	message.crcs = message_borrow(slice_of(crcs, size));
	message.sync = options->sync;
	message.session = options->session;
	message.written = options->written;
	start_call(cluster, head, MESSAGE_CHUNK_WRITE, &message.base, options->data, answer);
}

static enum err write_to(struct cluster *cluster, int head, const struct write_options *options)
{
	struct answer answer;
	start_write_to(cluster, head, options, &answer);
	WAIT_FOR(cluster, answer.done);
	enum err err = answer.err;
	answer_free(&answer);
	return err;
}

/* Reads whole blocks into `out`, checks their CRCs, zeros behind the end. */
static inline enum err read_from(struct cluster *cluster, int server, uint64_t chunk, uint32_t offset, uint32_t size, uint8_t *out)
{
	struct answer answer;
	Granary__ChunkRead message = GRANARY__CHUNK_READ__INIT;
	uint32_t start = offset / BLOCK_BYTES * BLOCK_BYTES;
	message.chunk = chunk;
	message.version = cluster->version;
	message.offset = offset;
	message.bytes = size;
	start_call(cluster, server, MESSAGE_CHUNK_READ, &message.base, slice_of(NULL, 0), &answer);
	WAIT_FOR(cluster, answer.done);
	enum err err = answer.err;
	memset(out, 0, size);
	if (err == OK) {
		const Granary__ChunkReadReply *reply = (const Granary__ChunkReadReply *)answer.reply;
		uint32_t got = answer.data == NULL ? 0 : answer.data->size;
		assert_int_equal(got % BLOCK_BYTES, 0);
		assert_int_equal(reply->crcs.len, got / BLOCK_BYTES * 4);
		for (uint32_t i = 0; i < got / BLOCK_BYTES; i++)
			assert_int_equal(crc32c(answer.data->bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES),
					 get_le32(reply->crcs.data + 4u * i));
		for (uint32_t i = 0; i < size && offset - start + i < got; i++)
			out[i] = answer.data->bytes[offset - start + i];
	}
	answer_free(&answer);
	return err;
}

static inline enum err command(struct cluster *cluster, int server, Granary__ChunkCommand *one)
{
	struct answer answer = { 0 };
	Granary__ChunkCommands message = GRANARY__CHUNK_COMMANDS__INIT;
	message.n_commands = 1;
	message.commands = &one;
	WAIT_FOR(cluster, cluster->conns[server] != NULL);
	rpc_conn_call(cluster->conns[server], MESSAGE_CHUNK_COMMANDS, &message.base, 10000, answered, &answer);
	WAIT_FOR(cluster, answer.done);
	enum err err = answer.err;
	if (err == OK) {
		const Granary__ChunkCommandsReply *reply = (const Granary__ChunkCommandsReply *)answer.reply;
		assert_int_equal(reply->n_errors, 1);
		err = reply->errors[0] == 0 ? OK : err_from_wire(reply->errors[0]);
	}
	answer_free(&answer);
	return err;
}

/* As the master does when it is asked. */
static inline enum err tell_chain(struct cluster *cluster, int server, uint64_t chunk, Granary__ChunkKind kind)
{
	Granary__ChunkLocation location = GRANARY__CHUNK_LOCATION__INIT;
	Granary__ChunkCommand configure = GRANARY__CHUNK_COMMAND__INIT;
	location.chunk = chunk;
	location.kind = kind;
	location.version = cluster->version;
	location.n_replicas = cluster->chain_count;
	location.replicas = cluster->chain;
	configure.chunk = chunk;
	configure.configure = &location;
	return command(cluster, server, &configure);
}

static inline enum err write_text(struct cluster *cluster, uint32_t offset, const char *text)
{
	return write_to(cluster, 0, &(struct write_options){ .chunk = CHUNK, .offset = offset, .data = slice_text(text) });
}

static inline int cluster_setup(void **state)
{
	struct cluster *cluster = malloc(sizeof(*cluster));
	cluster_open(cluster);
	*state = cluster;
	return 0;
}

static inline int cluster_teardown(void **state)
{
	cluster_close(*state);
	free(*state);
	return 0;
}

/* Bytes that differ from place to place. */
static inline void cluster_pattern(uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
}

#endif
