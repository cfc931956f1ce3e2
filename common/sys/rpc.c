#include "common/sys/rpc_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "common/sys/options.h"

#define PROTOCOL 1u
#define PROTOCOL_MIN 1u
/* The request id of a hello; ids of calls never reach it. */
#define HELLO_ID UINT64_MAX

static const struct conn_events conn_events;

/* ---------------------------------------------------------------- sending */

void rpc_send_message(struct rpc_conn *conn, const struct frame_header *header, const ProtobufCMessage *message,
			 const struct conn_data *data)
{
	struct buf *scratch = &conn->rpc->scratch;
	buf_clear(scratch);
	if (message != NULL)
		message_pack(message, scratch);
	conn_send(conn->conn, header, buf_slice(scratch), data);
}

static void send_hello(struct rpc_conn *conn, uint16_t flags)
{
	const struct rpc_identity *identity = &conn->rpc->identity;
	Granary__Hello hello = GRANARY__HELLO__INIT;
	hello.protocol = PROTOCOL;
	hello.protocol_min = PROTOCOL_MIN;
	hello.role = identity->role;
	hello.id = identity->id;
	hello.cluster = identity->cluster;
	hello.version = (char *)(uintptr_t)granary_version();
	hello.process = conn->rpc->process;
	hello.life = identity->life;
	struct frame_header header = { .type = MESSAGE_HELLO, .flags = flags, .id = HELLO_ID };
	rpc_send_message(conn, &header, &hello.base, NULL);
}

void rpc_send_error(struct rpc_conn *conn, unsigned type, uint64_t id, enum err err, const char *text)
{
	check(err != OK);
	Granary__ErrorReply reply = GRANARY__ERROR_REPLY__INIT;
	char *explanation = (char *)(uintptr_t)(text == NULL ? "" : text);
	if (err == ERR_NOT_LEADER)
		reply.leader = explanation;
	else
		reply.text = explanation;
	struct frame_header header = { .type = (uint16_t)type, .flags = FRAME_REPLY | FRAME_ERROR, .id = id, .error = err };
	rpc_send_message(conn, &header, &reply.base, NULL);
}

/* ---------------------------------------------------------------- connections */

static struct rpc_conn *conn_add(struct rpc *rpc, struct rpc_peer *peer, enum rpc_conn_state state);

/* Everything but the frame connection, which is closed already. */
static void conn_remove(struct rpc_conn *conn, enum err why, const char *text)
{
	struct rpc *rpc = conn->rpc;
	timer_stop(&conn->patience);
	rpc_serve_forget(conn);
	rpc->clients -= conn->counted;
	if (conn->previous != NULL)
		conn->previous->next = conn->next;
	else
		rpc->conns = conn->next;
	if (conn->next != NULL)
		conn->next->previous = conn->previous;
	if (conn->peer != NULL)
		conn->peer->conn = NULL;
	conn->conn = NULL;
	rpc_call_list_end(&conn->calls, why, text);
	if (conn->peer == NULL && conn->state == CONN_OPEN && rpc->service != NULL && rpc->service->closed != NULL)
		rpc->service->closed(rpc->service_arg, conn);
	free(conn);
}

static void conn_drop(struct rpc_conn *conn, enum err why, const char *text)
{
	conn_close(conn->conn);
	conn_remove(conn, why, text);
}

static void on_patience(void *arg)
{
	struct rpc_conn *conn = arg;
	log_info("rpc_patience", "peer=%s state=%d", conn_peer(conn->conn), (int)conn->state);
	conn_drop(conn, conn->state == CONN_CONNECTING ? ERR_UNREACHABLE : ERR_CLOSED, "");
}

static struct rpc_conn *conn_add(struct rpc *rpc, struct rpc_peer *peer, enum rpc_conn_state state)
{
	struct rpc_conn *conn = mem_zero(1, sizeof(*conn));
	conn->rpc = rpc;
	conn->peer = peer;
	conn->state = state;
	timer_init(&conn->patience, rpc->loop, on_patience, conn);
	conn->next = rpc->conns;
	if (rpc->conns != NULL)
		rpc->conns->previous = conn;
	rpc->conns = conn;
	return conn;
}

