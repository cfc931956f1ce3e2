/* rpc over real loopback sockets: both ends in one loop. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/sys/rpc.h"

#define DEADLINE_MS 10000

struct side {
	struct rpc *rpc;
	/* What the service does with requests. */
	bool hold;
	struct rpc_request *held[RPC_SERVED_PER_CONN_MAX + 8];
	size_t held_count;
	struct file *file;
	struct rpc_conn *inbound;
	unsigned served, opened, closed;
	uint64_t last_chunk;
	bool order_broken;
};

struct fixture {
	struct loop *loop;
	struct side server, client;
	struct rpc_peer *peer;
	struct timer deadline;
	bool late;
};

struct outcome {
	unsigned count;
	enum err err;
	uint64_t sequence;
	uint32_t data_size;
	uint32_t data_crc;
	char text[64];
};

static void on_done(void *arg, const struct rpc_result *result)
{
	struct outcome *outcome = arg;
	outcome->count++;
	outcome->err = result->err;
	snprintf(outcome->text, sizeof(outcome->text), "%s", result->text);
	if (result->reply != NULL && result->reply->descriptor == &granary__chunk_write_reply__descriptor)
		outcome->sequence = ((const Granary__ChunkWriteReply *)result->reply)->sequence;
	if (result->data != NULL) {
		outcome->data_size = result->data->size;
		outcome->data_crc = crc32c(result->data->bytes, result->data->size);
	}
}

static void answer_read(struct side *side, struct rpc_request *request)
{
	const Granary__ChunkRead *read = (const Granary__ChunkRead *)request->message;
	Granary__ChunkReadReply reply = GRANARY__CHUNK_READ_REPLY__INIT;
	struct conn_data data = { .size = read->bytes };
	if (side->file != NULL) {
		data.file = side->file;
		data.file_offset = read->offset;
		rpc_reply_data(request, &reply.base, &data);
		return;
	}
	data.iobuf = iobuf_open(read->bytes);
	memset(data.iobuf->bytes, 0x5a, read->bytes);
	rpc_reply_data(request, &reply.base, &data);
	iobuf_unref(data.iobuf);
}

static void answer(struct side *side, struct rpc_request *request)
{
	if (request->type == MESSAGE_CHUNK_READ) {
		answer_read(side, request);
	} else if (request->type == MESSAGE_CHUNK_WRITE) {
		const Granary__ChunkWrite *write = (const Granary__ChunkWrite *)request->message;
		Granary__ChunkWriteReply reply = GRANARY__CHUNK_WRITE_REPLY__INIT;
		reply.sequence = write->chunk + 1;
		if (request->data != NULL)
			reply.sequence = crc32c(request->data->bytes, request->data->size);
		rpc_reply(request, &reply.base);
	} else if (request->type == MESSAGE_META) {
		rpc_reply_error(request, ERR_NOT_LEADER, "127.0.0.1:4711");
	} else {
		rpc_reply_error(request, ERR_NO_SPACE, "the cup is full");
	}
}

static void serve(void *arg, struct rpc_request *request)
{
	struct side *side = arg;
	side->served++;
	if (request->type == MESSAGE_CHUNK_WRITE) {
		uint64_t chunk = ((const Granary__ChunkWrite *)request->message)->chunk;
		side->order_broken |= chunk != 0 && chunk != side->last_chunk + 1;
		side->last_chunk = chunk;
	}
	if (side->hold) {
		assert_true(side->held_count < sizeof(side->held) / sizeof(side->held[0]));
		side->held[side->held_count++] = request;
		return;
	}
	answer(side, request);
}

static void release(struct side *side)
{
	side->hold = false;
	while (side->held_count > 0)
		answer(side, side->held[--side->held_count]);
}

static void opened(void *arg, struct rpc_conn *conn)
{
	struct side *side = arg;
	side->opened++;
	side->inbound = conn;
}

static void closed(void *arg, struct rpc_conn *conn)
{
	struct side *side = arg;
	side->closed++;
	if (side->inbound == conn)
		side->inbound = NULL;
}

static const struct rpc_service service = { .serve = serve, .opened = opened, .closed = closed };

static void on_late(void *arg)
{
	((struct fixture *)arg)->late = true;
}

