/* Requests and replies over frame connections, with deadlines and backpressure.
 *
 * One `struct rpc` a process. A peer (`struct rpc_peer`) is an address that is connected when first called and
 * connected again after a failure when next called. Both ends of a connection may call: a server calls a client back
 * over the connection that the client opened (`struct rpc_conn`).
 *
 * Every call ends exactly once: with the reply, the error that the other side answered, ERR_TIMEOUT, ERR_CLOSED (the
 * connection broke after the request was queued: it may or may not have been done), ERR_UNREACHABLE (never sent) or
 * ERR_BUSY (too many calls outstanding; never sent). `done` is never called from within rpc_*_call itself.
 * Requests of one connection are handed to the service in the order in which they were sent. When RPC_SERVED_PER_CONN_MAX
 * are being served, or a client has its share (rpc_share.h), or the replies queue up, the connection is not read any further: that
 * is the backpressure. A client that does not read its replies is cut off after CONN_FRAME_TIMEOUT_MS.
 * ERR_BUSY also says that this process lacks descriptors for the connection: the other side is not to blame.
 *
 * The first frame each way is a hello (protocol version, role, id); see granary.proto. Rpc answers it by itself. */
#ifndef GRANARY_COMMON_SYS_RPC_H
#define GRANARY_COMMON_SYS_RPC_H

#include "common/proto/message.h"
#include "common/sys/conn.h"

struct rpc;
struct rpc_conn;
struct rpc_peer;

/* A request being served. Ends with exactly one rpc_reply, rpc_reply_data or rpc_reply_error. */
struct rpc_request {
	struct rpc_conn *conn; /* NULL once the connection has closed: a reply is then dropped */
	enum message_type type;
	uint64_t id;
	const ProtobufCMessage *message; /* of message_types[type].request; in pieces; owned by the request */
	struct iobuf *data;		 /* or NULL; owned by the request */
};

struct rpc_service {
	void (*serve)(void *arg, struct rpc_request *request);
	/* An inbound connection has said hello / has closed. Optional. */
	void (*opened)(void *arg, struct rpc_conn *conn);
	void (*closed)(void *arg, struct rpc_conn *conn);
};

/* Who we are, said in every hello. Strings are borrowed for the life of the rpc. */
struct rpc_identity {
	enum rpc_role { RPC_CLIENT = 1, RPC_MASTER = 2, RPC_CHUNKSERVER = 3, RPC_TOOL = 4 } role;
	uint64_t id;
	uint64_t cluster; /* 0: not known yet, matches any */
	uint64_t life;	  /* of a chunkserver: how often it has started, counted on its disk; 0: not counted */
};

/* service may be NULL for a process that is never called. */
MUST_USE enum err rpc_open(struct loop *loop, const struct rpc_identity *identity, const struct rpc_service *service,
			   void *service_arg, struct rpc **out);
/* Ends all calls with ERR_CANCELLED, closes all connections and peers. */
void rpc_close(struct rpc *rpc);
MUST_USE enum err rpc_listen(struct rpc *rpc, const char *address);
/* As bound, "host:port"; NULL when not listening. */
const char *rpc_address(const struct rpc *rpc);
void rpc_set_cluster(struct rpc *rpc, uint64_t cluster);

void rpc_reply(struct rpc_request *request, const ProtobufCMessage *reply);
/* As rpc_reply, followed by data. */
void rpc_reply_data(struct rpc_request *request, const ProtobufCMessage *reply, const struct conn_data *data);
/* The request waits for requests of other clients: it does not count in its own client's share (rpc_share.h). */
void rpc_request_waits(struct rpc_request *request);
/* text (may be NULL) explains it to a person; with ERR_NOT_LEADER it is the leader's address, for the caller to try. */
void rpc_reply_error(struct rpc_request *request, enum err err, const char *text);

/* `reply` is NULL unless err is OK; `data` may be NULL; both are valid for the call (take a reference to keep them: the reply is a
 * whole message, see message.h).
 * `text` is the other side's explanation or ""; with ERR_NOT_LEADER the leader's address or "". */
struct rpc_result {
	enum err err;
	const ProtobufCMessage *reply;
	struct iobuf *data;
	const char *text;
};
typedef void rpc_done_fn(void *arg, const struct rpc_result *result);

/* A call can be cancelled by its handle until `done`; 0 is never a handle. After a cancel `done` is not called. */
typedef uint64_t rpc_call_id;

/* Peers are shared by address within an rpc, counted: open and close in pairs. */
struct rpc_peer *rpc_peer_open(struct rpc *rpc, const char *address);
/* As rpc_peer_open, on a connection of its own for each lane (0: that of rpc_peer_open). A server that cannot answer a request before
 * another server has answered one of its own may wait in a circle when all of them hold their peers back; requests that
 * wait for each other therefore travel on lanes that only go up. */
struct rpc_peer *rpc_peer_open_lane(struct rpc *rpc, const char *address, unsigned lane);
void rpc_peer_close(struct rpc_peer *peer);
const char *rpc_peer_address(const struct rpc_peer *peer);
/* A call now would end with ERR_BUSY. */
bool rpc_peer_is_full(const struct rpc_peer *peer);
/* timeout_ms covers connecting, too. `data` may be NULL. */
rpc_call_id rpc_peer_call(struct rpc_peer *peer, enum message_type type, const ProtobufCMessage *message,
			  const struct conn_data *data, uint64_t timeout_ms, rpc_done_fn *done, void *arg);
/* One-way: no reply, no error; lost when the connection is. (Raft, whose messages may be lost.) */
void rpc_peer_send(struct rpc_peer *peer, enum message_type type, const ProtobufCMessage *message);
void rpc_call_cancel(struct rpc *rpc, rpc_call_id call);

/* Over an inbound connection. */
rpc_call_id rpc_conn_call(struct rpc_conn *conn, enum message_type type, const ProtobufCMessage *message,
			  uint64_t timeout_ms, rpc_done_fn *done, void *arg);
enum rpc_role rpc_conn_role(const struct rpc_conn *conn);
uint64_t rpc_conn_peer_id(const struct rpc_conn *conn);
const char *rpc_conn_peer_address(const struct rpc_conn *conn);
/* The service's own pointer for the connection; NULL at first. */
void rpc_conn_set_data(struct rpc_conn *conn, void *data);
void *rpc_conn_data(const struct rpc_conn *conn);

#endif