static void on_accepted(void *arg, struct conn *frames)
{
	struct rpc_conn *conn = conn_add(arg, NULL, CONN_WAITING);
	conn->conn = frames;
	conn_set_events(frames, &conn_events, conn);
	timer_start(&conn->patience, RPC_TIMEOUT_MS);
}

static void on_connected(void *arg)
{
	struct rpc_conn *conn = arg;
	timer_stop(&conn->patience);
	conn->state = CONN_WAITING;
}

static void on_closed(void *arg, enum err why)
{
	struct rpc_conn *conn = arg;
	if (conn->state == CONN_CONNECTING)
		why = ERR_UNREACHABLE;
	else if (conn->state == CONN_REFUSED)
		why = conn->refusal;
	else
		why = ERR_CLOSED;
	conn_remove(conn, why, "");
}

/* ---------------------------------------------------------------- hello */

static enum err hello_check(const struct rpc *rpc, const Granary__Hello *hello)
{
	if (hello->protocol < PROTOCOL_MIN || hello->protocol_min > PROTOCOL)
		return ERR_VERSION_MISMATCH;
	if (hello->cluster != 0 && rpc->identity.cluster != 0 && hello->cluster != rpc->identity.cluster)
		return ERR_WRONG_CLUSTER;
	return OK;
}

/* Servers find room however many clients there are. */
static enum err client_admit(struct rpc_conn *conn)
{
	struct rpc *rpc = conn->rpc;
	if (!rpc_conn_is_client(conn))
		return OK;
	if (rpc->clients >= conn_count_max(rpc->loop) / 4 * 3)
		return ERR_TOO_MANY;
	conn->counted = true;
	rpc->clients++;
	return OK;
}

/* A process has come in the place of another: what that one had sent, and is still on its way, is not to be taken for the new one's. (A
 * write could arrive after others have written over it.) */
static void drop_former_lives(const struct rpc_conn *conn)
{
	struct rpc_conn *other = conn->rpc->conns;
	while (other != NULL) {
		bool former = other->peer == NULL && other->role == conn->role && other->peer_id == conn->peer_id &&
			      other->process != conn->process && other->state == CONN_OPEN;
		if (!former) {
			other = other->next;
			continue;
		}
		log_info("former_life_dropped", "peer=%s id=%016" PRIx64, conn_peer(other->conn), other->peer_id);
		conn_drop(other, ERR_CLOSED, "");
		other = conn->rpc->conns;
	}
}

/* The same the other way round: the hello itself was on its way all the time, and the server's next process is here. */
static bool is_former_life(const struct rpc_conn *conn, const Granary__Hello *hello)
{
#ifdef PLANT_FORMER_HELLO
	return false;
#endif
	if (hello->role != RPC_CHUNKSERVER || hello->life == 0)
		return false;
	for (const struct rpc_conn *other = conn->rpc->conns; other != NULL; other = other->next) {
		if (other->peer == NULL && other->role == RPC_CHUNKSERVER && other->peer_id == hello->id && other->state == CONN_OPEN &&
		    other->life > hello->life)
			return true;
	}
	return false;
}

static void hello_request(struct rpc_conn *conn, const Granary__Hello *hello)
{
	struct rpc *rpc = conn->rpc;
	enum err err = hello_check(rpc, hello);
	conn->role = hello->role;
	if (err == OK)
		err = client_admit(conn);
	if (err != OK) {
		log_warn("hello_refused", "peer=%s error=%s cluster=%" PRIu64 " protocol=%u", conn_peer(conn->conn),
			 err_name(err), hello->cluster, hello->protocol);
		/* The answer has to get out: the other end closes, or our patience ends. */
		conn->state = CONN_REFUSED;
		conn->refusal = err;
		rpc_send_error(conn, MESSAGE_HELLO, HELLO_ID, err, NULL);
		return;
	}
	if (is_former_life(conn, hello)) {
		log_info("former_life_refused", "peer=%s id=%016" PRIx64, conn_peer(conn->conn), hello->id);
		conn_drop(conn, ERR_CLOSED, "");
		return;
	}
	timer_stop(&conn->patience);
	conn->peer_id = hello->id;
	conn->process = hello->process;
	conn->life = hello->life;
	conn->state = CONN_OPEN;
#ifndef PLANT_FORMER_LIFE
	if (conn->role == RPC_CHUNKSERVER && conn->process != 0)
		drop_former_lives(conn);
#endif
	send_hello(conn, FRAME_REPLY);
	if (rpc->service != NULL && rpc->service->opened != NULL)
		rpc->service->opened(rpc->service_arg, conn);
}

