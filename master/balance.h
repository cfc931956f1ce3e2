/* Moves data between chunkservers that are all well: from those that are fuller than others, and from those that are drained.
 *
 *   a copy    join (Chunk.moving_from) -> filled -> complete -> the old one is retired, and leaves     repair.h, failure.h
 *   a shard   made anew elsewhere -> counts there -> the old one is deleted                            cooling.h
 *
 * So there are never fewer copies than before; nor do more of them share a failure domain (placement_keeps_spread). What is under way is
 * in the chunks: a new leader goes on. What lacks copies goes first: while such are being made nothing is begun here.
 *   - `Settings.rebalance`, asked for: until all servers are within its bounds, or nothing that may move is left; then it is taken away.
 *   - Not asked for: begins when a server is far off, ends when all are near, at a part of the rate.
 *   - `Server.draining`: as long as it is set. Its disk may be full or slow; as long as it serves it counts as any other.
 * So many bytes a second are begun from each server that gives; how fast one copy is sent is the repair's rate. Soft state besides: what is
 * moving, so that it is counted where it will be. Policy: balance_policy.h. Thread: the loop's. */
#ifndef GRANARY_MASTER_BALANCE_H
#define GRANARY_MASTER_BALANCE_H

#include "master/cooling.h"
#include "master/repair.h"

struct balance;

struct balance_options {
	const struct chunk_change_context *context; /* outlives it */
	struct repair *repair;
	struct cooling *cooling;
};

struct balance *balance_open(const struct balance_options *options);
/* After replica_close. */
void balance_close(struct balance *balance);
void balance_leading(struct balance *balance);
void balance_deposed(struct balance *balance);
/* MESSAGE_REBALANCE, MESSAGE_DRAIN. */
void balance_serve(struct balance *balance, struct rpc_request *request);
/* Of a server that is being drained: how far it is. The texts are static. */
void balance_tell_drain(const struct balance *balance, uint64_t server, Granary__Drain *out);

#endif