/* Runs the loop until the condition holds; fails the test after DEADLINE_MS. */
#define wait_for(fixture, condition)                                                                                   \
	do {                                                                                                           \
		(fixture)->late = false;                                                                               \
		timer_start(&(fixture)->deadline, DEADLINE_MS);                                                        \
		while (!(condition) && !(fixture)->late)                                                               \
			loop_run_once((fixture)->loop);                                                                \
		timer_stop(&(fixture)->deadline);                                                                      \
		assert_true(condition);                                                                                \
	} while (0)

static void open_server(struct fixture *f, const char *address, uint64_t cluster)
{
	struct rpc_identity identity = { .role = RPC_CHUNKSERVER, .id = 7, .cluster = cluster };
	assert_int_equal(rpc_open(f->loop, &identity, &service, &f->server, &f->server.rpc), OK);
	assert_int_equal(rpc_listen(f->server.rpc, address), OK);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	assert_int_equal(loop_open(&f->loop), OK);
	timer_init(&f->deadline, f->loop, on_late, f);
	open_server(f, "127.0.0.1:0", 42);
	struct rpc_identity identity = { .role = RPC_CLIENT, .id = 8, .cluster = 42 };
	assert_int_equal(rpc_open(f->loop, &identity, &service, &f->client, &f->client.rpc), OK);
	f->peer = rpc_peer_open(f->client.rpc, rpc_address(f->server.rpc));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	rpc_close(f->client.rpc);
	rpc_close(f->server.rpc);
	release(&f->server);
	timer_stop(&f->deadline);
	loop_close(f->loop);
	free(f);
	return 0;
}

static rpc_call_id call_write(struct fixture *f, uint64_t chunk, struct iobuf *iobuf, uint64_t timeout_ms,
			      struct outcome *outcome)
{
	Granary__ChunkWrite write = GRANARY__CHUNK_WRITE__INIT;
	write.chunk = chunk;
	struct conn_data data = { .iobuf = iobuf, .size = iobuf == NULL ? 0 : iobuf->size };
	return rpc_peer_call(f->peer, MESSAGE_CHUNK_WRITE, &write.base, iobuf == NULL ? NULL : &data, timeout_ms, on_done,
			     outcome);
}

static void call_read(struct fixture *f, uint32_t offset, uint32_t bytes, struct outcome *outcome)
{
	Granary__ChunkRead read = GRANARY__CHUNK_READ__INIT;
	read.offset = offset;
	read.bytes = bytes;
	rpc_peer_call(f->peer, MESSAGE_CHUNK_READ, &read.base, NULL, RPC_TIMEOUT_MS, on_done, outcome);
}

static void test_echo(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome = { 0 };
	assert_true(call_write(f, 99, NULL, RPC_TIMEOUT_MS, &outcome) != 0);
	assert_int_equal(outcome.count, 0);
	wait_for(f, outcome.count == 1);
	assert_int_equal(outcome.err, OK);
	assert_int_equal(outcome.sequence, 100);
	assert_int_equal(f->server.opened, 1);
	assert_int_equal(rpc_conn_role(f->server.inbound), RPC_CLIENT);
	assert_int_equal(rpc_conn_peer_id(f->server.inbound), 8);
	assert_memory_equal(rpc_conn_peer_address(f->server.inbound), "127.0.0.1:", 10);
}

static void test_many_in_order(void **state)
{
	struct fixture *f = *state;
	static struct outcome outcomes[3000];
	memset(outcomes, 0, sizeof(outcomes));
	for (unsigned i = 0; i < 3000; i++)
		call_write(f, i + 1, NULL, RPC_TIMEOUT_MS, &outcomes[i]);
	wait_for(f, outcomes[2999].count == 1);
	for (unsigned i = 0; i < 3000; i++) {
		assert_int_equal(outcomes[i].count, 1);
		assert_int_equal(outcomes[i].sequence, i + 2);
	}
	assert_false(f->server.order_broken);
}