static void hello_reply(struct rpc_conn *conn, const struct frame_header *header, const Granary__Hello *hello)
{
	enum err err = hello == NULL ? err_from_wire(header->error) : hello_check(conn->rpc, hello);
	if (err != OK || hello == NULL) {
		log_warn("hello_refused", "peer=%s error=%s", conn_peer(conn->conn), err_name(err));
		/* No room for another client just now: not what is said of the request. */
		conn_drop(conn, err == ERR_TOO_MANY ? ERR_BUSY : err, "");
		return;
	}
	conn->role = hello->role;
	conn->peer_id = hello->id;
	conn->state = CONN_OPEN;
}

/* The first frame each way, and never again. */
static void on_hello(struct rpc_conn *conn, const struct frame_header *header, struct slice bytes)
{
	bool reply = header->flags & FRAME_REPLY;
	if (header->id != HELLO_ID || reply != (conn->peer != NULL) || conn->state != CONN_WAITING) {
		conn_reject(conn->conn);
		return;
	}
	if (header->flags & FRAME_ERROR) {
		hello_reply(conn, header, NULL);
		return;
	}
	const ProtobufCMessage *message;
	if (message_unpack_whole(&granary__hello__descriptor, bytes, &message) != OK) {
		conn_reject(conn->conn);
		return;
	}
	if (reply)
		hello_reply(conn, header, (const Granary__Hello *)message);
	else
		hello_request(conn, (const Granary__Hello *)message);
	message_unref(message);
}

/* ---------------------------------------------------------------- replies */

static void reply_error(struct rpc_call *call, const struct frame_header *header, struct slice bytes)
{
	const ProtobufCMessage *message;
	struct rpc_result result = { .err = err_from_wire(header->error), .text = "" };
	if (message_unpack_whole(&granary__error_reply__descriptor, bytes, &message) == OK) {
		const Granary__ErrorReply *reply = (const Granary__ErrorReply *)message;
		result.text = result.err == ERR_NOT_LEADER ? reply->leader : reply->text;
	}
	rpc_call_end(call, &result);
	message_unref(message);
}

static void reply_message(struct rpc_call *call, struct slice bytes, struct iobuf *data)
{
	const ProtobufCMessage *message;
	struct conn *frames = call->conn->conn;
	if (message_unpack_whole(message_reply(call->type), bytes, &message) != OK) {
		/* The rejection ends this call with all others of the connection. */
		conn_reject(frames);
		return;
	}
	struct rpc_result result = { .err = OK, .reply = message, .data = data, .text = "" };
	rpc_call_end(call, &result);
	message_unref(message);
}

static void on_reply(struct rpc_conn *conn, const struct frame_header *header, struct slice bytes, struct iobuf *data)
{
	struct rpc_call *call = rpc_calls_find(&conn->rpc->calls, header->id);
	/* None: it was cancelled or its time was up. */
	if (call != NULL && (call->conn != conn || (unsigned)call->type != header->type))
		conn_reject(conn->conn);
	else if (call != NULL && (header->flags & FRAME_ERROR))
		reply_error(call, header, bytes);
	else if (call != NULL)
		reply_message(call, bytes, data);
	iobuf_unref(data);
}

static void on_frame(void *arg, const struct frame_header *header, struct slice message, struct iobuf *data)
{
	struct rpc_conn *conn = arg;
	bool hello = header->type == MESSAGE_HELLO;
	if (hello) {
		iobuf_unref(data);
		on_hello(conn, header, message);
	} else if (conn->state == CONN_WAITING) {
		iobuf_unref(data);
		conn_reject(conn->conn);
	} else if (header->flags & FRAME_REPLY) {
		on_reply(conn, header, message, data);
	} else {
		rpc_serve(conn, header, message, data);
	}
}

