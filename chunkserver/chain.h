/* The way to the successor: peers by address, messages with our sequence, what its errors mean. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_CHAIN_H
#define GRANARY_CHUNKSERVER_CHAIN_H

#include "chunkserver/service.h"

/* Sends the operation to its successor if it has one; chunk_op_chain_done follows later in that case. */
void chain_forward(struct chunk_op *op);
/* Sends `blocks` of this server's own content of an unsettled operation, as a write (or the trim again) in the chunk's present
 * version. chunk_op_chain_done follows. data: whole blocks from `first` on. */
void chain_send_content(struct chunk_op *op, uint32_t first, struct iobuf *data);
/* The successor in the chunk's present chain; NULL: we are the tail or the chain is not known. */
const Granary__Replica *chain_successor(const struct service *service, const struct chunk *chunk);
/* The successor in the chunk's present chain if its copy is being filled; NULL: there is none, or it is complete. */
const Granary__Replica *chain_joining(const struct service *service, const struct chunk *chunk);
/* The present chain has been heard, from the master or in an operation. */
bool chain_is_known(const struct chunk *chunk);
/* We are its head in its present chain. */
bool chain_is_head(const struct service *service, const struct chunk *chunk);
/* Reports successors that have been silent for CHAIN_SUSPECT_MS: the master drops them once their lease has run out, long before
 * our own patience ends. Every tick. */
void chain_watch(struct service *service, struct chunk *chunk);
/* Of those: asks whether it is there at all. Every tick, after chain_watch for all. */
void chain_probe_suspects(struct service *service);
/* The master's answer is the present chain. */
void chain_ask_master(const struct service *service, const struct chunk *chunk);
/* The server, this one or its successor, has no space for what is to be written. */
void chain_tell_full(const struct chunk_op *op, uint64_t chunk, uint64_t server);
/* The chunk has a new chain: what waits for a server that is no longer in it has been waiting in vain. */
void chain_drop_lost(struct service *service, struct chunk *chunk);
/* So much is queued for the operation's successor that it takes no more: back to the client. */
bool chain_is_full(const struct chunk_op *op);
/* The lane to the successor in the chunk's present chain. */
unsigned chain_lane(const struct service *service, const struct chunk *chunk);
/* The server at the address; lanes as in rpc.h. NULL: too many are known. */
#define CHAIN_LANE_READ 0u
#define CHAIN_LANE_PROBE (REPLICAS_MAX + 1u)
#define CHAIN_LANE_COLD (REPLICAS_MAX + 2u)
struct rpc_peer *chain_peer(struct service *service, const char *address, unsigned lane);
void chain_close_peers(struct service *service);

#endif