static void test_data_both_ways(void **state)
{
	struct fixture *f = *state;
	static const uint32_t sizes[] = { 1, 4095, 4096, 16383, 16384, 65537, FRAME_DATA_BYTES_MAX };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct iobuf *iobuf = iobuf_open(sizes[i]);
		iobuf->size = sizes[i];
		for (uint32_t k = 0; k < sizes[i]; k++)
			iobuf->bytes[k] = (uint8_t)(k * 7 + i);
		struct outcome written = { 0 }, read = { 0 };
		call_write(f, 0, iobuf, RPC_TIMEOUT_MS, &written);
		call_read(f, 0, sizes[i], &read);
		wait_for(f, written.count == 1 && read.count == 1);
		assert_int_equal(written.sequence, crc32c(iobuf->bytes, iobuf->size));
		assert_int_equal(iobuf->references, 1);
		assert_int_equal(read.data_size, sizes[i]);
		memset(iobuf->bytes, 0x5a, sizes[i]);
		assert_int_equal(read.data_crc, crc32c(iobuf->bytes, sizes[i]));
		iobuf_unref(iobuf);
	}
}

static void test_data_pipelined(void **state)
{
	struct fixture *f = *state;
	static struct outcome outcomes[200];
	memset(outcomes, 0, sizeof(outcomes));
	uint32_t crcs[200];
	for (unsigned i = 0; i < 200; i++) {
		uint32_t size = (i * 7919) % FRAME_DATA_BYTES_MAX + 1;
		struct iobuf *iobuf = iobuf_open(size);
		iobuf->size = size;
		memset(iobuf->bytes, (int)i, size);
		crcs[i] = crc32c(iobuf->bytes, size);
		/* More than CONN_OUT_BYTES_MAX would be refused. */
		call_write(f, 0, i % 3 == 0 ? NULL : iobuf, RPC_TIMEOUT_MS, &outcomes[i]);
		iobuf_unref(iobuf);
	}
	wait_for(f, outcomes[199].count == 1);
	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(outcomes[i].err, OK);
		assert_int_equal(outcomes[i].sequence, i % 3 == 0 ? 1 : crcs[i]);
	}
}

static void test_sendfile(void **state)
{
	struct fixture *f = *state;
	char path[] = "/tmp/granary_rpc_XXXXXX";
	int descriptor = mkstemp(path);
	assert_true(descriptor >= 0);
	close(descriptor);
	assert_int_equal(file_open(f->loop, path, FILE_WRITE, &f->server.file), OK);
	uint8_t *content = malloc(300000);
	for (uint32_t i = 0; i < 300000; i++)
		content[i] = (uint8_t)(i ^ (i >> 8));
	assert_int_equal(file_write(f->server.file, 0, content, 300000), OK);
	static struct outcome outcomes[40];
	memset(outcomes, 0, sizeof(outcomes));
	for (uint32_t i = 0; i < 40; i++)
		call_read(f, i * 111, 200000 + i, &outcomes[i]);
	wait_for(f, outcomes[39].count == 1);
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(outcomes[i].err, OK);
		assert_int_equal(outcomes[i].data_size, 200000 + i);
		assert_int_equal(outcomes[i].data_crc, crc32c(content + i * 111, 200000 + i));
	}
	/* Past the end: the frame cannot be completed, the connection breaks rather than lie. */
	struct outcome beyond = { 0 };
	call_read(f, 290000, 20000, &beyond);
	wait_for(f, beyond.count == 1);
	assert_int_equal(beyond.err, ERR_CLOSED);
	file_unref(f->server.file);
	f->server.file = NULL;
	free(content);
	unlink(path);
}

static void test_errors_with_text(void **state)
{
	struct fixture *f = *state;
	struct outcome meta = { 0 }, trim = { 0 };
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	rpc_peer_call(f->peer, MESSAGE_META, &request.base, NULL, RPC_TIMEOUT_MS, on_done, &meta);
	Granary__ChunkTrim chunk_trim = GRANARY__CHUNK_TRIM__INIT;
	rpc_peer_call(f->peer, MESSAGE_CHUNK_TRIM, &chunk_trim.base, NULL, RPC_TIMEOUT_MS, on_done, &trim);
	wait_for(f, meta.count == 1 && trim.count == 1);
	assert_int_equal(meta.err, ERR_NOT_LEADER);
	assert_string_equal(meta.text, "127.0.0.1:4711");
	assert_int_equal(trim.err, ERR_NO_SPACE);
	assert_string_equal(trim.text, "the cup is full");
}