static void on_drained(void *arg)
{
	rpc_update_hold(arg);
}

static const struct conn_events conn_events = {
	.frame = on_frame,
	.connected = on_connected,
	.closed = on_closed,
	.drained = on_drained,
};

/* ---------------------------------------------------------------- calls */

static rpc_call_id call_refused(struct rpc *rpc, enum message_type type, rpc_done_fn *done, void *arg, enum err err)
{
	struct rpc_call *call = rpc_calls_add(&rpc->calls, &rpc->calls.failing, type, done, arg);
	rpc_call_fail_later(call, err);
	return call->id;
}

static bool conn_is_used_up(const struct rpc_conn *conn)
{
	return conn->calls.count >= RPC_CALLS_PER_CONN_MAX || conn_is_full(conn->conn) || rpc_calls_full(&conn->rpc->calls);
}

static rpc_call_id conn_call(struct rpc_conn *conn, enum message_type type, const ProtobufCMessage *message,
			     const struct conn_data *data, uint64_t timeout_ms, rpc_done_fn *done, void *arg)
{
	check(message->descriptor == message_request(type));
	if (conn->conn == NULL)
		return call_refused(conn->rpc, type, done, arg, ERR_CLOSED);
	if (conn_is_used_up(conn))
		return call_refused(conn->rpc, type, done, arg, ERR_BUSY);
	struct rpc_call *call = rpc_calls_add(&conn->rpc->calls, &conn->calls, type, done, arg);
	call->conn = conn;
	timer_start(&call->deadline, timeout_ms);
	struct frame_header header = { .type = (uint16_t)type, .id = call->id };
	rpc_send_message(conn, &header, message, data);
	return call->id;
}

/* The peer's connection, a new one if it has none. */
static enum err peer_connect(struct rpc_peer *peer)
{
	if (peer->conn != NULL)
		return OK;
	if (peer->rpc->closing)
		return ERR_CANCELLED;
	struct rpc_conn *conn = conn_add(peer->rpc, peer, CONN_CONNECTING);
	enum err err = conn_connect(peer->rpc->loop, peer->address, &conn_events, conn, &conn->conn);
	if (err != OK) {
		/* Without a descriptor for it the peer has not been asked. */
		err = err == ERR_TOO_MANY ? ERR_BUSY : ERR_UNREACHABLE;
		conn_remove(conn, err, "");
		return err;
	}
	peer->conn = conn;
	timer_start(&conn->patience, RPC_CONNECT_TIMEOUT_MS);
	/* Requests follow without waiting for the answer; the other side looks at the hello first. */
	send_hello(conn, 0);
	return OK;
}

rpc_call_id rpc_peer_call(struct rpc_peer *peer, enum message_type type, const ProtobufCMessage *message,
			  const struct conn_data *data, uint64_t timeout_ms, rpc_done_fn *done, void *arg)
{
	enum err err = peer_connect(peer);
	if (err != OK)
		return call_refused(peer->rpc, type, done, arg, err);
	return conn_call(peer->conn, type, message, data, timeout_ms, done, arg);
}

rpc_call_id rpc_conn_call(struct rpc_conn *conn, enum message_type type, const ProtobufCMessage *message,
			  uint64_t timeout_ms, rpc_done_fn *done, void *arg)
{
	return conn_call(conn, type, message, NULL, timeout_ms, done, arg);
}

void rpc_peer_send(struct rpc_peer *peer, enum message_type type, const ProtobufCMessage *message)
{
	check(message->descriptor == message_request(type));
	if (peer_connect(peer) != OK || conn_is_full(peer->conn->conn))
		return;
	if (peer->conn->state == CONN_CONNECTING &&
	    peer->conn->sends_while_connecting++ >= RPC_SENDS_WHILE_CONNECTING_MAX)
		return;
	struct frame_header header = { .type = (uint16_t)type, .flags = FRAME_ONE_WAY };
	rpc_send_message(peer->conn, &header, message, NULL);
}

void rpc_call_cancel(struct rpc *rpc, rpc_call_id id)
{
	struct rpc_call *call = rpc_calls_find(&rpc->calls, id);
	if (call != NULL)
		rpc_call_drop(call);
}

