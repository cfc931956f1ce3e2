/* What rpc.c (connections, calls) and rpc_serve.c (requests being served) share. Internal to common/sys. */
#ifndef GRANARY_COMMON_SYS_RPC_INTERNAL_H
#define GRANARY_COMMON_SYS_RPC_INTERNAL_H

#include <uthash.h>

#include "common/sys/rpc.h"
#include "common/sys/rpc_calls.h"
#include "common/sys/rpc_share.h"

struct served;

/* A connection, inbound or a peer's.
 *
 *   peer:    CONNECTING -> (connected) WAITING -> (hello answered) OPEN
 *   inbound:               WAITING -> (hello received) OPEN, or REFUSED: every request is answered with `refusal` */
struct rpc_conn {
	struct rpc *rpc;
	struct conn *conn;
	struct rpc_peer *peer; /* NULL: inbound */
	enum rpc_conn_state { CONN_CONNECTING, CONN_WAITING, CONN_OPEN, CONN_REFUSED } state;
	enum err refusal;
	uint32_t role;
	uint64_t peer_id;
	uint64_t process; /* inbound: Hello.process */
	uint64_t life;	  /* the same: Hello.life */
	void *data;
	struct rpc_call_list calls;
	struct served *served_first;
	struct rpc_claim claim;
	bool held;	/* not read, by update_hold */
	unsigned backlogged; /* requests in rpc->backlog */
	bool turn_over; /* in the list of those that wait for the next turn */
	struct rpc_conn *next_turn;
	bool counted; /* in rpc->clients */
	unsigned sends_while_connecting;
	struct timer patience; /* for connecting; for an inbound hello */
	struct rpc_conn *previous, *next;
};

struct rpc_peer {
	struct rpc *rpc;
	char *address;
	char *key; /* address and lane */
	unsigned references;
	struct rpc_conn *conn;
	UT_hash_handle hh;
};

struct served {
	struct rpc_request request;
	bool one_way;
	bool waits;
	uint64_t bytes;
	struct served *previous, *next; /* of its connection */
	struct served *next_backlog;
};

struct rpc {
	struct loop *loop;
	struct rpc_identity identity;
	uint64_t process; /* random, of this life; Hello.process */
	const struct rpc_service *service;
	void *service_arg;
	struct listener *listener;
	struct rpc_conn *conns;
	struct rpc_peer *peers;
	struct rpc_calls calls;
	struct buf scratch; /* for packing */
	struct rpc_share share;
	struct rpc_conn *turns; /* have had theirs */
	struct served *backlog_first, *backlog_last; /* clients' requests for which this turn had no time */
	uint64_t turn_start_us; /* when it came to the first of them; 0: not yet */
	struct timer turn;
	struct defer turn_end;
	size_t clients;		/* inbound connections of theirs */
	bool closing;
};

/* rpc.c */
void rpc_send_message(struct rpc_conn *conn, const struct frame_header *header, const ProtobufCMessage *message,
		      const struct conn_data *data);
void rpc_send_error(struct rpc_conn *conn, unsigned type, uint64_t id, enum err err, const char *text);

/* rpc_serve.c */
void rpc_serve_open(struct rpc *rpc);
/* All connections are closed. */
void rpc_serve_close(struct rpc *rpc);
void rpc_serve(struct rpc_conn *conn, const struct frame_header *header, struct slice bytes, struct iobuf *data);
/* The connection is closed. */
void rpc_serve_forget(struct rpc_conn *conn);
/* Holds an inbound peer back, or lets it go, as what it has here demands. */
void rpc_update_hold(struct rpc_conn *conn);
bool rpc_conn_is_client(const struct rpc_conn *conn);

#endif
