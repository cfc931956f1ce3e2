/* Operations that a client sends again: each is done once. What is known of those that are done is in op_ring.h; a member that
 * starts again gets it from its successor, with the content (rejoin.h, mend.h). Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_RETRY_H
#define GRANARY_CHUNKSERVER_CHUNK_RETRY_H

#include "chunkserver/chunk_op.h"

/* A retry of it is recognised from now on. */
void chunk_retry_remember(const struct chunk_op *op);
/* An operation of a client, before it starts. True: it is refused, or left to the same one that is under way; the op is gone. One that
 * was done (op->is_done) only waits until nothing of its blocks is unsettled, and then, if it has to be synced, for a sync like any other. */
bool chunk_retry_ends(struct chunk_op *op);

/* A trim with which a chunk begins that is made anew of its shards: other servers have had it, and what they knew of operations is gone. */
void chunk_retry_begin(const struct chunk_op *op);

/* What tells whether it was done is on its way: from the successor to one that returns (rejoin.h), from a member below to one that has lost
 * power (mend.h). The op is asked about again when the chunk's operations are woken. */
bool chunk_retry_waits(const struct chunk_op *op);

/* To the predecessor, which becomes as we are: fills in what is known here, what waits to be settled included. After that: */
void chunk_retry_tell(const struct chunk *chunk, Granary__ChunkReadReply *reply);
void chunk_retry_told(Granary__ChunkReadReply *reply);
/* What the successor knows, which it said just now. */
void chunk_retry_take(struct loop *loop, const Granary__ChunkReadReply *reply, struct op_ring *ring);
/* The chunk has become what a member below us is, and what has been done here meanwhile: so has what is known of operations. */
void chunk_retry_join(struct service *service, struct chunk *chunk, const struct op_ring *told);

#endif
