/* Operations of one chunk that were done lately, by (client, operation): a retry is recognised and not done again.
 *
 * Holds the last CHUNK_OPS_REMEMBERED, in memory; memory is taken with the first. A retry that is not in it is a new operation only if
 * it would have to be there: if it was sent for the first time at or after `known_since_ms`. Of an older one nobody knows here whether
 * it was done, and perhaps overwritten by others since: it is refused (ERR_RETRY_UNKNOWN). `known_since_ms` is the latest of
 *   - when the store was opened: of what a former life did nothing is known, unless the ring came from the successor (rejoin.h, mend.h);
 *   - when the newest operation of a chunk that was closed had been done (chunk_store.h);
 *   - when blocks were last replaced by what another server has of them, with operations that it knows, or without some that were here;
 *   - when the newest was done of those that have had to make room, those apart that their client has an answer of (struct answered).
 * When an operation was first sent its client says by the clock of the head (client/chain_op.h). All times are the loop's. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_OP_RING_H
#define GRANARY_CHUNKSERVER_OP_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sys/loop.h"

struct op_ring_entry {
	uint64_t client, operation;
	uint64_t done_ms;
	uint32_t result;     /* what the operation gave: a slot */
	uint32_t first, end; /* blocks that it changed */
};

/* A zeroed struct is an empty ring that knows everything. */
struct op_ring {
	struct op_ring_entry *entries;
	uint32_t count; /* entries in use */
	uint32_t next;	/* where the next one goes */
	uint64_t known_since_ms;
	uint64_t pushed_out_ms; /* of that alone: the newest was done then of those that have had to make room */
};

/* Which operations clients need not be told of any more. A zeroed struct knows of none. */
struct answered {
	struct answered_client *clients;
};
void answered_note(struct answered *answered, uint64_t client, uint64_t below);
bool answered_has(const struct answered *answered, uint64_t client, uint64_t operation);
void answered_deinit(struct answered *answered);

/* The loop's time, not as it was when the loop woke up: after everything that has been sent to us until now. */
uint64_t op_ring_now(struct loop *loop);
void op_ring_add(struct op_ring *ring, const struct op_ring_entry *entry, const struct answered *answered);
/* The oldest is 0, the newest count - 1. One with client 0 is no more. */
const struct op_ring_entry *op_ring_at(const struct op_ring *ring, uint32_t number);
/* All of another one's; what that has pushed out is not known here either. */
void op_ring_append(struct op_ring *ring, const struct op_ring *more, const struct answered *answered);
/* The blocks were replaced by what another server has of them. */
void op_ring_replaced(struct op_ring *ring, uint32_t first, uint32_t end, uint64_t now_ms);
/* Nothing is known of what was sent before `now_ms`. */
void op_ring_restart(struct op_ring *ring, uint64_t now_ms);
/* When the newest thing happened that a ring which knows nothing of this one has to count as unknown. */
uint64_t op_ring_newest(const struct op_ring *ring);
/* result may be NULL. client 0 is never found. */
bool op_ring_find(const struct op_ring *ring, uint64_t client, uint64_t operation, uint32_t *result);
void op_ring_deinit(struct op_ring *ring);

#endif
