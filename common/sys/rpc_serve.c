#include "common/sys/rpc_internal.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"

bool rpc_conn_is_client(const struct rpc_conn *conn)
{
	return conn->role != RPC_MASTER && conn->role != RPC_CHUNKSERVER;
}

static bool must_hold(const struct rpc_conn *conn)
{
	return conn->turn_over || conn->backlogged >= RPC_BACKLOG_PER_CONN_MAX || conn_is_full(conn->conn) ||
	       rpc_share_is_used_up(&conn->rpc->share, &conn->claim, rpc_conn_is_client(conn), conn->held);
}

/* Holds an inbound peer back while it has too much here. An outbound connection is always read: were both ends to wait
 * for the other to read, neither would go on. */
void rpc_update_hold(struct rpc_conn *conn)
{
	bool hold = must_hold(conn);
	if (conn->peer != NULL || hold == conn->held)
		return;
	conn->held = hold;
	conn_pause(conn->conn, hold);
}

static bool turn_has_time(struct rpc *rpc)
{
	uint64_t now_us = loop_now_us(rpc->loop);
	if (rpc->turn_start_us == 0)
		rpc->turn_start_us = now_us;
	return now_us - rpc->turn_start_us < RPC_TURN_US_MAX;
}

static void hand_on(struct rpc *rpc, struct served *served)
{
	rpc->service->serve(rpc->service_arg, &served->request);
}

static void backlog_add(struct rpc *rpc, struct served *served)
{
	served->next_backlog = NULL;
	if (rpc->backlog_last != NULL)
		rpc->backlog_last->next_backlog = served;
	else
		rpc->backlog_first = served;
	rpc->backlog_last = served;
	served->request.conn->backlogged++;
	rpc_update_hold(served->request.conn);
	timer_start(&rpc->turn, 0);
}

static struct served *backlog_take(struct rpc *rpc)
{
	struct served *served = rpc->backlog_first;
	rpc->backlog_first = served->next_backlog;
	if (rpc->backlog_first == NULL)
		rpc->backlog_last = NULL;
	return served;
}

static void served_remove(struct rpc_request *request);

/* Those whose connection has closed meanwhile nobody waits for. */
static void backlog_serve(struct rpc *rpc)
{
	while (rpc->backlog_first != NULL && turn_has_time(rpc)) {
		struct served *served = backlog_take(rpc);
		if (served->request.conn == NULL) {
			served_remove(&served->request);
			continue;
		}
		served->request.conn->backlogged--;
		rpc_update_hold(served->request.conn);
		hand_on(rpc, served);
	}
	if (rpc->backlog_first != NULL)
		timer_start(&rpc->turn, 0);
	else
		defer_post(&rpc->turn_end);
}

/* The next turn of the loop: those that had theirs are read again. */
static void on_turn(void *arg)
{
	struct rpc *rpc = arg;
	rpc->share.turn++;
	rpc->turn_start_us = 0;
	backlog_serve(rpc);
	struct rpc_conn *conn = rpc->turns;
	rpc->turns = NULL;
	while (conn != NULL) {
		struct rpc_conn *next = conn->next_turn;
		conn->turn_over = false;
		rpc_update_hold(conn);
		conn = next;
	}
}

static void on_turn_end(void *arg)
{
	struct rpc *rpc = arg;
	rpc->share.turn++;
	rpc->turn_start_us = 0;
}

/* Requests that are answered at once do not add up in its share, but in its turn. */
static void count_request(struct rpc_conn *conn, const struct served *served)
{
	struct rpc *rpc = conn->rpc;
	if (conn->peer != NULL)
		return;
	rpc_share_ask(&rpc->share, &conn->claim, loop_now_ms(rpc->loop), served->bytes, rpc_conn_is_client(conn));
	defer_post(&rpc->turn_end);
	if (conn->turn_over || !rpc_share_turn_is_over(&rpc->share, &conn->claim, rpc_conn_is_client(conn)))
		return;
	conn->turn_over = true;
	conn->next_turn = rpc->turns;
	rpc->turns = conn;
	timer_start(&rpc->turn, 0);
}