static void test_deadline_and_late_reply(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome = { 0 }, next = { 0 };
	f->server.hold = true;
	call_write(f, 0, NULL, 30, &outcome);
	wait_for(f, outcome.count == 1);
	assert_int_equal(outcome.err, ERR_TIMEOUT);
	assert_int_equal(f->server.held_count, 1);
	release(&f->server);
	/* The late reply finds nobody, also when the slot is in use again. */
	call_write(f, 5, NULL, RPC_TIMEOUT_MS, &next);
	wait_for(f, next.count == 1);
	assert_int_equal(next.sequence, 6);
	assert_int_equal(outcome.count, 1);
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct outcome cancelled = { 0 }, other = { 0 };
	rpc_call_id call = call_write(f, 0, NULL, RPC_TIMEOUT_MS, &cancelled);
	rpc_call_cancel(f->client.rpc, call);
	rpc_call_cancel(f->client.rpc, call);
	rpc_call_cancel(f->client.rpc, 0);
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &other);
	wait_for(f, other.count == 1);
	assert_int_equal(cancelled.count, 0);
	assert_int_equal(f->server.served, 2);
}

static void test_unreachable(void **state)
{
	struct fixture *f = *state;
	char address[64];
	snprintf(address, sizeof(address), "%s", rpc_address(f->server.rpc));
	rpc_close(f->server.rpc);
	f->server.rpc = NULL;
	struct outcome outcome = { 0 }, invalid = { 0 };
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &outcome);
	assert_int_equal(outcome.count, 0);
	wait_for(f, outcome.count == 1);
	assert_int_equal(outcome.err, ERR_UNREACHABLE);

	struct rpc_peer *nowhere = rpc_peer_open(f->client.rpc, "no port here");
	Granary__ChunkSync sync = GRANARY__CHUNK_SYNC__INIT;
	rpc_peer_call(nowhere, MESSAGE_CHUNK_SYNC, &sync.base, NULL, RPC_TIMEOUT_MS, on_done, &invalid);
	assert_int_equal(invalid.count, 0);
	wait_for(f, invalid.count == 1);
	assert_int_equal(invalid.err, ERR_UNREACHABLE);
	rpc_peer_close(nowhere);
}

static void test_peer_death_and_reconnect(void **state)
{
	struct fixture *f = *state;
	struct outcome before = { 0 }, during = { 0 }, after = { 0 };
	char address[64];
	snprintf(address, sizeof(address), "%s", rpc_address(f->server.rpc));
	f->server.hold = true;
	call_write(f, 0, NULL, 60000, &before);
	wait_for(f, f->server.held_count == 1);
	rpc_close(f->server.rpc);
	wait_for(f, before.count == 1);
	assert_int_equal(before.err, ERR_CLOSED);
	/* The request outlives its connection. */
	assert_null(f->server.held[0]->conn);
	release(&f->server);
	assert_int_equal(f->server.closed, 1);

	f->server.rpc = NULL;
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &during);
	wait_for(f, during.count == 1);
	assert_int_equal(during.err, ERR_UNREACHABLE);

	open_server(f, address, 42);
	call_write(f, 1, NULL, RPC_TIMEOUT_MS, &after);
	wait_for(f, after.count == 1);
	assert_int_equal(after.err, OK);
	assert_int_equal(f->server.opened, 2);
}

static void test_served_is_bounded(void **state)
{
	struct fixture *f = *state;
	static struct outcome outcomes[RPC_SERVED_PER_CONN_MAX * 3];
	memset(outcomes, 0, sizeof(outcomes));
	const unsigned count = RPC_SERVED_PER_CONN_MAX * 3;
	f->server.hold = true;
	for (unsigned i = 0; i < count; i++)
		call_write(f, i + 1, NULL, 60000, &outcomes[i]);
	wait_for(f, f->server.held_count == RPC_SERVED_PER_CONN_MAX);
	/* A call over another connection gets through meanwhile, and none of this one does. */
	struct outcome other = { 0 };
	struct rpc_identity identity = { .role = RPC_TOOL, .id = 9 };
	struct side third = { 0 };
	assert_int_equal(rpc_open(f->loop, &identity, NULL, NULL, &third.rpc), OK);
	struct rpc_peer *peer = rpc_peer_open(third.rpc, rpc_address(f->server.rpc));
	Granary__ChunkSync sync = GRANARY__CHUNK_SYNC__INIT;
	rpc_peer_call(peer, MESSAGE_CHUNK_SYNC, &sync.base, NULL, 60000, on_done, &other);
	wait_for(f, f->server.held_count == RPC_SERVED_PER_CONN_MAX + 1);
	release(&f->server);
	wait_for(f, outcomes[count - 1].count == 1 && other.count == 1);
	assert_int_equal(f->server.served, count + 1);
	assert_false(f->server.order_broken);
	rpc_close(third.rpc);
}

