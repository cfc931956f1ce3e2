/* Fills the copy of a joining server from its predecessor: here. The newcomer is the last of the chain and takes every write from the
 * moment at which its predecessor knows the chain that it is in; what is older is sent to it behind that.
 *
 *   ASKING -> BARRIER -> COPYING -> SYNCING -> CHECKING -> REPORTING        PAUSED: before another attempt, from the start
 *
 * ASKING: what does it have (ChunkSums)? BARRIER: all operations of before it joined, which were not sent to it, are applied here; what
 * lies behind our end is cut off there. COPYING: pieces of 256 KiB of which some block differs go out as operations in the list of
 * the chunk (chunk_op.h): a piece waits for earlier writes to be applied, later ones wait until it is sent, so both servers end with the
 * same. Blocks are sent under their CRC at rest and checked against it before: what is damaged here is never sent as good. It waits, with
 * back-off, until it is mended; what no member has goes out as it is, marked as damaged, so that the others get their copies: the newcomer
 * keeps it under the CRC that it does not fit. (One that was a member once may still have it: then nothing differs, and all others are
 * mended from it.) A piece that is unsettled here waits until it is settled. SYNCING: all of it is on the newcomer's disk. CHECKING: in the same life of its
 * process, or what it acknowledged may be gone: then again. REPORTING: the master is told, and commits it.
 * Packs: every record with its slot, those that did not arrive again; then the slots that were deleted here meanwhile.
 *
 * Nothing of this is durable but the chain, which says who joins: a fill that is cut off (another version, a process that died at
 * either end) begins again, and finds by ChunkSums what is there already. Thread: the loop, reads on a worker. */
#ifndef GRANARY_CHUNKSERVER_FILL_H
#define GRANARY_CHUNKSERVER_FILL_H

#include "chunkserver/service.h"

/* Starts or ends the fill as the chunk's present chain says. */
void fill_check(struct service *service, struct chunk *chunk);
/* The chunk goes, or the process stops. */
void fill_abort(struct chunk *chunk);
/* Every heartbeat. */
void fill_tick(struct service *service);
/* The successor had no space for a write. True when it is one that joins: the master is told. */
bool fill_newcomer_is_full(const struct chunk *chunk, uint64_t server);
/* We are the predecessor of a joining server in it, and have a complete copy. */
bool fill_is_source(const struct service *service, const Granary__ChunkLocation *location);

/* For chunk_op.c. OP_FILL: its turn has come; the newcomer has answered. OP_SUMS, OP_FILL: do they wait for the earlier operation? */
void fill_op_start(struct chunk_op *op);
void fill_chain_done(struct chunk_op *op);
void fill_answer_sums(struct chunk_op *op);
bool fill_is_blocked(const struct chunk_op *op, const struct chunk_op *earlier);

#endif