/* ---------------------------------------------------------------- peers */

struct rpc_peer *rpc_peer_open_lane(struct rpc *rpc, const char *address, unsigned lane)
{
	struct rpc_peer *peer = NULL;
	size_t size = strlen(address) + 16;
	char *key = mem_alloc(size);
	snprintf(key, size, "%s/%u", address, lane);
	HASH_FIND_STR(rpc->peers, key, peer);
	if (peer == NULL) {
		peer = mem_zero(1, sizeof(*peer));
		peer->rpc = rpc;
		peer->address = mem_string(address);
		peer->key = key;
		HASH_ADD_KEYPTR(hh, rpc->peers, peer->key, strlen(peer->key), peer);
	} else {
		free(key);
	}
	peer->references++;
	return peer;
}

struct rpc_peer *rpc_peer_open(struct rpc *rpc, const char *address)
{
	return rpc_peer_open_lane(rpc, address, 0);
}

static void peer_free(struct rpc_peer *peer)
{
	HASH_DEL(peer->rpc->peers, peer);
	free(peer->address);
	free(peer->key);
	free(peer);
}

void rpc_peer_close(struct rpc_peer *peer)
{
	if (peer == NULL)
		return;
	check(peer->references > 0);
	if (--peer->references > 0)
		return;
	if (peer->conn != NULL) {
		while (peer->conn->calls.first != NULL)
			rpc_call_fail_later(peer->conn->calls.first, ERR_CANCELLED);
		conn_drop(peer->conn, ERR_CANCELLED, "");
	}
	peer_free(peer);
}

bool rpc_peer_is_full(const struct rpc_peer *peer)
{
	return peer->conn != NULL && conn_is_used_up(peer->conn);
}

const char *rpc_peer_address(const struct rpc_peer *peer)
{
	return peer->address;
}

/* ---------------------------------------------------------------- the rpc */

enum err rpc_open(struct loop *loop, const struct rpc_identity *identity, const struct rpc_service *service,
		  void *service_arg, struct rpc **out)
{
	struct rpc *rpc = mem_zero(1, sizeof(*rpc));
	rpc->loop = loop;
	rpc->identity = *identity;
	rpc->process = loop_random(loop);
	rpc->service = service;
	rpc->service_arg = service_arg;
	rpc_calls_init(&rpc->calls, loop);
	rpc_serve_open(rpc);
	*out = rpc;
	return OK;
}

void rpc_close(struct rpc *rpc)
{
	if (rpc == NULL)
		return;
	rpc->closing = true;
	listener_close(rpc->listener);
	/* Calls made by the `done` of others are refused, and end in the last step. */
	while (rpc->conns != NULL)
		conn_drop(rpc->conns, ERR_CANCELLED, "");
	rpc_call_list_end(&rpc->calls.failing, ERR_CANCELLED, "");
	check(rpc->conns == NULL);
	while (rpc->peers != NULL)
		peer_free(rpc->peers);
	rpc_serve_close(rpc);
	rpc_calls_deinit(&rpc->calls);
	buf_deinit(&rpc->scratch);
	free(rpc);
}

enum err rpc_listen(struct rpc *rpc, const char *address)
{
	check(rpc->listener == NULL);
	return listener_open(rpc->loop, address, on_accepted, rpc, &rpc->listener);
}

const char *rpc_address(const struct rpc *rpc)
{
	return rpc->listener == NULL ? NULL : listener_address(rpc->listener);
}

void rpc_set_cluster(struct rpc *rpc, uint64_t cluster)
{
	rpc->identity.cluster = cluster;
}

enum rpc_role rpc_conn_role(const struct rpc_conn *conn)
{
	return (enum rpc_role)conn->role;
}

uint64_t rpc_conn_peer_id(const struct rpc_conn *conn)
{
	return conn->peer_id;
}

const char *rpc_conn_peer_address(const struct rpc_conn *conn)
{
	return conn->conn == NULL ? "" : conn_peer(conn->conn);
}

void rpc_conn_set_data(struct rpc_conn *conn, void *data)
{
	conn->data = data;
}

void *rpc_conn_data(const struct rpc_conn *conn)
{
	return conn->data;
}