static void test_calls_are_bounded(void **state)
{
	struct fixture *f = *state;
	static struct outcome outcomes[RPC_CALLS_PER_CONN_MAX + 1];
	memset(outcomes, 0, sizeof(outcomes));
	for (unsigned i = 0; i <= RPC_CALLS_PER_CONN_MAX; i++)
		call_write(f, 0, NULL, 60000, &outcomes[i]);
	assert_int_equal(outcomes[RPC_CALLS_PER_CONN_MAX].count, 0);
	wait_for(f, outcomes[RPC_CALLS_PER_CONN_MAX].count == 1 && outcomes[RPC_CALLS_PER_CONN_MAX - 1].count == 1);
	assert_int_equal(outcomes[RPC_CALLS_PER_CONN_MAX].err, ERR_BUSY);
	assert_int_equal(outcomes[RPC_CALLS_PER_CONN_MAX - 1].err, OK);
}

static void test_out_bytes_are_bounded(void **state)
{
	struct fixture *f = *state;
	static struct outcome outcomes[400];
	memset(outcomes, 0, sizeof(outcomes));
	struct iobuf *iobuf = iobuf_open(FRAME_DATA_BYTES_MAX);
	iobuf->size = FRAME_DATA_BYTES_MAX;
	memset(iobuf->bytes, 1, iobuf->size);
	unsigned refused = 0, served = 0;
	for (unsigned i = 0; i < 400; i++)
		call_write(f, 0, iobuf, 60000, &outcomes[i]);
	unsigned done = 0;
	while (done < 400) {
		wait_for(f, outcomes[done].count == 1);
		refused += outcomes[done].err == ERR_BUSY;
		served += outcomes[done].err == OK;
		done++;
	}
	assert_int_equal(refused + served, 400);
	assert_true(served >= CONN_OUT_BYTES_MAX / FRAME_DATA_BYTES_MAX);
	assert_true(refused > 0);
	iobuf_unref(iobuf);
}

static void raw_frame(struct buf *out, enum message_type type, uint64_t id, const ProtobufCMessage *message)
{
	struct buf packed = { 0 };
	uint8_t bytes[FRAME_HEADER_BYTES];
	message_pack(message, &packed);
	struct frame_header header = { .type = (uint16_t)type, .id = id, .message_bytes = (uint32_t)packed.size };
	frame_pack(&header, buf_slice(&packed), bytes);
	buf_append(out, bytes, sizeof(bytes));
	buf_append_slice(out, buf_slice(&packed));
	buf_deinit(&packed);
}

static int raw_connect(const char *address)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
	int descriptor = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(descriptor, (struct sockaddr *)&to, sizeof(to)), 0);
	return descriptor;
}

/* A client that asks and does not read: its requests wait once CONN_OUT_BYTES_MAX of answers do, and go on when it reads. */
static void test_replies_are_bounded(void **state)
{
	struct fixture *f = *state;
	enum { ASKED = 400, FIT = CONN_OUT_BYTES_MAX / FRAME_DATA_BYTES_MAX };
	struct buf out = { 0 };
	Granary__Hello hello = GRANARY__HELLO__INIT;
	hello.protocol = hello.protocol_min = 1;
	raw_frame(&out, MESSAGE_HELLO, UINT64_MAX, &hello.base);
	Granary__ChunkRead read = GRANARY__CHUNK_READ__INIT;
	read.bytes = FRAME_DATA_BYTES_MAX;
	for (uint64_t id = 1; id <= ASKED; id++)
		raw_frame(&out, MESSAGE_CHUNK_READ, id, &read.base);
	int raw = raw_connect(rpc_address(f->server.rpc));
	assert_int_equal(send(raw, out.bytes, out.size, 0), out.size);
	wait_for(f, f->server.served >= FIT);
	for (int turn = 0; turn < 20; turn++) {
		timer_start(&f->deadline, 1);
		loop_run_once(f->loop);
	}
	/* What the sockets' buffers took comes on top; far from everything. */
	assert_in_range(f->server.served, FIT, ASKED - 100);
	static uint8_t sink[1 << 20];
	size_t received = 0;
	while (received < (size_t)ASKED * FRAME_DATA_BYTES_MAX) {
		ssize_t got = recv(raw, sink, sizeof(sink), MSG_DONTWAIT);
		assert_true(got != 0);
		received += got > 0 ? (size_t)got : 0;
		timer_start(&f->deadline, 1);
		loop_run_once(f->loop);
	}
	assert_int_equal(f->server.served, ASKED);
	close(raw);
	buf_deinit(&out);
	wait_for(f, f->server.inbound == NULL);
}