static void served_remove(struct rpc_request *request)
{
	struct served *served = container_of(request, struct served, request);
	struct rpc_conn *conn = request->conn;
	if (conn != NULL) {
		if (served->previous != NULL)
			served->previous->next = served->next;
		else
			conn->served_first = served->next;
		if (served->next != NULL)
			served->next->previous = served->previous;
		if (conn->peer == NULL)
			rpc_share_end(&conn->claim, served->bytes, served->waits);
		rpc_update_hold(conn);
	}
	message_free((ProtobufCMessage *)(uintptr_t)request->message);
	iobuf_unref(request->data);
	free(served);
}

void rpc_serve(struct rpc_conn *conn, const struct frame_header *header, struct slice bytes, struct iobuf *data)
{
	struct rpc *rpc = conn->rpc;
	bool one_way = header->flags & FRAME_ONE_WAY;
	const ProtobufCMessageDescriptor *descriptor = message_request(header->type);
	if (descriptor == NULL || rpc->service == NULL || conn->state == CONN_REFUSED) {
		iobuf_unref(data);
		if (!one_way)
			rpc_send_error(conn, header->type, header->id,
				   conn->state == CONN_REFUSED ? conn->refusal : ERR_NOT_SUPPORTED, NULL);
		return;
	}
	ProtobufCMessage *message = NULL;
	if (message_unpack(descriptor, bytes, &message) != OK) {
		iobuf_unref(data);
		conn_reject(conn->conn);
		return;
	}
	struct served *served = mem_zero(1, sizeof(*served));
	served->request = (struct rpc_request){
		.conn = conn, .type = header->type, .id = header->id, .message = message, .data = data
	};
	served->one_way = one_way;
	served->bytes = header->message_bytes + (uint64_t)header->data_bytes;
	served->next = conn->served_first;
	if (served->next != NULL)
		served->next->previous = served;
	conn->served_first = served;
	count_request(conn, served);
	rpc_update_hold(conn);
	if (conn->peer != NULL || !rpc_conn_is_client(conn) || (rpc->backlog_first == NULL && turn_has_time(rpc)))
		hand_on(rpc, served);
	else
		backlog_add(rpc, served);
}

void rpc_request_waits(struct rpc_request *request)
{
	struct served *served = container_of(request, struct served, request);
	struct rpc_conn *conn = request->conn;
	if (served->waits || conn == NULL || conn->peer != NULL)
		return;
	served->waits = true;
	conn->claim.waiting++;
	rpc_update_hold(conn);
}

void rpc_reply_data(struct rpc_request *request, const ProtobufCMessage *reply, const struct conn_data *data)
{
	const struct served *served = container_of(request, struct served, request);
	if (request->conn != NULL && !served->one_way) {
		check(reply->descriptor == message_reply(request->type));
		if (data != NULL)
			rpc_share_answer(&request->conn->rpc->share, &request->conn->claim, data->size);
		struct frame_header header = { .type = (uint16_t)request->type, .flags = FRAME_REPLY, .id = request->id };
		rpc_send_message(request->conn, &header, reply, data);
	}
	served_remove(request);
}

void rpc_reply(struct rpc_request *request, const ProtobufCMessage *reply)
{
	rpc_reply_data(request, reply, NULL);
}

void rpc_reply_error(struct rpc_request *request, enum err err, const char *text)
{
	const struct served *served = container_of(request, struct served, request);
	if (request->conn != NULL && !served->one_way)
		rpc_send_error(request->conn, request->type, request->id, err, text);
	served_remove(request);
}

void rpc_serve_forget(struct rpc_conn *conn)
{
	struct rpc_conn **link = &conn->rpc->turns;
	for (struct served *served = conn->served_first; served != NULL; served = served->next)
		served->request.conn = NULL;
	if (!conn->turn_over)
		return;
	while (*link != conn)
		link = &(*link)->next_turn;
	*link = conn->next_turn;
}

void rpc_serve_open(struct rpc *rpc)
{
	timer_init(&rpc->turn, rpc->loop, on_turn, rpc);
	defer_init(&rpc->turn_end, rpc->loop, on_turn_end, rpc);
}

void rpc_serve_close(struct rpc *rpc)
{
	while (rpc->backlog_first != NULL)
		served_remove(&backlog_take(rpc)->request);
	timer_stop(&rpc->turn);
	defer_cancel(&rpc->turn_end);
}