static void another_client(struct fixture *f, struct side *side, struct rpc_peer **peer)
{
	static const struct rpc_identity identity = { .role = RPC_TOOL, .id = 9 };
	assert_int_equal(rpc_open(f->loop, &identity, NULL, NULL, &side->rpc), OK);
	*peer = rpc_peer_open(side->rpc, rpc_address(f->server.rpc));
}

static void call_sync(struct rpc_peer *peer, struct outcome *outcome)
{
	Granary__ChunkSync sync = GRANARY__CHUNK_SYNC__INIT;
	rpc_peer_call(peer, MESSAGE_CHUNK_SYNC, &sync.base, NULL, 60000, on_done, outcome);
}

/* Two clients ask: each is served no more than its share at once, and one with a single request is not behind all of the other's. */
static void test_clients_share(void **state)
{
	struct fixture *f = *state;
	enum { GREEDY = 2000, SHARE = RPC_SERVED_SHARED_MAX / 2 };
	static struct outcome outcomes[GREEDY];
	struct outcome light = { 0 };
	struct side other = { 0 };
	struct rpc_peer *peer;
	memset(outcomes, 0, sizeof(outcomes));
	another_client(f, &other, &peer);
	f->server.hold = true;
	call_sync(peer, &light);
	wait_for(f, f->server.held_count == 1);
	for (unsigned i = 0; i < GREEDY; i++)
		call_write(f, i + 1, NULL, 60000, &outcomes[i]);
	wait_for(f, f->server.held_count >= 1 + SHARE);
	for (int turn = 0; turn < 20; turn++) {
		timer_start(&f->deadline, 1);
		loop_run_once(f->loop);
	}
	assert_int_equal(f->server.held_count, 1 + SHARE);
	/* One that waits for others does not count. */
	rpc_request_waits(f->server.held[1]);
	rpc_request_waits(f->server.held[1]);
	for (unsigned i = 2; i < 2 + SHARE / 2; i++)
		rpc_request_waits(f->server.held[i]);
	wait_for(f, f->server.held_count > 1 + SHARE);
	release(&f->server);
	wait_for(f, outcomes[GREEDY - 1].count == 1 && light.count == 1);
	assert_int_equal(f->server.served, GREEDY + 1);
	assert_false(f->server.order_broken);
	/* Requests that are answered at once: nobody's come all before the other's. */
	for (unsigned i = 0; i < GREEDY; i++)
		call_write(f, 0, NULL, 60000, &outcomes[i]);
	wait_for(f, outcomes[0].count == 2);
	call_sync(peer, &light);
	wait_for(f, light.count == 2);
	assert_int_equal(outcomes[GREEDY - 1].count, 1);
	wait_for(f, outcomes[GREEDY - 1].count == 2);
	rpc_close(other.rpc);
}

/* Requests before the hello, a hello that is no hello, a second one, an answer to nothing asked. */
static void test_manners(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < 4; i++) {
		struct buf out = { 0 };
		Granary__Hello hello = GRANARY__HELLO__INIT;
		hello.protocol = hello.protocol_min = 1;
		Granary__ChunkSync sync = GRANARY__CHUNK_SYNC__INIT;
		if (i != 0)
			raw_frame(&out, MESSAGE_HELLO, i == 1 ? 5 : UINT64_MAX, &hello.base);
		if (i == 2)
			raw_frame(&out, MESSAGE_HELLO, UINT64_MAX, &hello.base);
		raw_frame(&out, MESSAGE_CHUNK_SYNC, 1, &sync.base);
		if (i == 3) {
			/* A field of the wrong kind: ChunkSync.version as bytes that end too early. */
			struct frame_header header = { .type = MESSAGE_CHUNK_SYNC, .id = 2, .message_bytes = 2 };
			uint8_t bytes[FRAME_HEADER_BYTES];
			frame_pack(&header, slice_of("\x12\x7f", 2), bytes);
			buf_append(&out, bytes, sizeof(bytes));
			buf_append(&out, "\x12\x7f", 2);
		}
		uint64_t malformed = conn_malformed_count(f->loop);
		int raw = raw_connect(rpc_address(f->server.rpc));
		assert_int_equal(send(raw, out.bytes, out.size, 0), out.size);
		wait_for(f, conn_malformed_count(f->loop) == malformed + 1);
		assert_int_equal(f->server.served, i == 3);
		close(raw);
		buf_deinit(&out);
	}
	struct outcome outcome = { 0 };
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &outcome);
	wait_for(f, outcome.count == 1);
	assert_int_equal(outcome.err, OK);
}

static void test_server_calls_back(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome = { 0 }, back = { 0 };
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &outcome);
	wait_for(f, outcome.count == 1);
	Granary__ChunkWrite write = GRANARY__CHUNK_WRITE__INIT;
	write.chunk = 1;
	rpc_conn_call(f->server.inbound, MESSAGE_CHUNK_WRITE, &write.base, RPC_TIMEOUT_MS, on_done, &back);
	wait_for(f, back.count == 1);
	assert_int_equal(back.err, OK);
	assert_int_equal(back.sequence, 2);
	assert_int_equal(f->client.served, 1);
}

static void test_one_way(void **state)
{
	struct fixture *f = *state;
	Granary__RaftMessage message = GRANARY__RAFT_MESSAGE__INIT;
	for (unsigned i = 0; i < 10; i++)
		rpc_peer_send(f->peer, MESSAGE_RAFT, &message.base);
	wait_for(f, f->server.served == 10);
	/* The service answered them with an error, which must not have been sent. */
	struct outcome outcome = { 0 };
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &outcome);
	wait_for(f, outcome.count == 1);
	assert_int_equal(outcome.err, OK);
}

static void test_other_cluster_is_refused(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome = { 0 };
	rpc_set_cluster(f->client.rpc, 43);
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &outcome);
	wait_for(f, outcome.count == 1);
	assert_int_equal(outcome.err, ERR_WRONG_CLUSTER);
	assert_int_equal(f->server.served, 0);
	rpc_set_cluster(f->client.rpc, 42);
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &outcome);
	wait_for(f, outcome.count == 2);
	assert_int_equal(outcome.err, OK);
}

static void test_close_cancels(void **state)
{
	struct fixture *f = *state;
	struct outcome outcome = { 0 }, by_peer = { 0 };
	f->server.hold = true;
	struct rpc_peer *same = rpc_peer_open(f->client.rpc, rpc_peer_address(f->peer));
	assert_ptr_equal(same, f->peer);
	rpc_peer_close(same);
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &by_peer);
	rpc_peer_close(f->peer);
	assert_int_equal(by_peer.count, 0);
	wait_for(f, by_peer.count == 1);
	assert_int_equal(by_peer.err, ERR_CANCELLED);
	f->peer = rpc_peer_open(f->client.rpc, rpc_address(f->server.rpc));
	call_write(f, 0, NULL, RPC_TIMEOUT_MS, &outcome);
	wait_for(f, f->server.held_count >= 1);
	rpc_close(f->client.rpc);
	f->client.rpc = NULL;
	assert_int_equal(outcome.count, 1);
	assert_int_equal(outcome.err, ERR_CANCELLED);
	wait_for(f, f->server.inbound == NULL);
}

#define test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_echo),
		test(test_many_in_order),
		test(test_data_both_ways),
		test(test_data_pipelined),
		test(test_sendfile),
		test(test_errors_with_text),
		test(test_deadline_and_late_reply),
		test(test_cancel),
		test(test_unreachable),
		test(test_peer_death_and_reconnect),
		test(test_served_is_bounded),
		test(test_calls_are_bounded),
		test(test_out_bytes_are_bounded),
		test(test_replies_are_bounded),
		test(test_clients_share),
		test(test_manners),
		test(test_server_calls_back),
		test(test_one_way),
		test(test_other_cluster_is_refused),
		test(test_close_cancels),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
